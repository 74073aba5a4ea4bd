"""The weighted, coherent BCE and its gradient in one pass, compiled for the CPU by numba.

The seam: what `RareNodeLoss` computes with PyTorch operations is, for float32 logits on the CPU,

    fused_rare_node_loss(logits, targets, EdgePlan.of(hierarchy), positive_weight, ...)

wherever `kernel_available(logits)`.

**Rows**, the pairs of an example and a member, are worked on one after another, and a row's scratch
stays in the caches: up the edges, from logits to maxima; along the nodes, from maxima to losses and
slopes; down the edges, from slopes to the gradient. What depends on the example alone, its signed
weights and the edges whose ends agree, is made once for all members.

**Gradient.** The loss is a scalar, so its gradient is computed with it, and `backward` only scales
it. Every node notes which node, itself or a child, brought its maximum, and hands its slope down
to that one.

**Memory** beside the logits: the gradient, and `[batch, nodes]` focal weights where there is a
focal term. **Determinism**: the order of all sums depends on shapes and edges only, so the bits are
the same with any number of threads.

**Threads** are Python's, as many as `torch.get_num_threads()`: the compiled code releases the
interpreter lock. numba's own would be a second pool of a second OpenMP runtime beside PyTorch's,
which refuses to run after a fork. **Compiling** takes seconds at the first call on a machine, which
is logged; the result is kept in `__pycache__`, or where `NUMBA_CACHE_DIR` says.

**What each part buys**, as ratios to plain BCE in interleaved runs on one thread, 10 members, 64
examples, FUN / GO shape. Loss and gradient: tensor code 8.2 / 10.8; these rows, with the check of
targets, 1.6 / 1.4; tiles of 16 rows in vector registers, written in LLVM by hand, 1.0 / 0.9, for
twice the code. A whole training step (hidden 500 / 1000) is 1.19 / 1.14 with tensor code, 1.03 / 0.99
with rows; with a single member, whose network is small, 1.45 / 1.25 and 1.14 / 1.11. Of a row's time polynomials for exp and log, which LLVM turns
into vector code, take a fifth; a choice without a branch makes the walk up four times faster;
listing an example's positive nodes once for all members costs a quarter of listing the edges whose
ends agree. Tensor code for the focal term alone takes more than three times plain BCE.
"""

import logging

import numpy as np
import torch
from jaxtyping import Bool, Float
from numba.core import event
from torch import Tensor

from rarenodes.loss.kernels import compiled
from rarenodes.loss.kernels.plan import EdgePlan
from rarenodes.loss.kernels.threads import spread, threads_for

__all__ = [
    "COMPILED_KINDS",
    "EdgePlan",
    "coherent_scores",
    "first_fault",
    "focal_weights",
    "fused_rare_node_loss",
    "kernel_available",
]

# Logged before the first compilation; no part of a result.
COMPILING = "compiling the loss for this machine: takes some seconds, once"

log = logging.getLogger(__name__)

COMPILED_KINDS = compiled.KINDS

_NO_FLOATS = np.empty(0, dtype=np.float32)
_NO_BYTES = np.empty(0, dtype=np.uint8)
_NO_FACTOR = np.empty((1, 0), dtype=np.float32)
_NO_GRADIENT = np.empty((0, 0, 0), dtype=np.float32)
_NO_EDGES = (np.empty(0, dtype=np.uint32),) * 2


class _Announcement(event.Listener):
    """Says once that our code is compiled; numba tells of no event where it loads its cache."""

    said = False

    def on_start(self, event):
        ours = event.data["dispatcher"].py_func.__module__ == compiled.__name__
        if ours and not self.said:
            self.said = True
            # Python shows a warning by itself; an info only where somebody has set up a log of them.
            logged = log.hasHandlers() and log.isEnabledFor(logging.INFO)
            log.log(logging.INFO if logged else logging.WARNING, COMPILING)

    def on_end(self, event):
        pass


