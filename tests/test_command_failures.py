"""What the machine does wrong (a full disk, a damaged file, no GPU): one line, and nothing lost."""

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

from rarenodes.__main__ import main
from rarenodes.study import results

TINY = Path(__file__).parent / "tiny" / "params.yaml"


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A study of one data set and one variant, scored and evaluated."""
    folder = tmp_path_factory.mktemp("finished")
    values = yaml.safe_load(TINY.read_text())
    values["datasets"].pop("toy_limited")
    values["variants"] = {"mcm": values["variants"]["mcm"]}
    values["evaluation"].pop("contrasts")
    (folder / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    for command in (["prepare"], ["train", "mcm"], ["score"], ["evaluate"]):
        assert call(folder, command[0], "toy", *command[1:]) == 0
    return folder


@pytest.fixture
def study(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "study"))


def call(folder: Path, *command: str) -> int:
    return main([f"--params={folder / 'params.yaml'}", *command])


def fails_in_one_line(capsys, folder: Path, *command: str) -> str:
    capsys.readouterr()
    assert call(folder, *command) == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ")
    assert len(error.splitlines()) == 1
    return error


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_full_disk_leaves_the_earlier_results(study, monkeypatch, capsys):
    def full(tensors, path):
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    kept = study / "results" / "toy" / "mcm"
    before = contents(kept)
    monkeypatch.setattr(results, "save_file", full)
    error = fails_in_one_line(capsys, study, "train", "toy", "mcm")
    assert "cannot be written: No space left on device; make room there" in error
    monkeypatch.undo()
    assert contents(kept) == before
    assert call(study, "train", "toy", "mcm") == 0
    assert contents(kept) == before


def test_a_folder_that_cannot_be_made_is_named(study, capsys):
    shutil.rmtree(study / "results")
    (study / "results").write_text("a file where a folder belongs")
    assert "results" in fails_in_one_line(capsys, study, "train", "toy", "mcm")
    assert (study / "results").read_text() == "a file where a folder belongs"


def test_a_folder_that_may_not_be_written_is_named_and_left(study):
    before = contents(study / "results")
    folders = [path for path in study.rglob("*") if path.is_dir()]
    for path in folders:
        path.chmod(0o500)
    try:
        process = started(study, "train", "toy", "mcm", may_write_anywhere=False)
        error = process.communicate()[1].strip()
    finally:
        for path in folders:
            path.chmod(0o700)
    assert process.returncode == 1
    assert error.startswith("error: ")
    assert ": Permission denied; allow it to be read and written, and run" in error
    assert len(error.splitlines()) == 1
    assert contents(study / "results") == before


def started(folder: Path, *command: str, may_write_anywhere: bool = True) -> subprocess.Popen:
    """A command in a process of its own."""
    prefix = []
    if not may_write_anywhere and os.geteuid() == 0:  # permissions do not bind the superuser
        if shutil.which("setpriv") is None:
            pytest.skip("needs setpriv, as the superuser may write everywhere")
        prefix = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    return subprocess.Popen(
        [*prefix, sys.executable, "-m", "rarenodes", *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(results.__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_commands_on_one_item_leave_what_one_leaves(study):
    kept = study / "results" / "toy" / "mcm"
    before = contents(kept)
    shutil.rmtree(kept)
    both = [started(study, "train", "toy", "mcm") for _ in range(2)]
    said = [process.communicate()[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert contents(kept) == before


OWN = """seed: 1
datasets: {own: {about: own table, source: table, options: OPTIONS}}
training: {seeds: 1, members: 2, epochs: 1, batch_size: 4, learning_rate: 0.01, hidden: 4, layers: 1}
variants: {mcm: {about: the baseline}}
evaluation: {baseline: mcm}
"""
EDGES = "child,parent\na,top\nb,top\n"


def _parquet(of: Sequence, damaged: Callable[[bytes], bytes] = bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        pd.DataFrame({"value": of, "labels": ["a", "b", "a", "b"]}).to_parquet(path)
        path.write_bytes(damaged(path.read_bytes()))

    return write


def _text(content: str) -> Callable[[Path], None]:
    return lambda path: path.write_text(content)


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        (
            "own.parquet",
            _parquet([1, 2, 3, 4], lambda content: content[: len(content) // 2]),
            "own.parquet: ",
        ),
        (
            "own.parquet",
            _parquet([[1, 2], [3], [4], [5]]),
            "own.parquet, column 'value': found values of ",
        ),
        ("own.csv", _text('value,labels\n1,"a\n2,b\n'), "own.csv, line 3: unexpected end of data"),
        (
            "own.csv",
            _text(f"value,labels\n1,{'a' * 200_000}\n"),
            "own.csv, line 2, column 'labels': ",
        ),
        ("edges.json", _text("[" * 100_000), "edges.json: nested too deeply to be read"),
        ("edges.csv", _text("child,parent\na,top\ntop,a\n"), "edges.csv: "),
        ("edges.obo", _text("[Term]\nid: a\nis_a:\n"), "edges.obo, line 3: found nothing after"),
    ],
)
def test_a_damaged_file_of_own_data_is_named_in_one_line(tmp_path, capsys, name, write, message):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "own.csv").write_text("value,labels\n1,a\n2,b\n3,a\n4,b\n")
    (tmp_path / "data" / "edges.csv").write_text(EDGES)
    table, hierarchy = "own.csv", "edges.csv"
    write(tmp_path / "data" / name)
    if name.startswith("own"):
        table = name
    else:
        hierarchy = name
    options = f"{{examples: {table}, hierarchy: {hierarchy}, features: [value]}}"
    (tmp_path / "params.yaml").write_text(OWN.replace("OPTIONS", options))
    error = fails_in_one_line(capsys, tmp_path, "prepare", "own")
    assert message in error
    assert not (tmp_path / "data" / "processed" / "own").exists()


def test_a_missing_gpu_is_said_before_anything_is_trained(study, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    values = yaml.safe_load((study / "params.yaml").read_text())
    values["training"]["device"] = "cuda"
    (study / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    before = contents(study / "results")
    error = fails_in_one_line(capsys, study, "train", "toy", "mcm")
    assert "training.device: expected cuda, found no GPU" in error
    assert contents(study / "results") == before


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied"])
@pytest.mark.parametrize(
    ("folder", "command", "mend"),
    [
        ("data/processed/toy", ("train", "toy", "mcm"), "prepare"),
        ("results/toy/mcm", ("score", "toy"), "train@toy-mcm"),
        ("scores/toy", ("evaluate", "toy"), "score"),
    ],
)
def test_every_damaged_file_is_named_with_the_mend(study, capsys, folder, command, mend, damage):
    read = [path for path in sorted((study / folder).iterdir()) if _is_read(path)]
    assert read
    for path in read:
        whole = path.read_bytes()
        middle = len(whole) // 2
        flipped = whole[:middle] + bytes([whole[middle] ^ 0xFF]) + whole[middle + 1 :]
        path.write_bytes({"cut": whole[:middle], "flipped": flipped, "emptied": b""}[damage])
        error = fails_in_one_line(capsys, study, *command)
        assert path.name in error
        assert mend in error
        path.write_bytes(whole)
    assert call(study, *command) == 0


def _is_read(path: Path) -> bool:
    return path.suffix in {".safetensors", ".npz", ".parquet"} or path.name == "history.csv"
