"""The random streams of one training run, by name, so that variants share them."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int
from torch import Generator

from rarenodes.randomness import numpy_stream, torch_stream
from rarenodes.training.budget import Budget


@dataclass(frozen=True)
class Streams:
    """The named random streams of one training run.

    Variants share them: runs of two variants with one seed number start from the same weights and
    see the same batches and dropout, so that they differ by the variant alone.

    Attributes:
        root: the study's seed.
        dataset: name of the data set.
        variant: name of the variant, for messages.
        seed: number of the run.

    """

    root: int
    dataset: str
    variant: str
    seed: int

    def __str__(self) -> str:
        return f"{self.dataset} {self.variant} seed {self.seed}"

    def initial_weights(self, members: int) -> list[Generator]:
        """One generator a network, on the CPU, so that a GPU starts from the same weights."""
        return [torch_stream(*self._name("weights"), m) for m in range(members)]

    def encoder(self) -> Generator:
        """The initial weights of an encoder under the members."""
        return torch_stream(*self._name("encoder"))

    def dropout(self, members: int, epoch: int, device: str) -> list[Generator]:
        """One generator a member, new in every epoch, so that a resumed run draws the same."""
        return [
            torch_stream(*self._name("dropout"), m, epoch, device=device) for m in range(members)
        ]

    def prediction(self, members: int, part: str, device: str) -> list[Generator]:
        """One generator a member, for predicting a part of the split with dropout."""
        name = self._name("prediction")
        return [torch_stream(*name, m, part, device=device) for m in range(members)]

    def resampling(self) -> np.random.Generator:
        """What is drawn when training examples are resampled."""
        return numpy_stream(*self._name("resampling"))

    def forest(self) -> int:
        """The seed of a forest, for a library that takes one."""
        return int(numpy_stream(*self._name("forest")).integers(2**31))

    def order(self, rows: Int[np.ndarray, " rows"], epoch: int) -> Int[np.ndarray, " rows"]:
        """The examples in this epoch's random order, the same for all members."""
        return numpy_stream(*self._name("order"), epoch).permutation(rows)

    def _name(self, purpose: str) -> tuple[int | str, ...]:
        return (self.root, "train", self.dataset, self.seed, purpose)


def prediction_dropout(
    budget: Budget, streams: Streams, part: str, device: str
) -> list[Generator] | None:
    """Dropout for predicting a part of the split: none, unless it is what makes the ensemble."""
    if budget.ensemble == "networks":
        return None
    return streams.prediction(budget.members, part, device)
