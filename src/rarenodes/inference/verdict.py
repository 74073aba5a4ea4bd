"""The one rule from a difference and its uncertainty to a word, for every table, matrix and sentence.

A difference is *practically the same* where its whole interval lies within a region around 0 that
grows with the baseline's score, and the sample has positives enough for so narrow a region; else
*better* or *worse* where its p-value, adjusted by Holm over its family, is at most the level; else
*unclear*, or *cannot tell* where the sample could not have shown even a large difference. What it
could have shown is the smallest difference that it would find four times out of five.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
import pandas as pd
from jaxtyping import Float
from pydantic import Field
from scipy.special import nctdtrinc, ndtri, stdtrit

from rarenodes.inference.significance import holm
from rarenodes.settings import Settings

POWER = 0.8

# Of a table of judged differences, as it is written: what, of what, how large, how sure.
DIFFERENCE_COLUMNS = [
    "measure",
    "nodes",
    "at",
    "variant",
    "baseline",
    "score",
    "baseline_score",
    "difference",
    "lower",
    "upper",
    "p",
    "holm_p",
    "tests",
    "verdict",
    "symbol",
    "clear",
    "margin",
    "resolution",
    "standard_error",
    "degrees_of_freedom",
    "positives",
    "covers",
    "seeds",
    "baseline_seeds",
    "seed_spread",
    "baseline_seed_spread",
]


class Word(Enum):
    """What a comparison shows; the value is what tables hold."""

    BETTER = "better"
    WORSE = "worse"
    SAME = "same"
    UNCLEAR = "unclear"
    CANNOT_TELL = "untestable"

    @property
    def phrase(self) -> str:
        """What readers see."""
        phrases = {Word.SAME: "practically the same", Word.CANNOT_TELL: "cannot tell"}
        return phrases.get(self, self.value)

    @property
    def symbol(self) -> str:
        """The short cell of a matrix: legible without colour."""
        return _SYMBOLS[self]


_SYMBOLS = {
    Word.BETTER: "+",
    Word.WORSE: "−",
    Word.SAME: "≈",
    Word.UNCLEAR: "?",
    Word.CANNOT_TELL: "·",
}


class Rule(Settings):
    """What counts as clear, as the same, and as more than a sample can tell.

    Attributes:
        level: of Holm-adjusted p-values.
        equivalence: differences up to this share of the baseline's score matter to nobody.
        floor: nor do differences up to this, however small the score.
        blunt: a sample that would miss a difference this many times as large as one that
            matters cannot tell.

    """

    level: float = Field(default=0.05, gt=0, lt=1)
    equivalence: float = Field(default=0.05, ge=0)
    floor: float = Field(default=0.002, ge=0)
    blunt: float = Field(default=10, ge=1)

    def margin(
        self, baseline_score: float | Float[np.ndarray, "*rows"]
    ) -> float | Float[np.ndarray, "*rows"]:
        """Half the width of the region of practical equivalence: `max(floor, equivalence · score)`."""
        return np.maximum(self.floor, self.equivalence * np.abs(baseline_score))

    def verdict(
        self,
        *,
        difference: float,
        lower: float,
        upper: float,
        holm_p: float,
        baseline_score: float,
        resolution: float,
        step: float = 0.0,
    ) -> "Verdict":
        """Turn one comparison into a word.

        Args:
            difference: variant minus baseline; higher scores are better.
            lower: of its interval, taken alone.
            upper: likewise.
            holm_p: p-value, adjusted over its family.
            baseline_score: that the region of equivalence is a share of.
            resolution: smallest difference the sample would have shown, see `smallest_detectable`.
            step: what one positive example found or lost moves the score by. Where that is more than
                the region of equivalence, an interval within it is an artefact of too few positives.

        Returns:
            The verdict. NaN for difference, interval or p-value is "cannot tell".

        """
        margin = float(self.margin(baseline_score))
        resolution = max(resolution, step) if resolution == resolution else np.nan
        clear = bool(holm_p <= self.level)
        if np.isnan([difference, lower, upper, holm_p]).any():
            word = Word.CANNOT_TELL
        elif -margin <= lower and upper <= margin and step <= margin:
            word = Word.SAME
        elif clear:
            word = Word.BETTER if difference > 0 else Word.WORSE
        elif resolution <= self.blunt * margin:
            word = Word.UNCLEAR
        else:
            word = Word.CANNOT_TELL
        return Verdict(word, float(difference), clear, margin, float(resolution))


@dataclass(frozen=True)
class Verdict:
    """What one comparison shows.

    Attributes:
        word: in a word.
        difference: variant minus baseline.
        clear: whether the Holm-adjusted p-value is at most the level: also true of differences
            that are clear and practically none.
        margin: differences up to this are practically none.
        resolution: the smallest difference the sample would have shown, four times out of five.

    """

    word: Word
    difference: float
    clear: bool
    margin: float
    resolution: float

    def cell(self) -> str:
        """One character for a coloured matrix: `+`, `−`, `≈`, `?`, or `·` where it cannot be told."""
        return self.word.symbol

    def sentence(self) -> str:
        """The word, what it is relative to, and what the sample could have shown."""
        if np.isnan(self.difference):
            return "cannot tell: the sample has nothing to compare"
        if np.isnan(self.resolution):
            return f"{self.word.phrase} ({self.difference:+.3f})"
        shown = (
            f"differences from {self.resolution:.3f} would have been found in four of five samples"
        )
        if self.word is Word.SAME:
            also = ", though the difference is clear" if self.clear else ""
            return f"practically the same ({self.difference:+.3f}, within ±{self.margin:.3f}){also}"
        if self.word in (Word.BETTER, Word.WORSE):
            return f"{self.word.phrase} ({self.difference:+.3f})"
        return f"{self.word.phrase} ({self.difference:+.3f}): {shown}"


def smallest_detectable(
    standard_error: Float[np.ndarray, " rows"],
    degrees_of_freedom: Float[np.ndarray, " rows"],
    *,
    level: float = 0.05,
    power: float = POWER,
) -> Float[np.ndarray, " rows"]:
    """The smallest true difference that a two-sided t-test finds with the given power.

    Formula: `λ · standard error`, with λ the non-centrality at which t exceeds its critical value
    with probability `power` (2.80 at 5 % and ∞ degrees of freedom, 5.66 at 2); rejections on
    the wrong side are not counted.

    Args:
        standard_error: of the difference, `[rows]`.
        degrees_of_freedom: of it; may be ∞.
        level: two-sided; over a family of m tests that are corrected, the level over m for one difference
            alone.
        power: probability to find it.

    Returns:
        `[rows]`, in the units of the score; NaN where the standard error is NaN.

    """
    errors, degrees = np.broadcast_arrays(
        np.asarray(standard_error, float), np.asarray(degrees_of_freedom, float)
    )
    # Beyond this the two distributions are one to six digits.
    normal = ~(degrees < 1e6)
    finite = np.where(normal, 1e6, degrees)
    multiple = nctdtrinc(finite, 1 - power, stdtrit(finite, 1 - level / 2))
    multiple = np.where(normal, ndtri(1 - level / 2) + ndtri(power), multiple)
    return np.where(errors == 0, 0.0, multiple * errors)


def judged(differences: pd.DataFrame, rule: Rule, family: Sequence[str]) -> pd.DataFrame:
    """Adjust p-values over families, and give every comparison its verdict.

    Args:
        differences: rows of `difference.compare`, of one data set or several; needed are
            `difference`, `lower`, `upper`, `p`, `standard_error`, `degrees_of_freedom`, `positives`
            and `baseline_score`.
        rule: that decides.
        family: columns; rows that agree in all of them are one family of Holm's correction. Rows without
            a p-value stay NaN and do not count.

    Returns:
        The table with columns `holm_p`, `tests` (the size of the row's family), `margin`,
        `resolution` (of one difference alone in that family), `verdict` (a `Word`'s value), `symbol`
        and `clear`.

    Raises:
        ValueError: a column of the family that the table lacks.

    """
    missing = [column for column in family if column not in differences]
    if missing:
        raise ValueError(
            f"family: no column {missing[0]!r}: expected some of {', '.join(differences.columns)}"
        )
    table = differences.reset_index(drop=True)
    groups = table.groupby(list(family), sort=False, dropna=False)["p"]
    tests = groups.transform("count").astype(int)
    table = table.assign(holm_p=groups.transform(lambda p: holm(p.to_numpy())), tests=tests)
    steps = 1 / table["positives"].replace(0, np.nan)
    resolution = np.full(len(table), np.nan)
    for number in sorted(set(tests) - {0}):
        rows = (tests == number).to_numpy()
        resolution[rows] = smallest_detectable(
            table.loc[rows, "standard_error"].to_numpy(),
            table.loc[rows, "degrees_of_freedom"].to_numpy(),
            level=rule.level / number,
        )
    verdicts = [
        rule.verdict(
            difference=row.difference,
            lower=row.lower,
            upper=row.upper,
            holm_p=row.holm_p,
            baseline_score=row.baseline_score,
            resolution=found,
            step=step,
        )
        for row, found, step in zip(table.itertuples(), resolution, steps, strict=True)
    ]
    return table.assign(
        margin=[v.margin for v in verdicts],
        resolution=[v.resolution for v in verdicts],
        verdict=[v.word.value for v in verdicts],
        symbol=[v.cell() for v in verdicts],
        clear=[v.clear for v in verdicts],
    )


def verdicts_of(table: pd.DataFrame) -> list[Verdict]:
    """The verdicts of a table that `judged` made, also when it was written and read again."""
    return [
        Verdict(Word(row.verdict), row.difference, bool(row.clear), row.margin, row.resolution)
        for row in table.itertuples()
    ]
