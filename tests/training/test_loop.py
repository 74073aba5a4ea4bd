"""Ensembles train side by side as each would alone, resume to the same bits, and fail clearly."""

import json
import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from only_member import OnlyMember

from rarenodes import folders
from rarenodes.datasets import load_dataset
from rarenodes.folders import UnreadableFile
from rarenodes.loss.coherent import Focal, RareNodeLoss
from rarenodes.loss.conditional import ConditionalLoss
from rarenodes.loss.output import Output
from rarenodes.loss.schedules import Schedule
from rarenodes.loss.uncertainty import mutual_information
from rarenodes.training import checkpoints, loop
from rarenodes.training.ensemble import Ensemble, Shape
from rarenodes.training.loop import (
    Budget,
    Streams,
    TrainingError,
    prediction_dropout,
    train_ensemble,
)


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


@pytest.fixture
def interrupted(monkeypatch):
    """Trains until the fourth of five epochs and then stops, as often as it is called."""
    monkeypatch.setattr(loop, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    train_epoch = loop._Run.train_epoch

    def until_fourth(run, epoch, order):
        if epoch == 3:
            raise Interrupted
        return train_epoch(run, epoch, order)

    def train(*arguments):
        with monkeypatch.context() as during:
            during.setattr(loop._Run, "train_epoch", until_fourth)
            with pytest.raises(Interrupted):
                train_ensemble(*arguments)

    return train


def test_resumed_run_equals_uninterrupted_one(dataset, tmp_path, monkeypatch, interrupted):
    loss = RareNodeLoss(dataset.hierarchy)
    whole = train_ensemble(dataset, loss, budget(epochs=5), STREAMS)
    interrupted(dataset, loss, budget(epochs=5), STREAMS, tmp_path)

    train_epoch, epochs = loop._Run.train_epoch, []

    def noted(run, epoch, order):
        epochs.append(epoch)
        return train_epoch(run, epoch, order)

    monkeypatch.setattr(loop._Run, "train_epoch", noted)
    resumed = train_ensemble(dataset, loss, budget(epochs=5), STREAMS, tmp_path)
    assert epochs == [3, 4]
    assert_same_run(whole, resumed)


def assert_same_run(one, other):
    for a, b in zip(one.ensemble.parameters(), other.ensemble.parameters(), strict=True):
        assert torch.equal(a, b)
    assert one.history.equals(other.history)


def test_resumed_run_leaves_the_log_of_an_uninterrupted_one(dataset, tmp_path, caplog, interrupted):
    caplog.set_level(logging.INFO, logger="rarenodes")
    loss = RareNodeLoss(dataset.hierarchy)
    train_ensemble(dataset, loss, budget(epochs=5), STREAMS)
    whole = caplog.messages.copy()
    assert len(whole) == 5
    assert whole[3].startswith("synthetic mcm seed 0: epoch 4 of 5, train_loss ")
    assert "valid_bce" in whole[3]
    interrupted(dataset, loss, budget(epochs=5), STREAMS, tmp_path)
    caplog.clear()
    train_ensemble(dataset, loss, budget(epochs=5), STREAMS, tmp_path)
    assert caplog.messages == whole
    # And so does one that had already ended.
    caplog.clear()
    train_ensemble(dataset, loss, budget(epochs=5), STREAMS, tmp_path)
    assert caplog.messages == whole


def test_a_finished_run_is_not_trained_again(dataset, tmp_path, monkeypatch):
    loss = RareNodeLoss(dataset.hierarchy)
    first = train_ensemble(dataset, loss, budget(), STREAMS, tmp_path)
    monkeypatch.setattr(loop._Run, "train_epoch", None)
    again = train_ensemble(dataset, loss, budget(), STREAMS, tmp_path)
    assert torch.equal(first.ensemble.weights[-1], again.ensemble.weights[-1])


def flip_last_byte(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(("damaged", "first_epoch"), [(["3"], 2), (["2", "3"], 0)])
def test_training_goes_on_from_the_last_whole_checkpoint(
    dataset, tmp_path, monkeypatch, interrupted, caplog, damaged, first_epoch
):
    loss = RareNodeLoss(dataset.hierarchy)
    whole = train_ensemble(dataset, loss, budget(epochs=5), STREAMS)
    interrupted(dataset, loss, budget(epochs=5), STREAMS, tmp_path)
    for epoch in damaged:
        flip_last_byte(tmp_path / f"epoch-{epoch}.safetensors")

    train_epoch, epochs = loop._Run.train_epoch, []

    def noted(run, epoch, order):
        epochs.append(epoch)
        return train_epoch(run, epoch, order)

    monkeypatch.setattr(loop._Run, "train_epoch", noted)
    resumed = train_ensemble(dataset, loss, budget(epochs=5), STREAMS, tmp_path)
    assert epochs == list(range(first_epoch, 5))
    assert_same_run(whole, resumed)
    warnings = [r.message for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == len(damaged)
    assert "its checksum is not the one it was stored with; training goes on" in warnings[0]


def test_a_checkpoint_of_other_networks_is_not_resumed(dataset, tmp_path, caplog):
    loss = RareNodeLoss(dataset.hierarchy)
    whole = train_ensemble(dataset, loss, budget(hidden=7), STREAMS)
    train_ensemble(dataset, loss, budget(), STREAMS, tmp_path)
    assert_same_run(whole, train_ensemble(dataset, loss, budget(hidden=7), STREAMS, tmp_path))
    assert "it is of other networks than those that are trained" in caplog.text


def test_two_at_once_train_one_after_the_other(dataset, tmp_path, monkeypatch):
    loss = RareNodeLoss(dataset.hierarchy)
    whole = train_ensemble(dataset, loss, budget(), STREAMS)
    train_epoch, epochs = loop._Run.train_epoch, []
    second_waits = threading.Event()

    class Waits(logging.Handler):
        def emit(self, record):
            if "waiting for" in record.getMessage():
                second_waits.set()

    def slow(run, epoch, order):
        epochs.append(epoch)
        assert second_waits.wait(60)  # the first does not end before the second has begun
        return train_epoch(run, epoch, order)

    monkeypatch.setattr(loop._Run, "train_epoch", slow)
    monkeypatch.setattr(folders.log, "handlers", [Waits()])
    monkeypatch.setattr(folders.log, "level", logging.DEBUG)
    arguments = (dataset, loss, budget(), STREAMS, tmp_path)
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(train_ensemble, *arguments) for _ in range(2)]
        both = [run.result() for run in runs]
    # The second finds the first one's last checkpoint, and has nothing left to do.
    assert epochs == [0, 1, 2]
    for run in both:
        assert_same_run(whole, run)


def test_a_full_disk_stops_with_one_line_and_a_rerun_goes_on(dataset, tmp_path, monkeypatch):
    loss = RareNodeLoss(dataset.hierarchy)
    whole = train_ensemble(dataset, loss, budget(), STREAMS)
    monkeypatch.setattr(loop, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    save_file, saved = checkpoints.save_file, []

    def full_at_the_second(*arguments, **named):
        if saved:
            raise OSError(28, "No space left on device")
        saved.append(save_file(*arguments, **named))

    with monkeypatch.context() as full:
        full.setattr(checkpoints, "save_file", full_at_the_second)
        with pytest.raises(
            OSError, match=r"epoch-2\.safetensors: cannot be written: No space left"
        ):
            train_ensemble(dataset, loss, budget(), STREAMS, tmp_path)
    assert [path.name for path in tmp_path.glob("epoch*")] == ["epoch-1.safetensors"]
    assert_same_run(whole, train_ensemble(dataset, loss, budget(), STREAMS, tmp_path))


@pytest.mark.parametrize("name", ["ensemble.safetensors", "ensemble.json"])
@pytest.mark.parametrize("listed", [True, False])
def test_a_damaged_ensemble_says_so(tmp_path, name, listed):
    make_ensemble().save(tmp_path)
    if not listed:
        (tmp_path / "SHA256SUMS").unlink()
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-9])
    with pytest.raises(UnreadableFile) as error:
        Ensemble.load(tmp_path)
    assert str(error.value).startswith(f"{tmp_path / name}: cannot be read: ")
    assert str(error.value).endswith("; train again, with training.keep_ensembles on")
    assert len(str(error.value).splitlines()) == 1


def test_networks_and_description_of_two_ensembles_are_told_apart(tmp_path):
    make_ensemble().save(tmp_path)
    (tmp_path / "SHA256SUMS").unlink()
    description = json.loads((tmp_path / "ensemble.json").read_text())
    description["networks"] += 1
    (tmp_path / "ensemble.json").write_text(json.dumps(description))
    with pytest.raises(UnreadableFile, match=r"not of the networks that ensemble\.json describes"):
        Ensemble.load(tmp_path)


def test_non_finite_loss_names_run_and_step(dataset):
    features = dataset.features.copy()
    features[dataset.split["train"][5]] = 3e38  # their sums are infinite
    broken = type(dataset)(**{**vars(dataset), "features": features})
    message = r"synthetic mcm seed 0: loss is (nan|inf) at step \d+ of epoch 1; lower training"
    with pytest.raises(TrainingError, match=message):
        train_ensemble(broken, RareNodeLoss(dataset.hierarchy), budget(), STREAMS)


# --- streams ------------------------------------------------------------------------------------


def draws(streams: Streams) -> dict[str, list]:
    """The first numbers of every stream."""
    generators = {
        "weights": streams.initial_weights(2),
        "dropout": [*streams.dropout(2, 0, "cpu"), *streams.dropout(2, 1, "cpu")],
        "prediction": [
            *streams.prediction(2, "valid", "cpu"),
            *streams.prediction(2, "test", "cpu"),
        ],
    }
    drawn = {
        name: [torch.rand(3, generator=g).tolist() for g in of_name]
        for name, of_name in generators.items()
    }
    return {
        **drawn,
        "order": [streams.order(np.arange(50), epoch).tolist() for epoch in (0, 1)],
        "resampling": streams.resampling().random(3).tolist(),
        "forest": [streams.forest()],
    }


def test_variants_share_weights_order_and_dropout():
    one, other = Streams(1, "toy", "mcm", 0), Streams(1, "toy", "weighted_binary", 0)
    assert draws(one) == draws(other)
    assert str(other) == "toy weighted_binary seed 0"


@pytest.mark.parametrize(
    "other",
    [Streams(2, "toy", "mcm", 0), Streams(1, "icd10cm", "mcm", 0), Streams(1, "toy", "mcm", 1)],
)
def test_roots_data_sets_and_seeds_share_nothing(other):
    ours, theirs = draws(Streams(1, "toy", "mcm", 0)), draws(other)
    for name, values in ours.items():
        assert all(a != b for a, b in zip(values, theirs[name], strict=True)), name


def test_no_two_streams_of_a_run_are_the_same():
    drawn = draws(STREAMS)
    numbers = [tuple(v) for name in ("weights", "dropout", "prediction") for v in drawn[name]]
    assert len(set(numbers)) == len(numbers) == 2 + 4 + 4
    assert drawn["order"][0] != drawn["order"][1]


def test_two_variants_differ_by_the_loss_alone(dataset):
    loss = RareNodeLoss(dataset.hierarchy)
    names = ("mcm", "another")
    runs = [train_ensemble(dataset, loss, budget(), Streams(1, "toy", n, 0)) for n in names]
    assert_same_run(*runs)


# --- schedules ----------------------------------------------------------------------------------


class Weighed(RareNodeLoss):
    """Notes the weight of the first node at every step."""

    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        self.seen = []

    def forward(self, logits, targets, known=None):
        self.seen.append(self.positive_weight[0].item())
        return super().forward(logits, targets, known)


def weighed(dataset, schedule: Schedule) -> Weighed:
    return Weighed(dataset.hierarchy, torch.full((len(dataset.hierarchy),), 5.0), schedule=schedule)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        # 180 examples in batches of 32 are 6 steps an epoch, 30 in all.
        (Schedule("linear", end=1.0), [1 + 4 * (1 - i / 29) for i in range(30)]),
        (
            Schedule("exponential", 2.0, "epoch"),
            [0.25 + 4.75 * (1 - i / 5) ** 2 for i in range(6)] * 5,
        ),
        (Schedule("alternating"), [5.0] * 6 + [0.25] * 6 + [5.0] * 6 + [0.25] * 6 + [5.0] * 6),
    ],
    ids=["linear", "exponential in each epoch", "alternating"],
)
def test_a_schedule_is_applied_at_every_step_also_after_resuming(
    dataset, tmp_path, interrupted, schedule, expected
):
    assert len(dataset.split["train"]) == 180
    whole = weighed(dataset, schedule)
    uninterrupted = train_ensemble(dataset, whole, budget(epochs=5), STREAMS)
    assert whole.seen == pytest.approx(expected)
    interrupted(dataset, weighed(dataset, schedule), budget(epochs=5), STREAMS, tmp_path)
    # A new process has a new loss, which starts from the first weights.
    rest = weighed(dataset, schedule)
    resumed = train_ensemble(dataset, rest, budget(epochs=5), STREAMS, tmp_path)
    assert rest.seen == pytest.approx(expected[18:])
    assert_same_run(uninterrupted, resumed)


