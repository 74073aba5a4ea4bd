"""Scores from files against the same scores in memory."""

import shutil
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import sparse

from rarenodes.datasets import load_dataset
from rarenodes.datasets.dataset import Dataset
from rarenodes.scores import metrics
from rarenodes.scores import stored as storage
from rarenodes.scores.run_tables import Predictions, node_table, score_run
from rarenodes.scores.stored import StoredScores, in_blocks
from rarenodes.settings import SettingsError
from rarenodes.stages.combine import combine
from rarenodes.stages.prepare import prepare
from rarenodes.stages.score import score_variant
from rarenodes.stages.train import train as train_stage
from rarenodes.study.params import Study
from rarenodes.study.results import Results
from rarenodes.training.combined_scores import CombinedScores

TINY = Path(__file__).parents[1] / "tiny" / "params.yaml"


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """So small that everything here takes several, the last of them not full."""
    monkeypatch.setattr(storage, "NODES_AT_ONCE", 7)


@pytest.fixture
def store():
    """Puts scores into a file, some examples at a time."""
    files = []

    def stored(scores: np.ndarray) -> StoredScores:
        files.append(tempfile.TemporaryFile())  # noqa: SIM115
        written = StoredScores(files[-1], *scores.shape)
        for first in range(0, len(scores), 16):
            written.write(first, scores[first : first + 16])
        return written

    yield stored
    for file in files:
        file.close()


def made_up(examples: int, nodes: int, seed: int = 0) -> tuple[np.ndarray, sparse.csr_array]:
    """Scores with ties, and sparse targets that they say something of."""
    rng = np.random.default_rng(seed)
    targets = rng.random((examples, nodes)) < 0.1
    scores = (rng.random((examples, nodes)) ** 4 + 0.4 * targets).clip(0, 1)
    return scores.round(2).astype(np.float32), sparse.csr_array(targets.astype(np.uint8))


def test_what_is_written_by_examples_is_read_by_nodes(store):
    scores, targets = made_up(50, 23)
    blocks, labels = zip(*in_blocks(store(scores), targets), strict=True)
    assert [block.shape for block in blocks] == [(50, 7), (50, 7), (50, 7), (50, 2)]
    np.testing.assert_array_equal(np.hstack(blocks), scores)
    np.testing.assert_array_equal(np.hstack([b.toarray() for b in labels]), targets.toarray())


def test_what_is_in_memory_comes_at_once():
    scores, targets = made_up(5, 23)
    [(block, labels)] = in_blocks(scores, targets)
    assert block is scores
    assert labels is targets


def test_targets_of_another_shape(store):
    scores, targets = made_up(50, 23)
    with pytest.raises(ValueError, match=r"\(50, 23\) and targets of shape \(50, 22\)"):
        metrics.f1_by_threshold(store(scores), targets[:, :22])


@pytest.mark.parametrize("seed", range(5))
def test_micro_average_precision_is_that_in_memory(store, seed):
    scores, targets = made_up(60, 25, seed)
    found = metrics.micro_average_precision(store(scores), targets)
    assert found == metrics.micro_average_precision(scores, targets)


def test_without_positives_there_is_no_micro_average_precision(store):
    scores, targets = made_up(20, 9)
    assert np.isnan(metrics.micro_average_precision(store(scores), 0 * targets))


@pytest.fixture(scope="module")
def dataset():
    return load_dataset("synthetic", options={"examples": 300, "nodes": 40})


@pytest.mark.parametrize("per", ["dataset", "depth", "node"])
@pytest.mark.parametrize("held_out", [True, False])
def test_scores_of_a_run_are_those_in_memory(dataset, store, held_out, per):
    def of(part: str) -> np.ndarray:
        targets = dataset.targets[dataset.split[part]].toarray()[:, dataset.evaluated]
        noise = np.random.default_rng(len(part)).random(targets.shape)
        return (0.6 * noise + 0.3 * targets).round(2).astype(np.float32)

    nodes = node_table(dataset, ["train"])
    in_memory = Predictions(of("valid") if held_out else None, of("test"))
    expected, expected_pooled = score_run(dataset, in_memory, nodes, per)
    in_files = Predictions(store(of("valid")) if held_out else None, store(of("test")))
    found, pooled = score_run(dataset, in_files, nodes, per)
    pd.testing.assert_frame_equal(found, expected)
    np.testing.assert_equal(pooled, expected_pooled)


def test_memory_stays_far_below_examples_times_nodes(dataset, store, monkeypatch):
    monkeypatch.setattr(storage, "NODES_AT_ONCE", 32)
    scores, targets = made_up(1500, 2000)
    stored = store(scores)
    tracemalloc.start()
    metrics.micro_average_precision(stored, targets)
    for block, labels in in_blocks(stored, targets):
        metrics.score_nodes(block, labels)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Of every positive it keeps a score and a count.
    assert peak < 32 * targets.nnz + scores.nbytes / 4


