"""Sparse training of whole networks beside the dense loop's pieces."""

import numpy as np
import pytest
import torch
from scipy import sparse
from torch import Tensor

from rarenodes.datasets.synthetic import random_hierarchy
from rarenodes.loss.active_nodes import active_nodes
from rarenodes.loss.conditional import ConditionalLoss
from rarenodes.loss.hierarchy import Hierarchy
from rarenodes.loss.output import Output
from rarenodes.training.ensemble import Ensemble, Shape
from rarenodes.training.sparse_layer import RowAdam
from rarenodes.training.sparse_training import SparseTraining

FEATURES, EXAMPLES, BATCH = 6, 40, 8


def streams(number: int = 2, first: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(first + m) for m in range(number)]


def network(hierarchy: Hierarchy, layers: int, dropout: float = 0.0) -> Ensemble:
    shape = Shape(FEATURES, 7, layers, len(hierarchy), dropout)
    return Ensemble(shape, streams(), output=Output("product"))


@pytest.fixture(scope="module")
def case() -> tuple[Hierarchy, Tensor, Tensor]:
    """A DAG, features that say something, and closed targets."""
    rng = np.random.default_rng(0)
    hierarchy = random_hierarchy(40, rng, branching=4, multi_parent=0.4)
    targets = hierarchy.close(torch.from_numpy(rng.random((EXAMPLES, 40)) < 0.03)).float()
    directions = torch.from_numpy(rng.standard_normal((40, FEATURES))).float()
    return hierarchy, targets @ directions, targets


@pytest.mark.parametrize(("layers", "dropout"), [(0, 0.0), (1, 0.0), (2, 0.5)])
def test_networks_are_those_of_dense_training(case, layers, dropout):
    hierarchy, features, targets = case
    dense = network(hierarchy, layers, dropout)
    loss, adam = ConditionalLoss(hierarchy), torch.optim.AdamW(dense.parameters(), lr=0.01)
    adam.param_groups[0]["weight_decay"] = 0.1
    training = SparseTraining(
        network(hierarchy, layers, dropout), RowAdam(0.01, weight_decay=0.1, at_rest="moving")
    )
    active = active_nodes(sparse.csr_array(targets.numpy()), hierarchy)
    for epoch in range(4):
        order = np.random.default_rng(epoch).permutation(EXAMPLES)
        losses, of_dense = [], streams(first=epoch)
        for rows in torch.from_numpy(order).split(BATCH):
            adam.zero_grad()
            value = loss(dense(features[rows], of_dense), targets[rows])
            value.backward()
            adam.step()
            losses.append(value.item())
        found = training.epoch(features, active, order, BATCH, streams(first=epoch))
        assert found == pytest.approx(np.mean(losses), rel=1e-4)
    for name, parameter in training.finish().named_parameters():
        expected = dense.get_parameter(name)
        torch.testing.assert_close(parameter, expected, rtol=1e-3, atol=1e-4, msg=name)


def test_the_likeliest_nodes_are_those_of_the_finished_ensemble(case):
    hierarchy, features, targets = case
    training = SparseTraining(network(hierarchy, 1), RowAdam(0.01, weight_decay=1.0))
    active = active_nodes(sparse.csr_array(targets.numpy()), hierarchy)
    for _ in range(3):
        training.epoch(features, active, np.arange(EXAMPLES), BATCH)
    # As many as a batch holds, and with a smaller last batch.
    found = training.likeliest(features, hierarchy, batch_size=12, most=5)
    scores = training.finish().predict(features, hierarchy)
    expected = scores.sort(dim=1, descending=True).values[:, :5].reshape(-1)
    assert len(found) == EXAMPLES
    np.testing.assert_allclose(found.probabilities, expected.numpy(), rtol=1e-4)
    examples = np.repeat(np.arange(EXAMPLES), 5)
    of_nodes = scores.numpy()[examples, found.nodes]
    np.testing.assert_allclose(of_nodes, expected.numpy(), rtol=1e-4)


def test_sparse_features_are_the_same_examples(case):
    hierarchy, features, targets = case
    active = active_nodes(sparse.csr_array(targets.numpy()), hierarchy)
    losses = []
    for inputs in (features, sparse.csr_array(features.numpy())):
        training = SparseTraining(network(hierarchy, 1), RowAdam(0.01))
        losses.append(training.epoch(inputs, active, np.arange(EXAMPLES), BATCH))
        assert len(training.likeliest(inputs, hierarchy, most=1).nodes) == EXAMPLES
    assert losses[0] == losses[1]


def test_training_finds_the_targets(case):
    hierarchy, features, targets = case
    training = SparseTraining(network(hierarchy, 1), RowAdam(0.02))
    active = active_nodes(sparse.csr_array(targets.numpy()), hierarchy)
    losses = [training.epoch(features, active, np.arange(EXAMPLES), BATCH) for _ in range(100)]
    assert losses[-1] < 0.1 * losses[0]
    found = training.likeliest(features, hierarchy, above=0.5)
    predicted = torch.zeros_like(targets)
    predicted[np.repeat(np.arange(EXAMPLES), np.diff(found.starts)), found.nodes] = 1
    assert (predicted != targets).float().mean() < 0.02


def test_passes_of_one_network_are_refused(case):
    shape = Shape(FEATURES, 7, 1, 40, 0.5)
    ensemble = Ensemble(shape, streams(1), passes=3)
    with pytest.raises(ValueError, match="sparse training is of networks, found 3 passes"):
        SparseTraining(ensemble, RowAdam())
