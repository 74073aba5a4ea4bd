"""Runs and bootstraps in processes of their own give what they give one after the other."""

import os
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from rarenodes.side_by_side import processes, side_by_side
from rarenodes.stages import material, train
from rarenodes.stages.material import Material
from rarenodes.stages.prepare import prepare
from rarenodes.stages.score import score
from rarenodes.study.params import Study

TINY = Path(__file__).parents[1] / "tiny" / "params.yaml"
NAME, VARIANT = "toy", "mcm"


def where(given: int) -> tuple[int, int]:
    time.sleep(0.3)
    return given, os.getpid()


def refused(given: int) -> None:
    raise ValueError(f"{given} is refused")


def test_results_come_in_order_from_other_processes():
    results = side_by_side(where, [(i,) for i in range(4)], 2, "test")
    assert [given for given, _ in results] == [0, 1, 2, 3]
    ids = {process for _, process in results}
    assert os.getpid() not in ids
    assert len(ids) == 2


def test_a_single_call_stays_here():
    assert side_by_side(where, [(7,)], 4, "test") == [(7, os.getpid())]


def test_an_exception_of_a_call_is_raised_here():
    with pytest.raises(ValueError, match=r"^1 is refused$"):
        side_by_side(refused, [(1,), (1,)], 2, "test")


def test_threads_leave_room_for_fewer_processes(monkeypatch):
    monkeypatch.setattr("rarenodes.side_by_side.cpu_count", lambda: 8)
    assert [processes(threads) for threads in (1, 3, 8, 9)] == [8, 2, 1, 1]


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    folder = tmp_path_factory.mktemp("study")
    values = yaml.safe_load(TINY.read_text())
    values["training"]["seeds"] = 3
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    study = Study(folder / "params.yaml")
    prepare(study, NAME, study.prepared(NAME))
    return study


@pytest.fixture(scope="module")
def alone(study, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "processes", lambda threads: 1)
        return train.train(study, NAME, VARIANT, study.results(NAME, VARIANT))


def test_runs_trained_ahead_have_the_same_bits(study, alone, tmp_path, monkeypatch):
    train.discard_checkpoints(study, NAME, VARIANT)
    monkeypatch.setattr(train, "WORTH_A_PROCESS", 0.0)
    monkeypatch.setattr(train, "processes", lambda threads: 2)
    ahead, here = [], train.side_by_side

    def told(function, arguments, at_once, about):
        ahead.extend(arguments)
        return here(function, arguments, at_once, about)

    monkeypatch.setattr(train, "side_by_side", told)
    found = train.train(study, NAME, VARIANT, tmp_path / "results")
    assert [run[-1] for run in ahead] == [1, 2]
    assert np.array_equal(found.test, alone.test)
    assert np.array_equal(found.valid, alone.valid)
    assert found.history.equals(alone.history)


def test_short_runs_start_no_process(study, alone, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "side_by_side", None)
    monkeypatch.setattr(train, "processes", lambda threads: 2)
    monkeypatch.setattr(train, "WORTH_A_PROCESS", float("inf"))
    assert np.array_equal(train.train(study, NAME, VARIANT, tmp_path).test, alone.test)


def test_bootstraps_side_by_side_are_those_of_one_after_the_other(study, monkeypatch):
    for variant in study.variants:
        train.train(study, NAME, variant, study.results(NAME, variant))
    score(study, NAME, study.scores(NAME))
    one = Material.load(study, NAME, list(study.variants))
    expected = [one.half, one.tuned]
    monkeypatch.setattr(material, "WORTH_A_PROCESS", 0)
    monkeypatch.setattr(material, "processes", lambda: 2)
    two = Material.load(study, NAME, list(study.variants))
    for side, alone in zip([two.half, two.tuned], expected, strict=True):
        assert list(side) == list(alone) == list(study.variants)
        for variant, scores in side.items():
            assert np.array_equal(scores.replicates, alone[variant].replicates, equal_nan=True)
            assert scores.estimates.equals(alone[variant].estimates)
            assert scores.weights is two.examples
