"""What people give a model to predict from: texts, a matrix, a table in memory or in a file."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rarenodes.datasets.arff import ClusArff, read_clus_arff
from rarenodes.datasets.columns import (
    LARGEST,
    ColumnTransformation,
    PlainFeatures,
    first_too_large,
)
from rarenodes.datasets.files import decoded, lines_of, read_bytes
from rarenodes.datasets.matrices import kind_of, read_matrix
from rarenodes.datasets.table import values_for
from rarenodes.datasets.table_files import Table, TableError, read_table, vector_columns
from rarenodes.datasets.table_labels import unknown_column
from rarenodes.datasets.text import TextTransformation
from rarenodes.datasets.transformations import Fitted

log = logging.getLogger(__name__)

# How a message calls a table that is no file.
IN_MEMORY = Path("the table")

# Texts, or `[examples, columns]`: what a transformation is applied to.
Inputs = Sequence[str] | np.ndarray


def inputs_of(given: Any, transformation: Fitted) -> Inputs:
    """What a transformation is applied to.

    Args:
        given: a sequence of texts, a matrix `[examples, columns]`, or a pandas table with the columns
            that the model was fitted on.
        transformation: of the model.

    Raises:
        ValueError: something else, another number of columns, or numbers that are none or too large.

    """
    if isinstance(given, pd.DataFrame):
        return _from_table(_as_table(given), transformation)
    if isinstance(transformation, TextTransformation):
        return _texts(given)
    matrix = np.asarray(given)
    if (
        matrix.ndim == 2
        and matrix.dtype == object
        and isinstance(transformation, ColumnTransformation)
    ):
        return _from_table(
            _as_table(
                pd.DataFrame(_wide_enough(matrix, transformation), columns=transformation.names)
            ),
            transformation,
        )
    if matrix.ndim != 2 or matrix.dtype.kind not in "fiub":
        raise ValueError(
            f"found {kind_of(given)}, expected a matrix of numbers [examples, columns], or a pandas "
            "table"
        )
    matrix = _wide_enough(matrix, transformation)
    if isinstance(transformation, PlainFeatures):
        return _finite(matrix)
    categories = [
        name
        for name, levels in zip(transformation.names, transformation.levels, strict=True)
        if levels is not None
    ]
    if categories:
        raise ValueError(
            f"found a matrix of numbers, expected a pandas table: the column {categories[0]!r} holds "
            "categories"
        )
    matrix = matrix.astype(np.float64)
    if at := first_too_large(matrix):
        row, column = at
        raise ValueError(
            f"row {row}, column {transformation.names[column]!r}: found {matrix[row, column]:g}, "
            f"expected a finite number of at most {LARGEST:g}, or NaN where it is missing"
        )
    return matrix


def read_inputs(path: str | Path, transformation: Fitted, column: str | None = None) -> Inputs:
    """What a file holds for a model.

    Args:
        path: a CSV or Parquet table with the columns that the model was fitted on, or an `.arff`
            file with these attributes, of which the class is not looked at; a `.txt` file of texts,
            one a line; or a `.npy` file with a matrix `[examples, columns]`.
        transformation: of the model.
        column: the column of texts, where it has another name than when the model was fitted.

    Raises:
        OSError: the file is missing or cannot be read.
        ValueError: it does not hold what the model needs; the message says what that is.

    """
    path = Path(path)
    if column is not None and not isinstance(transformation, TextTransformation):
        raise ValueError(
            f"{path}: a column of texts was named, but the model takes {needs(transformation)}"
        )
    ending = path.suffix.lower()
    if ending == ".txt":
        if not isinstance(transformation, TextTransformation):
            raise ValueError(f"{path}: found texts, but the model takes {needs(transformation)}")
        lines = lines_of(decoded(path, read_bytes(path, "a text a line")))
        if lines[-1] == "":  # what follows the last line's end
            lines.pop()
        if not lines:
            raise ValueError(f"{path}: found no line, expected a text a line")
        return lines
    if ending == ".npy":
        if isinstance(transformation, TextTransformation):
            raise ValueError(f"{path}: found a matrix, but the model takes {needs(transformation)}")
        return _named(path, read_matrix(path), transformation)
    if ending == ".arff":
        if isinstance(transformation, TextTransformation):
            raise ValueError(
                f"{path}: found numbers and categories, but the model takes {needs(transformation)}"
            )
        return _from_table(_table_of(path, read_clus_arff(path, labelled=False)), transformation)
    return _from_table(read_table(path), transformation, column)


def needs(transformation: Fitted) -> str:
    """What a model takes, in words."""
    if isinstance(transformation, TextTransformation):
        return f"texts (in a table, the column {transformation.column!r})"
    if isinstance(transformation, PlainFeatures):
        return f"a matrix of {transformation.width} features"
    names = ", ".join(map(repr, transformation.names[:5]))
    more = f" and {len(transformation.names) - 5} more" if len(transformation.names) > 5 else ""
    return f"the columns {names}{more}"


def _named(path: Path, matrix: np.ndarray, transformation: Fitted) -> Inputs:
    try:
        return inputs_of(matrix, transformation)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _from_table(table: Table, transformation: Fitted, column: str | None = None) -> Inputs:
    if isinstance(transformation, TextTransformation):
        name = transformation.column if column is None else column
        if name not in table.columns:
            raise TableError(
                f"{unknown_column(table, name)}; the model takes {needs(transformation)}"
            )
        return table.text(name)
    if isinstance(transformation, ColumnTransformation):
        values, unseen = values_for(table, transformation)
        for name, count in unseen.items():
            log.warning(
                "%s, column %r: %d values are none of the categories the model was fitted on, and "
                "count as missing",
                table.path, name, count,
            )  # fmt: skip
        return values
    columns = []
    for name, cells in table.columns.items():
        try:
            columns.append(np.asarray(cells, dtype=np.float64))
        except (ValueError, TypeError):
            raise TableError(
                f"{table.path}, column {name!r}: expected numbers alone: the model takes "
                f"{needs(transformation)}"
            ) from None
    return _named(table.path, np.column_stack(columns), transformation)


def _table_of(path: Path, content: ClusArff) -> Table:
    """The attributes as columns: numbers, or names of categories."""
    columns: dict[str, Any] = {}
    for position, (name, levels) in enumerate(zip(content.attributes, content.levels, strict=True)):
        values = content.values[:, position]
        if levels is None:
            columns[name] = values
        else:
            columns[name] = [None if np.isnan(at) else levels[int(at)] for at in values]
    return Table(path, columns, None, len(content.values))


def _as_table(frame: pd.DataFrame) -> Table:
    columns: dict[str, Any] = {}
    for name, column in frame.items():
        vectors = _vectors(column)
        if vectors is not None:
            columns |= vector_columns(str(name), vectors)
        elif pd.api.types.is_bool_dtype(column) or not pd.api.types.is_numeric_dtype(column):
            missing = column.isna()
            columns[str(name)] = [
                None if gap else str(cell) for cell, gap in zip(column, missing, strict=True)
            ]
        elif pd.api.types.is_integer_dtype(column) and not column.isna().any():
            columns[str(name)] = column.to_numpy()
        else:
            columns[str(name)] = column.to_numpy(dtype=np.float64, na_value=np.nan)
    return Table(IN_MEMORY, columns, None, len(frame))


def _vectors(column: pd.Series) -> np.ndarray | None:
    """Lists of numbers as `[rows, places]`; None where the column holds anything else."""
    lists = column.tolist() if column.dtype == object else []
    if not lists or not all(isinstance(cell, list | tuple | np.ndarray) for cell in lists):
        return None
    try:
        matrix = np.array(lists, dtype=np.float64)
    except (ValueError, TypeError):
        return None
    return matrix if matrix.ndim == 2 else None


def _texts(given: Any) -> list[str]:
    if isinstance(given, str):
        raise ValueError("found one text, expected a list of texts: put it in brackets")
    texts = list(given)
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"row {row}: found {kind_of(text)}, expected a text")
    return texts


def _wide_enough(matrix: np.ndarray, transformation: Fitted) -> np.ndarray:
    expected = (
        transformation.width
        if isinstance(transformation, PlainFeatures)
        else len(transformation.names)
    )
    if matrix.shape[1] != expected:
        raise ValueError(
            f"found {matrix.shape[1]} columns, but the model takes {needs(transformation)}"
        )
    return matrix


def _finite(matrix: np.ndarray) -> np.ndarray:
    wrong = np.argwhere(~np.isfinite(matrix))
    if len(wrong):
        row, column = map(int, wrong[0])
        raise ValueError(
            f"row {row}, column {column}: found {matrix[row, column]}, expected a finite number"
        )
    return matrix
