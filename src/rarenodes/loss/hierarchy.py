"""A hierarchy of nodes, and the two things learning needs of it: closure and a bottom-up maximum."""

from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

import torch
from jaxtyping import Bool, Int, Num
from torch import Tensor


class Hierarchy:
    """A rooted, connected, acyclic hierarchy: a tree, or a DAG in which nodes may share children.

    Nodes are ordered by (shortest distance from a root, name). Index `i` in every tensor of this
    package means `nodes[i]`.

    Args:
        edges: pairs (child, parent), in any order.

    Raises:
        ValueError: no edges; an edge from a node to itself; an edge given twice; a cycle (its nodes
            are named); or several components.

    """

    def __init__(self, edges: Iterable[Sequence[str]]):
        edges = [(child, parent) for child, parent in edges]
        _check_edges(edges)
        names = {name for edge in edges for name in edge}
        parents = _neighbours(names, edges)
        children = _neighbours(names, [(parent, child) for child, parent in edges])
        _check_connected(names, parents, children)
        depth = _shortest_distance_from_a_root(parents, children)

        self.nodes: tuple[str, ...] = tuple(sorted(names, key=lambda name: (depth[name], name)))
        self.index: Mapping[str, int] = MappingProxyType(
            {name: i for i, name in enumerate(self.nodes)}
        )
        self.roots: tuple[str, ...] = tuple(n for n in self.nodes if not parents[n])
        self.leaves: tuple[str, ...] = tuple(n for n in self.nodes if not children[n])
        self.depth: Int[Tensor, " nodes"] = torch.tensor([depth[n] for n in self.nodes])
        self.edges: tuple[tuple[str, str], ...] = tuple(
            sorted(edges, key=lambda edge: (self.index[edge[1]], self.index[edge[0]]))
        )
        self._levels = _bottom_up_levels(self.children)
        self._levels_on: dict[torch.device, list[_Level]] = {torch.device("cpu"): self._levels}

    def __len__(self) -> int:
        return len(self.nodes)

    def __reduce__(self):
        # Edges say everything; the rest is rebuilt, which also keeps caches out of copies.
        return Hierarchy, (self.edges,)

    def __repr__(self) -> str:
        kind = "tree" if self.is_tree else "DAG"
        return f"Hierarchy({kind}, {len(self)} nodes, {self.num_edges} edges, depth {int(self.depth.max())})"

    @property
    def num_edges(self) -> int:
        """Number of (child, parent) edges."""
        return len(self.edges)

    @property
    def is_tree(self) -> bool:
        """Whether there is one root and every other node has exactly one parent."""
        return len(self.roots) == 1 and self.num_edges == len(self) - 1

    @cached_property
    def edge_index(self) -> Int[Tensor, "edges 2"]:
        """The edges as pairs of node indices (child, parent)."""
        return torch.tensor(
            [(self.index[child], self.index[parent]) for child, parent in self.edges]
        )

    @cached_property
    def parents(self) -> tuple[tuple[int, ...], ...]:
        """For every node, the indices of its parents, ascending."""
        parents: list[list[int]] = [[] for _ in self.nodes]
        for child, parent in self.edge_index.tolist():
            parents[child].append(parent)
        return tuple(tuple(p) for p in parents)

    @cached_property
    def children(self) -> tuple[tuple[int, ...], ...]:
        """For every node, the indices of its children, ascending."""
        children: list[list[int]] = [[] for _ in self.nodes]
        for child, parent in self.edge_index.tolist():
            children[parent].append(child)
        return tuple(tuple(c) for c in children)

    def descendants(self, node: int) -> list[int]:
        """Indices of `D(node)`: the node itself and all its descendants, ascending."""
        found, stack = {node}, [node]
        while stack:
            new = set(self.children[stack.pop()]) - found
            found |= new
            stack.extend(new)
        return sorted(found)

    def indices(self, names: Iterable[str]) -> list[int]:
        """Indices of the named nodes.

        Raises:
            ValueError: a name that is not a node of this hierarchy.

        """
        names = list(names)
        for name in names:
            if name not in self.index:
                raise ValueError(f"unknown node {name!r}: it is none of the {len(self)} nodes")
        return [self.index[name] for name in names]

    def close(self, targets: Num[Tensor, "*batch nodes"] | Bool[Tensor, "*batch nodes"]) -> Tensor:
        """Ancestor closure of 0/1 targets: a node is 1 where it or any of its descendants is 1.

        Args:
            targets: `[..., nodes]`, bool or 0/1 of any type.

        Returns:
            The closure, with the shape and type of `targets`.

        """
        return self.max_over_descendants(targets.to(torch.uint8)).to(targets.dtype)

    def is_coherent(self, targets_or_scores: Tensor) -> bool:
        """Whether no node exceeds any of its ancestors, in `[..., nodes]` targets or scores."""
        self.check_last_dimension(targets_or_scores)
        child, parent = self.edge_index.to(targets_or_scores.device).unbind(1)
        return bool((targets_or_scores[..., child] <= targets_or_scores[..., parent]).all())

    def max_over_descendants(self, scores: Tensor) -> Tensor:
        """Maximum of every node's score and those of all its descendants.

        `p̂_j = max_{d ∈ D(j)} p_d`, the max constraint module of C-HMCNN (Giunchiglia and
        Lukasiewicz, NeurIPS 2020), exact on trees and DAGs, in O(edges) time and memory an example.

        Differentiable: the gradient of `p̂_j` goes whole to one `d` that attains the maximum. On a
        tie that is the node itself, else the choice of the first, in node order, of its children
        that attain it. On CUDA the gradients that meet at a node are added in any order, unless
        `torch.use_deterministic_algorithms(True)` is set.

        Args:
            scores: `[..., nodes]`, any ordered type.

        Returns:
            `[..., nodes]`, coherent.

        Raises:
            ValueError: the last dimension is not the number of nodes.

        """
        self.check_last_dimension(scores)
        return _BottomUpMax.apply(scores, None, self._levels_for(scores.device))

    def max_over_agreeing_descendants(self, scores: Tensor, targets: Tensor) -> Tensor:
        """Maximum over each node's descendants that have the node's own target.

        For coherent targets this is both cases of the coherent loss in one pass: a negative node
        has only negative descendants, and every path between a positive node and a positive
        descendant is positive, so an edge passes a value up exactly where its ends agree.

        Args:
            scores: `[..., nodes]`.
            targets: 0/1 or bool, ancestor-closed; `[nodes]` or more leading dimensions, which
                broadcast against those of `scores`.

        Returns:
            `[..., nodes]`.

        Raises:
            ValueError: a last dimension is not the number of nodes.

        """
        self.check_last_dimension(scores)
        self.check_last_dimension(targets)
        return _BottomUpMax.apply(scores, targets.bool(), self._levels_for(scores.device))

    def check_last_dimension(self, values: Tensor) -> None:
        """Raise `ValueError` unless the last dimension of `values` is this hierarchy's nodes."""
        if values.ndim == 0 or values.shape[-1] != len(self):
            raise ValueError(
                f"last dimension of shape {tuple(values.shape)} must be the {len(self)} nodes of the hierarchy"
            )

    def _levels_for(self, device: torch.device) -> "list[_Level]":
        if device not in self._levels_on:
            self._levels_on[device] = [level.to(device) for level in self._levels]
        return self._levels_on[device]


