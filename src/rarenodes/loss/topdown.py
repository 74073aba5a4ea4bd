"""One pass from the roots to the leaves: what a node has of itself, combined with its parents' least.

    out_j = own_j                                          for a root
    out_j = combine(own_j, min over parents k of out_k)    for any other node

`combine` never exceeds its second argument, so the outcome is coherent. Level by level, O(edges)
time and memory an example, on trees and DAGs, on any device.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from rarenodes.loss.hierarchy import Hierarchy
from rarenodes.loss.kept import KeptWithHierarchy


@dataclass(frozen=True)
class Combine:
    """How a node's own value and its parents' least become the node's outcome, element by element.

    Attributes:
        outcome: of `own` and `above`; at most `above`.
        slopes: of `own`, `above` and the outcome: its derivatives by the first two.

    """

    outcome: Callable[[Tensor, Tensor], Tensor]
    slopes: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def _product_of_logits(own: Tensor, above: Tensor) -> Tensor:
    return -torch.logaddexp(-above, -functional.logsigmoid(above) - own)


def _slopes_of_logits(own: Tensor, above: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
    # Both are in [0, 1]; rounding may leave exponents just above 0.
    by_own = torch.exp((out - own - functional.logsigmoid(above)).clamp(max=0))
    by_above = torch.exp((out - above - functional.logsigmoid(own)).clamp(max=0))
    return by_own, by_above


# Of values at most 0, such as logarithms of probabilities.
SUM = Combine(
    lambda own, above: own + above,
    lambda own, above, out: (torch.ones_like(own), torch.ones_like(own)),
)
# Of values in [0, 1]: a product with a number of at most 1 is never rounded upwards.
PRODUCT = Combine(lambda own, above: own * above, lambda own, above, out: (above, own))
# The logit of `sigmoid(z) · sigmoid(s)`: `−log(e^−z + e^−s + e^−(z + s))`. The logarithm of 1 minus
# the product cannot be had from the product's logarithm where that rounds to 0; the logit says both
# at any magnitude.
PRODUCT_OF_LOGITS = Combine(_product_of_logits, _slopes_of_logits)


def top_down(
    own: Float[Tensor, "*batch nodes"], plan: "TopDownPlan", combine: Combine
) -> Float[Tensor, "*batch nodes"]:
    """The pass of this module's first lines, differentiable.

    The gradient of a minimum goes whole to one parent that attains it: on a tie to the first in
    node order. On CUDA the gradients that meet at a node are added in any order, unless
    `torch.use_deterministic_algorithms(True)` is set.

    Args:
        own: `[..., nodes]`.
        plan: the edges; nodes that are not in it keep their own value.
        combine: `SUM`, `PRODUCT` or `PRODUCT_OF_LOGITS`.

    Returns:
        `[..., nodes]`.

    Raises:
        ValueError: the last dimension is not the number of nodes.

    """
    if own.ndim == 0 or own.shape[-1] != plan.nodes:
        raise ValueError(
            f"last dimension of shape {tuple(own.shape)} must be the {plan.nodes} nodes of the hierarchy"
        )
    return _TopDown.apply(own, plan.levels_for(own.device), combine)


class TopDownPlan(KeptWithHierarchy):
    """A hierarchy's nodes below the roots by longest distance from a root, with their parents.

    Args:
        hierarchy: the nodes and edges.
        only: indices of the nodes to combine with their parents; None means all. The others keep
            their own value.

    """

    def __init__(self, hierarchy: Hierarchy, only: Collection[int] | None = None):
        chosen = set(range(len(hierarchy)) if only is None else only)
        by_level: dict[int, list[int]] = {}
        for node, level in enumerate(longest_distance_from_a_root(hierarchy)):
            if level > 0 and node in chosen:
                by_level.setdefault(level, []).append(node)
        self.nodes = len(hierarchy)
        self._levels = [_level(nodes, hierarchy.parents) for _, nodes in sorted(by_level.items())]
        self._levels_on = {torch.device("cpu"): self._levels}

    def levels_for(self, device: torch.device) -> "list[_Level]":
        """The levels, nearest to the roots first, on a device."""
        if device not in self._levels_on:
            self._levels_on[device] = [level.to(device) for level in self._levels]
        return self._levels_on[device]


@dataclass(frozen=True)
class _Level:
    """Nodes whose parents are final: first those of one parent, then those of several.

    `more` lists the parents after the first: in each round, which of the nodes of several parents
    have one more, and that parent.
    """

    single: Int[Tensor, " single"]
    parent: Int[Tensor, " single"]
    several: Int[Tensor, " several"]
    first: Int[Tensor, " several"]
    more: tuple[tuple[Tensor, Tensor], ...]

    def to(self, device: torch.device) -> "_Level":
        plain = (t.to(device) for t in (self.single, self.parent, self.several, self.first))
        return _Level(*plain, tuple((at.to(device), p.to(device)) for at, p in self.more))


class _TopDown(torch.autograd.Function):
    """Level by level; of nodes of several parents it remembers which was least."""

    @staticmethod
    def forward(ctx, own: Tensor, levels: list[_Level], combine: Combine) -> Tensor:
        # Nodes first, so that each node's values are one contiguous row: [nodes, ...].
        own = own.movedim(-1, 0)
        out = own.clone(memory_format=torch.contiguous_format)
        winners = []
        for level in levels:
            if len(level.single):
                out[level.single] = combine.outcome(own[level.single], out[level.parent])
            if len(level.several):
                above, winner = _least(out, level)
                out[level.several] = combine.outcome(own[level.several], above)
                winners.append(winner)
        ctx.save_for_backward(own, out, *winners)
        ctx.levels, ctx.combine = levels, combine
        return out.movedim(0, -1)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        own, out, *winners = ctx.saved_tensors
        gradient = gradient.movedim(-1, 0).clone(memory_format=torch.contiguous_format)
        for level in reversed(ctx.levels):
            if len(level.single):
                above = out[level.parent]
                handed = _own_and_handed(ctx.combine, own, out, gradient, level.single, above)
                gradient.index_add_(0, level.parent, handed)
            if len(level.several):
                winner = winners.pop().long()
                above = out.gather(0, winner)
                handed = _own_and_handed(ctx.combine, own, out, gradient, level.several, above)
                gradient.scatter_add_(0, winner, handed)
        return gradient.movedim(0, -1), None, None


def _own_and_handed(
    combine: Combine, own: Tensor, out: Tensor, gradient: Tensor, nodes: Tensor, above: Tensor
) -> Tensor:
    """In place, the gradient by the nodes' own values; returned, that by their parents'."""
    arrived = gradient[nodes]
    by_own, by_above = combine.slopes(own[nodes], above, out[nodes])
    gradient[nodes] = arrived * by_own
    return arrived * by_above


def _least(out: Tensor, level: _Level) -> tuple[Tensor, Tensor]:
    """Least value among each node's parents, and whose it is."""
    least = out[level.first]
    shape = (-1,) + (1,) * (out.ndim - 1)
    winner = level.first.to(torch.int32).view(shape).expand_as(least).contiguous()
    for at, parent in level.more:
        current, candidate = least[at], out[parent]
        smaller = candidate < current
        least[at] = torch.where(smaller, candidate, current)
        winner[at] = torch.where(smaller, parent.to(torch.int32).view(shape), winner[at])
    return least, winner


