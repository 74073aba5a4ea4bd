"""The named values of what is said of a large hierarchy."""

from typing import Any

import pandas as pd

UNSEEN, RAREST = "0", "1–5"  # of the rarity bins: no training positive; the fewest
_RANKING = "macro_average_precision_with_positives"


def scale_values(finds: pd.DataFrame, overall: pd.DataFrame) -> dict[str, Any]:
    """All that the prose of a large hierarchy may say, by name.

    Args:
        finds: from `rarenodes.stages.scale.finds_by_rarity`.
        overall: a row per variant: pooled scores, means over seeds.

    Returns:
        Lists have an entry per variant, in the order of `variants`. `nodes` with test positives, of
        them `unseen_nodes` without training positives; `unseen_found`, the largest share of these
        that any variant finds at any threshold; `rarest_recall_half`, `rarest_precision_half`,
        and at the tuned threshold `…_tuned`: pooled over nodes with the fewest training positives,
        None where nothing is predicted; `ranking`: macro average precision.

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
        "ranking": overall.set_index("variant")[_RANKING].reindex(variants).tolist(),
    }
    for at in ("half", "tuned"):
        rows = rarest[rarest["at"] == at].set_index("variant").reindex(variants)
        for score in ("recall", "precision"):
            values[f"rarest_{score}_{at}"] = rows[score].tolist()
    return values
