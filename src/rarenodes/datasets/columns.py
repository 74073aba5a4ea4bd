"""From raw columns with gaps and categories to features for a network."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

# Larger values are marks for "missing" or slips; near them, squares and float32 would overflow.
LARGEST = 1e30

Levels = Sequence[tuple[str, ...] | None]


def number(text: str) -> float:
    """The number that a cell holds.

    Raises:
        ValueError: it holds none. `1_000` is none, though Python would read it.

    """
    if "_" in text:
        raise ValueError(f"{text!r} is no number")
    return float(text)


def one_hot(
    values: Float[np.ndarray, "examples attributes"], levels: Levels
) -> Float[np.ndarray, "examples columns"]:
    """Numeric columns as they are, each categorical one as one 0/1 column a category.

    Args:
        values: numbers, or positions of categories; NaN where missing.
        levels: for every attribute its categories, or None where it is numeric.

    Returns:
        The columns in the order of the attributes. A missing category is NaN in all its columns,
        so that filling in means gives it the shares of the categories.

    """
    return np.hstack([_columns(values[:, i], kind) for i, kind in enumerate(levels)])


def _columns(values: np.ndarray, levels: tuple[str, ...] | None) -> np.ndarray:
    if levels is None:
        return values[:, None]
    hot = (values[:, None] == np.arange(len(levels))).astype(float)
    return np.where(np.isnan(values)[:, None], np.nan, hot)


def column_means(
    columns: Float[np.ndarray, "examples columns"],
    rows: Int[np.ndarray, " rows"],
    otherwise: float | Float[np.ndarray, " columns"] = 0.0,
) -> Float[np.ndarray, " columns"]:
    """Mean of the known values of every column over some rows; `otherwise` where there is none."""
    known = ~np.isnan(columns[rows])
    sums, count = np.where(known, columns[rows], 0).sum(axis=0), known.sum(axis=0)
    return np.where(count > 0, sums / np.maximum(count, 1), otherwise)


def filled(
    columns: Float[np.ndarray, "examples columns"], means: Float[np.ndarray, " columns"]
) -> Float[np.ndarray, "examples columns"]:
    """The columns with every missing value replaced."""
    return np.where(np.isnan(columns), means, columns)


def standardised(
    columns: Float[np.ndarray, "examples columns"], rows: Int[np.ndarray, " rows"]
) -> Float[np.ndarray, "examples columns"]:
    """Columns of mean 0 and standard deviation 1 over some rows, float32.

    A column that is constant over these rows tells nothing that could be learned from them, and
    would have to be divided by zero: it becomes 0 everywhere.
    """
    mean, deviation = columns[rows].mean(axis=0), columns[rows].std(axis=0)
    # A mean of equal numbers may differ from them in the last digits.
    constant = deviation <= 1e-12 * np.abs(mean)
    # Where a column hardly varies over the rows, others may leave the range of float32: they become
    # infinite, which a `Dataset` refuses.
    with np.errstate(over="ignore"):
        scaled = (columns - mean) / np.where(constant, 1, deviation)
        return np.where(constant, 0, scaled).astype(np.float32)
