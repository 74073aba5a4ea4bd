"""The pairs of an example and a node that conditional training looks at, without a dense table.

A node is active in an example where all its parents are positive: `rarenodes.loss.conditional.active`,
here from sparse targets to a sparse outcome. An example has as many active nodes as its positive nodes
have children, however many nodes there are.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int, Int32, Int64, UInt8
from scipy import sparse

from rarenodes.loss.hierarchy import Hierarchy

# Examples at a time; bounds what is held beside the outcome.
BLOCK = 16_384


@dataclass(frozen=True)
class ActiveNodes:
    """The active nodes of some examples, example after example, each with its nodes ascending.

    Attributes:
        starts: where each example's nodes begin, and where the last one's end.
        nodes: the active nodes.
        positive: 1 where the example is positive in the node, else 0.

    """

    starts: Int64[np.ndarray, " examples_and_end"]
    nodes: Int32[np.ndarray, " pairs"]
    positive: UInt8[np.ndarray, " pairs"]

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.starts) - 1

    def of(self, examples: Int[np.ndarray, " batch"]) -> "ActiveNodes":
        """Those of some examples, in the order given."""
        begin, count = self.starts[examples], np.diff(self.starts)[examples]
        starts = np.concatenate([[0], np.cumsum(count)])
        # The place of every pair: its example's begin, and how far it is from its own.
        at = np.arange(starts[-1]) + np.repeat(begin - starts[:-1], count)
        return ActiveNodes(starts, self.nodes[at], self.positive[at])

    def among(self, nodes: Bool[np.ndarray, " nodes"]) -> "ActiveNodes":
        """Those of them that are among some nodes."""
        return self._kept(nodes[self.nodes])

    def without(self, pairs: sparse.csr_array) -> "ActiveNodes":
        """Those of them that are not among some pairs `[examples, nodes]`, sparse 0/1."""
        nodes = pairs.shape[1]
        of_row = np.repeat(np.arange(len(self), dtype=np.int64), np.diff(pairs.indptr))
        left_out = of_row * nodes + pairs.indices
        own = self.examples().astype(np.int64) * nodes + self.nodes
        return self._kept(~np.isin(own, left_out))

    def _kept(self, kept: Bool[np.ndarray, " pairs"]) -> "ActiveNodes":
        before = np.concatenate([[0], np.cumsum(kept)])
        return ActiveNodes(before[self.starts], self.nodes[kept], self.positive[kept])

    def examples(self) -> Int32[np.ndarray, " pairs"]:
        """The example of every pair."""
        return np.repeat(np.arange(len(self), dtype=np.int32), np.diff(self.starts))


def active_nodes(targets: sparse.csr_array, hierarchy: Hierarchy) -> ActiveNodes:
    """The active nodes of every example: roots, and nodes whose parents are all positive.

    In O(pairs) time and memory, `pairs` being what is found, and in a DAG the children of a positive
    node that another parent rules out.

    Args:
        targets: `[examples, nodes]`, sparse 0/1, ancestor-closed.
        hierarchy: the nodes' hierarchy.

    Raises:
        ValueError: another number of columns, stored values other than 0 and 1, or targets that are
            not closed; the message names the first example at fault and a node of it.

    """
    targets = _checked(targets, hierarchy)
    below, parents = _below(hierarchy)
    blocks = [
        _of_block(targets[start : start + BLOCK], start, below, parents, hierarchy)
        for start in range(0, targets.shape[0], BLOCK)
    ]
    counts = np.concatenate([np.zeros(1, np.int64), *(np.diff(block.starts) for block in blocks)])
    none = [np.empty(0, np.int32)], [np.empty(0, np.uint8)]
    return ActiveNodes(
        np.cumsum(counts),
        np.concatenate([block.nodes for block in blocks] or none[0]),
        np.concatenate([block.positive for block in blocks] or none[1]),
    )


def _checked(targets: sparse.csr_array, hierarchy: Hierarchy) -> sparse.csr_array:
    """The targets as int32, without stored zeros and duplicates."""
    if targets.ndim != 2 or targets.shape[1] != len(hierarchy):
        raise ValueError(
            f"targets must be [examples, {len(hierarchy)} nodes], found shape {targets.shape}"
        )
    targets = sparse.csr_array(targets)
    wrong = np.flatnonzero((targets.data != 0) & (targets.data != 1))
    if len(wrong):
        example = int(np.searchsorted(targets.indptr, wrong[0], side="right")) - 1
        node = hierarchy.nodes[targets.indices[wrong[0]]]
        raise ValueError(
            f"targets must be 0 or 1, found {targets.data[wrong[0]]} at example {example}, "
            f"node {node!r}"
        )
    targets = targets.astype(np.int32)  # a copy, so that the caller's stays as it is
    targets.sum_duplicates()
    targets.data = np.minimum(targets.data, 1)
    targets.eliminate_zeros()
    return targets


def _below(hierarchy: Hierarchy) -> tuple[sparse.csr_array, Int32[np.ndarray, " nodes"]]:
    """What a positive node adds to every node, and how many parents each has.

    2 to each of its children and 1 to itself. One row more stands for what is above the roots, which
    is always positive and counts as their parent: `[nodes + 1, nodes]`.
    """
    nodes = len(hierarchy)
    child, parent = hierarchy.edge_index.numpy().T
    roots = np.array(hierarchy.indices(hierarchy.roots))
    itself = np.arange(nodes)
    given = np.concatenate([parent, np.full(len(roots), nodes), itself])
    taken = np.concatenate([child, roots, itself])
    amount = np.ones(len(given), np.int32)
    amount[:-nodes] = 2
    below = sparse.csr_array((amount, (given, taken)), shape=(nodes + 1, nodes))
    return below, np.bincount(taken[:-nodes], minlength=nodes).astype(np.int32)


def _of_block(
    targets: sparse.csr_array,
    first: int,
    below: sparse.csr_array,
    parents: Int32[np.ndarray, " nodes"],
    hierarchy: Hierarchy,
) -> ActiveNodes:
    always = np.ones((targets.shape[0], 1), np.int32)
    found = sparse.csr_array(sparse.hstack([targets, always], format="csr")) @ below
    found.sort_indices()
    # An entry is twice the number of positive parents, plus the target.
    positive = (found.data & 1).astype(np.uint8)
    active = found.data >> 1 == parents[found.indices]
    broken = np.flatnonzero((positive == 1) & ~active)
    if len(broken):
        example = first + int(np.searchsorted(found.indptr, broken[0], side="right")) - 1
        node = hierarchy.nodes[found.indices[broken[0]]]
        raise ValueError(
            f"targets must be ancestor-closed, but example {example} has node {node!r} without one "
            "of its parents: rarenodes.datasets.targets.closed_targets adds it"
        )
    kept = np.concatenate([[0], np.cumsum(active)])
    return ActiveNodes(
        kept[found.indptr].astype(np.int64),
        found.indices[active].astype(np.int32),
        positive[active],
    )
