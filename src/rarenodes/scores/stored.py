"""Scores that do not fit into memory, some nodes at a time: from a file, or worked out anew."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from jaxtyping import Bool, Float, Shaped
from scipy import sparse

NODES_AT_ONCE = 512

Targets = Shaped[np.ndarray, "examples nodes"] | sparse.spmatrix | sparse.sparray


class BlockedScores(ABC):
    """Scores `[examples, nodes]` of which some nodes at a time are looked at.

    Attributes:
        shape: examples and nodes.

    """

    dtype = np.dtype(np.float32)
    shape: tuple[int, int]

    @abstractmethod
    def read(self, nodes: slice) -> Float[np.ndarray, "examples nodes"]:
        """The scores of all examples for one of the `blocks`."""

    def blocks(self) -> Iterator[slice]:
        """The nodes that are looked at together: `NODES_AT_ONCE`, and what is left in the end."""
        for start in range(0, self.shape[1], NODES_AT_ONCE):
            yield slice(start, min(start + NODES_AT_ONCE, self.shape[1]))


class StoredScores(BlockedScores):
    """Scores `[examples, nodes]` in a file.

    Blocks of `NODES_AT_ONCE` nodes follow each other in the file, each with all its examples, so
    that both writing examples and reading nodes touch long pieces.

    Args:
        file: open for reading and writing, empty.
        examples: how many there will be.
        nodes: how many there will be.

    """

    def __init__(self, file: BinaryIO, examples: int, nodes: int):
        self._file = file
        self.shape = (examples, nodes)

    def write(self, first: int, scores: Float[np.ndarray, "batch nodes"]) -> None:
        """Put the scores of examples `first` and following in their place."""
        for nodes in self.blocks():
            width = nodes.stop - nodes.start
            self._file.seek(self.dtype.itemsize * (self.shape[0] * nodes.start + first * width))
            self._file.write(np.ascontiguousarray(scores[:, nodes], dtype=self.dtype).data)

    def read(self, nodes: slice) -> Float[np.ndarray, "examples nodes"]:
        """The scores of all examples for one of the `blocks`."""
        width = nodes.stop - nodes.start
        self._file.seek(self.dtype.itemsize * self.shape[0] * nodes.start)
        content = self._file.read(self.dtype.itemsize * self.shape[0] * width)
        return np.frombuffer(content, dtype=self.dtype).reshape(self.shape[0], width)


def columns(
    scores: Float[np.ndarray, "examples nodes"] | BlockedScores, chosen: Bool[np.ndarray, " nodes"]
) -> Float[np.ndarray, "examples chosen"]:
    """The scores of some nodes, in memory."""
    if not isinstance(scores, BlockedScores):
        return np.asarray(scores)[:, chosen]
    blocks = [nodes for nodes in scores.blocks() if chosen[nodes].any()]
    return np.concatenate([scores.read(nodes)[:, chosen[nodes]] for nodes in blocks], axis=1)


def in_blocks(
    scores: Float[np.ndarray, "examples nodes"] | BlockedScores,
    targets: Targets,
) -> Iterator[tuple[Float[np.ndarray, "examples some"], Targets]]:
    """Scores and targets of some nodes at a time, in the order of nodes: all at once from memory."""
    if not isinstance(scores, BlockedScores):
        yield scores, targets
        return
    if scores.shape != targets.shape:
        raise ValueError(
            f"scores of shape {scores.shape} and targets of shape {targets.shape} must agree "
            "as [examples, nodes]"
        )
    by_node = targets.tocsc() if sparse.issparse(targets) else targets
    for nodes in scores.blocks():
        yield scores.read(nodes), by_node[:, nodes]