def _level(nodes: Sequence[int], parents: Sequence[Sequence[int]]) -> _Level:
    single = [node for node in nodes if len(parents[node]) == 1]
    several = [node for node in nodes if len(parents[node]) > 1]
    more = []
    for rank in range(1, max((len(parents[node]) for node in several), default=1)):
        at = [i for i, node in enumerate(several) if len(parents[node]) > rank]
        more.append((_indices(at), _indices([parents[several[i]][rank] for i in at])))
    return _Level(
        single=_indices(single),
        parent=_indices([parents[node][0] for node in single]),
        several=_indices(several),
        first=_indices([parents[node][0] for node in several]),
        more=tuple(more),
    )


def _indices(values: Sequence[int]) -> Int[Tensor, " indices"]:
    return torch.tensor(values, dtype=torch.int64)


def longest_distance_from_a_root(hierarchy: Hierarchy) -> list[int]:
    """Of every node, in edges: 0 for roots, above all its parents' for any other."""
    longest = [0] * len(hierarchy)
    waiting = [len(parents) for parents in hierarchy.parents]
    ready = [node for node, count in enumerate(waiting) if count == 0]
    for node in ready:
        for child in hierarchy.children[node]:
            longest[child] = max(longest[child], longest[node] + 1)
            waiting[child] -= 1
            if waiting[child] == 0:
                ready.append(child)
    return longest
