"""Files and folders: replaced as a whole, used by one process at a time, and verified when read."""

import ctypes
import errno
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

log = logging.getLogger(__name__)

CHECKSUMS = "SHA256SUMS"
# What to do about what a system says of a file or folder.
_MENDS = dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "make room there") | dict.fromkeys(
    (errno.EACCES, errno.EPERM, errno.EROFS), "allow it to be read and written"
)
SECONDS_BETWEEN_TRIES = 0.2


class StageFailed(RuntimeError):
    """A stage did not end well; the message says where, and what."""


class UnreadableFile(ValueError):
    """A file that is damaged, or not what it should be; the message names it and the mend."""


# --- replacing a folder ---------------------------------------------------------------------------


def empty_folder(path: Path) -> None:
    """Make an empty folder, in the place of whatever an interrupted stage left."""
    _remove(path)
    path.mkdir(parents=True)


def replace_folder(new: Path, old: Path) -> None:
    """Put a finished folder in the place of an earlier one, which is then removed.

    Where the system can exchange two names (Linux, on all common file systems), `old` is at every
    moment either the earlier folder or the new one, whenever the process is killed. Elsewhere
    there is a moment between two renames in which the earlier folder is called `.<name>.replaced`
    and nothing is called `old`: `recover_folder`, with which every replacement begins, then brings
    the earlier one back.

    Args:
        new: the finished folder, on the same file system.
        old: where it belongs; need not exist.

    Raises:
        OSError: one of the two cannot be renamed; `old` is what it was.

    """
    old.parent.mkdir(parents=True, exist_ok=True)
    recover_folder(old)
    if not old.exists():
        new.replace(old)
        return
    if _exchange(new, old):
        _remove(new)
        return
    aside = _aside(old)
    old.replace(aside)
    new.replace(old)
    _remove(aside)


def recover_folder(path: Path) -> None:
    """Finish a replacement that was interrupted: without a new folder the earlier one is back."""
    aside = _aside(path)
    if not aside.exists():
        return
    if path.exists():
        _remove(aside)
    else:
        aside.replace(path)


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.replaced")


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names in one step; whether the system can."""
    libc = ctypes.CDLL(None, use_errno=True) if os.name == "posix" else None
    renameat2 = getattr(libc, "renameat2", None)
    if renameat2 is None:
        return False
    here, exchange = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux
    if renameat2(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code), str(other))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


# --- one process at a time ------------------------------------------------------------------------


@contextmanager
def exclusive(lock: Path, what: str, level: int = logging.WARNING) -> Iterator[None]:
    """Be the only process that does something; wait for another one that is at it, and say so.

    The lock is the system's: it ends with the process that holds it, however that ends, so no
    stale lock is left to be removed by hand. The holder's process id stands beside it for the
    message.

    Args:
        lock: file that stands for what is done; made if need be, and left.
        what: what is done, for the message.
        level: of the message that another process is waited for.

    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    held, holder = FileLock(lock), lock.with_name(f"{lock.name}.pid")
    try:
        held.acquire(timeout=0)
    except Timeout:
        log.log(level, "%s: waiting for %s, which is at it", what, _process(holder))
        held.acquire(poll_interval=SECONDS_BETWEEN_TRIES)
    try:
        holder.write_text(f"{os.getpid()}\n")
        yield
    finally:
        holder.unlink(missing_ok=True)
        held.release()


def _process(holder: Path) -> str:
    try:
        return f"process {int(holder.read_text())}"
    except (OSError, ValueError):
        return "another process"  # it has not written its id yet


# --- files that libraries read and write ----------------------------------------------------------


