"""Checkpoints are whole or set aside, of the code that made them, and no one's mixture."""

import errno
import logging
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import rarenodes
from rarenodes.training import checkpoints
from rarenodes.training.checkpoints import (
    CODE,
    CODE_DIGEST,
    Checkpoint,
    load_checkpoint,
    save_checkpoint,
    source_digest,
)

PACKAGE = Path(rarenodes.__file__).parent


def state(epochs: int, size: int = 4) -> Checkpoint:
    history = [{"epoch": i + 1, "train_loss": 0.1 + i / 3} for i in range(epochs)]
    tensors = {"weight": torch.arange(size) / 7 + epochs, "step": torch.tensor(float(epochs))}
    return Checkpoint(history, tensors)


LIKE = {"weight": torch.empty(4, device="meta"), "step": torch.empty((), device="meta")}


def loaded(folder: Path, epochs: int = 9) -> Checkpoint | None:
    return load_checkpoint(folder, LIKE, epochs)


def assert_same(found: Checkpoint | None, expected: Checkpoint) -> None:
    assert found.history == expected.history
    assert all(torch.equal(found.tensors[name], t) for name, t in expected.tensors.items())


@pytest.fixture
def two(tmp_path) -> Path:
    """A folder with the states after 9 and after 10 epochs; 10 is after 9, not before."""
    for epochs in (8, 9, 10):
        save_checkpoint(tmp_path, state(epochs))
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "epoch-10.safetensors",
        "epoch-9.safetensors",
    ]
    return tmp_path


def test_the_newest_is_loaded_as_it_was_saved(two):
    assert_same(loaded(two, 10), state(10))


def test_no_checkpoint(tmp_path):
    assert loaded(tmp_path) is None
    assert loaded(tmp_path / "none") is None


def flip_last_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def without_checksum(path: Path) -> None:
    save_file(dict(state(10).tensors), path)


def of_another_history(path: Path) -> None:
    other = path.parent / "other"
    save_checkpoint(other, state(7))
    shutil.move(other / "epoch-7.safetensors", path)


def of_other_networks(path: Path) -> None:
    save_checkpoint(path.parent, state(10, size=5))


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (flip_last_byte, "its checksum is not the one it was stored with"),
        (lambda path: path.write_bytes(path.read_bytes()[:-8]), "Error while deserializing"),
        (lambda path: path.write_bytes(b""), "Error while deserializing"),
        (without_checksum, "'sha256' is missing"),
        (of_another_history, "expected a history of 10 epochs, at most 10, found 7"),
        (of_other_networks, "it is of other networks than those that are trained"),
    ],
)
def test_a_bad_checkpoint_is_set_aside_for_the_one_before(two, caplog, damage, what):
    newest = two / "epoch-10.safetensors"
    damage(newest)
    assert_same(loaded(two, 10), state(9))
    (message,) = caplog.messages
    assert message.startswith(f"{newest}: cannot be read: {what}")
    assert message.endswith("; training goes on from an earlier checkpoint, or anew")
    assert not newest.exists()
    assert (two / "epoch-10.unusable").exists()
    # It is not looked at again, and the epoch is saved anew.
    caplog.clear()
    save_checkpoint(two, state(10))
    assert_same(loaded(two, 10), state(10))
    assert caplog.messages == []


def test_without_a_whole_one_training_starts_anew(two, caplog):
    for path in two.iterdir():
        flip_last_byte(path)
    assert loaded(two, 10) is None
    assert len(caplog.messages) == 2


def test_a_longer_training_is_no_start_for_a_shorter_one(two, caplog):
    assert_same(loaded(two, 9), state(9))
    assert "at most 9, found 10" in caplog.text


def test_half_written_files_are_not_looked_at(two, caplog):
    caplog.set_level(logging.DEBUG)
    (two / "epoch-11.partial").write_bytes(b"half")
    (two / "epoch-x.safetensors").write_bytes(b"another")
    assert_same(loaded(two, 20), state(10))
    assert caplog.messages == []


def test_a_full_disk_is_one_line_and_the_earlier_ones_stay(two, monkeypatch):
    def full(tensors, path, metadata):
        path.write_bytes(b"as far as it came")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(OSError, match=r"epoch-11\.safetensors: cannot be written: No space left"):
        save_checkpoint(two, state(11))
    assert sorted(p.name for p in two.iterdir()) == ["epoch-10.safetensors", "epoch-9.safetensors"]


def test_a_disk_that_is_really_full():
    # Every write to this device fails with ENOSPC, within the library.
    with (
        pytest.raises(OSError, match=r"full: cannot be written: .*No space left") as error,
        checkpoints.writing(Path("/dev/full")),
    ):
        Path("/dev/full").write_text("x")
    assert len(str(error.value).splitlines()) == 1


# --- the digest of the code -----------------------------------------------------------------------


@pytest.fixture
def code(tmp_path) -> Path:
    """A copy of the package's sources."""
    shutil.copytree(PACKAGE, tmp_path / "copy", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "copy"


def test_the_digest_is_of_the_bytes_alone(code):
    assert source_digest(code, CODE) == CODE_DIGEST
    (code / "loss" / "__pycache__").mkdir()
    (code / "loss" / "__pycache__" / "coherent.pyc").write_bytes(b"compiled")
    (code / "loss" / "notes.txt").write_text("for readers")
    os.utime(code / "loss" / "coherent.py", (1, 1))
    assert source_digest(code, reversed(CODE)) == CODE_DIGEST


def test_line_ends_of_another_system_are_the_same_code(code):
    for path in code.rglob("*.py"):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert source_digest(code, CODE) == CODE_DIGEST


@pytest.mark.parametrize(
    "module",
    [
        "loss/coherent.py",
        "loss/kernels/compiled.py",
        "training/loop.py",
        "training/ensemble.py",
        "datasets/dataset.py",
        "randomness.py",
        "settings.py",
    ],
)
def test_an_edit_of_what_a_training_depends_on_is_another_digest(code, module):
    with (code / module).open("a") as file:
        file.write("# edited\n")
    assert source_digest(code, CODE) != CODE_DIGEST


def test_new_moved_and_removed_modules_are_another_digest(code):
    digests = {CODE_DIGEST}
    (code / "loss" / "new.py").touch()
    digests.add(source_digest(code, CODE))
    (code / "loss" / "new.py").rename(code / "training" / "new.py")
    digests.add(source_digest(code, CODE))
    (code / "training" / "new.py").unlink()
    (code / "loss" / "elements.py").unlink()
    digests.add(source_digest(code, CODE))
    assert len(digests) == 4


@pytest.mark.parametrize("module", ["pages/tables.py", "study/params.py", "stages/train.py"])
def test_an_edit_of_what_a_training_does_not_depend_on_is_the_same(code, module):
    with (code / module).open("a") as file:
        file.write("# edited\n")
    assert source_digest(code, CODE) == CODE_DIGEST


def test_a_part_that_is_not_there(code):
    with pytest.raises(FileNotFoundError, match=r"losses: no such module or package$"):
        source_digest(code, ["losses"])
