"""Logits of products down the paths, and their gradient, compiled for the CPU by numba.

What `top_down(logits, TopDownPlan.of(hierarchy), PRODUCT_OF_LOGITS)` computes with PyTorch
operations, for float32 logits on the CPU, is `product_logits(logits, EdgePlan.of(hierarchy))`. Tiles
are those of `rarenodes.loss.kernels`; each is walked down once, and once up for the gradient, level
by level: all nodes of a level are independent, so that what is elementwise is one long loop.

numba notices changes of the functions that are compiled here in this file alone: after a change of
`compiled` or `lanes`, remove what is cached of this one.
"""

from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from rarenodes.loss.kernels import _LANES, EdgePlan, _spread, _threads_for
from rarenodes.loss.kernels.buffers import empty_like
from rarenodes.loss.kernels.compiled import (
    _compiled,
    _load_chunk,
    exp_of_negative,
    log_one_plus,
)
from rarenodes.loss.kernels.lanes import add, larger, load, splat, store, store_at, transpose, where

_ZERO, _ONE = np.float32(0), np.float32(1)
_levels_of_plan: WeakKeyDictionary = WeakKeyDictionary()


def product_logits(
    logits: Float[Tensor, "*batch nodes"], plan: EdgePlan
) -> Float[Tensor, "*batch nodes"]:
    """Logit of the product of `sigmoid(z_j)` and the least of the parents' products.

    Args:
        logits: `[..., nodes]`, float32, on the CPU, not empty.
        plan: the edges of the hierarchy.

    Returns:
        `[..., nodes]`, coherent. Its gradient has no gradient of its own.

    """
    return _ProductLogits.apply(logits, plan)


class _ProductLogits(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits, plan):
        rows = logits.detach().reshape(-1, logits.shape[-1]).contiguous()
        out = empty_like(rows)
        given, found, levels = rows.numpy(), out.numpy(), _levels(plan)
        _spread(
            _threads_for(given.size),
            _tiles_of(given),
            lambda first, last: _down(given, plan.edges, levels, _LANES, first, last, found),
        )
        ctx.save_for_backward(rows, out)
        ctx.plan = plan
        return out.view(logits.shape)

    @staticmethod
    def backward(ctx, upstream):
        if torch.is_grad_enabled():
            raise RuntimeError(
                "the compiled product has no second derivative (create_graph=True): "
                "pass float64 logits"
            )
        rows, out = ctx.saved_tensors
        arrived = upstream.reshape(rows.shape).contiguous()
        gradient = empty_like(rows)
        given, found, plan, levels = rows.numpy(), out.numpy(), ctx.plan, _levels(ctx.plan)
        _spread(
            _threads_for(given.size),
            _tiles_of(given),
            lambda first, last: _up(
                *(given, found, arrived.numpy(), plan.edges, levels),
                *(_LANES, first, last, gradient.numpy()),
            ),
        )
        return gradient.view(upstream.shape), None


