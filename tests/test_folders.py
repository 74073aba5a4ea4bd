"""Results are old or new at every moment, have one writer, and damaged files say so in one line."""

import errno
import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from rarenodes import folders
from rarenodes.folders import (
    UnreadableFile,
    empty_folder,
    exclusive,
    read_json,
    reading,
    recover_folder,
    replace_folder,
    verify_checksums,
    write_checksums,
    write_whole,
    writing,
)


def folder_with(path: Path, content: str) -> Path:
    path.mkdir(parents=True)
    (path / "one.txt").write_text(content)
    (path / "two.txt").write_text(content)
    return path


def content_of(path: Path) -> set[str]:
    return {file.read_text() for file in path.iterdir()}


# --- replacing ------------------------------------------------------------------------------------


class Killed(BaseException):
    """Stands for SIGKILL: no `except` or `finally` of the code under test mends anything after it."""


def killed_after(monkeypatch, steps: int) -> None:
    """Die before the system call number `steps` of those that change names or remove."""
    made = 0

    def dying(call):
        def step(*arguments, **named):
            nonlocal made
            if made == steps:
                raise Killed
            made += 1
            return call(*arguments, **named)

        return step

    monkeypatch.setattr(Path, "replace", dying(Path.replace))
    monkeypatch.setattr(os, "unlink", dying(os.unlink))
    monkeypatch.setattr(os, "rmdir", dying(os.rmdir))
    monkeypatch.setattr(folders, "_exchange", dying(folders._exchange))


def without_exchange(monkeypatch) -> None:
    monkeypatch.setattr(folders, "_exchange", lambda one, other: False)


@pytest.mark.parametrize("can_exchange", [True, False])
def test_replacing_leaves_the_new_folder_and_nothing_else(tmp_path, monkeypatch, can_exchange):
    if not can_exchange:
        without_exchange(monkeypatch)
    old = tmp_path / "results" / "mcm"
    replace_folder(folder_with(tmp_path / "first", "first"), old)
    assert content_of(old) == {"first"}
    replace_folder(folder_with(tmp_path / "second", "second"), old)
    assert content_of(old) == {"second"}
    assert [path.name for path in old.parent.iterdir()] == ["mcm"]
    assert [path.name for path in tmp_path.iterdir()] == ["results"]


@pytest.mark.parametrize("can_exchange", [True, False])
@pytest.mark.parametrize("steps", range(9))
def test_killed_at_any_step_leaves_old_or_new_and_a_rerun_new(
    tmp_path, monkeypatch, can_exchange, steps
):
    old, new = folder_with(tmp_path / "mcm", "old"), folder_with(tmp_path / "mcm.partial", "new")
    with monkeypatch.context() as dying:
        if not can_exchange:
            without_exchange(dying)
        killed_after(dying, steps)
        try:
            replace_folder(new, old)
            ended = True
        except Killed:
            ended = False
    # An exchange; or the attempt and two renames. Then two files and their folder are removed.
    assert ended == (steps >= (4 if can_exchange else 6))
    if can_exchange:
        assert content_of(old) in ({"old"}, {"new"})  # without any recovery
    recover_folder(old)
    assert content_of(old) in ({"old"}, {"new"})
    assert len(list(old.iterdir())) == 2
    # The rerun.
    empty_folder(new)
    new.rmdir()
    replace_folder(folder_with(new, "rerun"), old)
    assert content_of(old) == {"rerun"}
    assert [path.name for path in tmp_path.iterdir()] == ["mcm"]


def test_what_cannot_be_renamed_leaves_the_earlier_folder(tmp_path):
    old = folder_with(tmp_path / "mcm", "old")
    with pytest.raises(OSError, match="No such file"):
        replace_folder(tmp_path / "none", old)
    assert content_of(old) == {"old"}


def test_an_empty_folder_takes_the_place_of_whatever_is_there(tmp_path):
    for path in (tmp_path / "none", folder_with(tmp_path / "full", "x"), tmp_path / "file"):
        if path.name == "file":
            path.write_text("x")
        empty_folder(path)
        assert list(path.iterdir()) == []


# --- one process at a time ------------------------------------------------------------------------

