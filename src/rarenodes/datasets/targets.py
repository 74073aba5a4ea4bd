"""From the labels of examples to ancestor-closed sparse targets."""

from collections.abc import Callable, Collection, Sequence
from functools import cache

import numpy as np
from jaxtyping import Int
from scipy import sparse

from rarenodes.loss.hierarchy import Hierarchy


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
    row_starts = np.cumsum([0, *map(len, rows)])
    columns = np.fromiter((node for row in rows for node in row), dtype=np.int64)
    return sparse.csr_array(
        (np.ones(len(columns), dtype=np.uint8), columns, row_starts),
        shape=(len(labels), len(hierarchy)),
    )


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
