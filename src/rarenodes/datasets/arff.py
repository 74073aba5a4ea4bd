"""Hierarchical ARFF, the file format of the CLUS system and of the field's benchmarks.

Written here, since `scipy.io.arff` stops at the type `hierarchical`, with "unknown attribute", and
what would be left to it once that line was rewritten, numbers and categories, is the smaller half.
"""

import difflib
import math
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from rarenodes.datasets.columns import LARGEST, number
from rarenodes.datasets.files import FileFault, brief, decoded, lines_of, read_bytes, short
from rarenodes.datasets.label_paths import MOST_STEPS
from rarenodes.loss.hierarchy import Hierarchy

ROOT = "root"

_ATTRIBUTE = re.compile(r"@attribute\s+('[^']*'|\"[^\"]*\"|\S+)\s+(\S.*)", re.IGNORECASE)
_NUMERIC = ("numeric", "real", "integer")
_MISSING = "?"

Edges = tuple[tuple[str, str], ...]


class ArffError(FileFault):
    """A file that is no readable hierarchical ARFF; the message says where, what, and the mend."""


@dataclass(frozen=True)
class ClusArff:
    """Content of a hierarchical ARFF file.

    Attributes:
        attributes: names of the attributes, without the class.
        levels: for every attribute its categories, or None where it is numeric.
        values: `[examples, attributes]`, float64: a number, or the position of a category in
            `levels`; NaN where missing.
        labels: for every example the nodes listed in the file; ancestors need not be among them.
        edges: (child, parent), sorted. The hierarchy has the one root `root`. In the tree form a
            node's name is its whole path, such as `01/01/03`.

    """

    attributes: tuple[str, ...]
    levels: tuple[tuple[str, ...] | None, ...]
    values: Float[np.ndarray, "examples attributes"]
    labels: tuple[frozenset[str], ...]
    edges: Edges


@dataclass(frozen=True)
class _Line:
    path: Path
    number: int
    text: str

    def fault(self, problem: str) -> ArffError:
        return ArffError(f"{self.path}, line {self.number}: {problem}")


@dataclass(frozen=True)
class _Attribute:
    name: str
    levels: tuple[str, ...] | None = None
    edges: Edges | None = None

    def expected(self) -> str:
        """What a field of this attribute may hold."""
        if self.levels is None:
            return f"a finite number of at most {LARGEST:g}"
        shown = ", ".join(self.levels[:10])
        more = ", …" if len(self.levels) > 10 else ""
        return f"one of {brief(shown, 200)}{more}"


def read_clus_arff(path: str | Path, labelled: bool = True) -> ClusArff:
    """Read a hierarchical ARFF file.

    The class attribute lists either the paths of a tree (`01,01/01,01/01/03`: parents that are
    not listed are implied, order and repetition do not matter) or the edges of a DAG
    (`root/A,A/B,A/C`, parent before child; recognised by an entry that starts with `root/`).
    An example's labels are separated by `@`. See C. Vens et al., *Decision trees for hierarchical
    multi-label classification*, Machine Learning 73 (2008), and the CLUS manual.

    Args:
        path: file, in UTF-8.
        labelled: whether to read the examples' labels; those of examples to predict may be `?`.

    Raises:
        FileNotFoundError: no such file.
        OSError: the system does not let it be read.
        ArffError: anything in the file that cannot be read; one line with file and line number.

    """
    path = Path(path)
    lines = _content(path)
    attributes, rows = _header(path, lines)
    class_at = next(i for i, attribute in enumerate(attributes) if attribute.edges is not None)
    edges = attributes[class_at].edges
    nodes = {name for edge in edges for name in edge}
    described = [a for a in attributes if a.edges is None]
    labels, cells = [], []
    for line in rows:
        fields = _fields(line, len(attributes), last=line is rows[-1])
        given = fields.pop(class_at)
        labels.append(_labels(line, given, nodes) if labelled else frozenset())
        cells.append(fields)
    columns = [
        _column(attribute, fields, rows)
        for attribute, fields in zip(described, zip(*cells, strict=True), strict=True)
    ]
    return ClusArff(
        attributes=tuple(a.name for a in described),
        levels=tuple(a.levels for a in described),
        values=np.array(columns, dtype=np.float64).T.reshape(len(rows), len(described)),
        labels=tuple(labels),
        edges=edges,
    )


