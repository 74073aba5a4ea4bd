"""Prose made from results: Jinja templates with named values, and generated blocks in files.

A template holds the sentences, named values come from tables, and a name that a template uses and
nobody gave is an error. In a README or a notebook's prose a block between markers,

    <!-- from reports/compare: compare_opening -->
    ...
    <!-- end -->

says what the template `compare_opening` says of the results in `reports/compare`, a path relative
to the file. Results that are held against others are named together, `from reports/compare and
../../reports/compare`: the template is given the values of the first, and those of all as
`sources`. A block may also stand within a line, around one number. Markers in code are not read.
"""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import (
    Environment,
    PackageLoader,
    StrictUndefined,
    TemplateError,
    TemplateNotFound,
    UndefinedError,
)

from rarenodes.scores.catalogue import labels
from rarenodes.settings import SettingsError, unknown_name

MISSING = "–"
# Settings and named values that a stage leaves beside its tables.
VALUES = "values.json"

_OPEN = re.compile(r"<!-- from (?P<sources>\S+(?: and \S+)*): (?P<name>[\w-]+) -->")
_END = "<!-- end -->"
_MARKER = re.compile(rf"{_OPEN.pattern}|{_END}")
_CODE = re.compile(r"^(```|~~~).*?^\1[^\n]*$|`[^`\n]+`", re.MULTILINE | re.DOTALL)
_PLACEHOLDER = "\0"


def render(name: str, values: Mapping[str, Any]) -> str:
    """What a template says of these values, as Markdown.

    Args:
        name: of a file `<name>.md.jinja` in `rarenodes/pages/templates`.
        values: by name.

    Raises:
        SettingsError: no such template, or it uses a name that is not among the values.

    """
    try:
        return _templates().get_template(f"{name}.md.jinja").render(values).strip()
    except TemplateNotFound:
        raise unknown_name("template", name, template_names(), "prose") from None
    except UndefinedError as error:
        raise SettingsError(f"template {name}: {error.message}: give it a value") from None


def template_names() -> list[str]:
    """The templates that a block can name."""
    names = (name.removesuffix(".md.jinja") for name in _templates().list_templates())
    return [name for name in names if not name.startswith("_")]


def write_values(values: Mapping[str, Any], folder: Path) -> None:
    """Leave named values beside a stage's tables, for prose elsewhere; what is missing is null."""
    text = json.dumps(_finite(values), indent=1, ensure_ascii=False, allow_nan=False)
    (folder / VALUES).write_text(text + "\n")


# --- generated blocks ---------------------------------------------------------------------------


def refresh(path: Path) -> list[str]:
    """Make every generated block of a file say what its results say; returns the names changed.

    Args:
        path: of a Markdown file, or of a notebook, whose prose is read.

    Raises:
        SettingsError: a block that does not end, a source or a template that is not there, or a
            value that the template needs and the source lacks.

    """
    changed: list[str] = []

    def renewed(where: str, text: str) -> str:
        new, names = _renewed(path, where, text)
        changed.extend(names)
        return new

    if path.suffix == ".ipynb":
        import nbformat  # takes seconds, and no results need it

        notebook = nbformat.read(path, as_version=4)
        for number, cell in _prose(notebook):
            cell.source = renewed(f"cell {number} line ", cell.source)
        if changed:
            nbformat.write(notebook, path)
    else:
        text = renewed("", path.read_text())
        if changed:
            path.write_text(text)
    return changed


def check(path: Path) -> list[str]:
    """Faults of a file's generated blocks, a line each; empty where all say what results say.

    Args:
        path: of a Markdown file or a notebook.

    """
    parts = [("", path.read_text())]
    if path.suffix == ".ipynb":
        import nbformat

        notebook = nbformat.read(path, as_version=4)
        parts = [(f"cell {number} line ", cell.source) for number, cell in _prose(notebook)]
    faults = []
    for where, text in parts:
        try:
            _, stale = _renewed(path, where, text)
        except SettingsError as error:
            faults.append(str(error))
        else:
            faults += [f"{path.name}: block {name} is stale: refresh it" for name in stale]
    return faults


def _prose(notebook) -> Iterator[tuple[int, Any]]:
    cells = enumerate(notebook.cells)
    return ((number, cell) for number, cell in cells if cell.cell_type == "markdown")


def _renewed(path: Path, where: str, text: str) -> tuple[str, list[str]]:
    """A text with its blocks made anew, and the names of those that changed."""
    # What stands in code is an example; the same length keeps places right.
    searched = _CODE.sub(lambda code: _PLACEHOLDER * len(code.group()), text)
    pieces, names, done = [], [], 0
    opened: re.Match | None = None
    for marker in _MARKER.finditer(searched):
        at = f"{path.name}:{where}{text.count(chr(10), 0, marker.start()) + 1}"
        if (marker["name"] is None) == (opened is None):
            raise SettingsError(
                f"{at}: {marker.group()} where "
                + ("no block is open" if opened is None else f"block {opened['name']} is open")
                + f": every block begins with `<!-- from …: … -->` and ends with `{_END}`"
            )
        if opened is None:
            pieces.append(text[done : marker.end()])
            opened = marker
        else:
            new, old = _content(path, at, opened, text[opened.end() : marker.start()])
            pieces.append(new)
            if new != old:
                names.append(opened["name"])
            opened = None
            pieces.append(marker.group())
        done = marker.end()
    if opened is not None:
        raise SettingsError(f"{path.name}: block {opened['name']} does not end: add `{_END}`")
    return "".join([*pieces, text[done:]]), names


