"""Heads on an encoder that trains along: each as it would be alone, and resumed to the same bits."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from only_member import OnlyMember

from rarenodes.datasets import load_dataset
from rarenodes.datasets.encoders.efficientnet import pretrained_weights
from rarenodes.loss.coherent import RareNodeLoss
from rarenodes.models.fitting import fit_model
from rarenodes.models.run import Run
from rarenodes.settings import SettingsError, read_settings
from rarenodes.training import loop
from rarenodes.training.encoders import (
    FineTuned,
    ResidualNetwork,
    TrainedEncoder,
    build_encoder,
    network_inputs,
)
from rarenodes.training.loop import Budget, Streams, train_ensemble
from rarenodes.training.variants import VariantSettings, resampled

STREAMS = Streams(1, "synthetic", "mcm", 0)
RESIDUAL = {"name": "residual", "width": 32}
PRETRAINED = {"name": "efficientnet_lite0", "size": 32, "blend": 0.5, "learning_rate": 0.001}


@pytest.fixture(scope="module")
def dataset():
    """Features as grey images: each is a square of four by four pixels."""
    made = load_dataset("synthetic", seed=3, options={"examples": 80})
    scaled = 128 + 40 * made.features.reshape(-1, 4, 4)
    images = scaled.clip(0, 255).astype(np.uint8).repeat(4, axis=1).repeat(4, axis=2)
    return replace(made, images=images)


def budget(encoder, **changes) -> Budget:
    settings = {
        "epochs": 4,
        "batch_size": 16,
        "learning_rate": 0.01,
        "hidden": 12,
        "layers": 1,
        "dropout": 0.4,
        "members": 3,
        "device": "cpu",
        "encoder": encoder,
    }
    return read_settings(Budget, {**settings, **changes}, "training")


def test_a_head_is_the_same_beside_others_and_the_encoder_learns_from_their_mean(dataset):
    loss = RareNodeLoss(dataset.hierarchy)
    one_step = {"epochs": 1, "batch_size": 1000}
    together = train_ensemble(dataset, loss, budget(RESIDUAL, **one_step), STREAMS).ensemble
    gradients = []
    for member in range(3):
        streams = type("Streams", (OnlyMember,), {"member": member})(1, "synthetic", "mcm", 0)
        alone = train_ensemble(
            dataset, loss, budget(RESIDUAL, members=1, **one_step), streams
        ).ensemble
        for ours, theirs in zip(together.weights, alone.weights, strict=True):
            torch.testing.assert_close(ours.grad[member], theirs.grad[0], rtol=1e-4, atol=1e-7)
            torch.testing.assert_close(ours[member], theirs[0], rtol=1e-4, atol=1e-5)
        gradients.append([p.grad for p in alone.encoder.parameters()])
    for mean, *each in zip(
        (p.grad for p in together.encoder.parameters()), *gradients, strict=True
    ):
        torch.testing.assert_close(mean, sum(each) / 3, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("encoder", [RESIDUAL, PRETRAINED], ids=lambda e: e["name"])
def test_a_resumed_run_has_the_same_bits_and_predictions_are_coherent(
    dataset, tmp_path, monkeypatch, encoder
):
    loss = RareNodeLoss(dataset.hierarchy)
    whole = train_ensemble(dataset, loss, budget(encoder, epochs=3), STREAMS)
    train_epoch = loop._Run.train_epoch

    def until_third(run, epoch, order):
        if epoch == 2:
            raise InterruptedError
        return train_epoch(run, epoch, order)

    with monkeypatch.context() as during:
        during.setattr(loop, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
        during.setattr(loop._Run, "train_epoch", until_third)
        with pytest.raises(InterruptedError):
            train_ensemble(dataset, loss, budget(encoder, epochs=3), STREAMS, tmp_path)
    assert len(list(tmp_path.glob("epoch-2.safetensors"))) == 1
    resumed = train_ensemble(dataset, loss, budget(encoder, epochs=3), STREAMS, tmp_path)
    assert whole.history.equals(resumed.history)
    ours, theirs = whole.ensemble.state_dict(), resumed.ensemble.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    images = network_inputs(dataset, TrainedEncoder(**encoder), dataset.split["test"])
    predicted = whole.ensemble.predict(images, dataset.hierarchy)
    assert dataset.hierarchy.is_coherent(predicted)
    assert predicted.std(dim=0).max() > 0


def test_the_encoder_learns_at_a_rate_of_its_own(dataset):
    loss = RareNodeLoss(dataset.hierarchy)
    start = ResidualNetwork(32, STREAMS.encoder()).state_dict()
    for rate, moves in ((1e-12, False), (0.01, True), (None, True)):
        trained = train_ensemble(
            dataset, loss, budget({**RESIDUAL, "learning_rate": rate}), STREAMS
        )
        first = trained.ensemble.encoder.state_dict()["stem.0.weight"]
        assert (float((first - start["stem.0.weight"]).abs().max()) > 1e-4) == moves
        losses = trained.history["train_loss"]
        assert losses.iloc[-1] < losses.iloc[0]


def test_features_of_an_image_do_not_depend_on_the_others(dataset):
    network = ResidualNetwork(64, torch.Generator().manual_seed(0))
    images = torch.from_numpy(dataset.images[:8])
    together = network(images)
    assert together.shape == (8, 64)
    torch.testing.assert_close(together[2:3], network(images[2:3]))
    assert together.std(dim=0).max() > 0


def test_a_fine_tuned_encoder_keeps_its_statistics(dataset):
    settings = TrainedEncoder(**PRETRAINED)
    rows = dataset.split["train"]
    encoder = build_encoder(settings, dataset, rows, 1, STREAMS.encoder())
    assert isinstance(encoder, FineTuned)
    before = {name: value.clone() for name, value in encoder.named_buffers()}
    encoder.train()
    images = torch.from_numpy(dataset.images[:4])
    features = encoder(images)
    assert features.shape == (4, settings.features)
    assert torch.equal(features, encoder(images))
    assert all(torch.equal(before[name], value) for name, value in encoder.named_buffers())
    assert all(parameter.requires_grad for parameter in encoder.parameters())
    # Statistics are of these images: features are neither gone nor huge.
    assert 0.05 < float(features.detach().square().mean().sqrt()) < 5


def test_a_pretrained_encoder_starts_as_it_ships(dataset):
    settings = TrainedEncoder(name="efficientnet_lite0", size=32)
    encoder = build_encoder(settings, dataset, dataset.split["train"], 1, STREAMS.encoder())
    shipped = pretrained_weights()
    assert all(
        torch.equal(value, shipped[name]) for name, value in encoder.encoder.state_dict().items()
    )


def test_duplicates_bring_their_images(dataset):
    variant = VariantSettings(about="", resampling={"method": "lp-ros"}, constraint="training")
    more = resampled(variant, dataset, ["train"], np.random.default_rng(0))
    assert len(more.images) == len(more.features) > len(dataset.features)
    copies = more.features[len(dataset.features) :]
    for image, features in zip(more.images[len(dataset.features) :], copies, strict=True):
        original = int(np.flatnonzero((dataset.features == features).all(axis=1))[0])
        np.testing.assert_array_equal(image, dataset.images[original])


def test_a_data_set_without_images(dataset):
    plain = replace(dataset, images=None)
    with pytest.raises(
        SettingsError, match=r"training\.encoder: residual takes images, but synthetic has none"
    ):
        train_ensemble(plain, RareNodeLoss(plain.hierarchy), budget(RESIDUAL), STREAMS)


def test_no_model_is_kept_of_an_encoder_that_trains(dataset):
    variant = VariantSettings(about="")
    with pytest.raises(SettingsError, match="synthetic mcm: an encoder trains along, and models"):
        fit_model(dataset, Run(variant, budget(RESIDUAL), STREAMS))


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        ({"name": "resnet"}, "training: encoder.name: expected 'residual' or 'efficientnet_lite0'"),
        ({"name": "residual", "width": 50}, "encoder.width: expected a multiple of 32, found 50"),
        ({"name": "residual", "rate": 1.0}, "training: encoder: unknown key 'rate'"),
    ],
)
def test_encoders_that_cannot_be(encoder, message):
    with pytest.raises(SettingsError, match=message):
        budget(encoder)