def _content(path: Path) -> list[_Line]:
    """The lines that are neither blank nor a comment."""
    content = read_bytes(path, "a hierarchical ARFF file")
    try:
        text = decoded(path, content)
    except FileFault as fault:
        raise ArffError(str(fault)) from None
    if not text.strip():
        raise ArffError(f"{path}: the file is empty; expected a hierarchical ARFF file")
    numbered = enumerate(map(str.strip, lines_of(text)), start=1)
    return [_Line(path, n, line) for n, line in numbered if line and not line.startswith("%")]


def _header(path: Path, lines: Sequence[_Line]) -> tuple[list[_Attribute], Sequence[_Line]]:
    """The declared attributes, and the lines after `@DATA`."""
    attributes: list[_Attribute] = []
    for i, line in enumerate(lines):
        keyword, *rest = line.text.split(maxsplit=1)
        keyword = keyword.lower()
        if keyword == "@data":
            if rest and not rest[0].startswith("%"):
                raise line.fault(
                    f"found {short(rest[0])} after @DATA, expected the examples on lines of their own"
                )
            _check_attributes(line, attributes)
            if i + 1 == len(lines):
                raise line.fault("no examples after @DATA; expected at least one: fetch it again")
            return attributes, lines[i + 1 :]
        if keyword == "@attribute":
            attributes.append(_attribute(line))
        elif keyword != "@relation":
            raise line.fault(
                f"found {short(line.text)}, expected @RELATION, @ATTRIBUTE or @DATA: "
                "is this an ARFF file?"
            )
    raise ArffError(
        f"{path}: no line @DATA; expected one after the attributes: "
        "the file seems cut off, fetch it again"
    )


def _check_attributes(line: _Line, attributes: Sequence[_Attribute]) -> None:
    classes = [a.name for a in attributes if a.edges is not None]
    if len(classes) != 1:
        found = (
            f"the {len(classes)} class attributes {brief(', '.join(classes))}"
            if classes
            else "none"
        )
        raise line.fault(
            f"found {found} above @DATA, expected one class attribute: "
            "declare `@ATTRIBUTE class hierarchical ...` once"
        )
    if len(attributes) == 1:
        raise line.fault("found no attribute but the class above @DATA, expected at least one")


def _attribute(line: _Line) -> _Attribute:
    match = _ATTRIBUTE.fullmatch(line.text)
    if not match:
        raise line.fault(f"found {short(line.text)}, expected `@ATTRIBUTE name type`")
    name, kind = match[1].strip("'\""), match[2].strip()
    if kind.lower() in _NUMERIC:
        return _Attribute(name)
    if kind.startswith("{") and kind.endswith("}"):
        return _Attribute(name, levels=_levels(line, kind[1:-1]))
    if kind.lower().split()[0] == "hierarchical":
        return _Attribute(name, edges=_edges(line, kind[len("hierarchical") :]))
    raise line.fault(
        f"attribute {short(name)} is of type {short(kind)}, "
        "expected numeric, {a,b,c} or hierarchical: remove or recode it"
    )


def _levels(line: _Line, listed: str) -> tuple[str, ...]:
    levels = [level.strip().strip("'\"") for level in listed.split(",")]
    for i, level in enumerate(levels):
        if not level or level in levels[:i]:
            found = f"{short(level)} again" if level else "an empty category"
            raise line.fault(
                f"found {found} in {short('{' + listed + '}')}, expected categories that differ: "
                "remove it"
            )
    return tuple(levels)


def _edges(line: _Line, listed: str) -> Edges:
    entries = [entry.strip() for entry in listed.split(",") if entry.strip()]
    if not entries:
        raise line.fault("the class attribute lists no node; expected paths or parent/child pairs")
    is_dag = any(entry.startswith(f"{ROOT}/") for entry in entries)
    for entry in entries:
        if not all(step.strip() for step in entry.split("/")) or entry == ROOT:
            expected = "parent/child" if is_dag else "a path such as 01/02"
            raise line.fault(
                f"found the entry {short(entry)} in the class attribute, expected {expected}: "
                "correct or remove it"
            )
    return _dag_edges(line, entries) if is_dag else _tree_edges(line, entries)


