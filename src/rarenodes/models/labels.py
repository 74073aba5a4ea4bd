"""What people give as labels in memory: lists of names, one name an example, or an indicator matrix."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import assert_all_finite

# An indicator matrix `[examples, nodes]`, or for every example its names.
Labels = sparse.csr_array | list[Collection[Any]]
_ROWS = (list, tuple, np.ndarray)
_MANY = (*_ROWS, set, frozenset)


def labels_of(y: Any) -> Labels:
    """Labels in one of two forms.

    Args:
        y: for every example a collection of names, or one name; a pandas table of 0 and 1 whose
            columns are the names; or an indicator matrix, dense, sparse or as rows of numbers of one
            length. A matrix of one column is one name an example.

    Raises:
        ValueError: something else, or a name that is missing.

    """
    if isinstance(y, pd.DataFrame) and y.shape[1] > 1:
        return _named(_indicator(y.to_numpy()), y.columns)
    if hasattr(y, "__array__") and not isinstance(y, np.ndarray):
        y = np.asarray(y)
    return _indicator(y) if _is_indicator(y) else _listed(y)


def _is_indicator(y: Any) -> bool:
    if sparse.issparse(y):
        return True
    if isinstance(y, np.ndarray):
        return y.ndim == 2 and y.shape[1] != 1
    # Names are texts: rows of numbers, all of one length, are no lists of names.
    if not (isinstance(y, Sequence) and y and all(isinstance(row, _ROWS) for row in y)):
        return False
    width = len(y[0])
    return width > 1 and all(len(row) == width and _are_flags(row) for row in y)


def _are_flags(row: Iterable[Any]) -> bool:
    return all(not isinstance(flag, str) and flag in (0, 1) for flag in row)


def _indicator(y: Any) -> sparse.csr_array:
    matrix = sparse.csr_array(y) if sparse.issparse(y) else np.asarray(y)
    values = matrix.data if sparse.issparse(matrix) else matrix
    if values.dtype.kind not in "fiub" or not np.isin(values, (0, 1)).all():
        raise ValueError(
            f"y: found a matrix of shape {matrix.shape} with other values than 0 and 1, expected an "
            "indicator matrix, or for every example a list of names"
        )
    matrix = sparse.csr_array(matrix)
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    return matrix


def _named(matrix: sparse.csr_array, columns: Iterable[Any]) -> list[Collection[Any]]:
    names = np.array(list(columns), dtype=object)
    return [list(names[row]) for row in np.split(matrix.indices, matrix.indptr[1:-1])]


def _listed(y: Any) -> list[Collection[Any]]:
    if isinstance(y, np.ndarray):
        if y.ndim == 0 or y.ndim > 2:
            raise ValueError(
                f"y: found an array of shape {y.shape}, expected labels for every example"
            )
        y = y.ravel()  # one column
        if y.dtype.kind in "fiub":
            assert_all_finite(y, input_name="y")
            check_classification_targets(y)
    elif isinstance(y, str) or not isinstance(y, Sequence):
        raise ValueError(f"y: found {type(y).__name__}, expected labels for every example")
    listed = [labels if isinstance(labels, _MANY) else [labels] for labels in y]
    for row, labels in enumerate(listed):
        if any(name is None or name != name for name in labels):
            raise ValueError(f"y, row {row}: found a label that is missing: leave it out")
    return listed
