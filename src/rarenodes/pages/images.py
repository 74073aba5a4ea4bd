"""What readers see of encoders and shares of the data: claim C5, condition by condition.

A *condition* is an encoder (its share λ of random weights) and a share of the training images. Gains
are differences from the baseline, with the verdicts of the stage `evaluate`, each corrected over the
variants of its condition.
"""

from typing import Any

import pandas as pd

from rarenodes.pages.comparison import SPOKEN_OF, at_key

# The scores in the order in which less and less of a gain can be the threshold's.
SCORES = {
    "found": "recall of rare nodes at 0.5",
    "half_f1": "macro F1 at 0.5",
    "tuned_f1": "macro F1 at tuned threshold",
    "ranked": "average precision of rare nodes",
    "all_ranked": "average precision",
}


def image_values(gains: pd.DataFrame, baseline: str, level: float) -> dict[str, Any]:
    """All that the prose of the grid may say, by name.

    Args:
        gains: a row per condition (`blend`, `share`), variant and score, with `verdict` and `paper`.
        baseline: what all are compared with.
        level: of the tests.

    Returns:
        `conditions`, how many there are; `blends` and `shares`. For each score `x` of `SCORES`, over
        the paper's variants: `x_better`, conditions in which at least one is better; `x_worse`,
        conditions in which none is better and at least one is worse. `kept`: conditions in which one
        variant both finds more rare nodes at 0.5 and ranks them better, as `(blend, share, variants)`;
        `threshold_only`: conditions in which some find more at 0.5 and none ranks better. `others_kept`:
        likewise for variants that are not the paper's.

    """
    conditions = [tuple(map(float, c)) for c in conditions_of(gains)]
    values: dict[str, Any] = {
        "baseline": baseline,
        "level": level,
        "conditions": len(conditions),
        "blends": sorted({blend for blend, _ in conditions}),
        "shares": sorted({share for _, share in conditions}),
        "variants": gains.loc[gains["paper"], "variant"].drop_duplicates().tolist(),
    }
    verdicts = {
        (name, paper): _verdicts(gains[gains["paper"] == paper], name)
        for name in SCORES
        for paper in (True, False)
    }
    for name in SCORES:
        found = verdicts[name, True]
        better = [c for c in conditions if "better" in found.get(c, {}).values()]
        worse = [c for c in conditions if "worse" in found.get(c, {}).values()]
        values[f"{name}_better"] = len(better)
        values[f"{name}_worse"] = len([c for c in worse if c not in better])
    for key, paper in (("kept", True), ("others_kept", False)):
        both = {
            c: _better(verdicts["found", paper], c) & _better(verdicts["ranked", paper], c)
            for c in conditions
        }
        values[key] = [(*c, sorted(names)) for c, names in both.items() if names]
    values["threshold_only"] = [
        c
        for c in conditions
        if _better(verdicts["found", True], c) and not _better(verdicts["ranked", True], c)
    ]
    return values


def conditions_of(gains: pd.DataFrame) -> list[tuple[float, float]]:
    """Pairs (λ, share), from the best encoder with the most data to the worst with the least."""
    pairs = gains[["blend", "share"]].drop_duplicates()
    pairs = pairs.sort_values(["blend", "share"], ascending=[True, False])
    return list(pairs.itertuples(index=False, name=None))


def claim_table(gains: pd.DataFrame) -> pd.DataFrame:
    """For reading: a row per condition; of each score the paper's variant that gains most, and by what.

    A cell holds the baseline's score, the difference with its interval, the sign of the verdict and the
    variant. The best of several looks better than it is; the verdict is corrected for their number.
    """
    rows = []
    for blend, share in conditions_of(gains):
        here = gains[(gains["blend"] == blend) & (gains["share"] == share) & gains["paper"]]
        row = {"λ": f"{blend:g}", "share": f"{share:g}"}
        for name, label in SCORES.items():
            found = at_key(here, SPOKEN_OF[name]).dropna(subset="difference")
            if found.empty:
                row[label] = ""
                continue
            best = found.loc[found["difference"].idxmax()]
            row[label] = (
                f"{best['baseline_score']:.3f} {best['difference']:+.3f} "
                f"[{best['lower']:+.3f}, {best['upper']:+.3f}] {best['symbol']} {best['variant']}"
            )
        rows.append(row)
    return pd.DataFrame(rows).set_index(["λ", "share"])


def _verdicts(gains: pd.DataFrame, name: str) -> dict[tuple[float, float], dict[str, str]]:
    """By condition and variant."""
    found: dict[tuple[float, float], dict[str, str]] = {}
    for row in at_key(gains, SPOKEN_OF[name]).itertuples():
        found.setdefault((row.blend, row.share), {})[row.variant] = row.verdict
    return found


def _better(
    verdicts: dict[tuple[float, float], dict[str, str]], condition: tuple[float, float]
) -> set[str]:
    return {v for v, word in verdicts.get(condition, {}).items() if word == "better"}
