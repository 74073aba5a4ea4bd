"""The weighted, focal, coherent BCE and its gradient in one pass, compiled for the CPU by numba.

The seam: what `RareNodeLoss` computes with PyTorch operations, for float32 logits on the CPU, is

    fused_rare_node_loss(logits, targets, EdgePlan.of(hierarchy), positive_weight, ...)

wherever `kernel_available(logits)`.

**Layout.** Rows, the pairs of a member and an example, are worked on 16 at a time as a *tile*
`[nodes, 16]`: a step along an edge is then one vector operation over the rows, on whole cache
lines. Within a tile nodes are ordered by level, the deepest first. A tile is walked up once, from
logits to maxima, and down once, from maxima to the gradient.

**Gradient.** The loss is a scalar, so its gradient is computed with it, and `backward` only scales
it. Every edge notes in which rows its parent's maximum came along it, a bit for each, and the
gradient is handed down these edges.

**Memory** beside the logits: the gradient, and a tile a thread, two with a focal term. Large
gradients use memory again (`buffers`). **Determinism**: the order of all sums depends on shapes
only, so the bits are the same with any number of threads.

**Threads** are Python's, as many as `torch.get_num_threads()`: the compiled code releases the
interpreter lock. numba's own would be a second pool of a second OpenMP runtime beside PyTorch's,
which refuses to run after a fork. **Compiling** takes seconds at the first call on a machine; the
result is kept in `__pycache__`, or where `NUMBA_CACHE_DIR` says.
"""

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rarenodes.loss.kernels import compiled
from rarenodes.loss.kernels.buffers import empty_like
from rarenodes.loss.kernels.plan import EdgePlan

__all__ = ["EdgePlan", "coherent_scores", "fused_rare_node_loss", "kernel_available"]

# Rows side by side in a tile: a few vector registers on any machine. Small batches (the paper's has
# 4 examples) would leave most lanes empty.
_LANES, _FEW_LANES = (0,) * 16, (0,) * 4
# Below this many logits, handing work to a second thread costs more than it saves.
PARALLEL_FROM = 65_536

_KIND_CODES = {kind: code for code, kind in enumerate(compiled.KINDS, start=1)}
_NO_FLOATS = np.empty(0, dtype=np.float32)
_NO_BYTES = np.empty(0, dtype=np.uint8)
_NO_GRADIENT = np.empty((0, 0, 0), dtype=np.float32)


def kernel_available(logits: Tensor) -> bool:
    """Whether the kernel takes these logits: not empty, float32, on the CPU.

    Code that `torch.compile` traces keeps to PyTorch operations, which it can see through.
    """
    return (
        logits.dtype == torch.float32
        and logits.device.type == "cpu"
        and logits.numel() > 0
        and not torch.compiler.is_compiling()
    )


def fused_rare_node_loss(
    logits: Float[Tensor, "members batch nodes"],
    targets: Tensor,
    plan: EdgePlan,
    positive_weight: Tensor | None = None,
    negative_weight: Tensor | None = None,
    focal: tuple[str, float, float] | None = None,
    evaluated: Bool[Tensor, " nodes"] | None = None,
    *,
    coherent: bool = True,
) -> Float[Tensor, ""]:
    """What `RareNodeLoss` returns, in one pass.

    Args:
        logits: `[members, batch, nodes]`, float32, on the CPU.
        targets: `[batch, nodes]`, ancestor-closed 0/1 or bool; anything but 0 counts as 1.
        plan: the edges of the hierarchy.
        positive_weight: `[nodes]`, weights where the target is 1; None means 1.
        negative_weight: `[nodes]`, weights where the target is 0; None means 1.
        focal: name of the uncertainty, power, floor; None for no focal weight.
        evaluated: `[nodes]`, nodes that count; None means all.
        coherent: whether the maximum over descendants is part of the loss.

    Returns:
        Scalar. Its gradient goes to the logits only, and has no gradient of its own.

    Raises:
        ValueError: shapes that do not fit each other or the hierarchy.

    """
    _check_shapes(
        logits,
        targets,
        plan,
        positive_weight=positive_weight,
        negative_weight=negative_weight,
        evaluated=evaluated,
    )
    batch = (
        _truths_of(targets),
        plan.edges if coherent else plan.no_edges,
        _NO_FLOATS if positive_weight is None else _floats_of(positive_weight),
        _NO_FLOATS if negative_weight is None else _floats_of(negative_weight),
        _NO_BYTES if evaluated is None else _truths_of(evaluated),
        (0, 1.0, 0.0) if focal is None else (_KIND_CODES[focal[0]], *focal[1:]),
    )
    # Asked here, because inside a Function gradients are always off.
    want_gradient = torch.is_grad_enabled() and logits.requires_grad
    return _FusedLoss.apply(logits, batch, want_gradient)


