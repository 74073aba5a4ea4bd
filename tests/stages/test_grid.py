"""Items sent to workers: the same bytes as without them, whoever dies, and DVC has nothing to do."""

import hashlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from unittest.mock import create_autospec

import pytest
import yaml
from distributed import Client, KilledWorker, LocalCluster
from dvc.repo import Repo

from rarenodes.__main__ import main
from rarenodes.folders import StageFailed
from rarenodes.settings import SettingsError
from rarenodes.stages import grid
from rarenodes.stages.code import write_code
from rarenodes.stages.grid import item_names, run_grid
from rarenodes.stages.grid_item import (
    Item,
    Needed,
    Receipt,
    code_of,
    finished_before,
    library_digests,
    unfit,
)
from rarenodes.stages.grid_records import Records
from rarenodes.stages.pipeline import write_pipeline
from rarenodes.stages.run import run_without_notebook
from rarenodes.study.params import Study

TINY = Path(__file__).parents[1] / "tiny" / "params.yaml"


def values(rates: int) -> dict:
    """A study of searches, which need no notebook."""
    found = yaml.safe_load(TINY.read_text())
    del found["datasets"]["toy_limited"], found["variants"]["released_focal_gmu"]
    found["evaluation"]["contrasts"] = {}
    found["stages"] = ["prepare", "tune"]
    found["tuning"] = {
        "network": {
            "learning_rate": [0.001 * rate for rate in range(1, rates + 1)],
            "weight_decay": [0.0],
            "epochs": [1, 2],
        },
        "neighbours": {"count": [2], "scale": [0.3]},
        "linear": {"penalty": [1.0]},
        "forest": {"min_leaf": [1]},
    }
    return found


def prepare_study(folder: Path, **changes) -> None:
    """Make the study in a folder, with all that comes before its searches recorded."""
    folder.mkdir()
    found = values(changes.pop("rates", 8))
    found["variants"] |= changes
    (folder / "params.yaml").write_text(yaml.safe_dump(found, sort_keys=False))
    study = Study(folder / "params.yaml")
    write_pipeline(study)
    Repo.init(str(folder), no_scm=True).close()
    write_code(study)
    run_without_notebook(study, "prepare", {"dataset": "toy"})
    with pytest.MonkeyPatch.context() as patch, Repo(folder) as repo:
        patch.chdir(folder)
        for stage in ("code", "prepare"):
            repo.commit(stage, force=True)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    # As deep as its copies: the pipeline has paths from there to the library.
    folder = tmp_path_factory.mktemp("prepared") / "study"
    prepare_study(folder, faulty={"about": "a test sees to it that it fails"})
    return folder


@pytest.fixture
def study(prepared, tmp_path, monkeypatch) -> Study:
    """A copy of it, in which the test runs."""
    folder = tmp_path / "study"
    shutil.copytree(prepared, folder)
    monkeypatch.chdir(folder)
    return Study("params.yaml")


def searches(folder: Path) -> dict[str, bytes]:
    files = [path for path in (folder / "searches").rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(files)}


def to_run(folder: Path, *names: str) -> list[str]:
    with pytest.MonkeyPatch.context() as patch, Repo(folder) as repo:
        patch.chdir(folder)
        return [stage.name for stage in repo.reproduce(list(names), dry=True)]


# --- a scheduler and two workers, one of which is killed ------------------------------------------


@contextmanager
def cluster(folder: Path):
    """The scheduler file of a scheduler with two workers, each a process of its own."""
    file = folder / "scheduler.json"
    common = ("--scheduler-file", str(file), "--no-dashboard")
    programs = [
        ("dask_scheduler", "--host", "127.0.0.1", "--port", "0", *common),
        *[("dask_worker", "--nthreads", "1", "--no-nanny", "--memory-limit", "0", *common)] * 2,
    ]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    with (folder / "cluster.log").open("w") as log:
        started = [
            subprocess.Popen(
                [sys.executable, "-m", f"distributed.cli.{program}", *options],
                cwd=folder, env=environment, stdout=log, stderr=log,
            )
            for program, *options in programs
        ]  # fmt: skip
        try:
            yield file
        finally:
            for process in reversed(started):
                process.kill()
                process.wait()


