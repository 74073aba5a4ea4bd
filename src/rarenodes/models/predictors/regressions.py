"""Logistic regressions, as the trained part of a model."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float
from safetensors.numpy import load_file

from rarenodes.folders import reading, save_arrays, writing
from rarenodes.loss.hierarchy import Hierarchy
from rarenodes.models.predictors.predictor import Predictor, batches
from rarenodes.training.linear import Linear


@dataclass(frozen=True)
class Regressions(Predictor):
    """Logistic regressions.

    Attributes:
        linear: the regressions.

    """

    family: ClassVar[str] = "linear"
    files: ClassVar[tuple[str, ...]] = ("linear.safetensors",)

    linear: Linear

    @property
    def width(self) -> int:
        """Number of features."""
        return len(self.linear.weights)

    @property
    def nodes(self) -> int:
        """Number of nodes."""
        return len(self.linear.intercept)

    def predictions(
        self, features: Float[np.ndarray, "examples features"]
    ) -> Iterator[Float[np.ndarray, "batch nodes"]]:
        """Coherent probabilities, batch by batch."""
        for some in batches(features):
            yield self.linear.predict(some)

    def description(self) -> dict[str, Any]:
        """What is to be known beside the file."""
        return {"conditional": self.linear.conditional}

    def save(self, folder: Path) -> None:
        """Write the regressions' file."""
        arrays = {"weights": self.linear.weights, "intercept": self.linear.intercept}
        with writing(folder):
            save_arrays(arrays, folder / self.files[0])

    @classmethod
    def load(
        cls, folder: Path, hierarchy: Hierarchy, description: dict[str, Any], mend: str
    ) -> "Regressions":
        """Read what `save` wrote."""
        with reading(folder / cls.files[0], mend):
            arrays = load_file(folder / cls.files[0])
            weights, intercept = arrays["weights"], arrays["intercept"]
            if weights.shape[1:] != intercept.shape:
                raise ValueError(f"{weights.shape} weights do not fit {intercept.shape} intercepts")
        return cls(Linear(weights, intercept, bool(description["conditional"]), hierarchy))