def _tiles_of(rows: np.ndarray) -> int:
    return -(-len(rows) // len(_LANES))


def _levels(plan: EdgePlan) -> np.ndarray:
    """Bounds of the levels among positions, from the leaves' to the roots': `[levels + 1]`."""
    if plan not in _levels_of_plan:
        first_parent, parents = plan.edges[3]
        level = np.zeros(len(first_parent) - 1, dtype=np.int64)
        for k in range(len(level) - 1, -1, -1):
            above = parents[first_parent[k] : first_parent[k + 1]]
            level[k] = 1 + level[above].max() if len(above) else 0
        changes = np.flatnonzero(np.diff(level)) + 1
        _levels_of_plan[plan] = np.concatenate([[0], changes, [len(level)]])
    return _levels_of_plan[plan]


# --- Compiled: tiles `[nodes, lanes]` of rows in bottom-up order of nodes.


@_compiled
def _load_tile(rows, order, lanes, tile, sources, into):
    for lane in range(len(lanes)):
        sources[lane] = min(tile * len(lanes) + lane, rows.shape[0] - 1)
    _load_chunk(rows, order, sources, 0, into.shape[0], lanes, into)


@_compiled
def _store_tile(tile_values, order, lanes, tile, rows):
    nodes, straight = order
    there = min(len(lanes), rows.shape[0] - tile * len(lanes))
    for k in range(0, nodes.size, len(lanes)):
        if straight[k] >= len(lanes):
            transpose(tile_values, k, lanes)
            for lane in range(there):
                place = (tile * len(lanes) + lane) * rows.shape[1] + nodes[k]
                store_at(rows, place, load(tile_values, k + lane, lanes))
        else:
            for lane in range(there):
                row = rows[tile * len(lanes) + lane]
                for i in range(k, min(k + len(lanes), nodes.size)):
                    row[nodes[i]] = tile_values[i, lane]


@_compiled
def _gather_least(start, stop, up, out, lanes, above):
    """The least of each node's parents' values, for the positions of a level."""
    first_parent, parents = up
    for k in range(start, stop):
        least = load(out, parents[first_parent[k]], lanes)
        for edge in range(first_parent[k] + 1, first_parent[k + 1]):
            candidate = load(out, parents[edge], lanes)
            least = where(larger(least, candidate), candidate, least)
        store(above, k - start, least)


@_compiled
def _products(own, above, out):
    """`−log(e^−own + e^−above + e^−(own + above))`."""
    z, s, found = own.reshape(-1), above.reshape(-1), out.reshape(-1)
    for i in range(z.size):
        against = -s[i]
        softplus = max(against, _ZERO) + log_one_plus(exp_of_negative(-abs(against)))
        other = softplus - z[i]
        distance = abs(against - other)
        found[i] = -(max(against, other) + log_one_plus(exp_of_negative(-distance)))


@_compiled
def _slopes(own, above, out, arrived, handed):
    """`arrived` becomes the gradient by the own values, `handed` that by the parents'.

    Of the three terms of the logarithm's sum, as shares of it, `own`'s slope has all but that of
    `above` alone, and the other way round.
    """
    z, s, found = own.reshape(-1), above.reshape(-1), out.reshape(-1)
    gradient, on = arrived.reshape(-1), handed.reshape(-1)
    for i in range(z.size):
        by_own = _ONE - exp_of_negative(min(found[i] - s[i], _ZERO))
        by_above = _ONE - exp_of_negative(min(found[i] - z[i], _ZERO))
        on[i] = gradient[i] * by_above
        gradient[i] = gradient[i] * by_own


@_compiled
def _hand_up(start, stop, up, out, above, handed, lanes, gradient):
    """Each parent adds what the nodes hand it, of several the first that is least."""
    first_parent, parents = up
    zero = splat(_ZERO, lanes)
    for k in range(start, stop):
        left = load(handed, k - start, lanes)
        first, last = first_parent[k], first_parent[k + 1]
        if last - first == 1:
            parent = parents[first]
            store(gradient, parent, add(load(gradient, parent, lanes), left))
        else:
            least = load(above, k - start, lanes)
            for edge in range(first, last):
                parent = parents[edge]
                more = larger(load(out, parent, lanes), least)
                given = where(more, zero, left)
                store(gradient, parent, add(load(gradient, parent, lanes), given))
                left = where(more, left, zero)


@_compiled
def _down(rows, edges, levels, lanes, first, last, found):
    place, order, _, up = edges
    sources = np.empty(len(lanes), dtype=np.int64)
    own = np.empty((place.size, len(lanes)), dtype=np.float32)
    out = np.empty((place.size, len(lanes)), dtype=np.float32)
    above = np.empty((place.size, len(lanes)), dtype=np.float32)
    for tile in range(first, last):
        _load_tile(rows, order, lanes, tile, sources, own)
        roots = levels[levels.size - 2]
        out[roots:] = own[roots:]
        for level in range(levels.size - 3, -1, -1):
            start, stop = levels[level], levels[level + 1]
            _gather_least(start, stop, up, out, lanes, above)
            _products(own[start:stop], above[: stop - start], out[start:stop])
        _store_tile(out, order, lanes, tile, found)


@_compiled
def _up(rows, found, upstream, edges, levels, lanes, first, last, gradient):
    place, order, _, up = edges
    sources = np.empty(len(lanes), dtype=np.int64)
    own = np.empty((place.size, len(lanes)), dtype=np.float32)
    out = np.empty((place.size, len(lanes)), dtype=np.float32)
    above = np.empty((place.size, len(lanes)), dtype=np.float32)
    handed = np.empty((place.size, len(lanes)), dtype=np.float32)
    arrived = np.empty((place.size, len(lanes)), dtype=np.float32)
    for tile in range(first, last):
        _load_tile(rows, order, lanes, tile, sources, own)
        _load_tile(found, order, lanes, tile, sources, out)
        _load_tile(upstream, order, lanes, tile, sources, arrived)
        for level in range(levels.size - 2):
            start, stop = levels[level], levels[level + 1]
            _gather_least(start, stop, up, out, lanes, above)
            _slopes(
                *(own[start:stop], above[: stop - start], out[start:stop]),
                *(arrived[start:stop], handed[: stop - start]),
            )
            _hand_up(start, stop, up, out, above, handed, lanes, arrived)
        _store_tile(arrived, order, lanes, tile, gradient)
