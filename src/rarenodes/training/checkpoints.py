"""The state of an unfinished training on disk: whole or not there, and never another code's."""

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, uint8

from rarenodes.folders import UnreadableFile, exclusive, reading, writing

log = logging.getLogger(__name__)

# One more than is needed, in case the newest turns out to be damaged.
KEPT = 2
# What a trained network depends on, below `rarenodes/`.
CODE = (
    "loss", "training", "datasets/dataset.py", "datasets/encoders", "randomness.py", "settings.py",
)  # fmt: skip
_NAME = re.compile(r"epoch-(\d+)\.safetensors")


def source_digest(root: Path, parts: Iterable[str]) -> str:
    """SHA-256 of Python sources: the same on every machine that has the same code.

    Args:
        root: folder of a package.
        parts: modules (`.py` files) and packages below it, with `/`; of a package all modules in
            it and below.

    Returns:
        Hexadecimal digits that depend on the modules' paths below `root` and on their bytes, with
        line ends as in Git's repository, and on nothing else.

    Raises:
        FileNotFoundError: a part that is not there.

    """
    modules: set[Path] = set()
    for part in parts:
        path = root / part
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such module or package")
        modules |= set(path.rglob("*.py")) if path.is_dir() else {path}
    digest = hashlib.sha256()
    for name, path in sorted((path.relative_to(root).as_posix(), path) for path in modules):
        source = path.read_bytes().replace(b"\r\n", b"\n")
        digest.update(f"{name}\0{len(source)}\0".encode())
        digest.update(source)
    return digest.hexdigest()


# Taken when the code is loaded: what is edited later is not what this process trains with.
CODE_DIGEST = source_digest(Path(__file__).parents[1], CODE)


@dataclass(frozen=True)
class Checkpoint:
    """A training's state at the end of an epoch.

    Attributes:
        history: a row per epoch so far.
        tensors: networks and optimiser, by name, on the CPU.

    """

    history: list[dict[str, int | float]]
    tensors: Mapping[str, Tensor]


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write a state under its epoch's name, and remove all but the newest `KEPT`.

    One file holds all, with a checksum of it; it is written aside, flushed to disk and renamed, so
    that a file with an epoch's name is whole.

    Raises:
        OSError: it cannot be written, for want of room for instance; earlier ones are untouched.

    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"epoch-{len(checkpoint.history)}.safetensors"
    partial = path.with_suffix(".partial")
    history = json.dumps(checkpoint.history)
    metadata = {"history": history, "sha256": _checksum(history, checkpoint.tensors)}
    with writing(path):
        try:
            save_file(dict(checkpoint.tensors), partial, metadata=metadata)
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    for old in _newest_first(folder)[KEPT:]:
        old.unlink()


def alone_with(folder: Path, what: str) -> AbstractContextManager[None]:
    """Be the only process that trains from a folder of checkpoints, or removes it.

    The lock lies beside the folder, so that it outlives it. In silence: a message would stand in one
    run's notebook and not in another's.

    Args:
        folder: of the checkpoints.
        what: is trained.

    """
    return exclusive(folder.with_name(f"{folder.name}.lock"), what, logging.DEBUG)


def discard(folder: Path, what: str) -> None:
    """Remove a folder of checkpoints, unless another process goes on from them: then after it."""
    if not folder.exists():
        return
    with alone_with(folder, what):
        shutil.rmtree(folder, ignore_errors=True)


def load_checkpoint(folder: Path, like: Mapping[str, Tensor], epochs: int) -> Checkpoint | None:
    """The newest whole state in a folder, or None.

    A file that is damaged, or of other networks, gets the ending `.unusable`, with a warning, and
    the one before it is tried: nothing has to be removed by hand.

    Args:
        folder: where `save_checkpoint` wrote.
        like: tensors with the names and shapes that are wanted.
        epochs: the most epochs that a state may have behind it.

    """
    for path in _newest_first(folder):
        try:
            return _load(path, like, epochs)
        except UnreadableFile as error:
            log.warning("%s", error)
            path.replace(path.with_suffix(".unusable"))
    return None


def _load(path: Path, like: Mapping[str, Tensor], epochs: int) -> Checkpoint:
    with reading(path, "training goes on from an earlier checkpoint, or anew"):
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if metadata["sha256"] != _checksum(metadata["history"], tensors):
            raise ValueError("its checksum is not the one it was stored with")
        shapes = {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
        if shapes != {name: (tensor.shape, tensor.dtype) for name, tensor in like.items()}:
            raise ValueError("it is of other networks than those that are trained")
        history = json.loads(metadata["history"])
        if len(history) != _epoch(path) or len(history) > epochs:
            raise ValueError(
                f"expected a history of {_epoch(path)} epochs, at most {epochs}, found {len(history)}"
            )
        return Checkpoint(history, tensors)


def _checksum(history: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(history.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(uint8).numpy())
    return digest.hexdigest()


def _epoch(path: Path) -> int:
    return int(_NAME.fullmatch(path.name).group(1))


def _newest_first(folder: Path) -> list[Path]:
    found = (path for path in folder.glob("epoch-*.safetensors") if _NAME.fullmatch(path.name))
    return sorted(found, key=_epoch, reverse=True)
