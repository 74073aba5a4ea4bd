"""Training examples that are looked up, as the trained part of a model: in their features, or in hidden layers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from safetensors.numpy import load_file
from scipy import sparse

from rarenodes.folders import reading, save_arrays, writing
from rarenodes.loss.hierarchy import Hierarchy
from rarenodes.models.predictors.networks import Networks
from rarenodes.models.predictors.predictor import Predictor
from rarenodes.training.hidden_neighbours import HiddenNeighbours
from rarenodes.training.neighbours import Neighbours, NeighbourSettings

FILE = "examples.safetensors"
# Of which nodes an example has, and of which it is unknown.
_PAIRS = ("targets", "unknown")


@dataclass(frozen=True)
class Lookup(Predictor):
    """Nearest training examples.

    Attributes:
        found: the examples.

    """

    family: ClassVar[str] = "neighbours"
    files: ClassVar[tuple[str, ...]] = (FILE,)

    found: Neighbours

    @property
    def width(self) -> int:
        """Number of features."""
        return self.found.features.shape[1]

    @property
    def nodes(self) -> int:
        """Number of nodes."""
        return len(self.found.hierarchy)

    @property
    def stored_examples(self) -> int:
        """Number of training examples that are looked up."""
        return self.found.features.shape[0]

    def predictions(
        self, features: Float[np.ndarray, "examples features"]
    ) -> Iterator[Float[np.ndarray, "batch nodes"]]:
        """Coherent probabilities, batch by batch."""
        return self.found.predictions(features)

    def description(self) -> dict[str, Any]:
        """What is to be known beside the file."""
        return {"neighbours": self.found.settings.model_dump()}

    def save(self, folder: Path) -> None:
        """Write the examples' file."""
        _save([self.found], folder)

    @classmethod
    def load(
        cls, folder: Path, hierarchy: Hierarchy, description: dict[str, Any], mend: str
    ) -> "Lookup":
        """Read what `save` wrote."""
        (found,) = _load(folder, hierarchy, description, mend)
        return cls(found)


@dataclass(frozen=True)
class HiddenLookup(Predictor):
    """Nearest training examples in the last hidden layer of networks.

    Attributes:
        networks: whose layer it is.
        found: of every network, the examples as it sees them.

    """

    family: ClassVar[str] = "hidden_neighbours"
    files: ClassVar[tuple[str, ...]] = (*Networks.files, FILE)

    networks: Networks
    found: tuple[Neighbours, ...]

    @property
    def width(self) -> int:
        """Number of features."""
        return self.networks.width

    @property
    def nodes(self) -> int:
        """Number of nodes."""
        return self.networks.nodes

    @property
    def stored_examples(self) -> int:
        """Number of training examples that are looked up."""
        return self.found[0].features.shape[0]

    def predictions(
        self, features: Float[np.ndarray, "examples features"]
    ) -> Iterator[Float[np.ndarray, "batch nodes"]]:
        """Coherent probabilities, batch by batch."""
        ensemble = self.networks.ensemble
        inputs = torch.from_numpy(features).to(ensemble.weights[0].device)
        return HiddenNeighbours(ensemble, self.found).predictions(inputs)

    def description(self) -> dict[str, Any]:
        """What is to be known beside the files."""
        return {
            **self.networks.description(),
            "neighbours": self.found[0].settings.model_dump(),
        }

    def save(self, folder: Path) -> None:
        """Write the files of the networks and of the examples."""
        self.networks.save(folder)
        _save(self.found, folder)

    @classmethod
    def load(
        cls, folder: Path, hierarchy: Hierarchy, description: dict[str, Any], mend: str
    ) -> "HiddenLookup":
        """Read what `save` wrote."""
        networks = Networks.load(folder, hierarchy, description, mend)
        return cls(networks, _load(folder, hierarchy, description, mend))

    def to(self, device: str) -> None:
        """Work out hidden layers there; examples are looked up on the CPU."""
        self.networks.to(device)


def _save(found: Sequence[Neighbours], folder: Path) -> None:
    """Features for each, and labels once: the examples are the same."""
    arrays = {f"features.{i}": np.asarray(one.features) for i, one in enumerate(found)}
    for name in _PAIRS:
        pairs = getattr(found[0], name)
        if pairs is not None:
            arrays |= {f"{name}.{part}": getattr(pairs, part) for part in ("indptr", "indices")}
    with writing(folder):
        save_arrays(arrays, folder / FILE)


def _load(
    folder: Path, hierarchy: Hierarchy, description: dict[str, Any], mend: str
) -> tuple[Neighbours, ...]:
    with reading(folder / FILE, mend):
        settings = NeighbourSettings(**description["neighbours"])
        arrays = load_file(folder / FILE)
        count = sum(name.startswith("features.") for name in arrays)
        pairs = {name: _ones(arrays, name, len(hierarchy)) for name in _PAIRS}
        features = [arrays[f"features.{i}"] for i in range(count)]
        rows = {len(stored) for stored in features}
        if rows != {pairs["targets"].shape[0]}:
            raise ValueError(
                f"found features of {rows} examples, labels of {pairs['targets'].shape[0]}"
            )
    return tuple(
        Neighbours(stored, pairs["targets"], settings, hierarchy, pairs["unknown"])
        for stored in features
    )


def _ones(arrays: dict[str, np.ndarray], name: str, nodes: int) -> sparse.csr_array | None:
    """`[examples, nodes]`, 0/1, of the places of its ones."""
    if f"{name}.indptr" not in arrays:
        return None
    indptr, indices = arrays[f"{name}.indptr"], arrays[f"{name}.indices"]
    return sparse.csr_array((np.ones(len(indices)), indices, indptr), (len(indptr) - 1, nodes))
