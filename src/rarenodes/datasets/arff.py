"""Hierarchical ARFF, the file format of the CLUS system and of the field's benchmarks."""

import codecs
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

ROOT = "root"

_ATTRIBUTE = re.compile(r"@attribute\s+('[^']*'|\"[^\"]*\"|\S+)\s+(\S.*)", re.IGNORECASE)
_NUMERIC = ("numeric", "real", "integer")
_MISSING = "?"

Edges = tuple[tuple[str, str], ...]


class ArffError(ValueError):
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
        return "a finite number" if self.levels is None else f"one of {', '.join(self.levels)}"


def read_clus_arff(path: str | Path) -> ClusArff:
    """Read a hierarchical ARFF file.

    The class attribute lists either the paths of a tree (`01,01/01,01/01/03`: parents that are
    not listed are implied, order and repetition do not matter) or the edges of a DAG
    (`root/A,A/B,A/C`, parent before child; recognised by an entry that starts with `root/`).
    An example's labels are separated by `@`. See C. Vens et al., *Decision trees for hierarchical
    multi-label classification*, Machine Learning 73 (2008), and the CLUS manual.

    Args:
        path: file, in UTF-8.

    Raises:
        FileNotFoundError: no such file.
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
        labels.append(_labels(line, fields.pop(class_at), nodes))
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
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected a hierarchical ARFF file")
    content = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    if not content.strip():
        raise ArffError(f"{path}: the file is empty; expected a hierarchical ARFF file")
    lines = []
    for number, raw in enumerate(content.splitlines(), start=1):
        text = _decoded(path, number, raw).strip()
        if text and not text.startswith("%"):
            lines.append(_Line(path, number, text))
    return lines


def _decoded(path: Path, number: int, raw: bytes) -> str:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        byte = raw[error.start]
    else:
        if "\0" not in text:
            return text
        byte = 0
    raise ArffError(
        f"{path}, line {number}: found the byte 0x{byte:02x}, expected text in UTF-8: "
        "unpack the file if it is compressed, or save it as UTF-8"
    )


def _header(path: Path, lines: Sequence[_Line]) -> tuple[list[_Attribute], Sequence[_Line]]:
    """The declared attributes, and the lines after `@DATA`."""
    attributes: list[_Attribute] = []
    for i, line in enumerate(lines):
        keyword = line.text.split(maxsplit=1)[0].lower()
        if keyword == "@data":
            _check_one_class(line, attributes)
            if i + 1 == len(lines):
                raise line.fault("no examples after @DATA; expected at least one: fetch it again")
            return attributes, lines[i + 1 :]
        if keyword == "@attribute":
            attributes.append(_attribute(line))
        elif keyword != "@relation":
            raise line.fault(
                f"found {_short(line.text)}, expected @RELATION, @ATTRIBUTE or @DATA: "
                "is this an ARFF file?"
            )
    raise ArffError(
        f"{path}: no line @DATA; expected one after the attributes: "
        "the file seems cut off, fetch it again"
    )


def _check_one_class(line: _Line, attributes: Sequence[_Attribute]) -> None:
    classes = [a.name for a in attributes if a.edges is not None]
    if len(classes) != 1:
        found = f"the {len(classes)} class attributes {', '.join(classes)}" if classes else "none"
        raise line.fault(
            f"found {found} above @DATA, expected one class attribute: "
            "declare `@ATTRIBUTE class hierarchical ...` once"
        )


def _attribute(line: _Line) -> _Attribute:
    match = _ATTRIBUTE.fullmatch(line.text)
    if not match:
        raise line.fault(f"found {_short(line.text)}, expected `@ATTRIBUTE name type`")
    name, kind = match[1].strip("'\""), match[2].strip()
    if kind.lower() in _NUMERIC:
        return _Attribute(name)
    if kind.startswith("{") and kind.endswith("}"):
        return _Attribute(name, levels=tuple(c.strip().strip("'\"") for c in kind[1:-1].split(",")))
    if kind.lower().split()[0] == "hierarchical":
        return _Attribute(name, edges=_edges(line, kind[len("hierarchical") :]))
    raise line.fault(
        f"attribute {name!r} is of type {_short(kind)}, "
        "expected numeric, {a,b,c} or hierarchical: remove or recode it"
    )


def _edges(line: _Line, listed: str) -> Edges:
    entries = [entry.strip() for entry in listed.split(",") if entry.strip()]
    if not entries:
        raise line.fault("the class attribute lists no node; expected paths or parent/child pairs")
    is_dag = any(entry.startswith(f"{ROOT}/") for entry in entries)
    return _dag_edges(line, entries) if is_dag else _tree_edges(entries)


def _dag_edges(line: _Line, entries: Iterable[str]) -> Edges:
    edges = set()
    for entry in entries:
        parent, _, child = entry.partition("/")
        if not (parent and child) or "/" in child:
            raise line.fault(
                f"found {entry!r} in the list of a DAG, expected parent/child "
                f"(an entry that starts with '{ROOT}/' makes the list one of edges)"
            )
        edges.add((child, parent))
    return tuple(sorted(edges))


def _tree_edges(entries: Iterable[str]) -> Edges:
    edges = set()
    for entry in entries:
        steps = entry.split("/")
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
        raise line.fault(
            f"label {unknown[0]!r} is not in the hierarchy of the class attribute, expected one of "
            f"its {len(nodes)} nodes: correct the label or list the node"
        )
    return labels


def _column(attribute: _Attribute, fields: Sequence[str], lines: Sequence[_Line]) -> list[float]:
    """Numbers, or positions of categories; NaN where missing."""
    positions = {level: float(i) for i, level in enumerate(attribute.levels or ())}
    read = float if attribute.levels is None else lambda field: positions[field.strip("'\"")]
    column = []
    for field, line in zip(fields, lines, strict=True):
        try:
            value = 0.0 if field == _MISSING else read(field)
        except (ValueError, KeyError):
            value = math.nan
        if not math.isfinite(value):
            raise line.fault(
                f"attribute {attribute.name!r}: found {_short(field)}, expected "
                f"{attribute.expected()}: correct it, or write ? for a missing value"
            )
        column.append(math.nan if field == _MISSING else value)
    return column


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]}…")
