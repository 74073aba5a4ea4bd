"""Ensembles train side by side as each would alone, resume to the same bits, and fail clearly."""

import numpy as np
import pytest
import torch

from rarenodes import training
from rarenodes.datasets import load_dataset
from rarenodes.ensemble import Ensemble, Shape
from rarenodes.losses import Focal, RareNodeLoss
from rarenodes.training import Budget, Streams, TrainingError, train_ensemble


@pytest.fixture(scope="module")
def dataset():
    return load_dataset("synthetic", seed=3)


def budget(**changes) -> Budget:
    settings = {
        "epochs": 3,
        "batch_size": 32,
        "learning_rate": 0.01,
        "hidden": 12,
        "layers": 2,
        "dropout": 0.4,
        "members": 3,
        "device": "cpu",
    }
    return Budget(**{**settings, **changes})


STREAMS = Streams(1, "synthetic", "mcm", 0)


class OnlyMember(Streams):
    """The streams of one member of a larger ensemble."""

    member = 0

    def initial_weights(self, members):
        return super().initial_weights(self.member + 1)[self.member :]

    def dropout(self, members, epoch, device):
        return super().dropout(self.member + 1, epoch, device)[self.member :]


def test_members_together_equal_each_alone(dataset):
    loss = RareNodeLoss(dataset.hierarchy)
    together = train_ensemble(dataset, loss, budget(members=3), STREAMS).ensemble
    for member in range(3):
        streams = type("Streams", (OnlyMember,), {"member": member})(1, "synthetic", "mcm", 0)
        alone = train_ensemble(dataset, loss, budget(members=1), streams).ensemble
        for ours, its in zip(together.parameters(), alone.parameters(), strict=True):
            torch.testing.assert_close(ours[member], its[0], rtol=1e-4, atol=1e-5)


def test_a_focal_term_couples_members(dataset):
    loss = RareNodeLoss(dataset.hierarchy, focal=Focal("bbma"))
    three = train_ensemble(dataset, loss, budget(members=3), STREAMS).ensemble
    two = train_ensemble(dataset, loss, budget(members=2), STREAMS).ensemble
    assert not torch.allclose(three.weights[0][0], two.weights[0][0], atol=1e-4)


def test_same_streams_same_bits(dataset):
    loss = RareNodeLoss(dataset.hierarchy)
    first, second = (train_ensemble(dataset, loss, budget(), STREAMS) for _ in range(2))
    for a, b in zip(first.ensemble.parameters(), second.ensemble.parameters(), strict=True):
        assert torch.equal(a, b)
    assert first.history.equals(second.history)


@pytest.mark.parametrize(
    "other", [Streams(2, "synthetic", "mcm", 0), Streams(1, "synthetic", "mcm", 1)]
)
def test_another_root_or_seed_is_another_run(dataset, other):
    loss = RareNodeLoss(dataset.hierarchy)
    ours = train_ensemble(dataset, loss, budget(), STREAMS).ensemble
    theirs = train_ensemble(dataset, loss, budget(), other).ensemble
    assert not torch.equal(ours.weights[0], theirs.weights[0])


def test_training_improves_validation(dataset):
    history = train_ensemble(
        dataset, RareNodeLoss(dataset.hierarchy), budget(epochs=15), STREAMS
    ).history
    assert history["valid_bce"].iloc[-1] < 0.8 * history["valid_bce"].iloc[0]


def test_validation_is_not_scored_where_it_is_trained_on(dataset):
    loss = RareNodeLoss(dataset.hierarchy)
    history = train_ensemble(
        dataset, loss, budget(epochs=1, fit_on=["train", "valid"]), STREAMS
    ).history
    assert list(history.columns) == ["epoch", "train_loss"]


class Interrupted(Exception):
    """Stands for a power cut."""


