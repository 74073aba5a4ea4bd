"""The time of trainings: steps by hand, steps that are tried, and what `check` says of them."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from rarenodes.stages import check, expected_time
from rarenodes.stages.expected_time import in_words, seconds_a_step, seconds_of_training
from rarenodes.study.params import Study
from rarenodes.training.memory import Size

REPOSITORY = Path(__file__).parents[2]
SIZE = Size(features=3, nodes=4, hidden=5, layers=1, members=2, batch_size=8, networks=2)


def test_steps_are_those_of_all_batches_epochs_and_seeds():
    # 17 examples are batches of 8, 8 and 1: 3 steps of 0.5 s, 10 times, for 2 seeds.
    assert seconds_of_training(SIZE, 17, 10, 0.5, seeds=2) == 30
    assert seconds_of_training(SIZE, 16, 10, 0.5) == 10


@pytest.mark.parametrize("networks", [2, 1])
def test_a_step_is_timed_by_the_clock(monkeypatch, networks):
    now = iter(range(0, 1000, 2))
    monkeypatch.setattr(expected_time.time, "perf_counter", lambda: next(now))
    monkeypatch.setattr(expected_time, "SECONDS", 7)
    threads = torch.get_num_threads()
    # Starts at 0; looked at 2, 4 and 6 a step is made, at 8 no more; 10 is the end.
    size = replace(SIZE, networks=networks)
    assert seconds_a_step(size, 0.5, "cpu", threads + 1) == pytest.approx(10 / 3)
    assert torch.get_num_threads() == threads


def test_as_many_steps_as_are_enough(monkeypatch):
    monkeypatch.setattr(expected_time, "SECONDS", float("inf"))
    assert 0 < seconds_a_step(replace(SIZE, layers=0), 0.0, "cpu", 1) < 60


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "1 s"),
        (90.0, "90 s"),
        (91.0, "2 min"),
        (120.5, "3 min"),
        (5400.0, "90 min"),
        (5401.0, "2 h"),
    ],
)
def test_words(seconds, words):
    assert in_words(seconds) == words


@pytest.fixture
def study(tmp_path):
    """Own data of 14 training and 7 validation examples, two variants of networks and a linear one."""
    values = yaml.safe_load((REPOSITORY / "data" / "examples" / "params.yaml").read_text())
    values["data"] = str(REPOSITORY / "data" / "examples")
    values["catalogue"] = [str(REPOSITORY / "variants.yaml")]
    values["variants"] = ["conditional", "mcm", "linear_conditional"]
    values["training"] |= {"seeds": 3, "epochs": 100, "batch_size": 7}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    return Study(tmp_path / "params.yaml")


def of_time(study):
    findings = [finding for _, finding in check.check_study(study, ["features"])]
    assert {finding.level for finding in findings} == {"note"}
    return [
        finding.text for finding in findings if "time" in finding.text or "longest" in finding.text
    ]


def test_check_says_how_long_trainings_take(study, monkeypatch):
    tried = []

    def timed(size, dropout, device, threads):
        tried.append((size.features, size.nodes, size.batch_size, dropout, threads))
        return 0.1

    monkeypatch.setattr(check, "seconds_a_step", timed)
    # 14 examples are 2 steps: 2 · 100 · 0.1 s · 3 seeds is a minute a variant.
    text = of_time(study)[0]
    assert text.startswith("6 trainings of networks: at least 2 min on this machine")
    assert re.search(r"longest: (conditional|mcm), 60 s;", text)
    assert tried == [(6, 11, 7, 0.2, 1)]  # once for the two, which are of one size


def test_what_is_too_large_is_not_tried(study, monkeypatch):
    monkeypatch.setattr(check, "LARGEST_TRIAL", 0)
    monkeypatch.setattr(check, "seconds_a_step", lambda *_: pytest.fail("tried"))
    assert of_time(study) == [
        "the time of conditional is unknown: it is too large to be tried",
        "the time of mcm is unknown: it is too large to be tried",
    ]
