"""Matrices of numbers from NumPy's files."""

from pathlib import Path

import numpy as np

from rarenodes.datasets.columns import LARGEST, first_too_large
from rarenodes.datasets.files import brief, read_bytes
from rarenodes.datasets.table_files import TableError


def read_matrix(path: Path) -> np.ndarray:
    """The numbers in a `.npy` file, `[examples, columns]`.

    Raises:
        OSError: the file is missing or cannot be read.
        TableError: it holds something else.

    """
    read_bytes(path, "a matrix in NumPy's format")
    try:
        matrix = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError, MemoryError) as error:
        raise TableError(
            f"{path}: {brief(error, 200)}; expected a matrix of numbers, as numpy.save writes it"
        ) from None
    if not isinstance(matrix, np.ndarray) or matrix.ndim != 2 or matrix.dtype.kind not in "fiub":
        raise TableError(
            f"{path}: found {kind_of(matrix)}, expected a matrix of numbers [examples, columns]"
        )
    return matrix


def read_features(path: Path, rows: int, table: Path) -> np.ndarray:
    """The features in a `.npy` file, a row for each of a table; NaN where a value is missing.

    Args:
        path: the file.
        rows: how many rows the table has.
        table: its file, for the message.

    Raises:
        OSError: the file is missing or cannot be read.
        TableError: it holds something else, another number of rows, or numbers that are too large.

    """
    matrix = read_matrix(path)
    if len(matrix) != rows or not matrix.shape[1]:
        raise TableError(
            f"{path}: found {matrix.shape[0]} rows of {matrix.shape[1]} numbers, expected {rows} of at "
            f"least one, as {table} has {rows} rows: they belong together row by row"
        )
    numbers = matrix.astype(np.float64)
    if at := first_too_large(numbers):
        row, column = at
        raise TableError(
            f"{path}, row {row + 1}, column {column + 1}: found {numbers[row, column]:g}, expected a "
            f"finite number of at most {LARGEST:g}: correct it, or write NaN if it is missing"
        )
    return numbers


def kind_of(value: object) -> str:
    """What was found in place of a matrix, in words."""
    shape = getattr(value, "shape", None)
    if shape is not None:
        return f"an array of shape {tuple(shape)} and type {value.dtype}"
    return f"{type(value).__name__}"
