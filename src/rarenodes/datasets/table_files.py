"""Tables from CSV and Parquet files, with nothing guessed and no row lost.

CSV is read by Python's `csv` in its strict mode rather than by `pandas`, which fills short rows up
with missing values, takes the first column for an index where rows are longer than the header, lets
a stray quote swallow rows, renames columns that share a name, and knows no line numbers.
"""

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rarenodes.datasets.files import FileFault, brief, decoded, read_bytes, short

if TYPE_CHECKING:
    import pyarrow as pa


class TableError(FileFault):
    """A table that cannot be read; the message says where, what, and the mend."""


@dataclass(frozen=True)
class Unusable:
    """A column of a type that holds neither numbers nor text, such as lists of texts or dates.

    Attributes:
        kind: the type, for the message.

    """

    kind: str


# Text is None where it is missing, which only Parquet tells from an empty cell. Numbers are float64,
# NaN where missing, or integers, none missing.
Column = Sequence[str | None] | np.ndarray | Unusable


@dataclass(frozen=True)
class Table:
    """A table as its file holds it.

    Attributes:
        path: the file.
        columns: cells by name of the column: numbers where the file says that they are, else
            text. A CSV file says nothing: all its cells are text. A column `v` of lists of numbers,
            of one length, is one of numbers for each place: `v[0]`, `v[1]`, and so on.
        lines: for every row the line it ends in, in a CSV file; None in a Parquet file.
        rows: how many rows.
        vectors: columns of lists of numbers, by name, and what each became in `columns`.
        lists: columns of lists of texts or of whole numbers, by name; what they hold, as text, is
            made when it is asked for.

    """

    path: Path
    columns: dict[str, Column]
    lines: Sequence[int] | None
    rows: int
    vectors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    lists: Mapping[str, Callable[[], list[list[str]]]] = field(default_factory=dict)

    def has(self, column: str) -> bool:
        """Whether the file has a column of this name."""
        return column in self.columns or column in self.vectors

    def place(self, row: int) -> str:
        """Where a row (from 0) stands, for a message."""
        if self.lines is None:
            return f"{self.path}, row {row + 1}"
        return f"{self.path}, line {self.lines[row]}"

    def fault(self, row: int, column: str, problem: str) -> TableError:
        """The error about a cell."""
        return TableError(f"{self.place(row)}, column {short(column)}: {problem}")

    def text(self, column: str) -> list[str]:
        """The cells of a column as text; empty where missing.

        Raises:
            TableError: the column holds lists, dates or the like.

        """
        cells = self.usable(column)
        if isinstance(cells, np.ndarray):
            # pandas makes floats of integers of which some are missing.
            plain = (int(x) if x == x // 1 else x for x in cells.tolist())
            return ["" if x != x else str(x) for x in plain]
        return ["" if cell is None else cell for cell in cells]

    def usable(self, column: str) -> Sequence[str | None] | np.ndarray:
        """The cells of a column.

        Raises:
            TableError: the column holds lists, dates or the like.

        """
        cells = self.columns[column] if column in self.columns else Unusable("lists of numbers")
        if isinstance(cells, Unusable):
            raise TableError(
                f"{self.path}, column {short(column)}: found values of type {cells.kind}, expected "
                "numbers or text (features may be lists of numbers of one length, labels lists of "
                "names): convert them, or leave the column out of the option features"
            )
        return cells


def read_table(path: Path) -> Table:
    """Read a CSV or Parquet file.

    CSV: UTF-8, separated by commas, one header line; empty lines are skipped.

    Raises:
        FileNotFoundError: no such file.
        OSError: the system does not let it be read.
        TableError: it cannot be read as a table, with the line where there is one.

    """
    content = read_bytes(path, "a CSV or Parquet table")
    if path.suffix.lower() not in _READERS:
        raise TableError(
            f"{path}: found the ending {path.suffix!r}, expected {' or '.join(_READERS)}"
        )
    try:
        table = _READERS[path.suffix.lower()](path, content)
    except FileFault as fault:
        raise TableError(str(fault)) from None
    if not table.rows:
        raise TableError(f"{path}: found no row below the header, expected one for each example")
    return table


def _read_csv(path: Path, content: bytes) -> Table:
    rows, lines = [], []
    with _cells_of_any_length():
        reader = csv.reader(io.StringIO(decoded(path, content), newline=""), strict=True)
        try:
            names = [name.strip() for name in next(filter(None, reader), [])]
            _check_names(f"{path}, line {max(reader.line_num, 1)}", names)
            for row in filter(None, reader):
                if len(row) != len(names):
                    raise TableError(
                        f"{path}, line {reader.line_num}: found {len(row)} cells, expected "
                        f"{len(names)}, one for each column: quote cells that hold commas"
                    )
                rows.append(row)
                lines.append(reader.line_num)
        except csv.Error as error:
            raise TableError(
                f'{path}, line {reader.line_num}: {error}; expected CSV: close each quote, write "" '
                "for one within a cell"
            ) from None
    cells = list(zip(*rows, strict=True)) or [()] * len(names)
    return Table(path, dict(zip(names, cells, strict=True)), lines, len(rows))


@contextmanager
def _cells_of_any_length() -> Iterator[None]:
    """Lift the limit of 128 kB a cell: a text may be longer."""
    before = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _check_names(where: str, names: Sequence[str]) -> None:
    if not names:
        raise TableError(f"{where}: found no column, expected a header and a row for each example")
    if len(names) == 1 and any(separator in names[0] for separator in ";\t|"):
        raise TableError(
            f"{where}: found the one column {short(names[0])}, expected names separated by commas: "
            "save the table as CSV with commas"
        )
    for position, name in enumerate(names):
        if not name:
            raise TableError(
                f"{where}: column {position + 1} has no name, expected one for each: name it, or "
                "remove it (pandas writes row numbers there unless told index=False)"
            )
        if name in names[:position]:
            raise TableError(
                f"{where}: found two columns {short(name)}, expected names that differ: rename one"
            )


def _read_parquet(path: Path, content: bytes) -> Table:
    # Here, since most who import this package read no table.
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True) as file:
            table = file.read()
        table.validate(full=True)  # among others, that all texts are in UTF-8
        names = table.column_names
        _check_names(str(path), names)
        kept = [name for name in names if name not in _index_columns(table)]
        columns, vectors, lists = _columns(path, {name: table.column(name) for name in kept})
    except FileFault:
        raise
    except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
        raise TableError(
            f"{path}: {brief(error, 200)}; expected a readable Parquet table: save or fetch it again"
        ) from None
    return Table(path, columns, None, table.num_rows, vectors, lists)


