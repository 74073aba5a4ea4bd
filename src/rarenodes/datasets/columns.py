"""From raw columns with gaps and categories to features for a network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float, Int

# Larger values are marks for "missing" or slips; near them, squares and float32 would overflow.
LARGEST = 1e30


def first_too_large(numbers: Float[np.ndarray, "rows columns"]) -> tuple[int, int] | None:
    """Row and column of the first number beyond `LARGEST`, infinity among them; None if none is."""
    wrong = np.argwhere(np.abs(numbers) > LARGEST)
    return (int(wrong[0, 0]), int(wrong[0, 1])) if len(wrong) else None


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


@dataclass(frozen=True)
class ColumnTransformation:
    """What was learned from training rows: how columns with gaps and categories become features.

    Attributes:
        names: the columns.
        levels: for every column its categories, or None where it is numeric.
        filling: `[features]`, what a missing value becomes.
        mean: `[features]`, over the rows that were learned from.
        deviation: `[features]`, standard deviation over these rows; 0 where a feature is constant.

    """

    kind: ClassVar[str] = "columns"

    names: tuple[str, ...]
    levels: Levels = field(repr=False)
    filling: Float[np.ndarray, " features"] = field(repr=False)
    mean: Float[np.ndarray, " features"] = field(repr=False)
    deviation: Float[np.ndarray, " features"] = field(repr=False)

    @property
    def width(self) -> int:
        """Number of features."""
        return len(self.mean)

    def apply(
        self, values: Float[np.ndarray, "examples attributes"]
    ) -> Float[np.ndarray, "examples features"]:
        """Features of examples, float32.

        Args:
            values: a column for each of `names`: numbers, or positions of categories in `levels`;
                NaN where missing.

        """
        return self.standardised(filled(one_hot(values, self.levels), self.filling))

    def standardised(
        self, complete: Float[np.ndarray, "examples features"]
    ) -> Float[np.ndarray, "examples features"]:
        """Features without gaps, moved and scaled, float32.

        A feature that was constant tells nothing that could have been learned, and would have to be
        divided by zero: it becomes 0 everywhere.
        """
        constant = self.deviation == 0
        # Where a column hardly varied, others may leave the range of float32: they become infinite,
        # which a `Dataset` refuses.
        with np.errstate(over="ignore"):
            scaled = (complete - self.mean) / np.where(constant, 1, self.deviation)
            return np.where(constant, 0, scaled).astype(np.float32)

    def description(self) -> dict[str, Any]:
        """All but the arrays, as JSON can hold it."""
        levels = [None if some is None else list(some) for some in self.levels]
        return {"names": list(self.names), "levels": levels}

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays, by name."""
        return {"filling": self.filling, "mean": self.mean, "deviation": self.deviation}

    @classmethod
    def restored(
        cls, description: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
    ) -> "ColumnTransformation":
        """What `description` and `arrays` are of.

        Raises:
            ValueError: the two do not fit each other.

        """
        names = tuple(description["names"])
        levels = [None if some is None else tuple(some) for some in description["levels"]]
        width = sum(1 if some is None else len(some) for some in levels)
        found = [len(arrays[name]) for name in ("filling", "mean", "deviation")]
        if len(names) != len(levels) or found != [width] * 3:
            raise ValueError(
                f"found {len(names)} columns of {width} features and arrays of {found}, expected "
                "the same number in all"
            )
        return cls(names, levels, arrays["filling"], arrays["mean"], arrays["deviation"])


def fit_columns(
    names: Sequence[str],
    values: Float[np.ndarray, "examples attributes"],
    levels: Levels,
    rows: Int[np.ndarray, " rows"],
) -> ColumnTransformation:
    """Learn from some rows how columns become features of mean 0 and standard deviation 1 over them.

    Missing values take the mean of the known ones.

    Args:
        names: the columns.
        values: numbers, or positions of categories; NaN where missing.
        levels: for every column its categories, or None where it is numeric.
        rows: the rows to learn from.

    """
    columns = one_hot(values, levels)
    means = column_means(columns, rows)
    known = filled(columns[rows], means)
    mean, deviation = known.mean(axis=0), known.std(axis=0)
    # A mean of equal numbers may differ from them in the last digits.
    constant = deviation <= 1e-12 * np.abs(mean)
    deviation = np.where(constant, 0, deviation)
    return ColumnTransformation(tuple(names), tuple(levels), means, mean, deviation)


@dataclass(frozen=True)
class PlainFeatures:
    """Features that are used as they come.

    Attributes:
        width: how many.

    """

    kind: ClassVar[str] = "features"

    width: int

    def apply(
        self, values: Float[np.ndarray, "examples features"]
    ) -> Float[np.ndarray, "examples features"]:
        """The same, float32."""
        return np.asarray(values, dtype=np.float32)

    def description(self) -> dict[str, Any]:
        """All there is, as JSON can hold it."""
        return {"width": self.width}

    def arrays(self) -> dict[str, np.ndarray]:
        """None."""
        return {}

    @classmethod
    def restored(
        cls, description: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
    ) -> "PlainFeatures":
        """What `description` is of."""
        return cls(int(description["width"]))
