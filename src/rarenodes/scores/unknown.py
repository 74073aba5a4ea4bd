"""Leaving out of scores what is unknown: such a pair counts as a node that is surely not predicted.

Recall, precision, F1 and average precision count pairs that are positive, or predicted, or ranked above a
positive; a pair of probability 0 that is not positive is none of these, whatever the threshold above 0.
So probabilities are set to 0 where it is unknown whether an example belongs to a node, before anything is
scored or kept to be scored. A positive whose own probability is exactly 0 ties with them, which can only
lower a score. What averages over negatives, the Brier score and calibration, counts them apart.
"""

import numpy as np
from jaxtyping import Float
from scipy import sparse

from rarenodes.datasets.dataset import Dataset
from rarenodes.scores.stored import BlockedScores


def unknown_in(dataset: Dataset, part: str) -> sparse.csr_array | None:
    """`[examples of a part of the split, evaluated nodes]`, sparse 0/1; None if all is known."""
    if dataset.unknown is None:
        return None
    return sparse.csr_array(dataset.unknown[dataset.split[part]][:, dataset.evaluated])


def known_share(dataset: Dataset, part: str) -> Float[np.ndarray, " nodes"]:
    """Share of a part's examples of which each evaluated node is known; NaN where it is of none."""
    known = dataset.known_counts(part)[dataset.evaluated].astype(np.float64)
    return np.where(known > 0, known, np.nan) / len(dataset.split[part])


def silenced(
    scores: Float[np.ndarray, "examples nodes"],
    unknown: sparse.csr_array | sparse.csc_array | None,
    value: float = 0.0,
) -> Float[np.ndarray, "examples nodes"]:
    """Scores that are 0, or another least value, where it is unknown what is true.

    Args:
        scores: `[examples, nodes]`.
        unknown: `[examples, nodes]`, sparse 0/1, or None.
        value: the least score.

    Returns:
        `[examples, nodes]`; the same array where nothing is unknown, else a copy.

    """
    if unknown is None or unknown.nnz == 0:
        return scores
    left_out = unknown.tocoo()
    scores = np.array(scores)
    scores[left_out.row, left_out.col] = value
    return scores


def silenced_in_blocks(scores: BlockedScores, unknown: sparse.csr_array | None) -> BlockedScores:
    """`silenced` scores of which some nodes at a time are looked at; the same where all is known."""
    return scores if unknown is None else SilencedScores(scores, unknown)


class SilencedScores(BlockedScores):
    """`silenced` scores of which some nodes at a time are looked at.

    Args:
        scores: `[examples, nodes]`.
        unknown: `[examples, nodes]`, sparse 0/1.

    """

    def __init__(self, scores: BlockedScores, unknown: sparse.csr_array):
        self.shape = scores.shape
        self._scores = scores
        self._unknown = unknown.tocsc()

    def read(self, nodes: slice) -> Float[np.ndarray, "examples nodes"]:
        """The scores of all examples for one of the `blocks`."""
        return silenced(self._scores.read(nodes), self._unknown[:, nodes])
