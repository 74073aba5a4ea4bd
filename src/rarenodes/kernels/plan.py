"""A hierarchy's edges in the order and layout that the compiled loss walks them."""

from collections.abc import Sequence
from typing import ClassVar
from weakref import WeakKeyDictionary

import numpy as np

from rarenodes.hierarchy import Hierarchy


class EdgePlan:
    """Nodes in bottom-up order, and each one's children and parents as ranges of a flat list.

    A *position* is a place in that order, where every node comes after all its descendants.

    Attributes:
        edges: five int32 arrays. `[nodes]` position of every node; `[nodes + 1]` offsets and
            `[edges]` positions of children: those of position `k` are
            `children[offsets[k]:offsets[k + 1]]`, by ascending node index, so that ties go to the
            descendant that `Hierarchy.max_over_descendants` picks; and the same two for parents.
        no_edges: the same for the nodes without their edges, for plain binary cross-entropy.

    """

    _known: ClassVar[WeakKeyDictionary] = WeakKeyDictionary()

    def __init__(self, hierarchy: Hierarchy):
        order = _bottom_up_order(hierarchy)
        place = np.empty(len(order), dtype=np.int32)
        place[order] = np.arange(len(order), dtype=np.int32)
        children = _flatten(hierarchy.children, order, place)
        parents = _flatten(hierarchy.parents, order, place)
        none = _flatten([()] * len(order), order, place)
        self.edges = (place, *children, *parents)
        self.no_edges = (place, *none, *none)

    @classmethod
    def of(cls, hierarchy: Hierarchy) -> "EdgePlan":
        """The plan of a hierarchy, made on first use and kept as long as the hierarchy."""
        plan = cls._known.get(hierarchy)
        if plan is None:
            plan = cls._known[hierarchy] = cls(hierarchy)
        return plan


def _bottom_up_order(hierarchy: Hierarchy) -> list[int]:
    """Node indices by longest distance from a root, farthest first, then as in the hierarchy.

    Within a level this keeps the order in which logits lie in memory, so that turning them into
    tiles and back runs along a few sequential streams.
    """
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


def _flatten(
    neighbours: Sequence[Sequence[int]], order: Sequence[int], place: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Offsets `[nodes + 1]` and positions `[edges]` of the neighbours of every position."""
    offsets = np.cumsum([0, *(len(neighbours[node]) for node in order)], dtype=np.int32)
    flat = [place[other] for node in order for other in neighbours[node]]
    return offsets, np.array(flat, dtype=np.int32)
