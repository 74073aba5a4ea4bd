"""What readers see of variants compared with a baseline, on one data set or on several.

Differences are those of the stages `evaluate` and `compare`: a row per data set, variant, baseline and
score (`measure`, `nodes`, `at`), with a column `verdict`: `better`, `worse`, `same`, `unclear` or
`untestable`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from rarenodes.scores.catalogue import RARE, Key

VERDICTS = ("better", "worse", "same", "unclear", "untestable")
CLEAR = ("better", "worse")

# Names of the scores that the prose speaks of.
SPOKEN_OF: Mapping[str, Key] = {
    "found": ("macro_recall", RARE, "half"),
    "ranked": ("macro_average_precision", RARE, "none"),
    "all_ranked": ("macro_average_precision", "with_positives", "none"),
    "half_f1": ("macro_f1", "with_positives", "half"),
    "tuned_f1": ("macro_f1", "with_positives", "tuned"),
}


_OF_VARIANT = ["score", "difference", "lower", "upper", "verdict"]


def comparison_values(
    differences: pd.DataFrame, baseline: str, level: float, across_reason: str | None = None
) -> dict[str, Any]:
    """All that the prose of a comparison may say, by name.

    Args:
        differences: of one data set or several.
        baseline: what variants are compared with; other rows (contrasts) are not spoken of.
        level: of the tests.
        across_reason: why there are no tests across data sets, in a sentence; None where there are some,
            or nobody asked.

    Returns:
        Lists have an entry per data set, in the order of `data_sets`. For each name `x` of
        `SPOKEN_OF`: `x_better`, `x_worse` and so on, lists of variants, largest difference first;
        `x_best`, the variant that is better by most, None where none is, with `x_best_off`, the
        baseline's score, `x_best_on` and `x_best_difference`. `found_best_ranked` is the
        difference in ranking of the variant `found_best`, with `_lower`, `_upper`, `_verdict`.
        All None where a score was not compared. `of` has for each variant and each such name a list
        with an entry per data set: `score`, `difference` from the baseline, `lower`, `upper` and
        `verdict`; the baseline's has a score alone.

    """
    against = differences[differences["baseline"] == baseline]
    data_sets = list(dict.fromkeys(differences["dataset"]))
    by_dataset = [_on_one(against[against["dataset"] == name]) for name in data_sets]
    return {
        "data_sets": data_sets,
        "baseline": baseline,
        "variants": list(dict.fromkeys(against["variant"])),
        "level": level,
        "across_reason": across_reason,
        "of": _by_variant(against, baseline, data_sets),
        **{name: [of[name] for of in by_dataset] for name in (by_dataset or [{}])[0]},
    }


def _on_one(part: pd.DataFrame) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, key in SPOKEN_OF.items():
        rows = at_key(part, key).sort_values("difference", key=abs, ascending=False, kind="stable")
        for verdict in VERDICTS:
            of_verdict = rows.loc[rows["verdict"] == verdict, "variant"].tolist()
            values[f"{name}_{verdict}"] = None if rows.empty else of_verdict
        better = rows[rows["verdict"] == "better"]
        best = None if better.empty else better.iloc[0]
        values |= {
            f"{name}_best": _of(best, "variant"),
            f"{name}_best_off": _of(best, "baseline_score"),
            f"{name}_best_on": _of(best, "score"),
            f"{name}_best_difference": _of(best, "difference"),
        }
    ranked = at_key(part, SPOKEN_OF["ranked"])
    ranked = ranked[ranked["variant"] == values["found_best"]]
    row = None if ranked.empty else ranked.iloc[0]
    values["found_best_ranked"] = _of(row, "difference")
    return values | {
        f"found_best_ranked_{what}": _of(row, what) for what in ("lower", "upper", "verdict")
    }


def _by_variant(
    against: pd.DataFrame, baseline: str, data_sets: list[str]
) -> dict[str, dict[str, list[dict[str, Any]]]]:
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for name, key in SPOKEN_OF.items():
        rows = at_key(against, key).set_index(["variant", "dataset"])
        for variant in dict.fromkeys(against["variant"]):
            found.setdefault(variant, {})[name] = [
                rows.loc[(variant, data), _OF_VARIANT].to_dict()
                if (variant, data) in rows.index
                else {}
                for data in data_sets
            ]
        scores = rows.groupby("dataset")["baseline_score"].first()
        found.setdefault(baseline, {})[name] = [
            {"score": float(scores[data])} if data in scores.index else {} for data in data_sets
        ]
    return found


def _of(row: pd.Series | None, name: str) -> Any:
    return None if row is None else row[name]


def at_key(differences: pd.DataFrame, key: Key) -> pd.DataFrame:
    """The differences in one score."""
    measure, nodes, at = key
    return differences[
        (differences["measure"] == measure)
        & (differences["nodes"] == nodes)
        & (differences["at"] == at)
    ]


def verdict_cells(
    differences: pd.DataFrame, labels: Mapping[Key, str], baseline: str | None = None
) -> pd.DataFrame:
    """A row per data set, variant and score, as `plots.verdicts.verdict_matrix` draws them.

    Args:
        differences: of one data set or several.
        labels: the scores to show, in this order, and what to call them.
        baseline: show what is compared with it; None: all other pairs, by both names.

    """
    if baseline is not None:
        rows = differences[differences["baseline"] == baseline]
    else:
        rows = differences.assign(variant=differences["variant"] + " − " + differences["baseline"])
    parts = [at_key(rows, key).assign(label=label) for key, label in labels.items()]
    columns = ["dataset", "variant", "label", "difference", "lower", "upper", "verdict"]
    return pd.concat(parts, ignore_index=True)[columns]


def number_table(differences: pd.DataFrame, labels: Mapping[Key, str]) -> pd.DataFrame:
    """The numbers behind a matrix of verdicts: a row per comparison, for a folded table.

    Args:
        differences: of one data set or several.
        labels: the scores to show, and what to call them.

    """
    parts: Sequence[pd.DataFrame] = [
        at_key(differences, key).assign(label=label) for key, label in labels.items()
    ]
    table = pd.concat(parts, ignore_index=True)
    interval = [
        f"{row.difference:+.3f} [{row.lower:+.3f}, {row.upper:+.3f}]" for row in table.itertuples()
    ]
    return pd.DataFrame(
        {
            "data set": table["dataset"],
            "variant": table["variant"],
            "compared with": table["baseline"],
            "score": table["label"],
            "from → to": [
                f"{row.baseline_score:.3f} → {row.score:.3f}" for row in table.itertuples()
            ],
            "difference": interval,
            "Holm p": table["holm_p"].map("{:.3f}".format),
            "verdict": table["verdict"],
        }
    ).set_index(["data set", "variant"])