@contextmanager
def reading(path: Path, mend: str) -> Iterator[None]:
    """Turn whatever a library says of a damaged file into one line.

    Args:
        path: the file that is read.
        mend: what to do about it.

    Raises:
        UnreadableFile: the body raised an error that a damaged or missing file causes.

    """
    try:
        yield
    except UnreadableFile:
        raise
    except Exception as error:
        if not _is_of_a_file(error):
            raise
        raise UnreadableFile(f"{path}: cannot be read: {_one_line(error)}; {mend}") from None


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn whatever a library says of a full disk or a read-only folder into one line.

    Args:
        path: the file or folder that is written.

    Raises:
        OSError: the body raised an `OSError` or a library's error of input and output.

    """
    try:
        yield
    except Exception as error:
        if not isinstance(error, OSError) and _library(error) not in ("safetensors", "pyarrow"):
            raise
        raise OSError(
            f"{path}: cannot be written: {_one_line(error)}; make room there, or make the folder "
            "writable, and run the same command again"
        ) from None


def save_arrays(arrays: Mapping[str, Any], path: Path) -> None:
    """Write NumPy arrays into a file of safetensors, whatever their order in memory.

    Args:
        arrays: by name.
        path: the file, in a folder that is there.

    """
    import numpy as np
    from safetensors.numpy import save_file

    # safetensors writes an array's memory, whatever its order.
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)


def explained(error: Exception) -> str:
    """What an error says; with the mend where it is the system's own, of a file or folder."""
    mend = _MENDS.get(error.errno) if isinstance(error, OSError) else None
    if mend is None or error.filename is None:
        return str(error)
    return (
        f"{os.fsdecode(error.filename)}: {error.strerror}; {mend}, and run the same command again"
    )


def _is_of_a_file(error: Exception) -> bool:
    known = (OSError, ValueError, LookupError, TypeError, EOFError, RecursionError, OverflowError)
    return isinstance(error, known) or _library(error) in ("safetensors", "pyarrow", "_csv")


def _library(error: Exception) -> str:
    """Named instead of imported: Arrow alone takes longer to import than most commands run."""
    return type(error).__module__.split(".")[0]


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = " ".join(str(error).split())
    if isinstance(error, KeyError):
        return f"{text} is missing"
    return text or type(error).__name__


def read_json(path: Path, mend: str) -> object:
    """What a JSON file holds; `UnreadableFile` where it holds none."""
    with reading(path, mend):
        return json.loads(path.read_text(encoding="utf-8"))


def write_whole(path: Path, text: str) -> None:
    """Write a file that is at every moment what it was before, or what it is to be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


# --- checksums ------------------------------------------------------------------------------------


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_checksums(folder: Path, names: Iterable[str]) -> None:
    """Write `SHA256SUMS` of some files of a folder, as `sha256sum` does and `sha256sum -c` reads."""
    lines = [f"{sha256_of(folder / name)}  {name}\n" for name in sorted(names)]
    (folder / CHECKSUMS).write_text("".join(lines))


def verified(folder: Path, last: str, what: str, stage: str) -> str:
    """Make a stage's results ready to be read; what to do if a file of them turns out damaged.

    Args:
        folder: the results; an interrupted replacement is finished first.
        last: file without which there are none.
        what: what they are called.
        stage: the stage and item that makes them.

    Raises:
        FileNotFoundError: the folder holds none.
        UnreadableFile: a file is not the one that was written.

    """
    recover_folder(folder)
    if not (folder / last).exists():
        raise FileNotFoundError(f"{folder} holds no {what}: run the stage {stage} first")
    mend = f"run the stage {stage} again, with dvc repro --force or without notebook"
    verify_checksums(folder, mend)
    return mend


def verify_checksums(folder: Path, mend: str) -> None:
    """Check the files that the folder's `SHA256SUMS` lists; nothing where there is none.

    Raises:
        UnreadableFile: a file is missing or not the one that was written, or the list is no list.

    """
    path = folder / CHECKSUMS
    if not path.exists():
        return
    with reading(path, mend):
        expected = [line.split("  ", 1) for line in path.read_text().splitlines()]
        if any(len(entry) != 2 for entry in expected):
            raise ValueError("expected a SHA-256 and a file name a line")
    for digest, name in expected:
        with reading(folder / name, mend):
            if sha256_of(folder / name) != digest:
                raise ValueError("its SHA-256 is not the one it was stored with")