# --- losses of nodes given their parents ---------------------------------------------------------


def constant_of(dataset, node: int) -> torch.Tensor:
    """A constant for a node and its descendants, and none for the others."""
    constant = torch.full((len(dataset.hierarchy),), float("nan"))
    constant[dataset.hierarchy.descendants(node)] = 0.05
    return constant


def test_validation_of_a_product_is_the_cross_entropy_of_its_predictions(dataset):
    hierarchy = dataset.hierarchy
    for output in (Output("product"), Output("product", constant_of(dataset, 3))):
        loss = ConditionalLoss(hierarchy, output=output)
        trained = train_ensemble(dataset, loss, budget(epochs=2), STREAMS)
        assert trained.ensemble.output is output
        rows = dataset.split["valid"]
        logits = trained.ensemble(torch.from_numpy(dataset.features[rows])).detach()
        members = output.probabilities(logits, hierarchy)[..., dataset.evaluated]
        targets = loop.dense_rows(dataset.targets, rows)[:, dataset.evaluated]
        bce = torch.nn.functional.binary_cross_entropy(members, targets.expand_as(members))
        found = trained.history.iloc[-1]
        assert found["valid_bce"] == pytest.approx(bce.item(), rel=1e-4)
        disagreement = mutual_information(members).mean().item()
        assert found["valid_disagreement"] == pytest.approx(disagreement, rel=1e-4)