def test_resumed_run_equals_uninterrupted_one(dataset, tmp_path, monkeypatch):
    loss = RareNodeLoss(dataset.hierarchy)
    whole = train_ensemble(dataset, loss, budget(epochs=5), STREAMS)

    monkeypatch.setattr(training, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    train_epoch = training._Run.train_epoch

    def until_third(run, epoch, order):
        if epoch == 3:
            raise Interrupted
        return train_epoch(run, epoch, order)

    monkeypatch.setattr(training._Run, "train_epoch", until_third)
    with pytest.raises(Interrupted):
        train_ensemble(dataset, loss, budget(epochs=5), STREAMS, tmp_path)

    epochs = []

    def noted(run, epoch, order):
        epochs.append(epoch)
        return train_epoch(run, epoch, order)

    monkeypatch.setattr(training._Run, "train_epoch", noted)
    resumed = train_ensemble(dataset, loss, budget(epochs=5), STREAMS, tmp_path)
    assert epochs == [3, 4]
    for a, b in zip(whole.ensemble.parameters(), resumed.ensemble.parameters(), strict=True):
        assert torch.equal(a, b)
    assert whole.history.equals(resumed.history)


def test_a_finished_run_is_not_trained_again(dataset, tmp_path, monkeypatch):
    loss = RareNodeLoss(dataset.hierarchy)
    first = train_ensemble(dataset, loss, budget(), STREAMS, tmp_path)
    monkeypatch.setattr(training._Run, "train_epoch", None)
    again = train_ensemble(dataset, loss, budget(), STREAMS, tmp_path)
    assert torch.equal(first.ensemble.weights[-1], again.ensemble.weights[-1])


def test_non_finite_loss_names_run_and_step(dataset):
    features = dataset.features.copy()
    features[dataset.split["train"][5]] = np.inf
    broken = type(dataset)(**{**vars(dataset), "features": features})
    message = r"synthetic mcm seed 0: loss is (nan|inf) at step \d+ of epoch 1; lower training"
    with pytest.raises(TrainingError, match=message):
        train_ensemble(broken, RareNodeLoss(dataset.hierarchy), budget(), STREAMS)


# --- the ensemble itself ------------------------------------------------------------------------


def make_ensemble(members=2, dropout=0.5) -> Ensemble:
    shape = Shape(features=4, hidden=8, layers=1, nodes=3, dropout=dropout)
    return Ensemble(shape, [torch.Generator().manual_seed(m) for m in range(members)])


def test_each_member_is_the_plain_network():
    ensemble, inputs = make_ensemble(), torch.randn(5, 4)
    for member in range(2):
        hidden = (inputs @ ensemble.weights[0][member] + ensemble.biases[0][member]).relu()
        expected = hidden @ ensemble.weights[1][member] + ensemble.biases[1][member]
        torch.testing.assert_close(ensemble(inputs)[member], expected)


def test_dropout_drops_the_given_share_and_keeps_the_mean():
    ensemble = make_ensemble(dropout=0.7)
    ones = torch.ones(2, 400, 50)
    scale = ensemble._dropout_scale(ones, [torch.Generator().manual_seed(m) for m in (1, 2)])
    assert (scale == 0).float().mean() == pytest.approx(0.7, abs=0.01)
    assert scale.mean() == pytest.approx(1, abs=0.03)
    assert not torch.equal(scale[0], scale[1])


def test_without_streams_nothing_is_dropped():
    ensemble, inputs = make_ensemble(), torch.randn(5, 4)
    assert torch.equal(ensemble(inputs), ensemble(inputs))


def test_saved_and_loaded_ensemble_predicts_the_same(tmp_path):
    ensemble, inputs = make_ensemble(), torch.randn(5, 4)
    ensemble.save(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "ensemble.json",
        "ensemble.safetensors",
    ]
    assert torch.equal(Ensemble.load(tmp_path)(inputs), ensemble(inputs))


def test_prediction_is_the_mean_of_members_constrained_probabilities(dataset):
    shape = Shape(features=16, hidden=8, layers=1, nodes=len(dataset.hierarchy), dropout=0.0)
    ensemble = Ensemble(shape, [torch.Generator().manual_seed(m) for m in range(3)])
    inputs = torch.from_numpy(dataset.features[:7])
    constrained = dataset.hierarchy.max_over_descendants(torch.sigmoid(ensemble(inputs)))
    found = ensemble.predict(inputs, dataset.hierarchy, batch_size=3)
    torch.testing.assert_close(found, constrained.mean(dim=0).detach())
    assert dataset.hierarchy.is_coherent(found)


def test_no_members_is_an_error():
    with pytest.raises(ValueError, match="at least one member"):
        make_ensemble(members=0)


def test_encoder_is_shared_and_trains():
    shape = Shape(features=4, hidden=8, layers=1, nodes=3, dropout=0.0)
    encoder = torch.nn.Linear(6, 4)
    ensemble = Ensemble(shape, [torch.Generator().manual_seed(m) for m in range(2)], encoder)
    ensemble(torch.randn(5, 6)).sum().backward()
    assert encoder.weight.grad is not None
