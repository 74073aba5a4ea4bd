"""The difference of two variants on one data set, where seeds and test examples are both chance.

Seeds and examples are crossed: every seed is scored on the same test examples. That is the design of
reader studies in radiology (seeds are readers, examples are cases), and their analysis by Obuchowski
and Rockette with Hillis's degrees of freedom is used here. With S paired seeds, D_s the difference
at seed s, s² the variance of the D_s, and c the covariance *over examples* of the differences
at two different seeds:

    Var(mean D) = max(s², v − c) / S + max(c, 0)

s² already contains what examples do to each seed by itself; c is what they do to all seeds at once,
which no spread over seeds can show. So nothing is counted twice: with examples alone s² is 0 and
the interval is the bootstrap's; with seeds alone c is 0 and it is Student's over seeds. With v the mean
variance of one seed's difference over examples, v − c is what s² must be at least, known from many
replicates where a spread of three values happens to be small. Degrees of
freedom are Welch and Satterthwaite's: S − 1 for the first part; for the second, as many as
the examples that carry it are worth (`example_degrees_of_freedom`), few where all hangs on a few
positives of rare nodes. A bootstrap that draws three seeds anew has no means to know that a spread of three
values may be far too small, and rejects true nulls two to four times too often; `level` has the
figures.

What no interval from here covers: other data sets, other splits, tuning.

Source: N. A. Obuchowski, H. E. Rockette, Commun. Stat. Simul. Comput. 24, 1995; S. L. Hillis, Stat. Med.
26, 2007 (degrees of freedom); F. E. Satterthwaite 1946.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.stats import t as student

from rarenodes.inference.bootstrap import BootstrapScores, check_comparable

EXAMPLES_AND_SEEDS = "examples and seeds"
EXAMPLES = "examples"
STAND_IN = "examples and seeds, those of one variant standing in for the other's"


class Sample(NamedTuple):
    """Scores of one variant: as measured by each seed, and in each replicate of the examples."""

    estimates: Float[np.ndarray, "seeds columns"]
    replicates: Float[np.ndarray, "seeds replicates columns"]


@dataclass(frozen=True)
class Inference:
    """What is known about differences (or scores), each taken alone; arrays are `[columns]`.

    Attributes:
        value: the difference, or score, averaged over seeds.
        standard_error: of it; NaN where nothing tells it.
        degrees_of_freedom: of the standard error; ∞ at most.
        seed_error: the part of the seeds, `√(s²/S)`; NaN where each variant has one seed.
        example_error: the part of the examples, `√c`.
        covers: `EXAMPLES_AND_SEEDS`; `EXAMPLES` where one seed each shows no spread of training, so
            that all holds for these trained models alone; or `STAND_IN`.

    """

    value: Float[np.ndarray, " columns"]
    standard_error: Float[np.ndarray, " columns"]
    degrees_of_freedom: Float[np.ndarray, " columns"]
    seed_error: Float[np.ndarray, " columns"]
    example_error: Float[np.ndarray, " columns"]
    covers: str

    def interval(
        self, confidence: float = 0.95
    ) -> tuple[Float[np.ndarray, " columns"], Float[np.ndarray, " columns"]]:
        """(lower, upper): the value ± Student's quantile times the standard error."""
        half = student.ppf((1 + confidence) / 2, self.degrees_of_freedom) * self.standard_error
        # No noise at all is an interval of one point: its quantile is of no use.
        half = np.where(self.standard_error == 0, 0.0, half)
        return self.value - half, self.value + half

    def p(self) -> Float[np.ndarray, " columns"]:
        """Two-sided p-value against 0: below 1 − confidence exactly where the interval leaves 0 out."""
        ratio = np.divide(
            np.abs(self.value),
            self.standard_error,
            out=np.zeros_like(self.value),
            where=self.standard_error > 0,
        )
        p = np.minimum(2 * student.sf(ratio, self.degrees_of_freedom), 1.0)
        # Equal in every seed and replicate: nothing speaks against equality. A difference without any
        # noise has no test.
        still = self.standard_error == 0
        p = np.where(still, np.where(self.value == 0, 1.0, np.nan), p)
        return np.where(np.isnan(self.value) | np.isnan(self.standard_error), np.nan, p)


