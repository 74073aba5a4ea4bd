"""What became of single nodes: which of their test examples were found, and what others were taken for."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from rarenodes.scores.metrics import predicted

# In the place of a node or an example: there is none.
NONE = -1

Levels = Int[np.ndarray, " nodes"]
Truth = Bool[np.ndarray, "examples nodes"]
Thresholds = float | Float[np.ndarray, " nodes"]


class _Run(NamedTuple):
    """One run: which nodes were predicted, and by level the most probable wrong one of each example."""

    predicted: Truth
    wrong: dict[int, Int[np.ndarray, " examples"]]


def finds(
    runs: Sequence[Float[np.ndarray, "examples nodes"]],
    thresholds: Sequence[Thresholds],
    truth: Truth,
    levels: Levels,
    chosen: Sequence[int],
) -> pd.DataFrame:
    """Hits and misses of some nodes.

    A miss is taken for the most probable predicted node of the same level that the example does not
    belong to, or for nothing, where none of that level is predicted.

    Args:
        runs: probabilities of each run on the test examples.
        thresholds: of each run: one, or one a node; a node is predicted above it.
        truth: which examples belong to which nodes.
        levels: of every node.
        chosen: the nodes to look at.

    Returns:
        A row per chosen node: `node`; `test_examples`; `hits`, `misses` and `false_alarms`, means over
        runs; `taken_for`, the node that most misses of all runs were taken for, and `taken_for_share`,
        how large a part of them; `found` and `missed`, the test example that was found, or missed, in
        most runs. `taken_for` is -1 for nothing, and the share NaN where there is no miss; `found` and
        `missed` are -1 where there is none.

    """
    seen = [
        _seen(probabilities, threshold, truth, levels)
        for probabilities, threshold in zip(runs, thresholds, strict=True)
    ]
    rows = [{"node": node, **_of_node(seen, truth, node, int(levels[node]))} for node in chosen]
    columns = "node test_examples hits misses false_alarms taken_for taken_for_share found missed"
    return pd.DataFrame(rows, columns=columns.split())


def _seen(
    probabilities: Float[np.ndarray, "examples nodes"],
    threshold: Thresholds,
    truth: Truth,
    levels: Levels,
) -> _Run:
    above = predicted(probabilities, threshold)
    wrong = {}
    for level in np.unique(levels).tolist():
        nodes = np.flatnonzero(levels == level)
        candidates = np.where(above & ~truth, probabilities, -1.0)[:, nodes]
        best = candidates.argmax(axis=1)
        there = candidates.max(axis=1) >= 0
        wrong[level] = np.where(there, nodes[best], NONE)
    return _Run(above, wrong)


def _of_node(seen: Sequence[_Run], truth: Truth, node: int, level: int) -> dict[str, Any]:
    examples = np.flatnonzero(truth[:, node])
    found = np.stack(
        [run.predicted[examples, node] for run in seen]
    )  # [runs, examples of the node]
    alarms = [int(run.predicted[~truth[:, node], node].sum()) for run in seen]
    taken = Counter(
        other
        for run, hits in zip(seen, found, strict=True)
        for other in run.wrong[level][examples[~hits]].tolist()
    )
    # Of equally many, a node before nothing, and the first node.
    most, count = min(
        taken.items(), key=lambda item: (-item[1], item[0] < 0, item[0]), default=(NONE, 0)
    )
    misses = int((~found).sum())
    return {
        "test_examples": len(examples),
        "hits": found.sum() / len(seen),
        "misses": misses / len(seen),
        "false_alarms": sum(alarms) / len(seen),
        "taken_for": most,
        "taken_for_share": count / misses if misses else float("nan"),
        "found": _most(examples, found.sum(axis=0)),
        "missed": _most(examples, (~found).sum(axis=0)),
    }


def _most(examples: Int[np.ndarray, " some"], times: Int[np.ndarray, " some"]) -> int:
    """The first of the examples of the greatest count; none, where all counts are 0."""
    return int(examples[times.argmax()]) if times.any() else NONE
