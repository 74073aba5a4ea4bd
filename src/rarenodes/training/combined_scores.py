"""A committee's scores that do not fit into memory: the mean of its members', some nodes at a time."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from rarenodes.scores.stored import BlockedScores
from rarenodes.training.committee import Weights, pooled_mean


class CombinedScores(BlockedScores):
    """`rarenodes.training.committee.combine` of scores that are looked at some nodes at a time.

    With the same weights for all nodes, means of coherent probabilities are coherent by themselves.

    Args:
        members: coherent probabilities in [0, 1], `[examples, nodes]` each.
        weights: `[members]`, not negative, of sum 1.
        how: `geometric` or `arithmetic`.
        traces: added to probabilities in a geometric mean, `[members, nodes]`; or None.

    Raises:
        ValueError: weights that differ by node, or shapes that differ.

    """

    def __init__(
        self,
        members: Sequence[BlockedScores],
        weights: Weights,
        how: str,
        traces: Float[np.ndarray, "members nodes"] | None = None,
    ):
        if weights.shape != (len(members),):
            raise ValueError(
                f"weights have shape {weights.shape}, expected {(len(members),)}: with weights by node a "
                "child may come out above its parent, which some nodes at a time cannot tell"
            )
        shapes = {member.shape for member in members}
        if len(shapes) != 1:
            raise ValueError(f"members have shapes {sorted(shapes)}: expected one shape for all")
        self.shape = members[0].shape
        self._members, self._weights, self._how, self._traces = members, weights, how, traces

    def read(self, nodes: slice) -> Float[np.ndarray, "examples nodes"]:
        """The scores of all examples for one of the `blocks`."""
        traces = None if self._traces is None else self._traces[:, nodes]
        scores = [member.read(nodes) for member in self._members]
        return pooled_mean(scores, self._weights, self._how, traces)
