"""Results are replaced as a whole, and only by a stage that ended well."""

import shutil
from pathlib import Path


class StageFailed(RuntimeError):
    """A stage did not end well; the message says where, and what."""


def empty_folder(path: Path) -> None:
    """Make an empty folder, in the place of whatever an interrupted stage left."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)


def replace_folder(new: Path, old: Path) -> None:
    """Put a finished folder in the place of an earlier one."""
    old.parent.mkdir(parents=True, exist_ok=True)
    if old.exists():
        shutil.rmtree(old)
    new.replace(old)
