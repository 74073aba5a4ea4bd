"""From the labels of examples to ancestor-closed sparse targets."""

from collections.abc import Callable, Collection, Sequence
from functools import cache

import numpy as np
from jaxtyping import Int
from scipy import sparse

from rarenodes.loss.hierarchy import Hierarchy
from rarenodes.loss.topdown import longest_distance_from_a_root


def closed_targets(labels: Sequence[Collection[str]], hierarchy: Hierarchy) -> sparse.csr_array:
    """Targets in which every label and all its ancestors are 1.

    Args:
        labels: for every example, names of nodes; ancestors may be given or left out.
        hierarchy: the nodes.

    Returns:
        `[examples, nodes]`, sparse 0/1 of uint8. Its size is that of the closure, so large
        hierarchies never become a dense table.

    Raises:
        ValueError: a label that is not a node.

    """
    upward = _with_ancestors(hierarchy)
    rows = [sorted(set().union(*map(upward, hierarchy.indices(example)))) for example in labels]
    return _sparse(rows, len(hierarchy))


def frequent_nodes(
    targets: sparse.csr_array, hierarchy: Hierarchy, min_count: int
) -> tuple[sparse.csr_array, Hierarchy]:
    """Targets and hierarchy without the nodes of few examples.

    Closed targets never grow downwards, so what is kept is closed, and an example of a dropped
    node is labelled with its nearest kept ancestors as it is.

    Args:
        targets: `[examples, nodes]`, ancestor-closed.
        hierarchy: the nodes.
        min_count: fewest positive examples of a node that is kept.

    Raises:
        ValueError: fewer than two nodes have so many.

    """
    counts = np.asarray(targets.sum(axis=0, dtype=np.int64)).ravel()
    edges = [
        (child, parent)
        for child, parent in hierarchy.edges
        if counts[hierarchy.index[child]] >= min_count
    ]
    if not edges:
        below_the_roots = counts[hierarchy.depth.numpy() > 0].max()
        raise ValueError(
            f"min_count is {min_count}, but no node below a root has more than {below_the_roots} "
            "examples: lower min_count or use more data"
        )
    kept = Hierarchy(edges)
    return targets[:, hierarchy.indices(kept.nodes)], kept


def kept_targets(
    labels: Sequence[Collection[str]],
    hierarchy: Hierarchy,
    min_count: int,
    *,
    stops_leave_open: bool = False,
) -> tuple[sparse.csr_array, Hierarchy, sparse.csr_array | None]:
    """Targets of the nodes that have examples enough, and what they leave open.

    Args:
        labels: for every example, names of nodes.
        hierarchy: the nodes.
        min_count: fewest positive examples of a node that is kept.
        stops_leave_open: whether a label that stops half-way says nothing about the nodes below; it
            stops where it was given, not where the nodes below are too few to be kept.

    Returns:
        As `frequent_nodes`, and what `unknown_below` finds, of the kept nodes, or None.

    Raises:
        ValueError: a label that is not a node, or fewer than two nodes that are kept.

    """
    every = closed_targets(labels, hierarchy)
    targets, kept = frequent_nodes(every, hierarchy, min_count)
    if not stops_leave_open:
        return targets, kept, None
    unknown = unknown_below(every, hierarchy)[:, hierarchy.indices(kept.nodes)]
    return targets, kept, unknown


def unknown_in_card(unknown: sparse.csr_array | None) -> dict[str, int]:
    """What a data set's card says of pairs that are unknown: nothing where there are none to leave out."""
    return {} if unknown is None else {"unknown_pairs": int(unknown.sum())}


def half_way(targets: sparse.csr_array, hierarchy: Hierarchy) -> Int[np.ndarray, " nodes"]:
    """In how many examples the labels stop at a node though there are nodes below it.

    That is, how often it is positive and none of its children is.

    Args:
        targets: `[examples, nodes]`, ancestor-closed.
        hierarchy: the nodes.

    Returns:
        `[nodes]`, 0 for leaves.

    """
    child, parent = hierarchy.edge_index.numpy().T
    ones = np.ones(len(child), dtype=np.int64)
    upward = sparse.csr_array((ones, (child, parent)), shape=(len(hierarchy),) * 2)
    goes_on = (targets @ upward).astype(bool)
    ends = targets.sum(axis=0, dtype=np.int64) - goes_on.sum(axis=0, dtype=np.int64)
    return np.where(upward.sum(axis=0) > 0, np.asarray(ends).ravel(), 0)


def unknown_below(targets: sparse.csr_array, hierarchy: Hierarchy) -> sparse.csr_array:
    """Of which nodes examples say nothing, where a label that stops half-way leaves open what is below.

    A label stops at a node where none of its children is positive. Whether the example belongs to
    the nodes below is then unknown, but for those that `still_open` rules out.

    Args:
        targets: `[examples, nodes]`, sparse 0/1, ancestor-closed.
        hierarchy: the nodes.

    Returns:
        `[examples, nodes]`, sparse 0/1 of uint8; 1 where it is unknown, which is nowhere positive.

    """

    @cache
    def below(positives: tuple[int, ...]) -> frozenset[int]:
        given, found = set(positives), set()
        stack = [node for node in positives if not given.intersection(hierarchy.children[node])]
        while stack:
            children = set(hierarchy.children[stack.pop()]) - found
            found |= children
            stack += children
        return frozenset(found - given)

    rows = [sorted(below(tuple(row))) for row in _rows(targets)]
    return still_open(_sparse(rows, len(hierarchy)), targets, hierarchy)


def still_open(
    unknown: sparse.csr_array, targets: sparse.csr_array, hierarchy: Hierarchy
) -> sparse.csr_array:
    """Those of some unknown nodes that an example can belong to, by what is known of their parents.

    A node with a parent that is known to be negative is negative. So no node that is known to be
    negative has an unknown one below it.

    Args:
        unknown: `[examples, nodes]`, sparse 0/1, nowhere positive.
        targets: `[examples, nodes]`, sparse 0/1, ancestor-closed.
        hierarchy: the nodes.

    Returns:
        `[examples, nodes]`, sparse 0/1 of uint8.

    """
    level = longest_distance_from_a_root(hierarchy)
    rows = []
    for open_nodes, positives in zip(_rows(unknown), _rows(targets), strict=True):
        possible, kept = set(positives), []
        for node in sorted(open_nodes, key=level.__getitem__):
            if possible.issuperset(hierarchy.parents[node]):
                possible.add(node)
                kept.append(node)
        rows.append(sorted(kept))
    return _sparse(rows, len(hierarchy))


def _rows(table: sparse.csr_array) -> list[list[int]]:
    """The columns of every row."""
    ends = zip(table.indptr, table.indptr[1:], strict=False)
    return [table.indices[start:end].tolist() for start, end in ends]


def _sparse(rows: Sequence[Sequence[int]], nodes: int) -> sparse.csr_array:
    """Ones at some columns of every row."""
    row_starts = np.cumsum([0, *map(len, rows)])
    columns = np.fromiter((node for row in rows for node in row), dtype=np.int64)
    ones = np.ones(len(columns), dtype=np.uint8)
    return sparse.csr_array((ones, columns, row_starts), shape=(len(rows), nodes))


def _with_ancestors(hierarchy: Hierarchy) -> Callable[[int], frozenset[int]]:
    @cache
    def upward(node: int) -> frozenset[int]:
        reached, stack = {node}, [node]
        while stack:
            for parent in hierarchy.parents[stack.pop()]:
                if parent not in reached:
                    reached.add(parent)
                    stack.append(parent)
        return frozenset(reached)

    return upward