def coherent_scores(
    scores: Float[Tensor, "*batch nodes"], plan: EdgePlan
) -> Float[Tensor, "*batch nodes"]:
    """Maximum of every node's score and its descendants', for prediction: without a gradient.

    Args:
        scores: `[..., nodes]`, float32, on the CPU.
        plan: the edges of the hierarchy.

    """
    rows = scores.detach().reshape(-1, scores.shape[-1]).contiguous()
    out = torch.empty_like(rows)
    given, taken = rows.numpy(), out.numpy()
    _spread(
        _threads_for(given.size),
        len(given),
        lambda first, last: compiled.maximum_over_descendants(
            given, plan.edges, _LANES, first, last, taken
        ),
    )
    return out.view(scores.shape)


class _FusedLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits, batch, want_gradient):
        logits = logits.detach().contiguous()
        gradient = empty_like(logits) if want_gradient else None
        ctx.save_for_backward(gradient)
        into = _NO_GRADIENT if gradient is None else gradient.numpy()
        loss = _loss(logits.numpy(), *batch, into)
        return torch.from_numpy(np.array(loss, dtype=np.float32))

    @staticmethod
    def backward(ctx, upstream):
        # The stored gradient is a constant to autograd: a second derivative would silently be 0.
        if torch.is_grad_enabled():
            raise RuntimeError(
                "the compiled loss has no second derivative (create_graph=True): "
                "pass float64 logits, or reduce RareNodeLoss.elements(logits, targets) yourself"
            )
        (gradient,) = ctx.saved_tensors
        # Almost always 1; a product would then only be one more tensor of the logits' size.
        scaled = gradient if upstream.item() == 1 else gradient * upstream
        return scaled, None, None


def _loss(logits, targets, edges, positive, negative, evaluated, focal, gradient) -> float:
    members, batch = logits.shape[:2]
    lanes = _LANES if members * batch > 8 else _FEW_LANES
    threads = _threads_for(logits.size)
    if threads == 1:
        return compiled.whole_loss(
            logits, targets, edges, positive, negative, evaluated, focal, lanes, gradient
        )
    width, tiles = compiled.layout(members, batch, lanes)
    weights = compiled.class_weights(edges[0], batch, positive, negative, evaluated)
    losses = np.empty(tiles)

    def work(first: int, last: int) -> None:
        compiled.tiles(
            logits, targets, edges, weights, focal, lanes, width, first, last, losses, gradient
        )

    _spread(threads, tiles, work)
    return compiled.total(losses)


def _check_shapes(logits, targets, plan, **per_node) -> None:
    """The compiled code reads as far as the shapes of the logits say."""
    nodes = len(plan.edges[0])
    if logits.ndim != 3 or logits.shape[2] != nodes:
        raise ValueError(
            f"logits of shape {tuple(logits.shape)} must be [members, batch, nodes], "
            f"the last dimension must be the {nodes} nodes of the hierarchy"
        )
    if targets.shape != logits.shape[1:]:
        raise ValueError(
            f"targets must have shape {tuple(logits.shape[1:])}, found {tuple(targets.shape)}"
        )
    for name, value in per_node.items():
        if value is not None and value.shape != (nodes,):
            raise ValueError(f"{name} must have shape ({nodes},), found {tuple(value.shape)}")


def _floats_of(weight: Tensor) -> np.ndarray:
    return np.ascontiguousarray(weight.detach().numpy(), dtype=np.float32)


def _truths_of(values: Tensor) -> np.ndarray:
    """0/1 values of any type as float32 or bytes, without a copy where they are either already."""
    if values.dtype == torch.float32 and values.is_contiguous():
        return values.numpy()
    given = values.numpy()
    return np.ascontiguousarray(given if given.itemsize == 1 else given != 0).view(np.uint8)


def _threads_for(elements: int) -> int:
    return torch.get_num_threads() if elements >= PARALLEL_FROM else 1


_pool: ThreadPoolExecutor | None = None


def _forget_pool() -> None:
    global _pool
    _pool = None


# A forked child inherits the pool but none of its threads.
os.register_at_fork(after_in_child=_forget_pool)


def _spread(threads: int, count: int, work: Callable[[int, int], None]) -> None:
    """Call `work(first, last)` on as many parts of `range(count)` as there are threads."""
    global _pool
    threads = min(threads, count)
    if _pool is None and threads > 1:
        _pool = ThreadPoolExecutor(os.cpu_count())
    bounds = [count * i // threads for i in range(threads + 1)]
    mine, *parts = itertools.pairwise(bounds)
    others = [_pool.submit(work, *part) for part in parts]
    work(*mine)
    for other in others:
        other.result()