def kill_mid_item(folder: Path, name: str, killed: list[int]) -> None:
    """Wait until an item has come some way, and kill the worker that is at it."""
    holder = folder / "scratch" / "locks" / f"grid-{name}.lock.pid"
    while len(list(folder.glob("scratch/searches/*.json"))) < 3 or not holder.exists():
        time.sleep(0.05)
    killed.append(int(holder.read_text()))
    os.kill(killed[0], signal.SIGKILL)


@pytest.mark.slow
def test_a_worker_that_dies_costs_another_try_and_an_item_that_fails_stops_no_other(
    study, prepared, tmp_path, caplog
):
    caplog.set_level(logging.INFO)
    folder, killed = tmp_path / "study", []
    (folder / "scratch" / "locks" / "tune-toy-faulty.lock").mkdir(parents=True)
    killer = Thread(target=kill_mid_item, args=(folder, "tune@toy-mcm", killed), daemon=True)
    with cluster(tmp_path) as scheduler:
        killer.start()
        with pytest.raises(StageFailed, match=r"^1 of 3 items failed: tune@toy-faulty$"):
            run_grid(study, "tune", scheduler=str(scheduler))
    assert killed
    (line,) = [m for m in caplog.messages if "error" in m]
    assert "tune@toy-faulty: " in line
    assert "scratch/grid/tune@toy-faulty.log" in line
    assert "process" in next(m for m in caplog.messages if "tune@toy-mcm: " in m)
    # As one process has it, one item after the other.
    alone = tmp_path / "alone"
    shutil.copytree(prepared, alone)
    for variant in ("mcm", "weighted_binary"):
        items = {"dataset": "toy", "variant": variant}
        run_without_notebook(Study(alone / "params.yaml"), "tune", items)
    assert searches(folder) == searches(alone) != {}
    done = ("tune@toy-mcm", "tune@toy-weighted_binary")
    assert to_run(folder, *done) == []
    assert to_run(alone, *done) == sorted(done, key=to_run(alone, *done).index)
    with Repo(folder) as repo:
        assert set(repo.status()) == {"tune@toy-faulty"}


# --- in this process ------------------------------------------------------------------------------


@pytest.fixture
def here():
    """The address of a scheduler with one worker in this process."""
    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0"
    ) as cluster:
        yield cluster.scheduler_address


@pytest.fixture
def short(study) -> Study:
    """The study with a short search."""
    found = yaml.safe_load(Path("params.yaml").read_text())
    found["tuning"] = values(rates=2)["tuning"]
    Path("params.yaml").write_text(yaml.safe_dump(found, sort_keys=False))
    return Study("params.yaml")