def test_validation_of_a_constant_beside_the_maximum(dataset):
    output = Output("maximum", constant_of(dataset, 3))
    plain, other = (
        train_ensemble(
            dataset, RareNodeLoss(dataset.hierarchy, output=output), budget(epochs=1), STREAMS
        )
        for output in (None, output)
    )
    # The networks are the same, their predictions are not.
    for ours, theirs in zip(plain.ensemble.parameters(), other.ensemble.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    rows = dataset.split["valid"]
    logits = other.ensemble(torch.from_numpy(dataset.features[rows])).detach()
    targets = loop.dense_rows(dataset.targets, rows)
    elements = output.bce(logits, targets, dataset.hierarchy)[..., dataset.evaluated]
    found, without = (t.history["valid_bce"].iloc[-1] for t in (other, plain))
    assert found == pytest.approx(elements.mean().item(), rel=1e-5)
    assert found != pytest.approx(without, rel=1e-3)


@pytest.mark.parametrize("objective", ["conditional", "unconditional"])
def test_conditional_training_improves_validation_and_members_are_each_alone(dataset, objective):
    loss = ConditionalLoss(dataset.hierarchy, objective=objective)
    together = train_ensemble(dataset, loss, budget(epochs=15), STREAMS)
    history = together.history
    assert history["valid_bce"].iloc[-1] < 0.8 * history["valid_bce"].iloc[0]
    streams = type("Streams", (OnlyMember,), {"member": 1})(1, "synthetic", "mcm", 0)
    alone = train_ensemble(dataset, loss, budget(epochs=3, members=1), streams).ensemble
    three = train_ensemble(dataset, loss, budget(epochs=3, members=3), STREAMS).ensemble
    for ours, its in zip(three.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(ours[1], its[0], rtol=1e-4, atol=1e-5)


def test_one_loss_after_the_other_resumes_to_the_same_bits(dataset, tmp_path, interrupted):
    def loss():
        return ConditionalLoss(dataset.hierarchy, objective="unconditional", conditional_first=0.5)

    whole = train_ensemble(dataset, loss(), budget(epochs=5), STREAMS)
    interrupted(dataset, loss(), budget(epochs=5), STREAMS, tmp_path)
    assert_same_run(whole, train_ensemble(dataset, loss(), budget(epochs=5), STREAMS, tmp_path))
    alone = ConditionalLoss(dataset.hierarchy)
    conditional = train_ensemble(dataset, alone, budget(epochs=5), STREAMS)
    ours, theirs = whole.history["train_loss"], conditional.history["train_loss"]
    assert (ours[:3] == theirs[:3]).all()
    assert (ours[3:] != theirs[3:]).all()


def test_a_saved_ensemble_predicts_by_the_same_rule(tmp_path, dataset):
    shape = Shape(features=16, hidden=8, layers=1, nodes=len(dataset.hierarchy), dropout=0.0)
    inputs = torch.from_numpy(dataset.features[:9])
    predictions = []
    for rule in ("maximum", "product"):
        for constant in (None, constant_of(dataset, 3)):
            streams = generators(0, 1)
            ensemble = Ensemble(shape, streams, output=Output(rule, constant))
            folder = tmp_path / f"{rule}-{constant is None}"
            ensemble.save(folder)
            predictions.append(ensemble.predict(inputs, dataset.hierarchy))
            loaded = Ensemble.load(folder)
            assert loaded.output.rule == rule
            assert torch.equal(loaded.predict(inputs, dataset.hierarchy), predictions[-1])
    assert all(not torch.equal(a, b) for i, a in enumerate(predictions) for b in predictions[:i])


# --- one network under different dropout --------------------------------------------------------


def passes_of(passes=3, dropout=0.5) -> Ensemble:
    shape = Shape(features=4, hidden=8, layers=2, nodes=3, dropout=dropout)
    return Ensemble(shape, [torch.Generator().manual_seed(0)], passes=passes)


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def test_passes_are_one_network_under_different_dropout():
    ensemble, inputs = passes_of(), torch.randn(5, 4)
    assert ensemble.members == 3
    assert [len(weight) for weight in ensemble.weights] == [1, 1, 1]
    once = passes_of(passes=1)
    together = ensemble(inputs, generators(1, 2, 3))
    assert together.shape == (3, 5, 3)
    for member, seed in enumerate((1, 2, 3)):
        torch.testing.assert_close(together[member], once(inputs, generators(seed))[0])
    assert not torch.equal(together[0], together[1])
    # Without dropout there is nothing to tell them apart.
    plain = ensemble(inputs)
    for member in range(3):
        torch.testing.assert_close(plain[member], once(inputs)[0])


def test_the_network_learns_from_the_mean_of_its_passes(dataset):
    # The gradients, as Adam would hide a factor.
    of_passes = budget(ensemble="dropout", members=4, epochs=1, batch_size=1000)
    loss = RareNodeLoss(dataset.hierarchy)
    features = torch.from_numpy(dataset.features)
    run = loop._Run.start(dataset, loss, of_passes, STREAMS, features)
    rows = dataset.split["train"]
    logged = run.train_epoch(0, rows).item()
    found = [parameter.grad for parameter in run.ensemble.parameters()]

    alone = loop._Run.start(dataset, loss, budget(members=1), STREAMS, features).ensemble
    targets = loop.dense_rows(dataset.targets, rows)
    losses = [
        loss(alone(features[rows], [stream]), targets) for stream in STREAMS.dropout(4, 0, "cpu")
    ]
    mean = sum(losses) / 4
    assert logged == pytest.approx(mean.item(), rel=1e-5)
    for ours, expected in zip(
        found, torch.autograd.grad(mean, list(alone.parameters())), strict=True
    ):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-6)


def test_more_passes_do_not_make_the_loss_larger(dataset):
    loss = RareNodeLoss(dataset.hierarchy)
    few, many = (
        train_ensemble(dataset, loss, budget(ensemble="dropout", members=m, epochs=1), STREAMS)
        for m in (1, 8)
    )
    ratio = many.history["train_loss"][0] / few.history["train_loss"][0]
    assert ratio == pytest.approx(1, abs=0.05)


def test_networks_learn_from_their_sum_and_passes_from_their_mean(dataset):
    loss = RareNodeLoss(dataset.hierarchy)
    networks = train_ensemble(dataset, loss, budget(members=4, epochs=1), STREAMS)
    passes = train_ensemble(dataset, loss, budget(ensemble="dropout", members=4, epochs=1), STREAMS)
    ratio = networks.history["train_loss"][0] / passes.history["train_loss"][0]
    assert ratio == pytest.approx(4, rel=0.1)


def test_predictions_with_dropout_are_reproducible_and_their_own(dataset):
    of_passes = budget(ensemble="dropout", members=4, dropout=0.5)
    ensemble = train_ensemble(dataset, RareNodeLoss(dataset.hierarchy), of_passes, STREAMS).ensemble
    inputs = torch.from_numpy(dataset.features[dataset.split["test"]])

    def predicted(part: str | None, batch_size: int = 512) -> torch.Tensor:
        dropout = None
        if part is not None:
            dropout = prediction_dropout(of_passes, STREAMS, part, "cpu")
        return ensemble.predict(inputs, dataset.hierarchy, batch_size, dropout)

    assert torch.equal(predicted("test"), predicted("test"))
    assert not torch.equal(predicted("test"), predicted("valid"))
    assert not torch.allclose(predicted("test"), predicted(None), atol=1e-3)
    assert dataset.hierarchy.is_coherent(predicted("test"))
    # The mean over passes of each one's constrained probabilities.
    streams = prediction_dropout(of_passes, STREAMS, "test", "cpu")
    members = torch.sigmoid(ensemble(inputs, streams))
    expected = dataset.hierarchy.max_over_descendants(members).mean(dim=0)
    torch.testing.assert_close(predicted("test"), expected.detach())


def test_only_a_dropout_ensemble_drops_units_to_predict():
    assert prediction_dropout(budget(), STREAMS, "test", "cpu") is None
    of_passes = budget(ensemble="dropout", members=5)
    assert len(prediction_dropout(of_passes, STREAMS, "test", "cpu")) == 5


def test_validation_of_a_dropout_ensemble_keeps_dropout_on(dataset):
    loss = RareNodeLoss(dataset.hierarchy)
    histories = [
        train_ensemble(
            dataset, loss, budget(ensemble="dropout", members=m, epochs=2), STREAMS
        ).history
        for m in (1, 4)
    ]
    assert (histories[0]["valid_disagreement"] == 0).all()
    assert (histories[1]["valid_disagreement"] > 1e-4).all()


def test_saved_and_loaded_passes_predict_the_same(tmp_path):
    ensemble, inputs = passes_of(), torch.randn(5, 4)
    ensemble.save(tmp_path)
    description = json.loads((tmp_path / "ensemble.json").read_text())
    assert (description["networks"], description["passes"]) == (1, 3)
    loaded = Ensemble.load(tmp_path)
    assert loaded.members == 3
    expected = ensemble(inputs, generators(1, 2, 3))
    assert torch.equal(loaded(inputs, generators(1, 2, 3)), expected)


def test_a_dropout_ensemble_resumes_to_the_same_bits(dataset, tmp_path, interrupted):
    of_passes = budget(ensemble="dropout", members=3, epochs=5)
    loss = RareNodeLoss(dataset.hierarchy, focal=Focal("gmu"))
    whole = train_ensemble(dataset, loss, of_passes, STREAMS)
    interrupted(dataset, loss, of_passes, STREAMS, tmp_path)
    assert_same_run(whole, train_ensemble(dataset, loss, of_passes, STREAMS, tmp_path))


@pytest.mark.parametrize(
    ("networks", "layers", "dropout", "found"),
    [
        (2, 1, 0.5, "2 networks, 1 hidden layers, dropout 0.5"),
        (1, 0, 0.5, "1 networks, 0 hidden layers, dropout 0.5"),
        (1, 1, 0.0, "1 networks, 1 hidden layers, dropout 0.0"),
    ],
)
def test_message_of_passes_that_would_not_differ(networks, layers, dropout, found):
    shape = Shape(features=4, hidden=8, layers=layers, nodes=3, dropout=dropout)
    message = f"^3 passes need one network with hidden layers and dropout, found {found}$"
    with pytest.raises(ValueError, match=message):
        Ensemble(shape, generators(*range(networks)), passes=3)
    assert Ensemble(shape, generators(*range(networks)), passes=1).members == networks


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
        "SHA256SUMS",
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