def _content(path: Path, at: str, opened: re.Match, old: str) -> tuple[str, str]:
    try:
        values = [read_values(path.parent / name) for name in opened["sources"].split(" and ")]
        new = render(opened["name"], {**values[0], "sources": values})
    except (SettingsError, TemplateError) as error:
        raise SettingsError(f"{at}: {error}") from None
    own_lines = "\n" in old or "\n" in new
    return (f"\n{new}\n" if own_lines else new), old


def read_values(source: Path) -> dict[str, Any]:
    """Named values of some results: those in `values.json`, and `tables` by name.

    Args:
        source: a folder that a stage left, with its tables in it or in `tables/` below it; or one
            CSV file, which is `table` as well.

    Raises:
        SettingsError: there is nothing there.

    """
    if source.is_file() and source.suffix == ".csv":
        table = _read_table(source)
        return {"tables": {source.stem: table}, "table": table}
    paths = [*sorted(source.glob("*.csv")), *sorted(source.glob("tables/*.csv"))]
    if not paths and not (source / VALUES).exists():
        raise SettingsError(f"{source.name}: no such results: run the stage that leaves them")
    values = {}
    if (source / VALUES).exists():
        values = json.loads((source / VALUES).read_text())
    return {**values, "tables": {path.stem: _read_table(path) for path in paths}}


@cache
def _read(path: Path, changed: int) -> pd.DataFrame:
    return pd.read_csv(path)


def _read_table(path: Path) -> pd.DataFrame:
    return _read(path, path.stat().st_mtime_ns)


# --- how templates show values ------------------------------------------------------------------


def score(value: float | int | None, digits: int = 3) -> str:
    """`0.123`, or a dash where there is none."""
    return MISSING if _none(value) else f"{value:.{digits}f}"


def signed(value: float | None, digits: int = 3) -> str:
    """`+0.123` or `−0.123`, with a true minus; no sign where all digits shown are 0."""
    if _none(value):
        return MISSING
    sign = "" if round(value, digits) == 0 else "+" if value > 0 else "−"
    return f"{sign}{abs(value):.{digits}f}"


def percent(share: float | None, digits: int = 0) -> str:
    """`12 %` for 0.12."""
    return MISSING if _none(share) else f"{100 * share:.{digits}f} %".replace("-", "−")


def factor(on: float | None, off: float | None) -> str:
    """`×2.1`: how many times `off` is `on`; empty where that says nothing, as `×1.0` does."""
    if _none(on) or _none(off) or off <= 0:
        return ""
    shown = f"{on / off:.1f}"
    return "" if shown in ("1.0", "0.0") else f"×{shown}"


def listed(words: Sequence[str], last: str = "and") -> str:
    """`a, b and c`."""
    words = list(map(str, words))
    return f" {last} ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def pick(table: pd.DataFrame, column: str, **where: Any) -> Any:
    """The one value of a column in the row that these columns say.

    Raises:
        SettingsError: no such row, or several.

    """
    for name, value in where.items():
        if name not in table:
            raise unknown_name("column", name, table.columns, "table")
        table = table[table[name].astype(str) == str(value)]
    if len(table) != 1:
        said = ", ".join(f"{name} {value}" for name, value in where.items())
        raise SettingsError(f"{column}: {len(table)} rows with {said}: expected one")
    return table[column].iloc[0]


def label(key: Sequence[str]) -> str:
    """What readers call a score `(measure, nodes, at)` that is compared, or audited."""
    return {**labels("audited"), **labels("compared")}[tuple(key)]


def markdown(table: pd.DataFrame) -> str:
    """A table as Markdown, without its index; a dash where a value is missing."""
    return table.to_markdown(index=False, floatfmt=".4g", missingval=MISSING)


def _none(value: float | int | None) -> bool:
    return value is None or math.isnan(value)


def _finite(value: Any) -> Any:
    """A value as JSON has it: without NaN, infinities and numpy's types."""
    if isinstance(value, Mapping):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


@cache
def _templates() -> Environment:
    filters: list[Callable] = [score, signed, percent, factor, listed, pick, label, markdown]
    environment = Environment(
        loader=PackageLoader("rarenodes.pages"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # Markdown, not HTML
    )
    environment.filters |= {function.__name__: _given(function) for function in filters}
    return environment


def _given(function: Callable) -> Callable:
    """A filter that refuses a value that nobody gave, by its name, before it looks at it."""

    def checked(*arguments: Any, **named: Any) -> Any:
        for argument in (*arguments, *named.values()):
            if isinstance(argument, StrictUndefined):
                str(argument)  # raises UndefinedError
        return function(*arguments, **named)

    return checked