@pytest.mark.parametrize(
    "variant",
    [
        {"weights": {"mode": "binary"}},
        {"threshold": "node"},
        {"forest": {"trees": 3}},
        {"training": {"ensemble": "dropout", "dropout": 0.3}},
    ],
    ids=["weights", "threshold", "forest", "dropout"],
)
def test_results_do_not_depend_on_whether_probabilities_are_kept(tmp_path, variant):
    values = yaml.safe_load(TINY.read_text())
    values["variants"]["odd"] = {"about": "one of many", **variant}
    found = {}
    for keep in (True, False):
        values["training"]["keep_probabilities"] = keep
        values["evaluation"]["precision_at"] = [1, 3]
        folder = tmp_path / str(keep)
        folder.mkdir()
        (folder / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
        study = Study(folder / "params.yaml")
        prepare(study, "toy", study.prepared("toy"))
        train_stage(study, "toy", "odd", study.results("toy", "odd"))
        dataset = Dataset.load(study.prepared("toy"))
        found[keep] = score_variant(study, dataset, "toy", "odd")
        assert (Results.load(study.results("toy", "odd")).test is not None) == keep
        left = {path.name for path in (folder / "scratch").iterdir()}
        assert left <= {"checkpoints", "run_log.csv"}
    for of_kept, of_scored in zip(found[True], found[False], strict=True):
        pd.testing.assert_frame_equal(of_scored, of_kept)


def test_committees_do_not_depend_on_whether_probabilities_are_kept(tmp_path):
    values = yaml.safe_load(TINY.read_text())
    del values["datasets"]["toy_limited"]
    equal = {"members": ["mcm", "near"], "weights": "equal"}
    decided = {"members": ["mcm", "near", "equal"], "weights": "validation", "mean": "arithmetic"}
    values["variants"] = {
        "mcm": values["variants"]["mcm"],
        "near": {"about": "the nearest", "neighbours": {"count": 5}},
        "equal": {"about": "of both", "committee": equal},
        "decided": {"about": "of these and a committee", "committee": decided},
    }
    values["committees"] = ["equal", "decided"]
    values["evaluation"] = {"baseline": "mcm", "precision_at": [1, 3]}
    values["training"]["keep_ensembles"] = True
    found = {}
    for keep in (True, False):
        values["training"]["keep_probabilities"] = keep
        folder = tmp_path / str(keep)
        folder.mkdir()
        (folder / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
        study = Study(folder / "params.yaml")
        prepare(study, "toy", study.prepared("toy"))
        for variant in ("mcm", "near"):
            train_stage(study, "toy", variant, study.results("toy", variant))
        combine(study, "toy", study.results("toy", "equal").parent)
        dataset = Dataset.load(study.prepared("toy"))
        for variant in ("equal", "decided"):
            tables = score_variant(study, dataset, "toy", variant)
            history = Results.load(study.results("toy", variant)).history
            found[keep, variant] = (*tables, history)
            assert len(tables[1]) == 2
    for variant in ("equal", "decided"):
        for of_kept, of_blocks in zip(found[True, variant], found[False, variant], strict=True):
            pd.testing.assert_frame_equal(of_blocks, of_kept)
    shutil.rmtree(study.results("toy", "mcm") / "ensemble-1")
    with pytest.raises(
        SettingsError, match=r"networks of seed 1 were kept, .*keep_ensembles to true"
    ):
        combine(study, "toy", study.results("toy", "equal").parent)


def test_means_of_some_nodes_at_a_time_have_one_weight_a_member(store):
    halves = store(np.full((4, 3), 0.5, np.float32))
    with pytest.raises(ValueError, match=r"expected \(2,\): with weights by node a child may"):
        CombinedScores([halves, halves], np.full((2, 3), 0.5), "geometric")
    with pytest.raises(ValueError, match="expected one shape for all"):
        CombinedScores([halves, store(np.zeros((4, 2), np.float32))], np.full(2, 0.5), "geometric")


@pytest.mark.parametrize(
    ("change", "mend"),
    [
        ({"weights": "rarity"}, "set its weights to equal or validation"),
        ({"weights": "equal"}, "set training.keep_ensembles to true"),
    ],
)
def test_committees_of_what_is_not_kept_are_refused_before_training(tmp_path, change, mend):
    values = yaml.safe_load(TINY.read_text())
    values["training"]["keep_probabilities"] = False
    values["variants"]["both"] = {
        "about": "a committee",
        "committee": {"members": ["mcm", "weighted_binary"], **change},
    }
    values["committees"] = ["both"]
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    with pytest.raises(
        SettingsError, match=f"'both' is of probabilities that are not kept.*{mend}"
    ):
        Study(tmp_path / "params.yaml")
