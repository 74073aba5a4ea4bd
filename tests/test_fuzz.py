import random
from pathlib import Path

import pytest
from fuzz import LOADED, REFUSED, TARGETS, Case, Target, judged, made, tried

SAMPLE = 60


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_files_are_refused_in_one_line_or_read_whole(name):
    # The limit on processor time is generous: this is no benchmark, and machines are slow at times.
    outcomes, faults = tried(name, TARGETS[name], range(SAMPLE), seed=0, seconds=60)
    assert not faults, "\n".join(map(str, faults))
    # Neither outcome is rare, so both are really looked at.
    assert min(outcomes[LOADED], outcomes[REFUSED]) >= SAMPLE // 10


@pytest.mark.parametrize("name", TARGETS)
def test_files_without_damage_load(name, tmp_path):
    case = TARGETS[name].case(random.Random(3))
    assert judged(case, tmp_path) == LOADED


@pytest.mark.parametrize("name", TARGETS)
def test_a_case_is_made_anew_from_its_number(name):
    assert made(name, TARGETS[name], 1, 7)[0].files == made(name, TARGETS[name], 1, 7)[0].files


def case(load, count=lambda folder: {"rows": 2}):
    return Case({"a.csv": b"x"}, "a.csv", load, count, where=("table: ",))


def failing(error):
    def load(folder):
        raise error

    return case(load)


@pytest.mark.parametrize(
    ("made_case", "expected"),
    [
        (case(lambda folder: {"rows": 2}), LOADED),
        (case(lambda folder: {"rows": 1}), "rows: found 1, counted 2"),
        (failing(ValueError("a.csv: wrong")), REFUSED),
        (failing(OSError("table: wrong")), REFUSED),
        (failing(ValueError("wrong")), "the message names no file: wrong"),
        (failing(ValueError("a.csv:\nwrong")), r"the message has 2 lines: 'a.csv:\nwrong'"),
        (failing(ValueError("a.csv" + "!" * 1000)), "the message has 1005 letters: a.csv!!"),
        (
            failing(UnicodeEncodeError("utf-8", "a", 0, 1, "b")),
            "an error of another library: <class",
        ),
        (failing(KeyError("a.csv")), "Traceback (most recent call last)"),
        (failing(RecursionError("a.csv")), "Traceback (most recent call last)"),
        (
            case(lambda f: {"rows": 2}, lambda f: 1 / 0),
            "loaded, but cannot be counted: ZeroDivision",
        ),
    ],
)
def test_what_is_wrong_is_seen(made_case, expected, tmp_path):
    assert judged(made_case, tmp_path).startswith(expected)


def _never_ends(folder: Path):
    while True:
        pass


def _dies(folder: Path):
    import os

    os._exit(3)


def _some_hang_and_some_die(rng: random.Random) -> Case:
    return case(rng.choice([_never_ends, _dies, lambda folder: {"rows": 2}]))


def _nothing_is_damaged(name: str):
    return {"none": lambda content, rng: content}


def test_a_hang_and_a_crash_are_seen_and_the_rest_goes_on():
    target = Target(_some_hang_and_some_die, _nothing_is_damaged)
    # The first dies, the third hangs; each is followed by one that is fine, in a new process.
    outcomes, faults = tried("toy", target, (0, 1, 2, 4), seed=0, seconds=1)
    assert outcomes[LOADED] == len(faults) == 2
    assert {fault.what for fault in faults} == {"takes more than 1 s", "the process died: 3"}