def test_what_ended_before_the_command_died_is_recorded_by_the_next(
    short, here, monkeypatch, caplog
):
    caplog.set_level(logging.INFO)
    with monkeypatch.context() as patch:
        patch.setattr(grid.Records, "commit", lambda self, expected: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run_grid(short, "tune", ["toy-mcm"], here)
    assert to_run(Path(), "tune@toy-mcm") == ["tune@toy-mcm"]
    with monkeypatch.context() as patch:
        patch.setattr(grid._Connection, "client", None)  # nothing is sent
        run_grid(short, "tune", ["toy-mcm"])
    assert "tune@toy-mcm: had ended before" in caplog.text
    assert to_run(Path(), "tune@toy-mcm") == []
    run_grid(short, "tune", ["toy-mcm"])
    assert "tune: 1 items, 1 of them up to date" in caplog.messages
    assert not list(Path("scratch/grid").glob("here-*"))


def test_an_edit_meanwhile_is_not_recorded_as_what_was_run(short, here, monkeypatch):
    send = grid._send

    def edited(*given):
        text = Path("params.yaml").read_text()
        Path("params.yaml").write_text(text.replace("seed: 1", "seed: 2"))
        send(*given)

    monkeypatch.setattr(grid, "_send", edited)
    with pytest.raises(StageFailed, match=r"^1 of 1 items failed: tune@toy-mcm$"):
        run_grid(short, "tune", ["toy-mcm"], here)
    assert "tune@toy-mcm" in to_run(Path(), "tune@toy-mcm")


def test_outputs_that_do_not_arrive_are_a_line(short, here, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(grid, "SECONDS_TO_SEE", 0.0)
    monkeypatch.setattr(Receipt, "is_seen", lambda *given: False)
    with pytest.raises(StageFailed):
        run_grid(short, "tune", ["toy-mcm"], here)
    assert "on a file system that all machines share" in caplog.text


def test_workers_that_are_none_for_the_study_are_refused(short, here, monkeypatch):
    monkeypatch.setattr(grid, "versions", lambda names: {"torch": "0.1"})
    with pytest.raises(SettingsError, match=r"^worker \S+ has torch \S+, .* started with 0\.1$"):
        run_grid(short, "tune", ["toy-mcm"], here)


class Ended:
    """A future that ended with an error."""

    def __init__(self, error: Exception):
        self.error = error

    def result(self):
        raise self.error


def test_what_dask_says_of_an_item_is_a_line():
    last = SimpleNamespace(address="tcp://node:1")
    assert grid._outcome(Ended(KilledWorker("key", last, 3))).failed == (
        "4 workers died while they were at it, which want of memory may be the reason of; "
        "the last was tcp://node:1"
    )
    absent = grid._outcome(Ended(ModuleNotFoundError("No module named 'rarenodes'")))
    assert "ModuleNotFoundError: No module named 'rarenodes'" in absent.unfit
    with pytest.raises(StageFailed, match=r"run the same command again; what has ended is kept$"):
        grid._outcome(Ended(CancelledError()))


def test_a_worker_that_joins_late_and_is_not_fit_is_retired(item, monkeypatch, caplog):
    client = create_autospec(Client, instance=True)
    client.run.return_value = {
        "tcp://a:1": "",
        "tcp://b:1": "has numpy 0.9",
        "tcp://c:1": ModuleNotFoundError("No module named 'rarenodes'"),
        "tcp://d:1": OSError("died"),
    }
    grid._retire_unfit(client, item.needed)
    client.retire_workers.assert_called_once_with(["tcp://b:1", "tcp://c:1"])
    assert "worker tcp://b:1 has numpy 0.9; it is retired" in caplog.text
    with pytest.raises(StageFailed, match=r"stage train depends on was edited meanwhile"):
        grid._retire_unfit(client, replace(item.needed, code="0"))


def test_what_comes_before_the_items_has_to_be_up_to_date(study):
    Path("reports/prepare/toy").rename("elsewhere")
    with pytest.raises(StageFailed, match=r"`dvc repro prepare@toy`"):
        run_grid(study, "tune")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (
            ("--stage", "tune", "toy-mmc"),
            "unknown item 'tune@toy-mmc'; did you mean 'tune@toy-mcm'",
        ),
        (("--stage", "tnue"), "unknown stage 'tnue'; did you mean 'tune'?"),
        (("--workers", "0"), "--workers: expected 1 or more, found 0"),
    ],
)
def test_faults_are_one_line(study, capsys, command, message):
    assert main(["grid", *command]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1


@pytest.mark.parametrize("scheduler", ["tcp://127.0.0.1:9", "absent.json"])
def test_no_scheduler_is_one_line(short, capsys, monkeypatch, scheduler):
    monkeypatch.setattr(grid, "SECONDS_TO_CONNECT", 0.5)
    assert main(["grid", "--stage", "tune", "--scheduler", scheduler]) == 1
    assert f"no scheduler of Dask answers at {scheduler}: " in capsys.readouterr().err


def test_the_job_script_is_one_of_bash():
    script = Path(__file__).parents[2] / "studies" / "benchmark" / "slurm.sh"
    subprocess.run(["bash", "-n", script], check=True)


def test_items_are_named_or_matched(study):
    assert list(item_names(study, "tune", ["toy-m*", "tune@toy-faulty"])) == [
        "tune@toy-mcm",
        "tune@toy-faulty",
    ]
    assert item_names(study, "prepare", []) == {"prepare@toy": {"dataset": "toy"}}


def test_items_of_the_training_are_those_of_dvc():
    """Committees are variants, and are not trained."""
    study = Study(Path(__file__).parents[2] / "params.yaml")
    assert study.parameters.committees
    locked = yaml.safe_load((study.folder / "dvc.lock").read_text())["stages"]
    assert set(item_names(study, "train", [])) == {n for n in locked if n.startswith("train@")}


# --- workers and receipts -------------------------------------------------------------------------


@pytest.fixture
def item(tmp_path) -> Item:
    marker = tmp_path / "scratch" / "grid" / "here-1"
    marker.parent.mkdir(parents=True)
    marker.touch()
    modules = ("loss", "settings.py")
    needed = Needed(marker, "train", modules, code_of(modules, library_digests()), {})
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "scores.csv").write_text("1")
    return Item("train@toy", tmp_path / "params.yaml", {}, ("results",), "abc", needed)


