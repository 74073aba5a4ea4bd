"""All scores of a run in one long table, from which any test can be redone."""

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from rarenodes.scores import metrics
from rarenodes.scores.catalogue import RARE, RARE_BINS
from rarenodes.scores.run_tables import COUNTS

COLUMNS = ("measure", "nodes", "at", "score")
_MEASURES = ("precision", "recall", "f1")


def long_scores(nodes: pd.DataFrame, pooled: Mapping[str, float]) -> pd.DataFrame:
    """Every score of one run on every group of nodes.

    Args:
        nodes: a row per evaluated node, from `rarenodes.scores.run_tables.score_run`.
        pooled: the run's pooled scores, from the same; gives micro average precision, which needs
            the probabilities themselves.

    Returns:
        Columns `measure, nodes, at, score`. Measures: macro and micro precision, recall and F1 at
        `half` and `tuned`, macro average precision, and micro average precision of all nodes.
        Groups: `all` (nodes without test positives count 0 in macro scores), `with_positives`,
        `rare`, every rarity bin, and `depth 1`, `depth 2` …; all but `all` leave out nodes without
        test positives. Scores that do not exist, such as those at a tuned threshold of a run
        without validation data, have no row.

    """
    rows = [
        ("micro_average_precision", "all", "none", pooled["micro_average_precision"]),
        *(row for group, mask in _groups(nodes) for row in _of_group(group, nodes[mask])),
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS)).dropna(ignore_index=True)


def _groups(nodes: pd.DataFrame) -> Iterator[tuple[str, np.ndarray]]:
    tested = (nodes["test_positives"] > 0).to_numpy()
    yield "all", np.ones_like(tested)
    yield "with_positives", tested
    yield RARE, tested & nodes["rarity"].isin(RARE_BINS).to_numpy()
    for name in metrics.RARITY_BINS:
        yield name, tested & (nodes["rarity"] == name).to_numpy()
    for depth in sorted(nodes["depth"].unique()):
        yield f"depth {depth}", tested & (nodes["depth"] == depth).to_numpy()


def _of_group(group: str, nodes: pd.DataFrame) -> Iterator[tuple[str, str, str, float]]:
    if nodes.empty:
        return
    # A group's nodes without test positives are left out already, except in `all`.
    support = nodes["test_positives"].to_numpy()
    precisions = nodes["average_precision"].to_numpy()
    yield "macro_average_precision", group, "none", metrics.macro(precisions, support, "all")
    for at in ("half", "tuned"):
        counts = [nodes[f"{name}_{at}"].to_numpy(dtype=float) for name in COUNTS]
        if np.isnan(counts).any():
            continue
        by_node = metrics.precision_recall_f1(*counts)
        together = metrics.precision_recall_f1(*(np.array([c.sum()]) for c in counts))
        for measure, values, value in zip(_MEASURES, by_node, together, strict=True):
            yield f"macro_{measure}", group, at, metrics.macro(values, support, "all")
            yield f"micro_{measure}", group, at, float(value[0])
