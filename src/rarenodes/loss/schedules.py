"""Schedules of node weights: from what they start at to what they end at, while training."""

import math
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

KINDS = ("linear", "exponential", "alternating")
SPANS = ("training", "epoch")
CURVES = ("paper", "released")
CLASSES = ("weighted", "both")


@dataclass(frozen=True)
class Moment:
    """A step of a training, counted from 0.

    Attributes:
        epoch: in [0, `epochs`).
        epochs: epochs of the training.
        step: of the epoch, in [0, `steps`).
        steps: steps of every epoch.

    """

    epoch: int
    epochs: int
    step: int
    steps: int

    def __post_init__(self):
        if not 0 <= self.epoch < self.epochs or not 0 <= self.step < self.steps:
            raise ValueError(
                f"a moment counts epochs and steps from 0, found epoch {self.epoch} of {self.epochs} "
                f"and step {self.step} of {self.steps}"
            )

    def position(self, over: str = "training") -> float:
        """Where this step lies, from 0 at the first to 1 at the last; 0 where it is the only one.

        Args:
            over: the steps of the whole `training`, or of this `epoch`.

        """
        done, steps = self.step, self.steps
        if over == "training":
            done, steps = self.epoch * self.steps + self.step, self.epochs * self.steps
        return done / (steps - 1) if steps > 1 else 0.0


@dataclass(frozen=True)
class Schedule:
    """How node weights go from `w` to `end` while training: `end + share · (w − end)`.

    With `t` the position of a step, from 0 to 1:

    - `linear`: `share = 1 − t`;
    - `exponential`: `share = (1 − t)^power`, or `1 − t^power` by the curve of the released code;
    - `alternating`: 1 and 0 in turn, of epochs over the training, of steps over an epoch.

    Attributes:
        kind: `linear`, `exponential` or `alternating`.
        power: of `exponential`, above 0. Above 1 the weights fall early by the curve of the paper,
            late by that of the released code; below 1 it is the other way round.
        over: `training`, or `epoch`: the weights start anew in each, as in the released code.
        end: the weight of every node in the end, at least 0. The paper's is its `ω`, 0.25; 1 ends
            at the unweighted loss.
        curve: of `exponential`: `paper`, what is left of the way to the power, or `released`, 1
            less the power of what is done.
        classes: what changes: the class of a node that is `weighted`, or `both`: in the released
            code the other class goes from 1 to `end`, too, so that where weights have reached it
            all elements weigh alike, 0.25 each.

    Raises:
        ValueError: an unknown kind, span, curve or choice of classes, or a number out of its range.

    Source: arXiv 2602.08986, and its released code.

    """

    kind: str
    power: float = 1.0
    over: str = "training"
    end: float = 0.25
    curve: str = "paper"
    classes: str = "weighted"

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(
                f"unknown kind of schedule {self.kind!r}: known are {', '.join(KINDS)}"
            )
        if self.over not in SPANS:
            raise ValueError(
                f"a schedule runs over one of {', '.join(SPANS)}, found over={self.over!r}"
            )
        if self.curve not in CURVES:
            raise ValueError(
                f"the curve of a schedule is one of {', '.join(CURVES)}, found {self.curve!r}"
            )
        if self.classes not in CLASSES:
            raise ValueError(
                f"the classes of a schedule are one of {', '.join(CLASSES)}, found {self.classes!r}"
            )
        if not (math.isfinite(self.power) and self.power > 0):
            raise ValueError(f"the power of a schedule must be above 0, found {self.power}")
        if not (math.isfinite(self.end) and self.end >= 0):
            raise ValueError(f"the end of a schedule must be at least 0, found {self.end}")

    @classmethod
    def released(cls, kind: str, power: float = 3.0, end: float = 0.25) -> "Schedule":
        """A schedule as the released code has it: anew each epoch, its own curve, both classes."""
        return cls(kind, power, over="epoch", end=end, curve="released", classes="both")

    def share(self, moment: Moment) -> float:
        """How much of the way back to the first weights, in [0, 1]: 1 at the first step."""
        if self.kind == "alternating":
            turn = moment.epoch if self.over == "training" else moment.step
            return float(turn % 2 == 0)
        done = moment.position(self.over)
        if self.kind == "linear":
            return 1 - done
        return 1 - done**self.power if self.curve == "released" else (1 - done) ** self.power

    def weights(self, start: Float[Tensor, " nodes"], moment: Moment) -> Float[Tensor, " nodes"]:
        """Node weights at a moment, from those at the start: `[nodes]` → `[nodes]`."""
        share = self.share(moment)
        # In this form exact at both ends.
        return share * start + (1 - share) * self.end
