"""What the machine does wrong (a full disk, a damaged file, no GPU): one line, and nothing lost."""

import errno
import os
import shutil
from pathlib import Path

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
