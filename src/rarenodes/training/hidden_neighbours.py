"""Nearest neighbours in the hidden layer of trained networks, in place of what these predict."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from rarenodes.datasets.dataset import Dataset
from rarenodes.training.encoders import TrainedEncoder, network_inputs
from rarenodes.training.ensemble import Ensemble
from rarenodes.training.neighbours import Neighbours, NeighbourSettings, fit_neighbours

# Examples that a network sees at once.
BATCH = 512


@dataclass(frozen=True)
class HiddenNeighbours:
    """Training examples as the networks see them; from `fit_hidden_neighbours`.

    Attributes:
        ensemble: the trained networks.
        found: of every network, the training examples in its last hidden layer.

    """

    ensemble: Ensemble
    found: tuple[Neighbours, ...]

    def predictions(self, inputs: Tensor) -> Iterator[Float[np.ndarray, "batch nodes"]]:
        """Coherent probabilities, batch by batch: the mean over networks of their neighbours' labels.

        Args:
            inputs: all examples, for the encoder; `[examples, features]` for vectors.

        """
        hidden = hidden_layer(self.ensemble, inputs)
        of_networks = [
            neighbours.predictions(features)
            for neighbours, features in zip(self.found, hidden, strict=True)
        ]
        for batches in zip(*of_networks, strict=True):
            yield np.mean(batches, axis=0, dtype=np.float32)


def fit_hidden_neighbours(
    ensemble: Ensemble,
    dataset: Dataset,
    settings: NeighbourSettings,
    fit_on: Sequence[str],
    encoder: TrainedEncoder | None = None,
) -> HiddenNeighbours:
    """Keep the training examples as the networks' last hidden layers have them.

    A network learns which differences between examples matter; examples that are near by that may
    have rare nodes in common for which its last layer found no weights.

    Args:
        ensemble: trained networks.
        dataset: features, targets and split.
        settings: which neighbours, and how much each counts.
        fit_on: parts of the split whose examples are neighbours.
        encoder: what trained along with the networks, if anything did.

    Raises:
        ValueError: networks without a hidden layer, or passes of one network, whose hidden layer is
            the same in all.

    """
    if ensemble.shape.layers == 0 or ensemble.passes > 1:
        raise ValueError(
            "neighbours in the hidden layer need networks with one, each predicting once, found "
            f"{ensemble.shape.layers} hidden layers and {ensemble.passes} passes"
        )
    everything = network_inputs(dataset, encoder, np.arange(len(dataset.features)))
    hidden = hidden_layer(ensemble, everything.to(ensemble.weights[0].device))
    found = (fit_neighbours(dataset, settings, fit_on, features) for features in hidden)
    return HiddenNeighbours(ensemble, tuple(found))


@torch.no_grad()
def hidden_layer(
    ensemble: Ensemble, inputs: Tensor
) -> Float[np.ndarray, "networks examples units"]:
    """What the last layer of every network is given, without dropout."""
    batches = [ensemble.hidden(batch) for batch in inputs.split(BATCH)]
    return torch.cat(batches, dim=1).cpu().numpy()