@dataclass(frozen=True)
class _Level:
    """One step of the bottom-up pass: all parents whose children are final.

    The children of all parents are gathered into one block of rows, parent by parent. `rounds`
    then halves each parent's rows until the first one holds their maximum: in every round row
    `into[k]` takes up row `from_[k]`. So a level costs O(edges) work in O(log fan-out) operations.
    """

    parents: Int[Tensor, " parents"]
    children: Int[Tensor, " edges"]
    parent_of_child: Int[Tensor, " edges"]
    first_row: Int[Tensor, " parents"]
    rounds: tuple[tuple[Tensor, Tensor], ...]  # row indices (into, from), [pairs] each

    def to(self, device: torch.device) -> "_Level":
        return _Level(
            parents=self.parents.to(device),
            children=self.children.to(device),
            parent_of_child=self.parent_of_child.to(device),
            first_row=self.first_row.to(device),
            rounds=tuple((into.to(device), from_.to(device)) for into, from_ in self.rounds),
        )


class _BottomUpMax(torch.autograd.Function):
    """Level by level maximum that remembers, for each node, which node attained it."""

    @staticmethod
    def forward(ctx, scores: Tensor, targets: Tensor | None, levels: list[_Level]) -> Tensor:
        # Nodes first, so that each node's scores are one contiguous row: [nodes, ...].
        best = scores.movedim(-1, 0).clone(memory_format=torch.contiguous_format)
        shape = (len(best),) + (1,) * (best.ndim - 1)
        winner = torch.arange(len(best), dtype=torch.int32, device=best.device)
        winner = winner.view(shape).expand_as(best).contiguous()
        if targets is not None:
            agree_shape = (len(best),) + (1,) * (best.ndim - targets.ndim) + targets.shape[:-1]
            targets = targets.movedim(-1, 0).reshape(agree_shape)
        for level in levels:
            rows, row_winner = best[level.children], winner[level.children]
            if targets is not None:
                agree = targets[level.children] == targets[level.parent_of_child]
                rows = torch.where(agree, rows, -torch.inf)
            for into, from_ in level.rounds:
                _take_larger(rows, row_winner, into, rows[from_], row_winner[from_])
            first = level.first_row
            _take_larger(best, winner, level.parents, rows[first], row_winner[first])
        ctx.save_for_backward(winner)
        return best.movedim(0, -1)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        (winner,) = ctx.saved_tensors
        gradient = gradient.movedim(-1, 0)
        routed = torch.zeros_like(winner, dtype=gradient.dtype)
        routed.scatter_add_(0, winner.long(), gradient.contiguous())
        return routed.movedim(0, -1), None, None