def worker(threads: int = 1) -> SimpleNamespace:
    return SimpleNamespace(state=SimpleNamespace(nthreads=threads))


def test_a_worker_is_fit_that_sees_the_folder_and_has_the_same_code_and_versions(item, tmp_path):
    needed = item.needed
    assert unfit(needed, worker()) == ""
    assert "--nthreads 1" in unfit(needed, worker(threads=4))
    absent = unfit(replace(needed, marker=tmp_path / "scratch" / "grid" / "here-2"), worker())
    assert f"does not see the study's folder {tmp_path}:" in absent
    other = unfit(replace(needed, versions={"numpy": "0.9", "python": "3"}), worker())
    assert other.endswith("where the grid was started with 0.9")
    assert "has other code of what the stage train depends on" in unfit(
        replace(needed, code="0"), worker()
    )


def test_only_code_that_the_stage_depends_on_has_to_be_the_same():
    digests = library_digests()
    changed = digests | {"pages/tables.py": "0"}
    assert code_of(["loss"], digests) == code_of(["loss"], changed)
    assert code_of(["pages"], digests) != code_of(["pages"], changed)
    assert code_of(["settings.py"], digests) != code_of(["randomness.py"], digests)


def test_a_receipt_holds_for_the_same_dependences_and_untouched_outputs(item):
    assert finished_before(item) is None
    found = {"results/scores.csv": hashlib.sha256(b"1").hexdigest()}
    Receipt("abc", found).write(item)
    assert finished_before(item) == Receipt("abc", found)
    assert finished_before(replace(item, depends_on="abd")) is None
    (item.folder / "results" / "more.csv").touch()
    assert finished_before(item) is None
    (item.folder / "results" / "more.csv").unlink()
    (item.folder / "results" / "scores.csv").write_text("2")
    assert finished_before(item) is None
    (item.folder / "scratch" / "grid" / "train@toy.json").write_text('{"depends')
    assert finished_before(item) is None


def test_a_lock_that_was_half_written_is_mended(study):
    records, whole = Records(Path()), Path("dvc.lock").read_text()
    records.before.parent.mkdir(parents=True)
    for kept in (0, 100, whole.index("  prepare@toy:"), len(whole) - 1):
        records.before.write_text(whole)
        records.lock.write_text(whole[:kept])
        records.mend_lock()
        assert records.lock.read_text() == whole
        assert not records.before.exists()


def test_a_lock_that_has_more_than_before_is_left(study):
    records, whole = Records(Path()), Path("dvc.lock").read_text()
    records.before.parent.mkdir(parents=True)
    before = yaml.safe_load(whole)
    del before["stages"]["prepare@toy"]
    records.before.write_text(yaml.safe_dump(before))
    records.mend_lock()
    assert records.lock.read_text() == whole
    assert not records.before.exists()
