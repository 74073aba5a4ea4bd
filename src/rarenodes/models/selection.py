"""Which nodes are predicted of an example, given the probabilities of all."""

from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import sparse

from rarenodes.loss.hierarchy import Hierarchy

Probabilities = Float[np.ndarray, "examples nodes"]

# Which nodes share a threshold: all, those of one depth, or none.
SCOPES = ("global", "depth", "node")
BETWEEN = " > "


class Selected(NamedTuple):
    """Predicted nodes: pairs of an example and a node, sorted by example."""

    examples: Int[np.ndarray, " pairs"]
    nodes: Int[np.ndarray, " pairs"]


def most_probable(
    probabilities: Probabilities, count: int, candidates: Bool[np.ndarray, " nodes"]
) -> Selected:
    """The nodes of highest probability, best first.

    Of equally probable nodes the deeper comes first: a child that is certain given its parent stands
    before it.

    Args:
        probabilities: `[examples, nodes]`.
        count: how many of each example; fewer where there are fewer candidates.
        candidates: `[nodes]`, the nodes to choose from.

    """
    among = np.flatnonzero(candidates)[::-1]
    count = min(count, len(among))
    order = np.argsort(-probabilities[:, among], axis=1, kind="stable")[:, :count]
    return Selected(np.repeat(np.arange(len(probabilities)), count), among[order].ravel())


def above(
    probabilities: Probabilities,
    thresholds: Float[np.ndarray, " nodes"],
    candidates: Bool[np.ndarray, " nodes"],
) -> Selected:
    """All nodes whose probability is above their threshold, most probable first.

    Args:
        probabilities: `[examples, nodes]`.
        thresholds: `[nodes]`.
        candidates: `[nodes]`, the nodes to choose from.

    """
    chosen = (probabilities > thresholds.astype(probabilities.dtype)) & candidates
    return _sorted(Selected(*np.nonzero(chosen)), probabilities)


def most_specific(
    probabilities: Probabilities, confidence: float, children: "Children"
) -> Selected:
    """The nodes that reach a probability while none of their children does, deepest first.

    Probabilities only fall on the way down, so these are the ends of the paths that can be followed
    with the required confidence; several where an example belongs to several branches. A root alone
    says that nothing more is known.

    Args:
        probabilities: `[examples, nodes]`, coherent.
        confidence: what a node has to reach, in (0, 1].
        children: of the hierarchy.

    """
    # Compared as the float32 that probabilities are: 0.8 is to be reached by what prints as 0.8.
    reached = probabilities >= np.float32(confidence)
    below = (sparse.csr_array(reached.astype(np.float32)) @ children.to_parents).toarray() > 0
    selected = Selected(*np.nonzero(reached & ~below))
    return _sorted(selected, probabilities, children.depth)


class Children:
    """What is asked of a hierarchy for every batch, made once.

    Args:
        hierarchy: the nodes.

    """

    def __init__(self, hierarchy: Hierarchy):
        self.hierarchy = hierarchy
        self.depth = hierarchy.depth.numpy()

    @cached_property
    def to_parents(self) -> sparse.csr_array:
        """`[nodes, nodes]`, 1 where the row is a child of the column."""
        child, parent = self.hierarchy.edge_index.numpy().T
        size = len(self.hierarchy)
        ones = np.ones(len(child), dtype=np.float32)
        return sparse.csr_array((ones, (child, parent)), shape=(size, size))

    @cached_property
    def leaves(self) -> Bool[np.ndarray, " nodes"]:
        """Nodes without children."""
        return np.isin(self.hierarchy.nodes, self.hierarchy.leaves)


def paths(hierarchy: Hierarchy, names: tuple[str, ...]) -> list[str]:
    """For each node the names on a shortest way from a root, as `a > b > c`.

    A root that stands alone above all other nodes says nothing and is left out, unless it is the
    node itself. Where several ways are equally short, the parents that come first in the hierarchy's
    order are taken.

    Args:
        hierarchy: the nodes.
        names: what each is called.

    """
    alone = len(hierarchy.roots) == 1
    found: list[str] = []
    for node, parents in enumerate(hierarchy.parents):
        if not parents:
            found.append(names[node])
            continue
        # Nodes are ordered by distance, then name: the first parent is a nearest one, and before them.
        nearest = parents[0]
        is_top = alone and not hierarchy.parents[nearest]
        found.append(names[node] if is_top else f"{found[nearest]}{BETWEEN}{names[node]}")
    return found


def _sorted(
    selected: Selected, probabilities: Probabilities, depth: Int[np.ndarray, " nodes"] | None = None
) -> Selected:
    """By example; then deepest first, where depths are given; then most probable first."""
    examples, nodes = selected
    keys = [-nodes, -probabilities[examples, nodes]]
    if depth is not None:
        keys.append(-depth[nodes])
    order = np.lexsort([*keys, examples])
    return Selected(examples[order], nodes[order])
