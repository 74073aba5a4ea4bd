"""A hierarchy's edges in the orders in which the compiled loss walks them."""

import numpy as np

from rarenodes.loss.hierarchy import Hierarchy
from rarenodes.loss.kept import KeptWithHierarchy


class EdgePlan(KeptWithHierarchy):
    """All edges of a hierarchy twice, each time as two arrays `[edges]` of uint32, children and parents.

    Attributes:
        nodes: how many nodes there are.
        up: parents come after all their descendants. The edges of a parent follow each other, by
            ascending index of the child, so that ties go to the descendant that
            `Hierarchy.max_over_descendants` picks.
        down: children come after all their ancestors, each with its parents by ascending index.

    """

    def __init__(self, hierarchy: Hierarchy):
        self.nodes = len(hierarchy)
        order = _bottom_up_order(hierarchy)
        self.up = _arrays([(c, node) for node in order for c in hierarchy.children[node]])
        self.down = _arrays([(node, p) for node in order[::-1] for p in hierarchy.parents[node]])


def _bottom_up_order(hierarchy: Hierarchy) -> list[int]:
    """Node indices by longest distance from a root, farthest first, then as in the hierarchy."""
    longest = [0] * len(hierarchy)
    waiting = [len(parents) for parents in hierarchy.parents]
    ready = [hierarchy.index[root] for root in hierarchy.roots]
    for node in ready:
        for child in hierarchy.children[node]:
            longest[child] = max(longest[child], longest[node] + 1)
            waiting[child] -= 1
            if waiting[child] == 0:
                ready.append(child)
    return sorted(ready, key=lambda node: (-longest[node], node))


def _arrays(edges: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    children, parents = np.array(edges, dtype=np.uint32).reshape(-1, 2).T
    return np.ascontiguousarray(children), np.ascontiguousarray(parents)