event.register("numba:compile", _Announcement())


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
    factor: Float[Tensor, "batch nodes"] | None = None,
    evaluated: Bool[Tensor, " nodes"] | None = None,
    *,
    coherent: bool = True,
) -> Float[Tensor, ""]:
    """What `RareNodeLoss` returns, in one pass.

    Args:
        logits: `[members, batch, nodes]`, float32, on the CPU.
        targets: `[batch, nodes]`, 0/1 or bool, ancestor-closed; checked by `RareNodeLoss`.
        plan: the edges of the hierarchy.
        positive_weight: `[nodes]`, weights where the target is 1; None means 1.
        negative_weight: `[nodes]`, weights where the target is 0; None means 1.
        factor: `[batch, nodes]`, what multiplies these, such as focal weights; None means 1.
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
        factor,
        plan.nodes,
        positive_weight=positive_weight,
        negative_weight=negative_weight,
        evaluated=evaluated,
    )
    batch = (
        _truths_of(targets),
        (plan.up, plan.down) if coherent else (_NO_EDGES, _NO_EDGES),
        compiled.class_weights(
            logits.shape[2],
            logits.shape[1],
            _NO_FLOATS if positive_weight is None else _floats_of(positive_weight),
            _NO_FLOATS if negative_weight is None else _floats_of(negative_weight),
            _NO_BYTES if evaluated is None else _truths_of(evaluated),
        ),
        _NO_FACTOR if factor is None else _floats_of(factor),
    )
    # Asked here, because inside a Function gradients are always off.
    want_gradient = torch.is_grad_enabled() and logits.requires_grad
    return _FusedLoss.apply(logits, batch, want_gradient)


def focal_weights(
    logits: Float[Tensor, "members batch nodes"], kind: str, power: float, floor: float
) -> Float[Tensor, "batch nodes"]:
    """What `Focal(kind, power, floor).weight(logits)` returns.

    Args:
        logits: `[members, batch, nodes]`, float32, on the CPU.
        kind: one of `COMPILED_KINDS`.
        power: above 0.
        floor: at least 0.

    """
    given = logits.detach().contiguous().numpy()
    out = torch.empty(logits.shape[1:])
    taken, focal = out.numpy(), (1 + COMPILED_KINDS.index(kind), float(power), float(floor))
    spread(
        threads_for(given.size),
        logits.shape[1],
        lambda first, last: compiled.focal_weights(given, focal, first, last, taken),
    )
    return out


def coherent_scores(
    scores: Float[Tensor, "*batch nodes"], plan: EdgePlan
) -> Float[Tensor, "*batch nodes"]:
    """Maximum of every node's score and its descendants', for prediction: without a gradient.

    Args:
        scores: `[..., nodes]`, float32, on the CPU.
        plan: the edges of the hierarchy.

    """
    rows = scores.detach().reshape(-1, plan.nodes).contiguous()
    out = torch.empty_like(rows)
    given, taken, up = rows.numpy(), out.numpy(), plan.up
    spread(
        threads_for(given.size),
        len(given),
        lambda first, last: compiled.maximum_over_descendants(given, up, first, last, taken),
    )
    return out.view(scores.shape)


def first_fault(targets: Tensor, plan: EdgePlan) -> int:
    """First example of `[batch, nodes]` targets on the CPU that is not closed 0/1; −1 if none."""
    return compiled.first_fault(_numbers_of(targets), *plan.up)


class _FusedLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits, batch, want_gradient):
        logits = logits.detach().contiguous()
        gradient = torch.empty_like(logits) if want_gradient else None
        ctx.save_for_backward(gradient)
        into = _NO_GRADIENT if gradient is None else gradient.numpy()
        return torch.tensor(_loss(logits.numpy(), *batch, into))

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


def _loss(logits, targets, edges, weights, factor, gradient) -> np.float32:
    losses = np.empty(logits.shape[:2])

    def work(first: int, last: int) -> None:
        compiled.rows(logits, targets, edges, weights, factor, first, last, losses, gradient)

    spread(threads_for(logits.size), logits.shape[1], work)
    return np.float32(losses.sum())


def _check_shapes(logits, targets, factor, nodes, **per_node) -> None:
    """The compiled code reads as far as the shapes of the logits say."""
    if logits.ndim != 3 or logits.shape[2] != nodes:
        raise ValueError(
            f"logits of shape {tuple(logits.shape)} must be [members, batch, nodes], "
            f"the last dimension must be the {nodes} nodes of the hierarchy"
        )
    for name, value in {"targets": targets, "factor": factor}.items():
        if value is not None and value.shape != logits.shape[1:]:
            expected, found = tuple(logits.shape[1:]), tuple(value.shape)
            raise ValueError(f"{name} must have shape {expected}, found {found}")
    for name, value in per_node.items():
        if value is not None and value.shape != (nodes,):
            raise ValueError(f"{name} must have shape ({nodes},), found {tuple(value.shape)}")


def _floats_of(weight: Tensor) -> np.ndarray:
    return np.ascontiguousarray(weight.detach().numpy(), dtype=np.float32)


def _truths_of(values: Tensor) -> np.ndarray:
    """0/1 values of any type as bytes, the one type that the loss is compiled for."""
    return np.ascontiguousarray(values.detach().bool().numpy()).view(np.uint8)


def _numbers_of(values: Tensor) -> np.ndarray:
    """Values of any type as bytes, float32 or float64, in which 0 and 1 stay what they alone are."""
    if values.dtype in (torch.bool, torch.uint8):
        return np.ascontiguousarray(values.numpy()).view(np.uint8)
    narrow = values.dtype in (torch.float16, torch.bfloat16, torch.float32)
    values = values.detach().to(torch.float32 if narrow else torch.float64)
    return np.ascontiguousarray(values.numpy())