HOLDS = """
import sys, time
from pathlib import Path
from rarenodes.folders import exclusive
with exclusive(Path(sys.argv[1]), "train toy mcm"):
    print("holds", flush=True)
    sys.stdin.readline()
    Path(sys.argv[2]).write_text("done")
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock until it is given a line or killed."""
    started = []

    def start() -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDS, tmp_path / "locks" / "lock", tmp_path / "done"],
            env={**os.environ, "PYTHONPATH": str(Path(folders.__file__).parents[1])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout.readline() == "holds\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_the_second_process_says_whom_it_waits_for_and_waits(tmp_path, caplog, holder):
    process = holder()

    class WhenItWaits(logging.Handler):
        def emit(self, record):
            assert not (tmp_path / "done").exists()
            process.stdin.write("end\n")
            process.stdin.flush()

    handler = WhenItWaits()
    folders.log.addHandler(handler)
    try:
        with exclusive(tmp_path / "locks" / "lock", "train toy mcm"):
            assert (tmp_path / "done").read_text() == "done"
    finally:
        folders.log.removeHandler(handler)
    assert caplog.messages == [f"train toy mcm: waiting for process {process.pid}, which is at it"]


def test_the_lock_of_a_killed_process_holds_nobody_up(tmp_path, caplog, holder):
    process = holder()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (tmp_path / "locks" / "lock.pid").read_text() == f"{process.pid}\n"
    with exclusive(tmp_path / "locks" / "lock", "train toy mcm"):
        assert (tmp_path / "locks" / "lock.pid").read_text() == f"{os.getpid()}\n"
    assert caplog.messages == []
    assert not (tmp_path / "locks" / "lock.pid").exists()


# --- damaged files, full disks --------------------------------------------------------------------


def test_errors_of_libraries_are_one_line_that_names_file_and_mend(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"no tensors")
    with pytest.raises(UnreadableFile) as error, reading(path, "train again"):
        load_file(path)
    message = str(error.value)
    assert message.startswith(f"{path}: cannot be read: ")
    assert message.endswith("; train again")
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize("text", ["{", "", "[" * 100_000, "\udcff"])
def test_json_that_is_none(tmp_path, text):
    (tmp_path / "a.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UnreadableFile, match=r"a\.json: cannot be read: .*; mend it$"):
        read_json(tmp_path / "a.json", "mend it")


def test_an_error_of_the_code_is_not_taken_for_one_of_the_file(tmp_path):
    with pytest.raises(AssertionError), reading(tmp_path, "mend it"):
        raise AssertionError
    with pytest.raises(ValueError, match=r"^a bug$"), writing(tmp_path):
        raise ValueError("a bug")


@pytest.mark.parametrize(
    ("code", "what"),
    [
        (errno.ENOSPC, "No space left on device"),
        (errno.EROFS, "Read-only file system"),
        (errno.EACCES, "Permission denied"),
    ],
)
def test_what_cannot_be_written_is_one_line_with_the_mend(tmp_path, code, what):
    with pytest.raises(OSError, match="cannot be written") as error, writing(tmp_path / "a"):
        raise OSError(code, os.strerror(code))
    assert str(error.value) == (
        f"{tmp_path / 'a'}: cannot be written: {what}; make room there, or make the folder "
        "writable, and run the same command again"
    )


# --- checksums ------------------------------------------------------------------------------------


def test_checksums_are_those_of_sha256sum(tmp_path):
    folder_with(tmp_path / "a", "abc")
    write_checksums(tmp_path / "a", ["two.txt", "one.txt"])
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # of FIPS 180
    expected = f"{digest}  one.txt\n{digest}  two.txt\n"
    assert (tmp_path / "a" / "SHA256SUMS").read_text() == expected
    verify_checksums(tmp_path / "a", "mend it")


def test_a_changed_or_missing_file_or_list_is_named(tmp_path):
    folder = folder_with(tmp_path / "a", "abc")
    write_checksums(folder, ["two.txt", "one.txt"])
    (folder / "two.txt").write_text("abd")
    with pytest.raises(UnreadableFile, match=r"two\.txt: cannot be read: its SHA-256 is not.*; m$"):
        verify_checksums(folder, "m")
    (folder / "two.txt").unlink()
    with pytest.raises(UnreadableFile, match=r"two\.txt: cannot be read: No such file.*; m$"):
        verify_checksums(folder, "m")
    (folder / "SHA256SUMS").write_text(json.dumps({}))
    with pytest.raises(UnreadableFile, match=r"SHA256SUMS: cannot be read: expected a SHA-256"):
        verify_checksums(folder, "m")


def test_a_file_that_could_not_be_written_whole_is_what_it_was(tmp_path, monkeypatch):
    path = tmp_path / "new" / "scores.csv"
    write_whole(path, "earlier")

    def full(self, text, **options):
        with self.open("w") as file:
            file.write(text[:3])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, "later")
    assert path.read_text() == "earlier"
