"""A last layer that conditional training touches only where an example's nodes are active.

A step computes logits, the conditional loss, its gradient and Adam's update for the rows (nodes) that
are active in its batch, in O(pairs · width) time, `pairs` being the batch's pairs of an example and
an active node; no table of examples × nodes is made. What is held is the weights and Adam's two
moments. The loss and its gradient are those of `rarenodes.loss.conditional.conditional_bce`, summed
over nodes and members and averaged over the batch, to float32 rounding. The bits are the same with
any number of threads: a node's pairs are added in the order of the batch.

**Adam where rows rest.** A row rests in a step in which no example of the batch has it active. Weight
decay is decoupled, as in `torch.optim.AdamW`: a step multiplies a weight by `1 − rate · decay`.

- `still`: a resting row does not move. Its decay and the fading of its moments are caught up when it
  is active again, exactly, as powers: `w (1 − rate · decay)^k`, `β₁^k m`, `β₂^k v` after `k` steps.
  What dense AdamW has besides is the momentum that still moves a row after its gradient is gone; with
  `β₁ = 0`, or where no row rests, the two are the same.
- `moving`: those steps are made, one by one, before the row is used again: dense AdamW, to float32
  rounding. A row's movement falls by `β₁ / √β₂` a step, so steps that would move it by less than
  `NEGLIGIBLE` of the first are left out; 175 of a row's resting steps are made at most, which costs up
  to as many times an update.

Compiled rows take a sixth to a tenth of what the same takes with PyTorch's gathers, or with a dense
product of the batch and its distinct active nodes: 5, 19 and 64 ms a step at 5,000, 50,000 and
1,000,000 nodes (4,200, 10,900 and 15,000 of them active) against 57, 122 and 666 ms; one thread, one
member, 256 examples of 64 active nodes, width 256.

Source of both: *lazy* and *dense* updates of rows, as in `torch.optim.SparseAdam`, whose moments do
not fade while a row rests; decay: Loshchilov and Hutter, ICLR 2019.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Generator, Tensor

from rarenodes.loss.active_nodes import ActiveNodes
from rarenodes.loss.kernels import rows as kernel
from rarenodes.loss.kernels.threads import spread, threads_for
from rarenodes.training.huge_pages import in_huge_pages

NEGLIGIBLE = 1e-8
_NONE = np.empty(0, dtype=np.float32)
_NO_SLOPES = np.empty((0, 0), dtype=np.float32)
_NO_BACK = np.empty((0, 0, 0), dtype=np.float32)


@dataclass(frozen=True)
class RowAdam:
    """How the rows of a layer are updated.

    Attributes:
        learning_rate: above 0; the same in all steps.
        weight_decay: at least 0, decoupled; of weights and biases.
        at_rest: `still` or `moving`, see the module.
        betas: how much of the first and the second moment a step keeps, in [0, 1); for `moving` rows
            β₁ is below √β₂.
        epsilon: above 0.

    Raises:
        ValueError: a value outside its range.

    """

    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    at_rest: Literal["still", "moving"] = "still"
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8

    def __post_init__(self):
        ranges = {
            "learning_rate above 0": self.learning_rate > 0,
            "weight_decay at least 0": self.weight_decay >= 0,
            "learning_rate · weight_decay below 1": self.learning_rate * self.weight_decay < 1,
            "at_rest still or moving": self.at_rest in ("still", "moving"),
            "betas in [0, 1)": all(0 <= beta < 1 for beta in self.betas),
            "epsilon above 0": self.epsilon > 0,
            "β₁ below √β₂ for moving rows": self.at_rest == "still"
            or self.betas[0] < math.sqrt(self.betas[1]),
        }
        for expected, holds in ranges.items():
            if not holds:
                raise ValueError(f"update of rows: expected {expected}, found {self}")

    @property
    def kept(self) -> float:
        """What a step of decay leaves of a weight."""
        return 1 - self.learning_rate * self.weight_decay

    @property
    def reach(self) -> int:
        """Steps for which a row that rests still moves."""
        if self.at_rest == "still" or self.betas[0] == 0:
            return 0
        fall = self.betas[0] / math.sqrt(self.betas[1])
        return math.ceil(math.log(NEGLIGIBLE) / math.log(fall))


class SparseLayer:
    """The last layer of `M` member networks, with Adam's state, on the CPU.

    Args:
        weight: `[members, nodes, width + 1]`, float32; the last column is the bias. Copied.
        adam: how rows are updated.

    Attributes:
        weight: as given, trained. Rows that rest are only up to date after `settle`.
        steps: how many steps it has made.

    Raises:
        ValueError: another number of dimensions, type or device of the weight.

    """

    def __init__(self, weight: Float[Tensor, "members nodes columns"], adam: RowAdam):
        if weight.dtype != torch.float32 or weight.device.type != "cpu" or weight.shape[2] < 2:
            raise ValueError(
                "weight must be float32 [members, nodes, width + 1] on the CPU, width at least 1, "
                f"found {weight.dtype} {tuple(weight.shape)} on {weight.device}"
            )
        self.weight = in_huge_pages(weight.detach())
        self.adam = adam
        self.steps = 0
        nothing = torch.zeros(()).expand_as(self.weight)
        self._means, self._squares = in_huge_pages(nothing), in_huge_pages(nothing)
        self._latest = np.zeros(weight.shape[1], dtype=np.int64)

    @classmethod
    def drawn(
        cls, width: int, nodes: int, streams: Sequence[Generator], adam: RowAdam
    ) -> "SparseLayer":
        """A layer as `torch.nn.Linear` starts: uniform in ± 1/√width.

        Args:
            width: units of the layer below.
            nodes: how many nodes there are.
            streams: one generator a member.
            adam: how rows are updated.

        """
        bound = width**-0.5
        weight = torch.empty(len(streams), nodes, width + 1)
        for member, stream in zip(weight, streams, strict=True):
            member.uniform_(-bound, bound, generator=stream)
        return cls(weight, adam)

    @property
    def width(self) -> int:
        """Units of the layer below."""
        return self.weight.shape[2] - 1

    def loss(self, hidden: Float[Tensor, "members batch width"], active: ActiveNodes) -> float:
        """Conditional loss of a batch, summed over nodes and members, averaged over examples.

        Args:
            hidden: `[members, batch, width]`, float32: what the layer below gives.
            active: the batch's active nodes.

        Raises:
            ValueError: shapes or a type that do not fit.

        """
        self.settle()
        taken = self._taken(hidden, active)
        return self._pairs(taken, active, _NONE, _NONE, _NO_SLOPES, _NO_BACK)

    def logits(
        self,
        hidden: Float[Tensor, "members batch width"],
        active: ActiveNodes,
        present: Float[Tensor, "members nodes columns"] | None = None,
    ) -> Float[Tensor, "members pairs"]:
        """Logits of a batch's active nodes, of rows as they are for the next step.

        Args:
            hidden: `[members, batch, width]`, float32: what the layer below gives.
            active: the batch's active nodes.
            present: from `present`, so that the layer stays as it is; without it, the rows are
                brought to the present.

        Raises:
            ValueError: shapes or a type that do not fit.

        """
        taken = self._taken(hidden, active)
        if present is None and self._lags:
            self._catch_up(_by_node(active)[0], self.steps + 1)
        out = np.empty((len(taken), len(active.nodes)), dtype=np.float32)
        weight = (self.weight if present is None else present).numpy()

        def work(first: int, last: int) -> None:
            kernel.logits(taken, weight, active.starts, active.nodes, first, last, out)

        spread(self._threads(out), len(active), work)
        return torch.from_numpy(out)

    def step(
        self,
        hidden: Float[Tensor, "members batch width"],
        active: ActiveNodes,
        shift: Float[Tensor, " nodes"] | None = None,
        factors: Float[Tensor, " pairs"] | None = None,
    ) -> tuple[float, Float[Tensor, "members batch width"]]:
        """Take a step on a batch.

        The caller goes on with `hidden.backward(gradient)`, if anything below is trained.

        Args:
            hidden: `[members, batch, width]`, float32: what the layer below gives.
            active: the batch's active nodes.
            shift: `[nodes]`, float32, added to the logits in the loss; None means 0.
            factors: `[pairs]`, float32, what the loss of each active node is multiplied by; None
                means 1.

        Returns:
            The loss before the step, as `loss` has it, and its gradient by `hidden`.

        Raises:
            ValueError: shapes or a type that do not fit.

        """
        taken = self._taken(hidden, active)
        shift = self._terms("shift", shift, self.weight.shape[1])
        factors = self._terms("factors", factors, len(active.nodes))
        rows, order, bounds = _by_node(active)
        self.steps += 1
        if self._lags:
            self._catch_up(rows, self.steps)
        slopes = np.empty((len(taken), len(active.nodes)), dtype=np.float32)
        back = np.zeros_like(taken)
        loss = self._pairs(taken, active, shift, factors, slopes, back)
        scale = np.float32(1 / len(active))
        arrays = (taken, slopes, scale, order, active.examples(), bounds, *self._state(), rows)

        def work(first: int, last: int) -> None:
            kernel.update(*arrays, self._latest, self.steps, self._numbers(), first, last)

        spread(self._threads(slopes), len(rows), work)
        return loss, torch.from_numpy(back).mul_(float(scale))

    def settle(self) -> None:
        """Bring all rows to the present, in O(members · nodes · width).

        Needed before `weight` is read where there is decay or rows move at rest.
        """
        self._catch_up(np.arange(len(self._latest), dtype=np.int32), self.steps + 1)

    def present(self) -> Float[Tensor, "members nodes columns"]:
        """The weight with all rows at the present, while the layer stays as it is.

        Its own weight, not a copy, where rows that rest do not change.
        """
        if not self._lags:
            return self.weight
        if self.adam.reach == 0:
            left = self.adam.kept ** (self.steps - self._latest)
            return self.weight * torch.from_numpy(left.astype(np.float32)).unsqueeze(1)
        later = SparseLayer(self.weight, self.adam)
        later.take(self.state())
        later.settle()
        return later.weight

    def state(self) -> dict[str, Tensor]:
        """All that later steps depend on, by name, on the CPU: the layer's own memory, not copies."""
        return {
            "weight": self.weight,
            "means": self._means,
            "squares": self._squares,
            "latest": torch.from_numpy(self._latest),
            "steps": torch.tensor(self.steps),
        }

    def take(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a copy of what `state` gave of a layer of the same shape."""
        own = self.state()
        for name in own.keys() - {"steps"}:
            own[name].copy_(state[name])
        self.steps = int(state["steps"])

    @property
    def _lags(self) -> bool:
        """Whether the weights of rows that rest change."""
        return self.adam.weight_decay > 0 or self.adam.reach > 0

    def _catch_up(self, rows: np.ndarray, now: int) -> None:
        state, numbers = self._state(), self._numbers()

        def work(first: int, last: int) -> None:
            kernel.rest(*state, rows, self._latest, now, numbers, self.adam.reach, first, last)

        spread(torch.get_num_threads(), len(rows), work)

    def _pairs(
        self,
        hidden: np.ndarray,
        active: ActiveNodes,
        shift: np.ndarray,
        factors: np.ndarray,
        slopes: np.ndarray,
        back: np.ndarray,
    ) -> float:
        losses = np.empty(hidden.shape[:2])
        weight = self.weight.numpy()

        def work(first: int, last: int) -> None:
            kernel.pairs(
                hidden, weight, active.starts, active.nodes, active.positive, shift, factors,
                first, last, losses, slopes, back,
            )  # fmt: skip

        spread(self._threads(slopes), len(active), work)
        return float(losses.sum() / len(active))

    def _threads(self, slopes: np.ndarray) -> int:
        return threads_for(slopes.size * self.width)

    def _state(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.weight.numpy(), self._means.numpy(), self._squares.numpy()

    def _numbers(self) -> tuple[float, ...]:
        adam = self.adam
        return (adam.learning_rate, *adam.betas, adam.epsilon, adam.kept)

    def _terms(self, name: str, values: Tensor | None, count: int) -> np.ndarray:
        if values is None:
            return _NONE
        if tuple(values.shape) != (count,) or values.dtype != torch.float32:
            raise ValueError(
                f"{name} must be float32 of shape ({count},), found {values.dtype} "
                f"{tuple(values.shape)}"
            )
        return values.detach().contiguous().numpy()

    def _taken(self, hidden: Tensor, active: ActiveNodes) -> np.ndarray:
        expected = (len(self.weight), len(active), self.width)
        if tuple(hidden.shape) != expected or hidden.dtype != torch.float32 or not len(active):
            raise ValueError(
                f"hidden must be float32 of shape {expected}, members, the active nodes' examples (at "
                f"least one) and width, found {hidden.dtype} {tuple(hidden.shape)}"
            )
        if len(active.nodes) and active.nodes.max() >= self.weight.shape[1]:
            raise ValueError(
                f"the layer has {self.weight.shape[1]} nodes, but node number "
                f"{active.nodes.max()} is active: it is of another hierarchy"
            )
        return hidden.detach().contiguous().numpy()


def _by_node(active: ActiveNodes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Active nodes, each once and ascending; the pairs by node; where each node's begin and end."""
    order = np.argsort(active.nodes, kind="stable")
    nodes = active.nodes[order]
    first = np.flatnonzero(np.diff(nodes, prepend=-1))
    return nodes[first], order, np.append(first, len(nodes))
