"""The likeliest nodes of every example, and how many of them are right: precision at k."""

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import sparse

from rarenodes.scores.computed import ComputedScores
from rarenodes.scores.stored import BlockedScores

# Examples × nodes of scores in memory that are sorted at once.
AT_ONCE = 2**22
# In place of a node, where an example has no more.
NONE = -1


def best_nodes(
    scores: Float[np.ndarray, "examples nodes"] | BlockedScores,
    most: int,
    among: Bool[np.ndarray, " nodes"],
) -> Int[np.ndarray, "examples best"]:
    """The `most` likeliest nodes of every example, likeliest first; of equal ones the first.

    Scores that can be searched are; of others some nodes at a time, or some examples, are sorted.

    Args:
        scores: `[examples, nodes]`.
        most: most nodes of an example, at least 1.
        among: `[nodes]`, nodes that count.

    Returns:
        `[examples, best]`, columns of the scores; `NONE` where an example has no more.

    """
    if isinstance(scores, ComputedScores):
        return scores.best(most, among)
    if isinstance(scores, BlockedScores):
        return _best_of_blocks(scores, most, among)
    columns = np.flatnonzero(among)
    size = max(1, AT_ONCE // max(1, scores.shape[1]))
    best = np.full((len(scores), most), NONE)
    for first in range(0, len(scores), size):
        some = scores[first : first + size][:, columns]
        found = columns[_first_of(some, most)]
        best[first : first + size, : found.shape[1]] = found
    return best


def precision_at(
    best: Int[np.ndarray, "examples best"],
    number: int,
    targets: sparse.csr_array,
    among: Bool[np.ndarray, " nodes"],
) -> float:
    """Precision at k: mean over examples of their positive nodes among the k likeliest, over k.

    Examples that are positive in none of the nodes that count are left out.

    Args:
        best: `[examples, k]`, from `best_nodes`.
        number: how many, the `k`.
        targets: `[examples, nodes]`, sparse 0/1.
        among: `[nodes]`, nodes that count.

    Returns:
        In [0, 1]; NaN where no example has a positive.

    """
    targets = sparse.csr_array(targets)
    counted = np.diff(sparse.csr_array(targets[:, np.flatnonzero(among)]).indptr) > 0
    if not counted.any():
        return float("nan")
    examples, places = np.nonzero(best != NONE)
    right = np.asarray(targets[examples, best[examples, places]]).ravel() == 1
    hits = np.bincount(examples, weights=right, minlength=len(best))
    return float(np.mean(hits[counted]) / number)


def _best_of_blocks(
    scores: BlockedScores, most: int, among: Bool[np.ndarray, " nodes"]
) -> Int[np.ndarray, "examples best"]:
    examples = scores.shape[0]
    best, values = np.full((examples, most), NONE), np.full((examples, most), -np.inf)
    for block in scores.blocks():
        columns = np.flatnonzero(among[block])
        if not len(columns):
            continue
        some = scores.read(block)[:, columns]
        nearest = _first_of(some, most)
        nodes = np.concatenate([best, block.start + columns[nearest]], axis=1)
        both = np.concatenate([values, np.take_along_axis(some, nearest, axis=1)], axis=1)
        order = np.argsort(-both, axis=1, kind="stable")[:, :most]
        best = np.take_along_axis(nodes, order, axis=1)
        values = np.take_along_axis(both, order, axis=1)
    return best


def _first_of(
    scores: Float[np.ndarray, "examples nodes"], most: int
) -> Int[np.ndarray, "examples best"]:
    return np.argsort(-scores, axis=1, kind="stable")[:, :most]