def _dag_edges(line: _Line, entries: Iterable[str]) -> Edges:
    edges = set()
    for entry in entries:
        parent, _, child = entry.partition("/")
        if not child or "/" in child:
            raise line.fault(
                f"found {short(entry)} in the list of a DAG, expected parent/child "
                f"(an entry that starts with '{ROOT}/' makes the list one of edges)"
            )
        edges.add((child, parent))
    _check_one_root(line, edges)
    try:
        Hierarchy(edges)
    except ValueError as error:
        raise line.fault(f"the class attribute lists no hierarchy: {brief(error)}") from None
    return tuple(sorted(edges))


def _check_one_root(line: _Line, edges: Collection[tuple[str, str]]) -> None:
    parents, children = {parent for _, parent in edges}, {child for child, _ in edges}
    if ROOT in children:
        raise line.fault(
            f"found '{ROOT}' below another node, expected it above all: correct the entry"
        )
    for top in sorted(parents - children - {ROOT}):
        mend = _nearest(top, {ROOT} | children) or f"add an entry that puts it under '{ROOT}'"
        raise line.fault(
            f"found {short(top)} with children but without a parent, expected '{ROOT}' to be the "
            f"only one: {mend}"
        )


def _nearest(name: str, known: Collection[str]) -> str:
    """The question whether the nearest known name was meant; empty where none is near."""
    near = difflib.get_close_matches(name[:100], sorted(known)[:5000], n=1, cutoff=0.6)
    return f"did you mean {short(near[0])}?" if near else ""


def _tree_edges(line: _Line, entries: Iterable[str]) -> Edges:
    edges = set()
    for entry in entries:
        steps = entry.split("/")
        if len(steps) > MOST_STEPS:
            raise line.fault(
                f"found {short(entry)} of {len(steps)} steps in the class attribute, expected at most "
                f"{MOST_STEPS}: correct or remove it"
            )
        paths = [ROOT, *("/".join(steps[: i + 1]) for i in range(len(steps)))]
        edges.update(zip(paths[1:], paths[:-1], strict=True))
    return tuple(sorted(edges))


def _fields(line: _Line, expected: int, last: bool) -> list[str]:
    fields = [field.strip() for field in line.text.split(",")]
    if len(fields) != expected:
        cut_off = last and len(fields) < expected
        mend = "the file seems cut off, fetch it again" if cut_off else "mend this line"
        raise line.fault(
            f"found {len(fields)} values, expected {expected}, one for each attribute: {mend}"
        )
    return fields


def _labels(line: _Line, field: str, nodes: set[str]) -> frozenset[str]:
    labels = frozenset(label.strip() for label in field.strip("'\"").split("@"))
    if unknown := sorted(labels - nodes):
        mend = _nearest(unknown[0], nodes) or "correct the label or list the node"
        raise line.fault(
            f"label {short(unknown[0])} is not in the hierarchy of the class attribute, expected one of "
            f"its {len(nodes)} nodes: {mend}"
        )
    return labels


def _column(attribute: _Attribute, fields: Sequence[str], lines: Sequence[_Line]) -> list[float]:
    """Numbers, or positions of categories; NaN where missing."""
    positions = {level: float(i) for i, level in enumerate(attribute.levels or ())}
    read = number if attribute.levels is None else lambda field: positions[field.strip("'\"")]
    column = []
    for field, line in zip(fields, lines, strict=True):
        try:
            value = 0.0 if field == _MISSING else read(field)
        except (ValueError, KeyError):
            value = math.nan
        if not abs(value) <= LARGEST:
            raise line.fault(
                f"attribute {short(attribute.name)}: found {short(field)}, expected "
                f"{attribute.expected()}: correct it, or write ? for a missing value"
            )
        column.append(math.nan if field == _MISSING else value)
    return column
