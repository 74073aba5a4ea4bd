"""Which files of the library are its code: what compiling and editors leave beside them is none.

Imports nothing of the library, as a cluster's scheduler loads it, too.
"""

from collections.abc import Iterable
from pathlib import Path

LIBRARY = Path(__file__).parents[1]
SUFFIXES = {".py", ".json", ".jinja"}


def source_files(library: Path, parts: Iterable[str]) -> list[str]:
    """Files of some packages and modules, each once and sorted.

    Args:
        library: folder of the library.
        parts: packages and modules relative to it; `.` is all of it.

    Returns:
        Paths relative to the library, with `/`.

    """
    paths = [library / part for part in parts]
    files = {file for path in paths for file in ([path] if path.is_file() else path.rglob("*"))}
    return sorted(f.relative_to(library).as_posix() for f in files if f.suffix in SUFFIXES)
