"""The named values of what is said of a large hierarchy."""

from typing import Any

import pandas as pd

from rarenodes.inference.influence import RANKING
from rarenodes.inference.verdict import Word
from rarenodes.scores.catalogue import RARE
from rarenodes.scores.metrics import RARITY_BINS

UNSEEN, RAREST = "0", "1–5"  # of the rarity bins: no training positive; the fewest
_ALL = "with_positives"
_RANKING = f"{RANKING}_{_ALL}"
_SHOWN = ["variant", "score", "baseline_score", "difference", "lower", "upper", "verdict"]


def scale_values(
    finds: pd.DataFrame, overall: pd.DataFrame, differences: pd.DataFrame
) -> dict[str, Any]:
    """All that the prose of a large hierarchy may say, by name.

    Args:
        finds: from `rarenodes.stages.scale.finds_by_rarity`.
        overall: a row per variant: pooled scores, means over seeds.
        differences: from `rarenodes.stages.scale.differences`.

    Returns:
        Lists have an entry per variant, in the order of `variants`. `nodes` with test positives, of
        them `unseen_nodes` without training positives; `unseen_found`, the largest share of these
        that any variant finds at any threshold; `rarest_recall_half`, `rarest_precision_half`,
        and at the tuned threshold `…_tuned`: pooled over nodes with the fewest training positives,
        None where nothing is predicted; `ranking`: macro average precision. `against`, by group of nodes
        (`unseen`, `rarest`, `all`), a row per variant other than the `baseline`: its average precision
        `score`, the baseline's, the `difference`, its interval and its `verdict`.

    """
    finds = finds.assign(rarity=finds["rarity"].astype(str))
    variants = list(dict.fromkeys(finds["variant"]))
    unseen, rarest = finds[finds["rarity"] == UNSEEN], finds[finds["rarity"] == RAREST]
    values: dict[str, Any] = {
        "variants": variants,
        "nodes": finds.drop_duplicates("rarity")["nodes"].sum(),
        "unseen_nodes": 0 if unseen.empty else unseen["nodes"].iloc[0],
        "unseen_found": None if unseen.empty else unseen["found"].max(),
        "rarest_nodes": 0 if rarest.empty else rarest["nodes"].iloc[0],
        "baseline": None if differences.empty else differences["baseline"].iloc[0],
        "against": {
            name: _against(differences, group)
            for name, group in {"unseen": UNSEEN, "rarest": RAREST, "all": _ALL}.items()
        },
        "ranking": overall.set_index("variant")[_RANKING].reindex(variants).tolist(),
    }
    for at in ("half", "tuned"):
        rows = rarest[rarest["at"] == at].set_index("variant").reindex(variants)
        for score in ("recall", "precision"):
            values[f"rarest_{score}_{at}"] = rows[score].tolist()
    return values


def _against(differences: pd.DataFrame, group: str) -> list[dict[str, Any]]:
    chosen = (differences["measure"] == RANKING) & (differences["nodes"] == group)
    first = chosen & (differences["baseline"] == differences["baseline"].iloc[:1].squeeze())
    return differences.loc[first, _SHOWN].to_dict("records") if chosen.any() else []


def matrix_of(differences: pd.DataFrame) -> pd.DataFrame:
    """Differences from the baseline for `rarenodes.pages.plots.verdicts.verdict_matrix`.

    Args:
        differences: from `rarenodes.stages.scale.differences`.

    """
    if differences.empty:
        return differences.assign(label="")
    against = differences[differences["baseline"] == differences["baseline"].iloc[0]]
    labels = {
        (RANKING, group, "none"): f"average precision, {name}"
        for group, name in {
            _ALL: "all nodes",
            **{b: f"nodes with {b}" for b in RARITY_BINS},
        }.items()
    } | {
        ("macro_recall", RARE, at): f"recall of rare nodes {name}"
        for at, name in {"half": "at 0.5", "tuned": "at tuned threshold"}.items()
    }
    keys = pd.Series(list(zip(against["measure"], against["nodes"], against["at"], strict=True)))
    shown = against.assign(label=keys.map(labels).to_numpy()).dropna(subset="label")
    order = {label: place for place, label in enumerate(labels.values())}
    return shown.sort_values("label", key=lambda column: column.map(order), kind="stable")


def intervals_table(differences: pd.DataFrame) -> pd.DataFrame:
    """Differences in average precision from the baseline for reading: a row per bin and variant."""
    chosen = differences[differences["measure"] == RANKING]
    names = {_ALL: "all with test positives", RARE: "1–10 together"}
    return pd.DataFrame(
        {
            "training positives": [names.get(nodes, nodes) for nodes in chosen["nodes"]],
            "variant": chosen["variant"],
            "score": chosen["score"].round(4),
            "beside": chosen["baseline"],
            "its score": chosen["baseline_score"].round(4),
            "difference, with interval": [
                f"{row.difference:+.4f} [{row.lower:+.4f}, {row.upper:+.4f}]"
                for row in chosen.itertuples()
            ],
            "verdict": [Word(verdict).phrase for verdict in chosen["verdict"]],
        }
    ).set_index(["training positives", "variant"])
