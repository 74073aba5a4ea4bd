"""What the trained part of a model can do: from features to coherent probabilities, and as files."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

# Examples that a network sees at once: as in training runs, so that the bits are theirs.
BATCH = 512


class Predictor(ABC):
    """A trained run of a variant.

    Attributes:
        family: what it is, in a model's description.
        files: names of those that `save` writes, under its folder.

    """

    family: ClassVar[str]
    files: ClassVar[tuple[str, ...]]

    @property
    @abstractmethod
    def width(self) -> int:
        """Number of features."""

    @property
    @abstractmethod
    def nodes(self) -> int:
        """Number of nodes."""

    @property
    def stored_examples(self) -> int:
        """Number of training examples that it keeps, features and labels, to look them up."""
        return 0

    @abstractmethod
    def predictions(
        self, features: Float[np.ndarray, "examples features"]
    ) -> Iterator[Float[np.ndarray, "batch nodes"]]:
        """Coherent probabilities, batch by batch."""

    def description(self) -> Mapping[str, Any]:
        """What is to be known beside the files."""
        return {}

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write its files."""

    def to(self, device: str) -> None:  # noqa: B027
        """Predict there; what predicts with NumPy stays on the CPU, as it does here."""


def batches(features: np.ndarray) -> Iterator[np.ndarray]:
    """The features of so many examples as networks are given."""
    for start in range(0, len(features), BATCH):
        yield features[start : start + BATCH]
