"""Runs of sparse conditional training beside dense ones, and beside themselves interrupted."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch.nn import functional

from rarenodes.datasets import load_dataset
from rarenodes.datasets.dataset import Dataset
from rarenodes.loss.conditional import ConditionalLoss, active
from rarenodes.scores.metrics import average_precision, micro_average_precision
from rarenodes.settings import SettingsError
from rarenodes.stages.prepare import prepare
from rarenodes.stages.train import train as train_stage
from rarenodes.study.params import Study
from rarenodes.study.results import Results
from rarenodes.training import loop
from rarenodes.training.ensemble import Ensemble
from rarenodes.training.loop import Budget, Streams, TrainingError, train_ensemble
from rarenodes.training.memory import Size
from rarenodes.training.sparse_run import SparseRun
from rarenodes.training.variants import VariantSettings, build_loss

REPOSITORY = Path(__file__).parents[2]
STREAMS = Streams(1, "synthetic", "conditional_sparse", 0)
OPTIONS = {"nodes": 60, "examples": 160, "multi_parent": 0.3}
FURTHER = {
    "plain": {},
    "shifted": {"shift": {"kind": "conditional-prior", "strength": 1.0}},
    "weighted": {"weights": {"mode": "binary", "counts": "conditional"}},
    "weighted, then not": {
        "weights": {"mode": "binary", "schedule": {"kind": "linear", "reading": "paper"}}
    },
    "focal": {"focal": {"uncertainty": "gmu"}},
    "all mixed": {
        "focal": {"uncertainty": "bbma"},
        "weights": {"mode": "binary"},
        "mixture": 0.5,
        "shift": {"kind": "conditional-prior", "strength": 0.5},
        "unseen": "constant",
    },
}


@pytest.fixture(scope="module")
def dataset():
    """A DAG of which some nodes have no training positives and a third of the leaves do not count."""
    found = load_dataset("synthetic", seed=3, options=OPTIONS)
    evaluated = found.evaluated.copy()
    evaluated[found.hierarchy.indices(found.hierarchy.leaves)[::3]] = False
    assert (found.counts("train") == 0).any()
    return replace(found, evaluated=evaluated)


def budget(**changes) -> Budget:
    settings = {
        "epochs": 3,
        "batch_size": 32,
        "learning_rate": 0.01,
        "weight_decay": 0.0,
        "hidden": 12,
        "layers": 1,
        "dropout": 0.4,
        "members": 3,
        "device": "cpu",
    }
    return Budget(**{**settings, **changes})


def loss_of(dataset, sparse: str | None, **more) -> ConditionalLoss:
    entry = {"about": "x", "constraint": "conditional", "sparse": sparse, **more}
    return build_loss(VariantSettings.model_validate(entry), dataset)


def trained(dataset, sparse, further="plain", checkpoint=None, watch=None, **changes):
    loss = loss_of(dataset, sparse, **FURTHER[further])
    return train_ensemble(dataset, loss, budget(**changes), STREAMS, checkpoint, watch)


def same_bits(one, other) -> bool:
    pairs = zip(one.ensemble.parameters(), other.ensemble.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs) and one.history.equals(other.history)


@pytest.mark.parametrize("further", FURTHER)
@pytest.mark.parametrize("layers", [0, 1])
def test_a_run_without_decay_is_the_dense_one(dataset, further, layers):
    dense, sparse = (trained(dataset, s, further, layers=layers) for s in (None, "moving"))
    for name, parameter in sparse.ensemble.named_parameters():
        expected = dense.ensemble.get_parameter(name)
        torch.testing.assert_close(parameter, expected, rtol=1e-3, atol=1e-4, msg=name)
    losses = [run.history["train_loss"].to_numpy() for run in (sparse, dense)]
    np.testing.assert_allclose(*losses, rtol=1e-5)
    features = torch.from_numpy(dataset.features)
    found, expected = (run.ensemble.predict(features, dataset.hierarchy) for run in (sparse, dense))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


def test_terms_of_the_loss_change_the_run(dataset):
    runs = [trained(dataset, "still", further) for further in FURTHER]
    first = [run.ensemble.weights[-1] for run in runs]
    for i, one in enumerate(first):
        assert not any(torch.allclose(one, other, atol=1e-4) for other in first[i + 1 :])


def test_rows_that_rest_stay_or_move_as_the_variant_says(dataset):
    still, moving = (trained(dataset, s).ensemble.weights[-1] for s in ("still", "moving"))
    assert not torch.allclose(still, moving, atol=1e-4)


@pytest.mark.parametrize("at_rest", ["still", "moving"])
def test_a_resumed_run_has_the_same_bits(dataset, tmp_path, monkeypatch, at_rest):
    monkeypatch.setattr(loop, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    given = {"further": "all mixed", "epochs": 5, "weight_decay": 0.1}
    whole = trained(dataset, at_rest, **given)
    train_epoch, epochs = SparseRun.train_epoch, []

    def noted(run, epoch, order):
        epochs.append(epoch)
        if epochs == [0, 1, 2, 3]:
            raise TrainingError("interrupted")
        return train_epoch(run, epoch, order)

    monkeypatch.setattr(SparseRun, "train_epoch", noted)
    with pytest.raises(TrainingError, match="interrupted"):
        trained(dataset, at_rest, checkpoint=tmp_path, **given)
    resumed = trained(dataset, at_rest, checkpoint=tmp_path, **given)
    assert epochs == [0, 1, 2, 3, 3, 4]
    assert same_bits(whole, resumed)


@pytest.mark.parametrize("at_rest", ["still", "moving"])
def test_watching_changes_no_bit_and_sees_the_present(dataset, at_rest):
    seen = {}

    def watch(epoch, ensemble):
        seen[epoch] = ensemble.weights[-1].detach().clone()

    given = {"weight_decay": 0.1, "further": "focal"}
    watched, plain = (trained(dataset, at_rest, watch=w, **given) for w in (watch, None))
    pairs = zip(watched.ensemble.parameters(), plain.ensemble.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert sorted(seen) == [1, 2, 3]
    assert torch.equal(seen[3], plain.ensemble.weights[-1])
    shorter = trained(dataset, at_rest, epochs=2, **given)
    assert torch.equal(seen[2], shorter.ensemble.weights[-1])


def test_threads_change_no_bit(dataset, monkeypatch):
    monkeypatch.setattr("rarenodes.loss.kernels.threads.PARALLEL_FROM", 0)
    before, runs = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            runs.append(trained(dataset, "still", "all mixed", layers=0, weight_decay=0.1))
    finally:
        torch.set_num_threads(before)
    assert same_bits(*runs)


def test_validation_is_the_cross_entropy_at_active_nodes_that_count(dataset):
    run = trained(dataset, "still", "all mixed", weight_decay=0.1)
    rows = dataset.split["valid"]
    targets = torch.from_numpy(dataset.targets[rows].toarray()).float()
    constant = run.ensemble.output.constant
    with torch.no_grad():
        logits = run.ensemble(torch.from_numpy(dataset.features[rows]))
    logits = torch.where(constant.isnan(), logits, torch.logit(constant))
    costs = functional.binary_cross_entropy_with_logits(
        logits, targets.expand_as(logits), reduction="none"
    )
    counted = dataset.hierarchy.close(torch.from_numpy(dataset.evaluated)).bool()
    asked = active(targets, dataset.hierarchy) & counted
    assert 0 < asked.sum() < active(targets, dataset.hierarchy).sum()
    expected = costs[:, asked].mean().item()
    assert run.history["valid_active_bce"].iloc[-1] == pytest.approx(expected, rel=1e-5)
    both = trained(dataset, "still", fit_on=["train", "valid"])
    assert list(both.history) == ["epoch", "train_loss"]


def test_what_cannot_be_trained_sparsely_says_so(dataset, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(SettingsError, match=r"training\.device: expected cpu or auto, found cuda"):
        trained(dataset, "still", device="cuda")
    # Left to choose, it takes the CPU where there is a GPU.
    assert trained(dataset, "still", device="auto", epochs=1).ensemble.weights[0].is_cpu
    with pytest.raises(
        SettingsError, match=r"training\.ensemble: .* found dropout: remove `sparse`"
    ):
        trained(dataset, "still", ensemble="dropout")
    with pytest.raises(
        SettingsError, match=r"training\.encoder: .* found residual: remove `sparse`"
    ):
        trained(dataset, "still", encoder={"name": "residual"})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"objective": "unconditional"}, "sparse training needs the conditional objective$"),
        ({"reduction": "sum"}, "sparse training needs reduction per example$"),
        ({"element": torch.add, "balance": torch.neg}, "needs binary cross-entropy, no balance$"),
        ({"sparse": "fast"}, "unknown sparse training 'fast': known are still, moving"),
    ],
)
def test_losses_that_are_not_sparse_are_refused(dataset, given, message):
    with pytest.raises(ValueError, match=message):
        ConditionalLoss(dataset.hierarchy, **{"sparse": "still", **given})


def test_sparse_training_needs_no_memory_for_logits():
    given = {"features": 3, "hidden": 4, "layers": 2, "members": 2, "batch_size": 7, "networks": 2}
    # Four copies of two networks of 61 weights; 2 members · 7 examples · 2 · 2 · 4 hidden units.
    assert Size(nodes=5, sparse=True, **given).bytes_needed() == 4 * (488 + 224)


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    """Sparse variants and a dense one on a small DAG of which no probabilities are kept."""
    names = ["mcm", "conditional_sparse", "conditional_sparse_prior_unseen_constant"]
    values = {
        "seed": 1,
        "datasets": {"toy": {"about": "a small DAG", "source": "synthetic", "options": OPTIONS}},
        "catalogue": [str(REPOSITORY / "variants.yaml")],
        "training": {
            **budget().model_dump(),
            "seeds": 2,
            "threads": 1,
            "keep_probabilities": False,
            "keep_ensembles": True,
        },
        "variants": names,
        "evaluation": {"baseline": "mcm", "precision_at": [1, 3]},
    }
    folder = tmp_path_factory.mktemp("sparse")
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    study = Study(folder / "params.yaml")
    prepare(study, "toy", study.prepared("toy"))
    for name in names:
        train_stage(study, "toy", name, study.results("toy", name))
    return study


@pytest.mark.parametrize("name", ["conditional_sparse", "conditional_sparse_prior_unseen_constant"])
def test_the_stage_leaves_the_tables_of_any_variant(study, name):
    results, dense = (Results.load(study.results("toy", n)) for n in (name, "mcm"))
    assert results.test is None
    for table in ("nodes", "seeds"):
        ours, theirs = getattr(results, table), getattr(dense, table)
        assert list(ours) == list(theirs)
        assert len(ours) == len(theirs)
    # Scores are those of the kept networks' whole predictions.
    prepared = Dataset.load(study.prepared("toy"))
    rows = prepared.split["test"]
    targets = prepared.targets[rows][:, prepared.evaluated]
    for seed in range(2):
        ensemble = Ensemble.load(study.results("toy", name) / f"ensemble-{seed}")
        features = torch.from_numpy(prepared.features[rows])
        predicted = ensemble.predict(features, prepared.hierarchy).numpy()[:, prepared.evaluated]
        found = results.nodes[results.nodes["seed"] == seed]["average_precision"]
        np.testing.assert_allclose(found, average_precision(predicted, targets), rtol=1e-4)
        pooled = results.seeds.set_index("seed").loc[seed]
        micro = micro_average_precision(predicted, targets)
        assert pooled["micro_average_precision"] == pytest.approx(micro, rel=1e-4)
        best = np.argsort(-predicted, axis=1, kind="stable")[:, :3]
        hits = np.take_along_axis(targets.toarray(), best, axis=1)
        assert pooled["precision_at_3"] == pytest.approx(hits.mean(), rel=1e-6)
        assert 0 < pooled["leaf_precision_at_1"] < 1
