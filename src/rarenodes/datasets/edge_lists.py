"""Hierarchies from files: CSV, JSON or OBO."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

from rarenodes.loss.hierarchy import Hierarchy

ROOT = "root"

Edges = list[tuple[str, str]]


class EdgeListError(ValueError):
    """A file from which no hierarchy can be read; the message says where, what, and the mend."""


def read_hierarchy(path: str | Path) -> Hierarchy:
    """Read a hierarchy.

    A CSV file has the columns `child,parent`; a JSON file is a list of pairs `[child, parent]`; of
    an OBO file the `is_a` lines of terms that are not obsolete are read. Where several nodes have
    no parent, a node `root` is put above them.

    Args:
        path: file that ends in .csv, .json or .obo.

    Raises:
        FileNotFoundError: no such file.
        EdgeListError: the file cannot be read, or is no hierarchy.

    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected the edges of the hierarchy")
    if path.suffix.lower() not in _READERS:
        raise EdgeListError(
            f"{path}: found the ending {path.suffix!r}, expected {', '.join(_READERS)}"
        )
    try:
        return Hierarchy(_under_one_root(_READERS[path.suffix.lower()](path)))
    except EdgeListError:
        raise
    except ValueError as error:
        raise EdgeListError(f"{path}: {error}") from None


def _under_one_root(edges: Edges) -> Edges:
    children = {child for child, _ in edges}
    tops = sorted({parent for _, parent in edges} - children)
    return edges + [(top, ROOT) for top in tops] if len(tops) > 1 else edges


def _read_csv(path: Path) -> Edges:
    edges = []
    with path.open(newline="", encoding="utf-8-sig") as stream:
        rows = csv.reader(stream)
        header = next(rows, [])
        if [name.strip().lower() for name in header] != ["child", "parent"]:
            raise EdgeListError(
                f"{path}, line 1: found {','.join(header)!r}, expected the header child,parent"
            )
        for row in rows:
            if not row:
                continue
            pair = [name.strip() for name in row]
            if len(pair) != 2 or not all(pair):
                raise EdgeListError(
                    f"{path}, line {rows.line_num}: found {','.join(row)!r}, expected two names, "
                    "child,parent: leave out a root's own line, quote names with commas"
                )
            edges.append((pair[0], pair[1]))
    return edges


def _read_json(path: Path) -> Edges:
    pairs = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(pairs, list):
        raise EdgeListError(
            f"{path}: found {type(pairs).__name__}, expected a list of pairs [child, parent]"
        )
    for number, pair in enumerate(pairs, start=1):
        if not (
            isinstance(pair, list) and len(pair) == 2 and all(isinstance(n, str) for n in pair)
        ):
            raise EdgeListError(
                f"{path}, entry {number}: found {json.dumps(pair)}, expected [child, parent], two strings"
            )
    return [(child, parent) for child, parent in pairs]


def _read_obo(path: Path) -> Edges:
    edges: Edges = []
    for stanza in path.read_text(encoding="utf-8").split("\n["):
        kind, _, body = stanza.partition("\n")
        tags = [line.split(": ", 1) for line in body.splitlines() if ": " in line]
        if kind.strip(" []") != "Term" or ["is_obsolete", "true"] in tags:
            continue
        name = next((value for tag, value in tags if tag == "id"), None)
        if name is None:
            raise EdgeListError(f"{path}: a [Term] has no line `id: ...`; expected one in each")
        # "GO:0008150 ! biological_process": what follows is a comment or a qualifier.
        edges += [(name.strip(), value.split()[0]) for tag, value in tags if tag == "is_a"]
    return edges


_READERS: dict[str, Callable[[Path], Edges]] = {
    ".csv": _read_csv,
    ".json": _read_json,
    ".obo": _read_obo,
}