def infer_difference(
    own: Sample,
    base: Sample,
    weights: Float[np.ndarray, "replicates examples"],
    *,
    paired: bool | None = None,
) -> Inference:
    """The difference `own − base`, averaged over seeds.

    *Paired seeds* (seed s of both began from the same weights and saw the same batches): the module's
    formula. *Unpaired*: `s_a²/S_a + s_b²/S_b + max(c_a + c_b − 2 c_ab, 0)`, with the covariances between
    different seeds of either variant, and of seeds of both. *One seed against several*, unpaired: the
    lone variant is taken to vary over seeds as the other does, as in Student's two-sample test with
    one value on one side. *One seed each*: the bootstrap variance of the difference over examples.

    Args:
        own: scores of the variant.
        base: scores of what it is compared with, from the same example weights.
        weights: those weights, `[replicates, examples]`.
        paired: whether seeds are pairs; by default where there are equally many.

    Returns:
        The inference for every column. NaN replicates, in which a group had no positive, are left out.

    Raises:
        ValueError: pairs asked for between unequal numbers of seeds.

    """
    number, base_number = len(own.estimates), len(base.estimates)
    paired = number == base_number if paired is None else paired
    if paired and number != base_number:
        raise ValueError(f"{number} and {base_number} seeds cannot be pairs: pass paired=False")
    if paired:
        return infer_score(
            Sample(own.estimates - base.estimates, own.replicates - base.replicates), weights
        )
    return _unpaired(own, base, weights)


def infer_score(sample: Sample, weights: Float[np.ndarray, "replicates examples"]) -> Inference:
    """The mean over seeds of scores, or of paired differences, by the module's formula.

    Args:
        sample: of one variant, or differences at paired seeds.
        weights: of the replicates, `[replicates, examples]`.

    """
    number = len(sample.estimates)
    own = _Parts.of(sample)
    freedom = example_degrees_of_freedom(_mean_over_seeds(sample), weights)
    value = sample.estimates.mean(axis=0)
    if number == 1:
        return _inference(value, [], own.of_mean, freedom, EXAMPLES)
    parts = [(own.spread(number) / number, number - 1)]
    return _inference(value, parts, own.shared(number), freedom, EXAMPLES_AND_SEEDS)


def example_degrees_of_freedom(
    replicates: Float[np.ndarray, "replicates columns"],
    weights: Float[np.ndarray, "replicates examples"],
) -> Float[np.ndarray, " columns"]:
    """Degrees of freedom of a bootstrap variance over examples.

    The variance is the sum of the examples' squared influences `u_i`, so its own relative variance is
    about `Σ u_i⁴ / (Σ u_i²)² − 1/n`, and a χ² with the same has `2 / (…)` degrees of freedom: n for normal
    influences, 2 m where m examples of very many carry it alike. Influences are covariances of an
    example's weight with the replicates; what chance R replicates leave in each, of variance
    `τ² = Var / R`, is taken out of both sums.

    Args:
        replicates: of a score or difference, averaged over seeds; NaN rows are left out.
        weights: how often each example was drawn, `[replicates, examples]`.

    Returns:
        `[columns]`, from 1 to the number of examples; NaN where replicates do not vary.

    Source:
        B. Efron, Standard errors for bagged predictions, JASA 109, 2014 (influences from replicates).

    """
    examples = weights.shape[1]
    known = ~np.isnan(replicates)
    number = np.maximum(known.sum(axis=0), 1)
    centred = np.where(known, replicates - _nanmean(replicates), 0.0)
    influence = weights.T @ centred.astype(weights.dtype) / number
    influence = influence.astype(np.float64) - influence.mean(axis=0)
    chance = (centred**2).sum(axis=0) / number**2
    squares = (influence**2).sum(axis=0)
    second = np.maximum(squares - examples * chance, squares / 10)
    fourth = (influence**4).sum(axis=0) - 6 * chance * second - 3 * examples * chance**2
    with np.errstate(invalid="ignore", divide="ignore"):
        concentration = fourth / second**2 - 1 / examples
        # Influences lighter than normal are not told from normal ones.
        freedom = 2 / np.clip(concentration, 2 / examples, 2)
    return np.where(_variance(replicates) > 0, freedom, np.nan)


