"""A hierarchy's edges in the order and layout that the compiled loss walks them."""

from collections.abc import Sequence
from typing import ClassVar
from weakref import WeakKeyDictionary

import numpy as np

from rarenodes.loss.hierarchy import Hierarchy


class EdgePlan:
    """Nodes in bottom-up order, and each one's children and parents as ranges of a flat list.

    A *position* is a place in that order, where every node comes after all its descendants.

    Attributes:
        edges: what the compiled code takes, arrays of uint32:

            - `[nodes]` position of every node;
            - `[positions]` node of every position, and how many positions from it on, itself
              included, hold nodes that follow each other;
            - `[positions + 1]` offsets; `[edges]` children: those of position `k` are
              `children[offsets[k]:offsets[k + 1]]`, by ascending node index, so that ties go to the
              descendant that `Hierarchy.max_over_descendants` picks; `[edges]` their parents; and
              `[edges]` the place of the same edge in the list by parents;
            - `[positions + 1]` offsets and `[edges]` parents, likewise.

        no_edges: the same for the nodes without their edges, for plain binary cross-entropy.

    """

    _known: ClassVar[WeakKeyDictionary] = WeakKeyDictionary()

    def __init__(self, hierarchy: Hierarchy):
        order = _bottom_up_order(hierarchy)
        nodes = np.array(order, dtype=np.uint32)
        place = np.empty_like(nodes)
        place[nodes] = np.arange(len(nodes), dtype=np.uint32)
        self.edges = _arrays(place, nodes, hierarchy.children, hierarchy.parents)
        self.no_edges = _arrays(place, nodes, [()] * len(order), [()] * len(order))

    @classmethod
    def of(cls, hierarchy: Hierarchy) -> "EdgePlan":
        """The plan of a hierarchy, made on first use and kept as long as the hierarchy."""
        plan = cls._known.get(hierarchy)
        if plan is None:
            plan = cls._known[hierarchy] = cls(hierarchy)
        return plan


def _bottom_up_order(hierarchy: Hierarchy) -> list[int]:
    """Node indices by longest distance from a root, farthest first, then as in the hierarchy.

    Within a level this keeps the order in which logits lie in memory, so that most of them can be
    turned into tiles and back a square at a time.
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


def _arrays(
    place: np.ndarray,
    nodes: np.ndarray,
    children: Sequence[Sequence[int]],
    parents: Sequence[Sequence[int]],
) -> tuple:
    first_child, child = _flatten(children, place, nodes)
    first_parent, parent = _flatten(parents, place, nodes)
    positions = np.arange(len(nodes), dtype=np.uint32)
    parent_of_child = np.repeat(positions, np.diff(first_child))
    child_of_parent = np.repeat(positions, np.diff(first_parent))
    # Sorted alike, by child and then by parent, the two lists of edges match one to one.
    slot = np.empty_like(child)
    slot[np.lexsort((parent_of_child, child))] = np.lexsort((parent, child_of_parent))
    return (
        place,
        (nodes, _run_lengths(nodes)),
        (first_child, child, parent_of_child, slot),
        (first_parent, parent),
    )


def _flatten(
    neighbours: Sequence[Sequence[int]], place: np.ndarray, nodes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Offsets `[nodes + 1]` and positions `[edges]` of the neighbours of every position."""
    offsets = np.cumsum([0, *(len(neighbours[node]) for node in nodes)]).astype(np.uint32)
    flat = [place[other] for node in nodes for other in neighbours[node]]
    return offsets, np.array(flat, dtype=np.uint32)


def _run_lengths(nodes: np.ndarray) -> np.ndarray:
    """For every position, how many from there on hold nodes that follow each other."""
    last = np.flatnonzero(np.append(np.diff(nodes.astype(np.int64)) != 1, True))
    positions = np.arange(len(nodes))
    return (last[np.searchsorted(last, positions)] - positions + 1).astype(np.uint32)