def _index_columns(table: "pa.Table") -> set[str]:
    """Columns in which pandas kept row labels."""
    described = (table.schema.pandas_metadata or {}).get("index_columns", [])
    return {name for name in described if isinstance(name, str)}


def _columns(path: Path, given: "Mapping[str, pa.ChunkedArray]") -> tuple[dict, dict, dict]:
    """What `Table` calls columns, vectors and lists."""
    import pyarrow as pa

    columns, vectors, lists = [], {}, {}
    for name, column in given.items():
        if not _is_list(column.type):
            columns.append((name, _column(column)))
            continue
        item = column.type.value_type
        if pa.types.is_integer(item) or _holds_text(item):
            lists[name] = partial(_texts, column)
        matrix = None if _holds_text(item) else _matrix(column)
        if matrix is None:
            columns.append((name, Unusable(str(column.type))))
        else:
            parts = vector_columns(name, matrix)
            vectors[name] = tuple(parts)
            columns += parts.items()
    _check_names(str(path), [name for name, _ in columns])
    return dict(columns), vectors, lists


def vector_columns(name: str, matrix: np.ndarray) -> dict[str, np.ndarray]:
    """A column of lists of numbers, `[rows, places]`, as a column of numbers for each place."""
    return {f"{name}[{place}]": matrix[:, place] for place in range(matrix.shape[1])}


def _is_list(kind: "pa.DataType") -> bool:
    """Whether a type of Parquet is one of lists."""
    import pyarrow as pa

    known = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(check(kind) for check in known)


def _holds_text(kind: "pa.DataType") -> bool:
    import pyarrow as pa

    known = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(check(kind) for check in known)


def _matrix(column: "pa.ChunkedArray") -> np.ndarray | None:
    """Lists of numbers as `[rows, places]`, NaN where missing; None where lengths differ."""
    import pyarrow as pa
    import pyarrow.compute as pc

    item = column.type.value_type
    if not (pa.types.is_integer(item) or pa.types.is_floating(item)):
        return None
    lengths = pc.list_value_length(column)
    there = np.array(pc.is_valid(column))
    widths = set(lengths.drop_null().unique().to_pylist())
    if len(widths) != 1 or widths == {0}:
        return None
    matrix = np.full((len(column), widths.pop()), np.nan)
    numbers = pc.list_flatten(column).cast(pa.float64(), safe=False).to_numpy()
    matrix[there] = numbers.reshape(-1, matrix.shape[1])
    return matrix


def _texts(column: "pa.ChunkedArray") -> list[list[str]]:
    """Lists of texts or whole numbers, as text; what is missing is left out."""
    return [[str(item) for item in items or () if item is not None] for items in column.to_pylist()]


def _column(column: "pa.ChunkedArray") -> Column:
    import pyarrow as pa

    kind = column.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
        column = column.cast(kind)
    if pa.types.is_null(kind):
        return np.full(len(column), np.nan)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        if pa.types.is_integer(kind) and not column.null_count:
            return column.to_numpy()
        numbers = column.cast(pa.float64(), safe=False).to_numpy()
        return np.array(numbers, dtype=np.float64)
    if pa.types.is_boolean(kind):
        return [None if cell is None else str(cell) for cell in column.to_pylist()]
    if _holds_text(kind):
        return column.to_pylist()
    return Unusable(str(kind))


_READERS: dict[str, Callable[[Path, bytes], Table]] = {
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
