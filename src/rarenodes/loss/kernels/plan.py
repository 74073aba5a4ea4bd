"""A hierarchy's edges in the orders in which the compiled loss walks them."""

from typing import ClassVar
from weakref import WeakKeyDictionary

import numpy as np

from rarenodes.loss.hierarchy import Hierarchy


class EdgePlan:
    """All edges of a hierarchy twice, each time as two arrays `[edges]` of uint32, children and parents.

    Attributes:
        nodes: how many nodes there are.
        up: parents come after all their descendants. The edges of a parent follow each other, by
            ascending index of the child, so that ties go to the descendant that
            `Hierarchy.max_over_descendants` picks.
        down: children come after all their ancestors, each with its parents by ascending index.

    """

    _known: ClassVar[WeakKeyDictionary] = WeakKeyDictionary()

    def __init__(self, hierarchy: Hierarchy):
        self.nodes = len(hierarchy)
        order = _bottom_up_order(hierarchy)
        self.up = _arrays([(c, node) for node in order for c in hierarchy.children[node]])
        self.down = _arrays([(node, p) for node in order[::-1] for p in hierarchy.parents[node]])

    @classmethod
    def of(cls, hierarchy: Hierarchy) -> "EdgePlan":
        """The plan of a hierarchy, made on first use and kept as long as the hierarchy."""
        plan = cls._known.get(hierarchy)
        if plan is None:
            plan = cls._known[hierarchy] = cls(hierarchy)
        return plan


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
