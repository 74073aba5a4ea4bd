"""An ensemble of networks, as the trained part of a model."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float

from rarenodes.loss.hierarchy import Hierarchy
from rarenodes.loss.output import Output
from rarenodes.models.predictors.predictor import BATCH, Predictor
from rarenodes.randomness import torch_stream
from rarenodes.training.ensemble import FILES as ENSEMBLE_FILES
from rarenodes.training.ensemble import Ensemble, Shape


@dataclass(frozen=True)
class Networks(Predictor):
    """An ensemble of networks.

    Attributes:
        ensemble: the members and their output rule.
        hierarchy: the nodes.
        dropout_seed: of the dropout under which one network predicts several times; it is drawn
            anew, and the same, for every call. Not used where members are networks.

    """

    family: ClassVar[str] = "network"
    files: ClassVar[tuple[str, ...]] = tuple(f"networks/{name}" for name in ENSEMBLE_FILES)

    ensemble: Ensemble
    hierarchy: Hierarchy
    dropout_seed: int = 0

    @property
    def width(self) -> int:
        """Number of features."""
        return self.ensemble.shape.features

    @property
    def nodes(self) -> int:
        """Number of nodes."""
        return self.ensemble.shape.nodes

    def predictions(
        self, features: Float[np.ndarray, "examples features"]
    ) -> Iterator[Float[np.ndarray, "batch nodes"]]:
        """Coherent probabilities, batch by batch."""
        device = self.ensemble.weights[0].device
        inputs = torch.from_numpy(features).to(device)
        dropout = self._dropout(str(device))
        for batch in self.ensemble.predictions(inputs, self.hierarchy, BATCH, dropout):
            yield batch.cpu().numpy()

    def _dropout(self, device: str) -> Sequence[torch.Generator] | None:
        if self.ensemble.passes == 1:
            return None
        return [
            torch_stream(self.dropout_seed, "model", "dropout", member, device=device)
            for member in range(self.ensemble.members)
        ]

    def __reduce__(self):
        # As `save`, in memory: arrays on the CPU, and none of the caches, which cannot be copied.
        ensemble = self.ensemble
        arrays = {name: value.cpu().numpy() for name, value in ensemble.state_dict().items()}
        constant = ensemble.output.constant
        output = (ensemble.output.rule, None if constant is None else constant.cpu().numpy())
        made_of = (ensemble.shape, len(ensemble.weights[0]), ensemble.passes, output, arrays)
        return _networks, (*made_of, self.hierarchy, self.dropout_seed)

    def description(self) -> dict[str, Any]:
        """What is to be known beside the files."""
        return {"dropout_seed": self.dropout_seed}

    def save(self, folder: Path) -> None:
        """Write the networks' files."""
        self.ensemble.save(folder / "networks")

    def to(self, device: str) -> None:
        """Predict there."""
        self.ensemble.to(device)

    @classmethod
    def load(
        cls, folder: Path, hierarchy: Hierarchy, description: dict[str, Any], mend: str
    ) -> "Networks":
        """Read what `save` wrote."""
        ensemble = Ensemble.load(folder / "networks", mend=mend)
        return cls(ensemble, hierarchy, int(description["dropout_seed"]))


def _networks(
    shape: Shape,
    networks: int,
    passes: int,
    output: tuple[str, np.ndarray | None],
    arrays: Mapping[str, np.ndarray],
    hierarchy: Hierarchy,
    dropout_seed: int,
) -> Networks:
    """What `Networks.__reduce__` took apart."""
    rule, constant = output
    rule = Output(rule, None if constant is None else torch.tensor(constant))
    streams = [torch.Generator() for _ in range(networks)]
    ensemble = Ensemble(shape, streams, passes=passes, output=rule)
    # Copies, since arrays may be read-only where they are shared between processes.
    ensemble.load_state_dict({name: torch.tensor(value) for name, value in arrays.items()})
    return Networks(ensemble.eval(), hierarchy, dropout_seed)
