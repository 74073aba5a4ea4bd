import numpy as np
import pytest
import torch
from scipy import sparse

from rarenodes.datasets.dataset import Dataset
from rarenodes.loss.hierarchy import Hierarchy
from rarenodes.training.ensemble import Ensemble, Shape
from rarenodes.training.hidden_neighbours import fit_hidden_neighbours, hidden_layer
from rarenodes.training.neighbours import NeighbourSettings, fit_neighbours

# Order of nodes: r, a, b.
FORK = Hierarchy([("a", "r"), ("b", "r")])
FEATURES = np.array([[1, 0], [0, 1], [3, 3.5], [-2, 1]], dtype=np.float32)
DATASET = Dataset(
    name="by hand",
    features=FEATURES,
    targets=sparse.csr_array(
        np.array([[1, 1, 0], [1, 0, 1], [1, 1, 1], [1, 0, 0]], dtype=np.uint8)
    ),
    hierarchy=FORK,
    split={"train": np.array([0, 1]), "valid": np.array([2]), "test": np.array([3])},
    evaluated=np.ones(3, dtype=bool),
    card={},
)
NEAREST = NeighbourSettings(count=1)


def networks(layers: int = 1, count: int = 2, passes: int = 1, dropout: float = 0.0) -> Ensemble:
    streams = [torch.Generator().manual_seed(seed) for seed in range(count)]
    return Ensemble(Shape(2, 3, layers, 3, dropout), streams, passes=passes).eval()


def test_each_network_is_asked_in_its_own_hidden_layer():
    # The first network sees examples as they are, the second their second feature alone.
    ensemble = networks(count=2)
    with torch.no_grad():
        for weight in ensemble.weights[:-1]:
            weight.zero_()
        ensemble.biases[0].zero_()
        ensemble.weights[0][0, 0, 0] = ensemble.weights[0][0, 1, 1] = 1.0
        ensemble.weights[0][1, 1, 0] = 1.0
        ensemble.biases[0][1, 0, 1] = 0.5  # and a unit that is always on
    found = fit_hidden_neighbours(ensemble, DATASET, NEAREST, ["train"])
    (batch,) = found.predictions(torch.tensor([[4.0, 0.5]]))
    # (4, .5) is next to (1, 0) as it is. In the other's units it is (.5, .5), 45° from the first
    # example, (0, .5), and 18° from the second, (1, .5).
    np.testing.assert_allclose(batch, [[1, 0.5, 0.5]])


def test_it_is_the_mean_of_neighbours_in_the_hidden_layers():
    ensemble, settings = networks(layers=2), NeighbourSettings(count=2)
    found = fit_hidden_neighbours(ensemble, DATASET, settings, ["train", "valid"])
    inputs = torch.from_numpy(FEATURES[3:])
    everything = hidden_layer(ensemble, torch.from_numpy(FEATURES))
    asked = hidden_layer(ensemble, inputs)
    expected = np.mean(
        [
            fit_neighbours(DATASET, settings, ["train", "valid"], stored).predict(features)
            for stored, features in zip(everything, asked, strict=True)
        ],
        axis=0,
    )
    np.testing.assert_allclose(np.concatenate(list(found.predictions(inputs))), expected)
    assert FORK.is_coherent(torch.from_numpy(expected))


@pytest.mark.parametrize(
    ("ensemble", "found"),
    [
        (networks(layers=0), "0 hidden layers and 1 passes"),
        (networks(count=1, passes=3, dropout=0.5), "1 hidden layers and 3 passes"),
    ],
)
def test_networks_without_a_hidden_layer_of_their_own_are_refused(ensemble, found):
    with pytest.raises(ValueError, match=f"each predicting once, found {found}$"):
        fit_hidden_neighbours(ensemble, DATASET, NEAREST, ["train"])
