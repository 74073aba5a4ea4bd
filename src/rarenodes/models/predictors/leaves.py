"""A forest, as the trained part of a model."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float
from safetensors.numpy import load_file
from scipy import sparse

from rarenodes.folders import reading, save_arrays, writing
from rarenodes.loss.hierarchy import Hierarchy
from rarenodes.models.predictors.predictor import Predictor, batches
from rarenodes.training.forest import Forest, Trees

_SHARES = ("data", "indices", "indptr")


@dataclass(frozen=True)
class Leaves(Predictor):
    """The leaves of trees.

    Attributes:
        forest: the trees, and what their leaves say.

    """

    family: ClassVar[str] = "forest"
    files: ClassVar[tuple[str, ...]] = ("forest.safetensors",)

    forest: Forest

    @property
    def width(self) -> int:
        """Number of features."""
        return self.forest.trees.width

    @property
    def nodes(self) -> int:
        """Number of nodes."""
        return len(self.forest.hierarchy)

    def predictions(
        self, features: Float[np.ndarray, "examples features"]
    ) -> Iterator[Float[np.ndarray, "batch nodes"]]:
        """Coherent probabilities, batch by batch."""
        for some in batches(features):
            yield self.forest.predict(some)

    def description(self) -> dict[str, Any]:
        """What is to be known beside the file."""
        return {"width": self.width}

    def save(self, folder: Path) -> None:
        """Write the forest's file."""
        arrays = {n: a for n, a in asdict(self.forest.trees).items() if n != "width"}
        arrays |= {f"shares.{part}": getattr(self.forest.shares, part) for part in _SHARES}
        with writing(folder):
            save_arrays(arrays, folder / self.files[0])

    @classmethod
    def load(
        cls, folder: Path, hierarchy: Hierarchy, description: dict[str, Any], mend: str
    ) -> "Leaves":
        """Read what `save` wrote."""
        with reading(folder / cls.files[0], mend):
            arrays = load_file(folder / cls.files[0])
            parts = tuple(arrays.pop(f"shares.{part}") for part in _SHARES)
            trees = Trees(**arrays, width=int(description["width"]))
            shares = sparse.csr_array(parts, (len(trees.left), len(hierarchy)))
        return cls(Forest(trees, shares, hierarchy))