def compare(
    scores: Mapping[str, BootstrapScores],
    baseline: str,
    family: Sequence[tuple[str, str]],
    *,
    confidence: float = 0.95,
    deterministic: Collection[str] = (),
) -> pd.DataFrame:
    """Differences of all variants from a baseline on one data set, over its examples and the seeds.

    Seeds of variants with equally many are pairs. What to make of a row in words, and Holm's
    correction over the family it belongs to, is `verdict.judged`'s.

    Args:
        scores: by variant, all from one draw of example weights.
        baseline: one of the variants.
        family: the columns (measure, nodes) compared.
        confidence: of the intervals, each taken alone.
        deterministic: variants whose training is no chance (such as nearest neighbours): their one
            seed is the partner of each seed of the others.

    Returns:
        A row per (variant, column): `variant`, `baseline`, `measure`, `nodes`, `score`,
        `baseline_score`, `difference`, `lower`, `upper`, `p`, `standard_error`, `degrees_of_freedom`,
        `positives` (`bootstrap.effective_positives`), `covers`, `seed_spread`,
        `baseline_seed_spread` (standard deviations over seeds), `seeds` and `baseline_seeds`.

    Raises:
        ValueError: an unknown baseline or column, scores from different draws, or a deterministic
            variant with several seeds.

    """
    family = [tuple(column) for column in family]
    check_comparable(scores, baseline, family)
    for name in deterministic:
        if name in scores and len(scores[name].estimates) > 1:
            raise ValueError(
                f"{name!r} is declared deterministic, but has {len(scores[name].estimates)} seeds: "
                "expected one"
            )
    tables = [
        _compared(scores, name, baseline, family, confidence, deterministic)
        for name in scores
        if name != baseline
    ]
    return pd.concat(tables, ignore_index=True)


def score_intervals(
    scores: BootstrapScores, columns: Sequence[tuple[str, str]], *, confidence: float = 0.95
) -> pd.DataFrame:
    """Scores of one variant with intervals over examples and seeds.

    Args:
        scores: of the variant.
        columns: (measure, nodes).
        confidence: of the intervals.

    Returns:
        A row per column: `measure`, `nodes`, `score`, `lower`, `upper`, `seed_spread`, `covers`.

    """
    columns = [tuple(column) for column in columns]
    inference = infer_score(sample_of(scores, columns), scores.weights)
    lower, upper = inference.interval(confidence)
    return pd.DataFrame(columns, columns=["measure", "nodes"]).assign(
        score=inference.value,
        lower=lower,
        upper=upper,
        seed_spread=scores.seed_spread()[columns].to_numpy(),
        covers=inference.covers,
    )


def sample_of(scores: BootstrapScores, columns: Sequence[tuple[str, str]]) -> Sample:
    """The columns (measure, nodes) of a variant's scores."""
    positions = scores.estimates.columns.get_indexer(list(columns))
    return Sample(scores.estimates.to_numpy()[:, positions], scores.replicates[:, :, positions])


def repeated(sample: Sample, number: int) -> Sample:
    """The one seed of a variant whose training is no chance, as the partner of `number` seeds."""
    return Sample(*(np.repeat(values, number, axis=0) for values in sample))


# --- one comparison -----------------------------------------------------------------------------


def _compared(
    scores: Mapping[str, BootstrapScores],
    name: str,
    baseline: str,
    family: list[tuple[str, str]],
    confidence: float,
    deterministic: Collection[str],
) -> pd.DataFrame:
    score, base = scores[name], scores[baseline]
    own, other = sample_of(score, family), sample_of(base, family)
    number = max(len(own.estimates), len(other.estimates))
    if name in deterministic:
        own = repeated(own, number)
    if baseline in deterministic:
        other = repeated(other, number)
    inference = infer_difference(own, other, score.weights)
    lower, upper = inference.interval(confidence)
    return pd.DataFrame(family, columns=["measure", "nodes"]).assign(
        variant=name,
        baseline=baseline,
        score=score.estimate()[family].to_numpy(),
        baseline_score=base.estimate()[family].to_numpy(),
        difference=inference.value,
        lower=lower,
        upper=upper,
        p=inference.p(),
        standard_error=inference.standard_error,
        degrees_of_freedom=inference.degrees_of_freedom,
        positives=score.positives[family].to_numpy(),
        covers=inference.covers,
        seed_spread=score.seed_spread()[family].to_numpy(),
        baseline_seed_spread=base.seed_spread()[family].to_numpy(),
        seeds=len(score.estimates),
        baseline_seeds=len(base.estimates),
    )[_COLUMNS]


_COLUMNS = [
    "variant",
    "baseline",
    "measure",
    "nodes",
    "score",
    "baseline_score",
    "difference",
    "lower",
    "upper",
    "p",
    "standard_error",
    "degrees_of_freedom",
    "positives",
    "covers",
    "seed_spread",
    "baseline_seed_spread",
    "seeds",
    "baseline_seeds",
]


