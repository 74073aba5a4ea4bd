"""Scores of conditional networks, worked out when they are looked at: never examples × nodes of them.

What is held is what the networks' last layer is given, and its rows. The scores of some nodes take the
logits of these and of the nodes above them, for all examples; the likeliest nodes are searched.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rarenodes.loss.best_first import likeliest
from rarenodes.loss.hierarchy import Hierarchy
from rarenodes.loss.kept import KeptWithHierarchy
from rarenodes.loss.topdown import longest_distance_from_a_root
from rarenodes.scores.stored import BlockedScores


class ComputedScores(BlockedScores):
    """Coherent probabilities `[examples, evaluated nodes]` by `rarenodes.loss.output.Output("product")`.

    Equal to those of `rarenodes.training.ensemble.Ensemble.predict` to float32 rounding.

    Args:
        hidden: `[members, examples, width]`, float32, on the CPU: what the last layer is given.
        weight: `[members, nodes, width + 1]`, float32, on the CPU; the last column is the bias.
        hierarchy: the nodes' hierarchy.
        evaluated: `[nodes]`, which nodes are columns of the scores.
        constant: `[nodes]`, probabilities given the parents that stand in for the layer's, NaN where
            none does; None: nowhere.

    Raises:
        ValueError: shapes that do not fit.

    """

    def __init__(
        self,
        hidden: Float[Tensor, "members examples width"],
        weight: Float[Tensor, "members nodes columns"],
        hierarchy: Hierarchy,
        evaluated: Bool[np.ndarray, " nodes"],
        constant: Float[Tensor, " nodes"] | None = None,
    ):
        members, examples, width = hidden.shape
        if tuple(weight.shape) != (members, len(hierarchy), width + 1):
            raise ValueError(
                f"weight must be [{members} members, {len(hierarchy)} nodes, {width + 1}] to fit hidden "
                f"and hierarchy, found {tuple(weight.shape)}"
            )
        self.shape = (examples, int(evaluated.sum()))
        self._hidden, self._weight = hidden.detach(), weight.detach()
        self._hierarchy, self._constant = hierarchy, constant
        self._columns = np.flatnonzero(evaluated)
        self._column_of = np.cumsum(evaluated) - 1

    def read(self, nodes: slice) -> Float[np.ndarray, "examples nodes"]:
        """The scores of all examples for one of the `blocks`."""
        wanted = self._columns[nodes]
        paths = _Paths.of(self._hierarchy)
        group = paths.with_all_above(wanted)
        place = np.empty(len(self._hierarchy), dtype=np.int64)
        place[group] = np.arange(len(group))
        total = torch.zeros(len(wanted), self.shape[0])
        for hidden, weight in zip(self._hidden, self._weight[:, group], strict=True):
            logits = torch.addmm(weight[:, -1:], weight[:, :-1], hidden.mT)
            probabilities = self._given_parents(logits, group)
            paths.multiply_down(probabilities.numpy(), group, place)
            total += probabilities[place[wanted]]
        return np.ascontiguousarray((total / len(self._hidden)).numpy().T)

    def best(
        self, most: int, among: Bool[np.ndarray, " columns"]
    ) -> Int[np.ndarray, "examples best"]:
        """The likeliest columns of every example, by search: `rarenodes.scores.best.best_nodes`.

        Of nodes that are equally likely, an ancestor comes first.
        """
        counted = np.zeros(len(self._hierarchy), dtype=bool)
        counted[self._columns[among]] = True
        found = likeliest(
            self._hidden,
            self._weight,
            self._hierarchy,
            most=most,
            constant=self._constant,
            counted=torch.from_numpy(counted),
        )
        number = np.diff(found.starts)
        best = np.full((self.shape[0], most), -1)
        rows = np.repeat(np.arange(len(number)), number)
        best[rows, np.arange(len(rows)) - np.repeat(found.starts[:-1], number)] = self._column_of[
            found.nodes
        ]
        return best

    def _given_parents(self, logits: Tensor, group: np.ndarray) -> Tensor:
        given = torch.sigmoid_(logits)
        if self._constant is None:
            return given
        constant = self._constant[torch.from_numpy(group)].to(given).unsqueeze(1)
        return torch.where(constant.isnan(), given, constant)


class _Paths(KeptWithHierarchy):
    """Every node's parents, and how far it is from a root at most."""

    def __init__(self, hierarchy: Hierarchy):
        child, parent = hierarchy.edge_index.numpy().T
        order = np.argsort(child, kind="stable")
        self._parents = parent[order]
        counts = np.bincount(child, minlength=len(hierarchy))
        self._starts = np.concatenate([[0], np.cumsum(counts)])
        self._level = np.array(longest_distance_from_a_root(hierarchy))

    def with_all_above(self, nodes: Int[np.ndarray, " nodes"]) -> Int[np.ndarray, " group"]:
        """The nodes and their ancestors, each once, parents before children."""
        found = [nodes]
        while len(found[-1]):
            found.append(np.unique(self._of(found[-1])[0]))
        group = np.unique(np.concatenate(found))
        return group[np.argsort(self._level[group], kind="stable")]

    def multiply_down(
        self,
        values: Float[np.ndarray, "group examples"],
        group: Int[np.ndarray, " group"],
        place: Int[np.ndarray, " nodes"],
    ) -> None:
        """In place, each node's value times its parents' least; `place` says where a node is."""
        levels, first = np.unique(self._level[group], return_index=True)
        for level, start, end in zip(levels, first, [*first[1:], len(group)], strict=True):
            if level > 0:
                parents, starts = self._of(group[start:end])
                above = values[place[parents]]
                if len(parents) > end - start:
                    above = np.minimum.reduceat(above, starts, axis=0)
                values[start:end] *= above

    def _of(self, nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Parents of some nodes, node after node, and where each node's begin."""
        count = self._starts[nodes + 1] - self._starts[nodes]
        begin = np.cumsum(count) - count
        at = np.arange(count.sum()) + np.repeat(self._starts[nodes] - begin, count)
        return self._parents[at], begin