def _take_larger(
    values: Tensor, winner: Tensor, into: Tensor, candidate: Tensor, candidate_winner: Tensor
) -> None:
    """In place: rows `into` of `values` and `winner` take the candidate where it is larger."""
    current = values[into]
    larger = candidate > current
    values[into] = torch.where(larger, candidate, current)
    winner[into] = torch.where(larger, candidate_winner, winner[into])


def _bottom_up_levels(children: Sequence[Sequence[int]]) -> list[_Level]:
    """Group inner nodes by height (longest distance to a leaf), lowest first."""
    by_height: dict[int, list[int]] = {}
    for node, height in enumerate(_heights(children)):
        by_height.setdefault(height, []).append(node)
    by_height.pop(0)
    return [_level(nodes, children) for _, nodes in sorted(by_height.items())]


def _heights(children: Sequence[Sequence[int]]) -> list[int]:
    parents: list[list[int]] = [[] for _ in children]
    for parent, below in enumerate(children):
        for child in below:
            parents[child].append(parent)
    height = [0] * len(children)
    waiting = [len(below) for below in children]
    ready = deque(node for node, count in enumerate(waiting) if count == 0)
    while ready:
        node = ready.popleft()
        for parent in parents[node]:
            height[parent] = max(height[parent], height[node] + 1)
            waiting[parent] -= 1
            if waiting[parent] == 0:
                ready.append(parent)
    return height


