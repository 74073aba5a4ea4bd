"""Random hierarchies, targets and scores, and what the definitions say about them, the slow way.

The oracles read the list of edges and nothing else of the library.
"""

import random
from collections.abc import Sequence

import torch
from hypothesis import strategies as st
from torch import Tensor

from rarenodes.loss.hierarchy import Hierarchy

Edges = list[tuple[str, str]]  # (child, parent)


@st.composite
def tree_edges(draw, max_nodes: int = 12) -> Edges:
    """A tree, with names that say nothing of the shape, and edges in any order."""
    count = draw(st.integers(2, max_nodes))
    parent = [draw(st.integers(0, child - 1)) for child in range(1, count)]
    return _named(draw, [(child, parent[child - 1]) for child in range(1, count)], count)


@st.composite
def dag_edges(draw, max_nodes: int = 12) -> Edges:
    """A connected DAG: nodes of several parents, shortcuts past levels, and often several roots."""
    count = draw(st.integers(2, max_nodes))
    # A random undirected tree connects the nodes; a random order of them turns every edge downward.
    order = draw(st.permutations(range(count)))
    pairs = {(draw(st.integers(0, node - 1)), node) for node in range(1, count)}
    anything = st.tuples(st.integers(0, count - 1), st.integers(0, count - 1))
    more = draw(st.lists(anything, max_size=2 * count))
    pairs |= {(min(pair), max(pair)) for pair in more if pair[0] != pair[1]}
    down = [(a, b) if order[a] > order[b] else (b, a) for a, b in sorted(pairs)]
    return _named(draw, down, count)


def _named(draw, edges: list[tuple[int, int]], count: int) -> Edges:
    names = draw(st.permutations([f"n{i}" for i in range(count)]))
    return draw(st.permutations([(names[child], names[parent]) for child, parent in edges]))


def any_edges(max_nodes: int = 12) -> st.SearchStrategy[Edges]:
    """Edges of a tree or of a DAG."""
    return st.one_of(tree_edges(max_nodes), dag_edges(max_nodes))


def hierarchies(max_nodes: int = 12) -> st.SearchStrategy[Hierarchy]:
    """A tree or a DAG."""
    return any_edges(max_nodes).map(Hierarchy)


# Few distinct values, so that ties are common; or many, so that they are rare.
TIED = st.integers(-2, 2).map(float)
SPREAD = st.floats(-8, 8, allow_nan=False)


@st.composite
def tensors(draw, *shape: int, elements: st.SearchStrategy | None = None) -> Tensor:
    """A float64 tensor, of tied values, of spread values, or of the given elements."""
    elements = draw(st.sampled_from([TIED, SPREAD])) if elements is None else elements
    size = int(torch.Size(shape).numel())
    values = draw(st.lists(elements, min_size=size, max_size=size))
    return torch.tensor(values, dtype=torch.float64).view(shape)


@st.composite
def batches(draw, max_nodes: int = 9) -> tuple[Hierarchy, Tensor, Tensor]:
    """A hierarchy, logits `[members, batch, nodes]` and coherent 0/1 targets `[batch, nodes]`."""
    hierarchy = draw(hierarchies(max_nodes))
    members, batch = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    logits = draw(tensors(members, batch, len(hierarchy)))
    targets = draw(tensors(batch, len(hierarchy), elements=st.sampled_from([0.0, 0.0, 1.0])))
    return hierarchy, logits, closure(targets, descendants(hierarchy.nodes, hierarchy.edges))


def descendants(nodes: Sequence[str], edges: Sequence[tuple[str, str]]) -> list[set[int]]:
    """`D(j)` of every node, by adding the children's sets until nothing changes."""
    index = {name: i for i, name in enumerate(nodes)}
    found = [{i} for i in range(len(nodes))]
    changed = True
    while changed:
        changed = False
        for child, parent in edges:
            missing = found[index[child]] - found[index[parent]]
            found[index[parent]] |= missing
            changed = changed or bool(missing)
    return found


def closure(targets: Tensor, below: list[set[int]]) -> Tensor:
    """1 where any of `D(j)` is 1."""
    columns = [targets[..., sorted(d)].bool().any(dim=-1) for d in below]
    return torch.stack(columns, dim=-1).to(targets.dtype)


def random_dag(nodes: int, edges: int, seed: int = 0) -> Edges:
    """A large connected DAG of one root, with exactly that many nodes and edges."""
    rng = random.Random(seed)
    found = {(child, rng.randrange(child)) for child in range(1, nodes)}
    while len(found) < edges:
        child = rng.randrange(2, nodes)
        found.add((child, rng.randrange(child)))
    return [(f"n{child}", f"n{parent}") for child, parent in sorted(found)]