class _Parts(NamedTuple):
    """Variances of one variant's scores, `[columns]`."""

    between: np.ndarray  # of the estimates over seeds; NaN with one seed
    of_each: np.ndarray  # over examples, mean of the seeds'
    of_mean: np.ndarray  # over examples, of the mean over seeds

    @classmethod
    def of(cls, sample: Sample) -> "_Parts":
        number = len(sample.estimates)
        # Rounding, as variants that never differ would differ by the last bits of their averages.
        values = sample.estimates.round(12)
        return cls(
            values.var(axis=0, ddof=1) if number > 1 else np.full(values.shape[1], np.nan),
            np.mean([_variance(of_seed) for of_seed in sample.replicates], axis=0),
            _variance(_mean_over_seeds(sample)),
        )

    def shared(self, number: int) -> np.ndarray:
        """Covariance over examples between different seeds: Var(mean) = v/S + (S − 1)/S · c."""
        return (number * self.of_mean - self.of_each) / (number - 1)

    def spread(self, number: int) -> np.ndarray:
        """Variance between seeds, at least what examples do to each seed by itself."""
        alone = self.of_each - np.maximum(self.shared(number), 0)
        return np.maximum(self.between, alone.round(15))


def _unpaired(own: Sample, base: Sample, weights: np.ndarray) -> Inference:
    samples, numbers = (own, base), (len(own.estimates), len(base.estimates))
    parts = [_Parts.of(sample) for sample in samples]
    means = [_mean_over_seeds(sample) for sample in samples]
    # Cov(a, b) from the variance of the difference.
    between_variants = sum(p.of_mean for p in parts) - _variance(means[0] - means[1])
    freedom = example_degrees_of_freedom(means[0] - means[1], weights)
    value = own.estimates.mean(axis=0) - base.estimates.mean(axis=0)
    if max(numbers) == 1:
        return _inference(value, [], _variance(means[0] - means[1]), freedom, EXAMPLES)
    if min(numbers) == 1:
        several = int(np.argmax(numbers))
        number, part, alone = numbers[several], parts[several], parts[1 - several]
        shared = part.shared(number)
        # What examples do to the lone seed by itself is in the spread that stands in for its own.
        shared = 2 * shared + alone.of_mean - part.of_each - between_variants
        seeds = [(part.spread(number) * (1 + 1 / number), number - 1)]
        return _inference(value, seeds, shared, freedom, STAND_IN)
    seeds = [(p.spread(n) / n, n - 1) for p, n in zip(parts, numbers, strict=True)]
    shared = sum(p.shared(n) for p, n in zip(parts, numbers, strict=True)) - between_variants
    return _inference(value, seeds, shared, freedom, EXAMPLES_AND_SEEDS)


def _inference(
    value: np.ndarray,
    seeds: list[tuple[np.ndarray, int]],
    examples: np.ndarray,
    freedom: np.ndarray,
    covers: str,
) -> Inference:
    """From the seeds' parts of the variance with their degrees of freedom, and the examples' part."""
    examples = np.maximum(examples, 0.0)
    of_seeds = sum(part for part, _ in seeds)
    variance = of_seeds + examples
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = sum(part**2 / degrees for part, degrees in seeds)
        spread = spread + np.where(examples > 0, examples**2 / freedom, 0.0)
        degrees = variance**2 / spread
    return Inference(
        value=value.round(12),
        standard_error=np.sqrt(variance),
        degrees_of_freedom=degrees,
        seed_error=np.sqrt(of_seeds) if seeds else np.full_like(examples, np.nan),
        example_error=np.sqrt(examples),
        covers=covers,
    )


# --- over replicates ----------------------------------------------------------------------------


def _mean_over_seeds(sample: Sample) -> np.ndarray:
    return sample.replicates.mean(axis=0).round(12)


def _nanmean(replicates: np.ndarray) -> np.ndarray:
    known = np.maximum(np.count_nonzero(~np.isnan(replicates), axis=0), 1)
    return np.nansum(replicates, axis=0) / known


def _variance(replicates: np.ndarray) -> np.ndarray:
    """Over the replicates that are numbers; NaN with fewer than two."""
    known = np.count_nonzero(~np.isnan(replicates), axis=0)
    squares = np.nansum((replicates - _nanmean(replicates)).round(12) ** 2, axis=0)
    return np.where(known > 1, squares / np.maximum(known - 1, 1), np.nan)
