"""Hierarchies from files: CSV, JSON or OBO."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rarenodes.datasets.files import (
    FileFault,
    brief,
    decoded,
    is_text,
    parsed_json,
    read_bytes,
    short,
)
from rarenodes.datasets.obo import parse_obo
from rarenodes.loss.hierarchy import Hierarchy

ROOT = "root"
# Between several parents in one cell.
SEVERAL = ";"


class EdgeListError(FileFault):
    """A file from which no hierarchy can be read; the message says where, what, and the mend."""


@dataclass(frozen=True)
class NamedHierarchy:
    """A hierarchy, and what its nodes are called.

    Attributes:
        hierarchy: the nodes and their edges.
        names: what a node is called in words, for display; empty where the file does not say (CSV
            and JSON do not).

    """

    hierarchy: Hierarchy
    names: Mapping[str, str]


@dataclass(frozen=True)
class _Content:
    """What a file says: edges, names, and nodes that may have no edge."""

    edges: list[tuple[str, str]]
    names: Mapping[str, str]
    tops: Sequence[str] = ()


def read_hierarchy(path: str | Path) -> Hierarchy:
    """Read a hierarchy; see `read_named_hierarchy`, which keeps the names of its nodes too."""
    return read_named_hierarchy(path).hierarchy


def read_named_hierarchy(path: str | Path) -> NamedHierarchy:
    """Read a hierarchy and the names of its nodes.

    A CSV file has the columns `child` and `parent`, whatever others there are: a line for each parent, or
    several as `a;b`; a child without a parent is a node that stands at the top. A JSON file is a list of pairs `[child, parent]`; of an OBO file
    the `is_a` lines and the names of terms that are not obsolete are read. Where several nodes have no
    parent, a node `root` is put above them.

    Args:
        path: file in UTF-8 that ends in .csv, .json or .obo.

    Raises:
        FileNotFoundError: no such file.
        OSError: the system does not let it be read.
        EdgeListError: the file cannot be read, or is no hierarchy.

    """
    path = Path(path)
    content = read_bytes(path, "the edges of the hierarchy")
    if path.suffix.lower() not in _READERS:
        raise EdgeListError(
            f"{path}: found the ending {path.suffix!r}, expected {', '.join(_READERS)}"
        )
    try:
        found = _READERS[path.suffix.lower()](path, decoded(path, content))
        edges = under_one_root(path, found.edges, [*found.names, *found.tops])
    except FileFault as fault:
        raise EdgeListError(str(fault)) from None
    try:
        return NamedHierarchy(Hierarchy(edges), found.names)
    except ValueError as error:
        raise EdgeListError(f"{path}: {brief(error)}") from None


def under_one_root(
    path: Path, edges: list[tuple[str, str]], names: Iterable[str]
) -> list[tuple[str, str]]:
    """Edges, with a node `root` above the nodes without a parent where these are several.

    Args:
        path: the file, for the message.
        edges: pairs (child, parent).
        names: nodes, of which some may have no edge.

    Raises:
        FileFault: there are several, and a node has that name.

    """
    children = {child for child, _ in edges}
    nodes = {name for edge in edges for name in edge} | set(names)
    tops = sorted(nodes - children)
    if len(tops) < 2:
        return edges
    if ROOT in nodes:
        others = [top for top in tops if top != ROOT]
        raise FileFault(
            f"{path}: found {len(tops)} nodes without a parent, among them {short(others[0])}, "
            f"expected one, since the name {ROOT!r} is taken: put them under one node"
        )
    return edges + [(top, ROOT) for top in tops]


def _read_csv(path: Path, text: str) -> _Content:
    lines: list[tuple[str, str, str]] = []
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        written = next(rows, [])
        header = [name.strip().lower() for name in written]
        if any(header.count(name) != 1 for name in ("child", "parent")):
            raise FileFault(
                f"{path}, line 1: found {short(','.join(written))}, expected columns child and parent: "
                "call them so; further columns are not looked at"
            )
        columns = header.index("child"), header.index("parent")
        for row in rows:
            if not any(cell.strip() for cell in row):
                continue
            place = f"line {rows.line_num}"
            if len(row) != len(header) or not row[columns[0]].strip():
                raise FileFault(
                    f"{path}, {place}: found {short(','.join(row))}, expected {','.join(written)}, of which "
                    "the parent alone may be empty, at the top: quote names with commas"
                )
            lines.append((place, *(row[column].strip() for column in columns)))
    except csv.Error as error:
        raise FileFault(
            f'{path}, line {rows.line_num}: {error}; expected CSV: close each quote, write "" for '
            "one within a name"
        ) from None
    return _edges_of(path, lines)


def _edges_of(path: Path, lines: list[tuple[str, str, str]]) -> _Content:
    """The edges of lines `(place, child, parents)`."""
    children = {child for _, child, _ in lines}
    places: dict[tuple[str, str], str] = {}
    tops: dict[str, str] = {}
    for place, child, cell in lines:
        # A cell that is a child itself is a name, whatever it holds.
        parents = [cell] if cell in children else [name.strip() for name in cell.split(SEVERAL)]
        for parent in filter(None, parents):
            _add(path, place, [child, parent], places)
        if not any(parents):
            tops[child] = place
    twice = [child for child, _ in places if child in tops]
    if twice:
        raise FileFault(
            f"{path}, {tops[twice[0]]}: found {short(twice[0])} without a parent, expected one as in "
            "its other line: remove one of the two"
        )
    return _Content(list(places), {}, list(tops))


def _read_json(path: Path, text: str) -> _Content:
    pairs = parsed_json(path, text)
    if not isinstance(pairs, list):
        raise FileFault(
            f"{path}: found {type(pairs).__name__}, expected a list of pairs [child, parent]"
        )
    places: dict[tuple[str, str], str] = {}
    for number, pair in enumerate(pairs, start=1):
        is_pair = isinstance(pair, list) and len(pair) == 2
        if not (is_pair and all(is_text(name) and name.strip() for name in pair)):
            raise FileFault(
                f"{path}, entry {number}: found {_as_json(pair)}, "
                "expected [child, parent], two strings"
            )
        _add(path, f"entry {number}", pair, places)
    return _Content(list(places), {})


def _as_json(value: object) -> str:
    try:
        text = json.dumps(value)
    except RecursionError:
        return "a deeply nested value"
    return text if len(text) <= 60 else f"{text[:60]}…"


def _add(path: Path, place: str, pair: list[str], places: dict[tuple[str, str], str]) -> None:
    """Note an edge and where it stands; each may stand in one place."""
    child, parent = (name.strip() for name in pair)
    if child == parent:
        raise FileFault(
            f"{path}, {place}: found {short(child)} as its own parent, expected another node: "
            "leave its parent empty"
        )
    if (child, parent) in places:
        raise FileFault(
            f"{path}, {place}: found {short(child)} under {short(parent)} again, as in "
            f"{places[child, parent]}; expected each edge once: remove one"
        )
    places[child, parent] = place


def _read_obo(path: Path, text: str) -> _Content:
    ontology = parse_obo(path, text)
    return _Content(list(ontology.edges), ontology.names)


_READERS: dict[str, Callable[[Path, str], _Content]] = {
    ".csv": _read_csv,
    ".json": _read_json,
    ".obo": _read_obo,
}
