"""Tests and intervals across data sets: the unit is the data set, seeds averaged before.

Few data sets show little: with n of them the smallest two-sided p-value of a signed-rank test is
`2^(1 − n)`, so that five can never reach 0.05. Every result says what it could have shown at best, and
`across_data_sets` gives a reason in place of tests that could show nothing.

Why these are not a library's: SciPy's exact Wilcoxon test is for differences without ties and
zeros; with them it counts sign flips one by one, up to a dozen of them, and takes a normal
approximation beyond, while the running sum here is exact at any n. `statsmodels` gives the same Holm
adjustments, but lets a test that could not be made count. `baycomp` gives the same Bayesian probabilities
(to the ±.01 of its own draws), some thirty times slower and from the global random state.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float


class SignedRank(NamedTuple):
    """What a signed-rank analysis of paired differences found.

    Attributes:
        num_data_sets: differences that are numbers.
        median: of the differences.
        hodges_lehmann: median of the means of all pairs of differences (Walsh averages).
        lower: of the exact interval for the shift; −∞ where n is too small for the confidence.
        upper: likewise, ∞.
        attained_confidence: of that interval, at least the one asked for, 1 where it is unbounded.
        rank_biserial: matched-pairs rank-biserial correlation, −1 (all worse) to 1 (all better).
        p: two-sided, exact.
        smallest_p: what `p` would be if all differences had one sign.

    """

    num_data_sets: int
    median: float
    hodges_lehmann: float
    lower: float
    upper: float
    attained_confidence: float
    rank_biserial: float
    p: float
    smallest_p: float


class BayesianSignedRank(NamedTuple):
    """Probabilities that a variant is worse, practically equivalent, and better."""

    worse: float
    equivalent: float
    better: float


def holm(p_values: Float[np.ndarray, " tests"]) -> Float[np.ndarray, " tests"]:
    """Holm's step-down adjustment: reject where the adjusted value is at most the family's level.

    Formula: with p sorted, `max_{i ≤ k} min(1, (m − i + 1) p_i)` over the m tests that are numbers.

    Args:
        p_values: of one family, `[tests]`; NaN stands for a test that could not be made, stays NaN
            and does not count.

    Returns:
        `[tests]`, in the given order.

    Source:
        S. Holm, A simple sequentially rejective multiple test procedure, Scand. J. Stat. 6, 1979.

    """
    adjusted = np.full(len(p_values), np.nan)
    known = np.flatnonzero(~np.isnan(p_values))
    order = known[np.argsort(p_values[known], kind="stable")]
    steps = p_values[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(steps))
    return adjusted


def smallest_signed_rank_p(num_data_sets: int) -> float:
    """The smallest two-sided p-value of a signed-rank test: all n differences of one sign, `2^(1 − n)`.

    Args:
        num_data_sets: n; with none there is no test, and the value is 1.

    """
    return min(1.0, 2.0 ** (1 - num_data_sets))


def data_sets_needed(tests: int, level: float) -> int:
    """The fewest data sets with which one of several corrected tests can be significant.

    Args:
        tests: in the family of Holm's correction.
        level: of the family.

    Returns:
        The smallest n with `tests · 2^(1 − n) ≤ level`.

    """
    number = 1
    while tests * smallest_signed_rank_p(number) > level:
        number += 1
    return number


def wilcoxon_signed_rank(
    differences: Float[np.ndarray, " data_sets"], confidence: float = 0.95
) -> SignedRank:
    """Exact signed-rank test of paired differences, with effect size, estimate and interval.

    The p-value is that of all `2^n` sign flips given the absolute differences, counted by a running
    sum over ranks, so it is exact at any n and with ties. Ties share their mean rank. Zeros are
    ranked and then left out (Pratt), so data sets without a difference weaken the evidence; they
    count in the effect size: `(W+ − W−) / (n(n + 1)/2)`. The interval is made of Walsh averages and
    exact for differences without ties, conservative with them.

    Args:
        differences: variant minus baseline, one a data set; NaN (no result) is left out.
        confidence: of the interval, in (0, 1).

    Returns:
        The analysis. Without any difference other than 0, `p` is 1; with n = 0 all but it is NaN.

    Source:
        F. Wilcoxon 1945; J. W. Pratt 1959 (zeros); J. L. Hodges, E. L. Lehmann 1963; D. S. Kerby
        2014 (rank-biserial).

    """
    # Ties and zeros must not be undone by rounding errors: 0.3 − 0.2 and 0.2 − 0.1 are one size.
    d = differences[~np.isnan(differences)].round(12)
    n = len(d)
    if n == 0:
        return SignedRank(0, *[np.nan] * 6, p=1.0, smallest_p=1.0)
    # Twice the rank is whole even for ties.
    from scipy.stats import rankdata  # takes a second to import, and every command imports this

    ranks = np.rint(2 * rankdata(np.abs(d))).astype(int)
    plus, minus = ranks[d > 0].sum(), ranks[d < 0].sum()
    flips = _distribution_of_sum(ranks[d != 0])
    walsh = _walsh_averages(d)
    lower, upper, attained = _shift_interval(walsh, n, confidence)
    return SignedRank(
        num_data_sets=n,
        median=float(np.median(d)),
        hodges_lehmann=float(np.median(walsh)),
        lower=lower,
        upper=upper,
        attained_confidence=attained,
        rank_biserial=float((plus - minus) / ranks.sum()),
        p=float(min(1.0, 2 * flips[: min(plus, minus) + 1].sum())),
        smallest_p=smallest_signed_rank_p(n),
    )


def bayesian_signed_rank(
    differences: Float[np.ndarray, " data_sets"],
    rope: float,
    rng: np.random.Generator,
    samples: int = 50_000,
    prior_strength: float = 0.5,
) -> BayesianSignedRank:
    """Bayesian signed-rank test with a region of practical equivalence.

    The distribution of differences has a Dirichlet process prior with a pseudo-observation at 0, that
    is, of equivalence. Each draw of Dirichlet weights (`prior_strength` for the pseudo-observation, 1 for
    every data set) puts weight `w_i w_j` on the mean of the pair (i, j) below, in, or above
    `[−rope, rope]`; a probability is the share of draws in which its region has most weight.

    Args:
        differences: variant minus baseline, one a data set; NaN (no result) is left out.
        rope: half the width of the region of practical equivalence, in units of the score, ≥ 0.
        rng: source of the draws.
        samples: draws; 50,000 settle a probability to ±0.005.
        prior_strength: weight of the pseudo-observation.

    Returns:
        Probabilities (worse, equivalent, better), which sum to 1.

    Raises:
        ValueError: a negative rope.

    Source:
        A. Benavoli, G. Corani, J. Demšar, M. Zaffalon, Time for a Change: a Tutorial for Comparing
        Multiple Classifiers Through Bayesian Analysis, JMLR 18(77), 2017.

    """
    if rope < 0:
        raise ValueError(f"rope is {rope}: half the width of a region cannot be negative")
    d = np.append(0.0, differences[~np.isnan(differences)])
    weights = rng.dirichlet(np.append(prior_strength, np.ones(len(d) - 1)), size=samples)
    means = (d[:, None] + d) / 2
    worse, better = (
        np.einsum("si,ij,sj->s", weights, region.astype(float), weights, optimize=True)
        for region in (means < -rope, means > rope)
    )
    # Equivalence first, so that it takes what is level.
    most = np.argmax([1 - worse - better, worse, better], axis=0)
    equivalent, worse, better = np.bincount(most, minlength=3) / samples
    return BayesianSignedRank(float(worse), float(equivalent), float(better))


def pairwise_table(
    scores: Mapping[str, pd.DataFrame],
    baselines: Sequence[str],
    *,
    rope: float | Mapping[str, float] | Callable[[float], float],
    rng: np.random.Generator,
    confidence: float = 0.95,
    samples: int = 50_000,
) -> pd.DataFrame:
    """Every variant against every named baseline, on every measure, across data sets.

    Args:
        scores: by measure, a table with a row per data set and a column per variant, seeds averaged;
            higher is better. NaN where a result is missing; a comparison uses the data sets that
            have both.
        baselines: columns to compare the others with. Between two baselines there is one row.
        rope: half the width of the region of practical equivalence, for all measures, by measure, or as
            a function of the baseline's mean score over the data sets, such as `verdict.Rule.margin`.
        rng: source of the Bayesian test's draws.
        confidence: of the intervals, each taken alone.
        samples: draws of the Bayesian test.

    Returns:
        A row per (variant, baseline, measure), with the fields of `SignedRank`, those of
        `BayesianSignedRank`, and `holm_p` and `smallest_holm_p`, what it would be if every comparison
        came out one-sided. Holm's correction is over all rows returned: the measures, variants and
        baselines passed are the family. Fix it before looking, and keep it small: where
        `smallest_holm_p` is above the level, no outcome could have been significant.

    Raises:
        ValueError: a baseline that is no column, or nothing to compare.

    """
    rows = []
    for measure, table in scores.items():
        for variant, baseline in _pairs(measure, list(table.columns), baselines):
            differences = (table[variant] - table[baseline]).to_numpy(dtype=float)
            half_width = _half_width(rope, measure, table[baseline][~np.isnan(differences)])
            rows.append(
                {
                    "variant": variant,
                    "baseline": baseline,
                    "measure": measure,
                    **wilcoxon_signed_rank(differences, confidence)._asdict(),
                    **bayesian_signed_rank(differences, half_width, rng, samples)._asdict(),
                }
            )
    if not rows:
        raise ValueError("nothing to compare: no variant beside the baselines")
    result = pd.DataFrame(rows)
    for name in ("p", "smallest_p"):
        adjusted = holm(result[name].to_numpy())
        result.insert(result.columns.get_loc(name) + 1, name.removesuffix("p") + "holm_p", adjusted)
    return result


@dataclass(frozen=True)
class AcrossDataSets:
    """Tests across data sets, or why there are none.

    Attributes:
        described: a row per (variant, baseline, measure): `data_sets`, `higher` and `lower` (in how
            many), `median` of the differences, `least` and `most`. No claim beyond these data sets.
        tests: from `pairwise_table`; None where no outcome could have been significant.
        reason: in a sentence, why there are no tests; None where there are.

    """

    described: pd.DataFrame
    tests: pd.DataFrame | None
    reason: str | None


def across_data_sets(
    scores: Mapping[str, pd.DataFrame],
    baselines: Sequence[str],
    *,
    rope: float | Mapping[str, float] | Callable[[float], float],
    rng: np.random.Generator,
    level: float = 0.05,
    samples: int = 50_000,
) -> AcrossDataSets:
    """What all data sets together say of every variant against every named baseline.

    With too few data sets for the family there are no tests: their intervals would be unbounded,
    their p-values above the level whatever the differences, and a Bayesian probability at what its
    prior leaves it. Then there is a description and a reason.

    Args:
        scores: as for `pairwise_table`.
        baselines: likewise.
        rope: likewise.
        rng: likewise.
        level: of Holm's correction, over all rows; 1 − level is the confidence of the intervals.
        samples: likewise.

    Raises:
        ValueError: a baseline that is no column, or nothing to compare.

    """
    described = _described(scores, baselines)
    smallest = np.array([smallest_signed_rank_p(n) for n in described["data_sets"]])
    tests, most = len(described), int(described["data_sets"].max())
    # Holm's first step is the least demanding for the comparison with most data sets.
    best = holm(smallest).min()
    if best > level:
        some = "1 data set" if most == 1 else f"{most} data sets"
        reason = (
            f"No test across data sets: with {some} the smallest two-sided p-value of a signed-rank test "
            f"is {smallest.min():.3g}, {best:.3g} after Holm's correction over {tests} "
            f"comparison{'s' * (tests > 1)}, so no outcome could have been significant at {level:g}; "
            f"that takes at least {data_sets_needed(tests, level)} data sets."
        )
        return AcrossDataSets(described, None, reason)
    table = pairwise_table(
        scores, baselines, rope=rope, rng=rng, confidence=1 - level, samples=samples
    )
    return AcrossDataSets(described, table, None)


def average_ranks(scores: pd.DataFrame) -> pd.Series:
    """Mean rank of each variant over the data sets that have all of them; 1 is best.

    For a diagram only: ranks depend on which other variants are in the table, so decide by
    `pairwise_table`.

    Args:
        scores: a row per data set, a column per variant; higher is better.

    Returns:
        A value per variant, best first; ties share their mean rank. NaN without a complete data set.

    """
    return scores.dropna().rank(axis=1, ascending=False).mean().sort_values(kind="stable")


def _described(scores: Mapping[str, pd.DataFrame], baselines: Sequence[str]) -> pd.DataFrame:
    rows = []
    for measure, table in scores.items():
        for variant, baseline in _pairs(measure, list(table.columns), baselines):
            differences = (table[variant] - table[baseline]).astype(float).dropna().round(12)
            rows.append(
                {
                    "variant": variant,
                    "baseline": baseline,
                    "measure": measure,
                    "data_sets": len(differences),
                    "higher": int((differences > 0).sum()),
                    "lower": int((differences < 0).sum()),
                    "median": differences.median(),
                    "least": differences.min(),
                    "most": differences.max(),
                }
            )
    if not rows:
        raise ValueError("nothing to compare: no variant beside the baselines")
    return pd.DataFrame(rows)


def _half_width(
    rope: float | Mapping[str, float] | Callable[[float], float], measure: str, scores: pd.Series
) -> float:
    if callable(rope):
        return float(rope(scores.mean())) if len(scores) else 0.0
    return rope[measure] if isinstance(rope, Mapping) else rope


def _pairs(measure: str, variants: list[str], baselines: Sequence[str]) -> list[tuple[str, str]]:
    for baseline in baselines:
        if baseline not in variants:
            raise ValueError(
                f"{measure}: unknown baseline {baseline!r}: none of {', '.join(variants)}"
            )
    pairs = []
    for baseline in baselines:
        pairs += [(v, baseline) for v in variants if v != baseline and (baseline, v) not in pairs]
    return pairs


def _distribution_of_sum(ranks: np.ndarray) -> np.ndarray:
    """Probability of each sum 0 … Σ ranks where each rank is in it with probability 1/2."""
    probability = np.zeros(ranks.sum() + 1)
    probability[0] = 1
    for rank in ranks:
        probability[rank:] = (probability[rank:] + probability[: len(probability) - rank]) / 2
        probability[:rank] /= 2
    return probability


def _walsh_averages(differences: np.ndarray) -> np.ndarray:
    first, second = np.triu_indices(len(differences))
    return np.sort((differences[first] + differences[second]) / 2)


def _shift_interval(walsh: np.ndarray, n: int, confidence: float) -> tuple[float, float, float]:
    """The k-th Walsh average from either end, with the largest k that keeps the confidence."""
    tail = _distribution_of_sum(np.arange(1, n + 1)).cumsum()
    # Decimal confidences such as 1 − 2/32 must not be missed by a rounding error.
    k = int(np.searchsorted(tail, (1 - confidence) / 2 + 1e-12, side="right"))
    if k == 0:
        return -np.inf, np.inf, 1.0
    return float(walsh[k - 1]), float(walsh[-k]), float(1 - 2 * tail[k - 1])
