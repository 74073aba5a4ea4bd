"""An item of a grid, on the worker that runs it: what must be the same there, and what is left of it.

Imports little: Dask's scheduler reads what is sent through it, and loads this module too.
"""

import hashlib
import json
import os
import platform
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rarenodes.folders import exclusive, sha256_of, write_whole
from rarenodes.stages.item_process import ItemProcess
from rarenodes.stages.sources import LIBRARY, source_files

# Of the library's files when this process started; what is edited later is not what it runs.
_LOADED: dict[str, str] = {}
_ITEMS = ItemProcess()


@dataclass(frozen=True, eq=False)
class Needed:
    """What must be on a worker as it is where the grid was started.

    Attributes:
        marker: a file in the study's folder that no other folder has.
        stage: the stage that is run.
        modules: packages and modules of the library that its results depend on.
        code: digest of these.
        versions: of Python and of packages that results depend on.

    """

    marker: Path
    stage: str
    modules: tuple[str, ...]
    code: str
    versions: Mapping[str, str]


@dataclass(frozen=True, eq=False)
class Item:
    """One item of a stage, as it is sent to a worker.

    Attributes:
        name: as DVC calls it, `train@toy-mcm`.
        params_file: of the study, a path from the root.
        items: data set and variant, as the stage needs.
        outputs: files and folders that the stage leaves, relative to the study's folder.
        depends_on: digest of all that DVC says its results depend on.
        needed: on the worker.

    """

    name: str
    params_file: Path
    items: Mapping[str, str]
    outputs: tuple[str, ...]
    depends_on: str
    needed: Needed

    @property
    def folder(self) -> Path:
        """The study's."""
        return self.params_file.parent

    @property
    def log(self) -> Path:
        """What is printed while the item runs."""
        return scratch(self.folder) / f"{self.name}.log"


@dataclass(frozen=True)
class Receipt:
    """Says that an item ended well, and with what.

    It stands in the study's scratch folder from the moment the results do, so that results are
    recorded even if whoever waited for them is gone.

    Attributes:
        depends_on: as in `Item`.
        files: SHA-256 of every output file, by its path relative to the study's folder.

    """

    depends_on: str
    files: Mapping[str, str]

    def write(self, item: Item) -> None:
        """Leave it in the scratch folder."""
        write_whole(_receipt_file(item), json.dumps(asdict(self), indent=1) + "\n")

    def is_seen(self, item: Item) -> bool:
        """Whether the files it lists, and no others, are where it was read or sent to."""
        return self.files == _digests_of_outputs(item)


@dataclass(frozen=True)
class Outcome:
    """What came of sending an item to a worker: one of the three.

    Attributes:
        receipt: it ended well.
        failed: it failed by an error of its own, in a line.
        unfit: the worker is not one for this study, in a line.
        seconds: that it took.
        where: host and process.

    """

    receipt: Receipt | None = None
    failed: str = ""
    unfit: str = ""
    seconds: float = 0.0
    where: str = ""


def scratch(folder: Path) -> Path:
    """Where a study's grids leave what is no result."""
    return folder / "scratch" / "grid"


def finished_before(item: Item) -> Receipt | None:
    """The receipt of an item that ended well with what it depends on now, if its files are there."""
    try:
        receipt = Receipt(**json.loads(_receipt_file(item).read_text()))
    except (OSError, ValueError, TypeError):
        return None  # none, or half of one
    current = receipt.depends_on == item.depends_on
    return receipt if current and receipt.is_seen(item) else None


def run_item(item: Item) -> Outcome:
    """Run an item on a worker, as the pipeline does.

    Of two that run the same item the second waits, and finds it done.
    """
    from distributed import get_worker

    started, where = time.monotonic(), f"{platform.node()}, process {os.getpid()}"
    reason = unfit(item.needed, get_worker())
    if reason:
        return Outcome(unfit=reason, where=where)
    lock = item.folder / "scratch" / "locks" / f"grid-{item.name}.lock"
    with exclusive(lock, item.name):
        receipt = finished_before(item)
        if receipt is None:
            failed = _ITEMS.run(item.params_file, item.needed.stage, item.items, item.log)
            if failed:
                log = os.path.relpath(item.log, item.folder)
                return Outcome(failed=f"{failed} (all of it: {log})", where=where)
            receipt = Receipt(item.depends_on, _digests_of_outputs(item))
            receipt.write(item)
    return Outcome(receipt, seconds=time.monotonic() - started, where=where)


def unfit(needed: Needed, dask_worker: Any) -> str:
    """Why a worker cannot run items of a study; empty where it can.

    Args:
        needed: what has to be there.
        dask_worker: the worker; Dask passes it under this name.

    """
    if not needed.marker.exists():
        return (
            f"does not see the study's folder {needed.marker.parents[2]}: it has to be on a file "
            "system that all machines share, under the same path"
        )
    for name, expected in needed.versions.items():
        found = versions([name])[name]
        if found != expected:
            return f"has {name} {found}, where the grid was started with {expected}"
    for known in (_LOADED, library_digests()):
        if code_of(needed.modules, known) != needed.code:
            return (
                f"has other code of what the stage {needed.stage} depends on: start workers anew, "
                "with the library of the commit that the grid was started with"
            )
    if dask_worker.state.nthreads != 1:
        return (
            f"runs {dask_worker.state.nthreads} items at once in one process, where one has to have "
            "it for itself: start it with --nthreads 1"
        )
    return ""


def library_digests() -> dict[str, str]:
    """SHA-256 of the library's sources as they are now, by their paths in it."""
    return {file: sha256_of(LIBRARY / file) for file in source_files(LIBRARY, ["."])}


def code_of(modules: Iterable[str], digests: Mapping[str, str]) -> str:
    """A digest of those of the sources that are below some packages and modules."""
    listed = tuple(modules)
    lines = [
        f"{digest}  {path}\n"
        for path, digest in digests.items()
        if any(path == module or path.startswith(f"{module}/") for module in listed)
    ]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def versions(names: Iterable[str]) -> dict[str, str]:
    """Of packages, without importing them, and of Python."""
    return {name: _version(name) for name in names}


def _version(name: str) -> str:
    try:
        return platform.python_version() if name == "python" else version(name)
    except PackageNotFoundError:
        return "none"


def _receipt_file(item: Item) -> Path:
    return scratch(item.folder) / f"{item.name}.json"


def _digests_of_outputs(item: Item) -> dict[str, str]:
    files: list[Path] = []
    for output in item.outputs:
        path = item.folder / output
        files += sorted(path.rglob("*")) if path.is_dir() else [path]
    return {
        path.relative_to(item.folder).as_posix(): sha256_of(path)
        for path in files
        if path.is_file()
    }


_LOADED.update(library_digests())