def _level(parents: Sequence[int], children: Sequence[Sequence[int]]) -> _Level:
    first_row, rounds, row = [], [], 0
    for parent in parents:
        first_row.append(row)
        count = len(children[parent])
        for number, (into, from_) in enumerate(_halvings(count)):
            if number == len(rounds):
                rounds.append(([], []))
            rounds[number][0].extend(row + i for i in into)
            rounds[number][1].extend(row + i for i in from_)
        row += count
    return _Level(
        parents=torch.tensor(parents),
        children=torch.tensor([child for parent in parents for child in children[parent]]),
        parent_of_child=torch.tensor([parent for parent in parents for _ in children[parent]]),
        first_row=torch.tensor(first_row),
        rounds=tuple((torch.tensor(into), torch.tensor(from_)) for into, from_ in rounds),
    )


def _halvings(count: int) -> Iterable[tuple[range, range]]:
    """Pairs of positions (into, from) that reduce `count` rows to the first, in log2 steps.

    Neighbours are paired, so the earlier row always wins a tie and order is kept.
    """
    step = 1
    while step < count:
        yield range(0, count - step, 2 * step), range(step, count, 2 * step)
        step *= 2


def _neighbours(names: Iterable[str], edges: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """For every name, the second ends of the edges that start at it."""
    neighbours: dict[str, list[str]] = {name: [] for name in names}
    for start, end in edges:
        neighbours[start].append(end)
    return neighbours


def _check_edges(edges: Sequence[tuple[str, str]]) -> None:
    if not edges:
        raise ValueError("empty hierarchy: at least one (child, parent) edge is needed")
    for child, parent in edges:
        for name in (child, parent):
            if not isinstance(name, str):
                raise ValueError(f"node names must be text, found {name!r} in {(child, parent)!r}")
        if child == parent:
            raise ValueError(f"self-loop: node {child!r} is given as its own parent")
    (child, parent), times = Counter(edges).most_common(1)[0]
    if times > 1:
        raise ValueError(f"duplicate edge: {child!r} → {parent!r} is given {times} times")


def _check_connected(
    names: Iterable[str], parents: Mapping[str, list[str]], children: Mapping[str, list[str]]
) -> None:
    unseen, components = set(names), []
    while unseen:
        start = min(unseen)
        stack, component = [start], {start}
        while stack:
            node = stack.pop()
            for neighbour in (*parents[node], *children[node]):
                if neighbour not in component:
                    component.add(neighbour)
                    stack.append(neighbour)
        unseen -= component
        components.append(start)
    if len(components) > 1:
        shown = ", ".join(repr(name) for name in components[:5])
        raise ValueError(
            f"{len(components)} components, with nodes such as {shown}: join them under one root"
        )


def _shortest_distance_from_a_root(
    parents: Mapping[str, list[str]], children: Mapping[str, list[str]]
) -> dict[str, int]:
    """Distances by breadth first search; a node that no order can place lies on a cycle."""
    _check_acyclic(parents, children)
    depth = {name: 0 for name, above in parents.items() if not above}
    queue = deque(depth)
    while queue:
        node = queue.popleft()
        for child in children[node]:
            if child not in depth:
                depth[child] = depth[node] + 1
                queue.append(child)
    return depth


def _check_acyclic(parents: Mapping[str, list[str]], children: Mapping[str, list[str]]) -> None:
    waiting = {name: len(above) for name, above in parents.items()}
    ready = [name for name, count in waiting.items() if count == 0]
    while ready:
        node = ready.pop()
        del waiting[node]
        for child in children[node]:
            waiting[child] -= 1
            if waiting[child] == 0:
                ready.append(child)
    if waiting:
        # Every node left has a parent that is left too: walking up must come round.
        walk, node = {}, min(waiting)
        while node not in walk:
            walk[node] = len(walk)
            node = min(parent for parent in parents[node] if parent in waiting)
        cycle = list(walk)[walk[node] :]
        shown = " → ".join(map(repr, cycle[:50])) + (" → …" if len(cycle) > 50 else "")
        raise ValueError(f"cycle: {shown} → {node!r} (child → parent)")
