"""How often an inference for the difference of two variants errs, and how often it finds what is there.

Two variants are simulated that score test examples of few rare nodes, by S seeds each, and are
compared as a study compares them: macro average precision and macro recall at 0.5, with the example
weights of `bootstrap`. Without an effect both are draws from one distribution, so every rejection is
false. What differs between regimes is where chance comes from:

* `seeds`: a seed makes its variant better or worse as a whole; what an example does to one variant
  it does to the other too;
* `examples`: every seed of a variant predicts the same, but the variants rank different examples
  high;
* `both`: seeds differ as a whole and example by example, and so do variants.

`python -m rarenodes.inference.level` makes the whole table.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from scipy import sparse
from scipy.stats import t as student

from rarenodes.inference.bootstrap import example_weights, seed_weights, two_sided_p
from rarenodes.inference.difference import Sample, infer_difference
from rarenodes.randomness import numpy_stream

SCORES = ("macro average precision", "macro recall at 0.5")


@dataclass(frozen=True)
class Regime:
    """Where the chance in a variant's scores comes from.

    Attributes:
        seed_spread: standard deviation over seeds of how far positives stand out, in logits.
        of_variant: share of the variance of an example's logit that is a variant's own.
        of_seed: share of it that is a seed's own; the rest is common to both variants.

    """

    seed_spread: float
    of_variant: float
    of_seed: float


REGIMES: Mapping[str, Regime] = {
    "seeds": Regime(seed_spread=0.4, of_variant=0.0, of_seed=0.0),
    "examples": Regime(seed_spread=0.0, of_variant=0.5, of_seed=0.0),
    "both": Regime(seed_spread=0.3, of_variant=0.3, of_seed=0.3),
}


@dataclass(frozen=True)
class Size:
    """How large a simulated comparison is.

    Attributes:
        examples: in the test part.
        nodes: scored together.
        positives: of a node, on average; their number is Poisson's.
        replicates: of the bootstrap over examples.
        at_once: repetitions that share the bootstrap's draw and are scored in one go.

    """

    examples: int = 250
    nodes: int = 20
    positives: float = 2.0
    replicates: int = 400
    at_once: int = 50


WHOLE = Size()


# An inference: own and baseline's scores and the example weights -> p-values of the columns.
Test = Callable[[Sample, Sample, np.ndarray, np.random.Generator], np.ndarray]


def crossed(own: Sample, base: Sample, weights: np.ndarray, _: np.random.Generator) -> np.ndarray:
    """The inference of this library, `difference`."""
    return infer_difference(own, base, weights).p()


def seeds_drawn_anew(
    own: Sample, base: Sample, _: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """The bootstrap that draws seeds with replacement as it draws examples."""
    drawn = seed_weights(len(own.estimates), own.replicates.shape[1], rng)
    replicates = np.einsum("rs,srk->rk", drawn, own.replicates - base.replicates)
    return two_sided_p((own.estimates - base.estimates).mean(axis=0), replicates)


def examples_alone(
    own: Sample, base: Sample, _: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """The bootstrap over examples, blind to seeds."""
    replicates = (own.replicates - base.replicates).mean(axis=0)
    return two_sided_p((own.estimates - base.estimates).mean(axis=0), replicates)


def seeds_alone(own: Sample, base: Sample, _: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Student's paired test over seeds, blind to examples."""
    differences = own.estimates - base.estimates
    error = differences.std(axis=0, ddof=1) / np.sqrt(len(differences))
    with np.errstate(divide="ignore", invalid="ignore"):
        return 2 * student.sf(np.abs(differences.mean(axis=0)) / error, len(differences) - 1)


TESTS: Mapping[str, Test] = {
    "seeds crossed with examples": crossed,
    "seeds drawn anew": seeds_drawn_anew,
    "examples alone": examples_alone,
    "seeds alone": seeds_alone,
}


def rejection_table(
    rng: np.random.Generator,
    *,
    repetitions: int = 1000,
    seeds: Sequence[int] = (3, 5, 10),
    effect: float | None = 0.6,
    level: float = 0.05,
    regimes: Mapping[str, Regime] = REGIMES,
    tests: Mapping[str, Test] = TESTS,
    size: Size = WHOLE,
) -> pd.DataFrame:
    """How often tests reject without an effect, and with one.

    Args:
        rng: source of all draws.
        repetitions: simulated comparisons, at least; a share has a standard error of at most
            `1 / (2 √repetitions)`, and of .007 where it is 5 in 100 of 1,000.
        seeds: numbers of seeds; fewer seeds are the first of more.
        effect: how much further positives stand out in one variant, in logits, for the power; None
            for false positives alone, in half the time.
        level: of the tests.
        regimes: by name.
        tests: by name.
        size: of each comparison.

    Returns:
        A row per regime, number of seeds, score and test: `false_positives` and `power`, shares of the
        repetitions, `difference`, the mean of the score's differences that the power is for, and
        `repetitions`. Without an effect, `power` is NaN and `difference` about 0.

    """
    batches = -(-repetitions // size.at_once)
    by, rows = ["seeds", "score", "test"], []
    for name, regime in regimes.items():
        shares = {}
        for column, shift in (("false_positives", 0.0), ("power", effect)):
            if shift is not None:
                of_batches = [
                    _rejections(rng, regime, shift, seeds, level, tests, size)
                    for _ in range(batches)
                ]
                by_test = pd.concat(of_batches).groupby(by, sort=False)
                shares[column] = by_test["rejected"].mean()
                shares["difference"] = by_test["difference"].mean()
        table = pd.DataFrame(shares)
        rows.append(table.reset_index().assign(regime=name, repetitions=batches * size.at_once))
    order = ["regime", *by, "false_positives", "power", "difference", "repetitions"]
    return pd.concat(rows, ignore_index=True).reindex(columns=order)


def simulated_variants(
    rng: np.random.Generator, regime: Regime, effect: float, seeds: int, size: Size = WHOLE
) -> tuple[Float[np.ndarray, "variants seeds examples nodes"], Bool[np.ndarray, "examples nodes"]]:
    """Probabilities of two variants for `at_once` independent repetitions side by side, and targets.

    The logit of an example at a node is `strength · target + noise − 1.5`. The strength is 2 on average,
    with the regime's spread over seeds, and larger by `effect` in the second variant. Noise has
    variance 1: half of it is the example's at all nodes of a repetition.

    Args:
        rng: source of all draws.
        regime: where chance comes from.
        effect: in logits.
        seeds: of either variant.
        size: the nodes of repetition r are r · nodes … (r + 1) · nodes − 1.

    """
    shape = (size.examples, size.at_once, size.nodes)
    targets = rng.random(shape) < size.positives / size.examples

    def noise(*first: int) -> np.ndarray:
        of_example = rng.standard_normal((*first, *shape[:2], 1), np.float32)
        own = rng.standard_normal((*first, *shape), np.float32)
        own += of_example
        own *= np.float32(np.sqrt(0.5))
        return own

    common = 1 - regime.of_variant - regime.of_seed
    logits = np.float32(np.sqrt(common)) * noise(1, 1)
    if regime.of_variant:
        logits = logits + np.float32(np.sqrt(regime.of_variant)) * noise(2, 1)
    if regime.of_seed:
        logits = logits + np.float32(np.sqrt(regime.of_seed)) * noise(2, seeds)
    strength = 2 + regime.seed_spread * rng.standard_normal((2, seeds, 1, size.at_once, 1))
    strength[1] += effect
    logits = logits + (strength * targets - 1.5).astype(np.float32)
    probabilities = 1 / (1 + np.exp(-logits))
    return (
        probabilities.reshape(2, seeds, size.examples, -1),
        targets.reshape(size.examples, -1),
    )


def _rejections(
    rng: np.random.Generator,
    regime: Regime,
    effect: float,
    seeds: Sequence[int],
    level: float,
    tests: Mapping[str, Test],
    size: Size,
) -> pd.DataFrame:
    """A row per number of seeds, score and test: shares of a batch of repetitions."""
    probabilities, targets = simulated_variants(rng, regime, effect, max(seeds), size)
    weights = example_weights(size.examples, size.replicates, rng)
    repetition = np.arange(targets.shape[1]) // size.nodes
    base, own = (
        rare_scores(of_variant, targets, weights, repetition) for of_variant in probabilities
    )
    rows = []
    for label in SCORES:
        for number in seeds:
            sample, reference = (
                Sample(*(values[:number] for values in scores[label])) for scores in (own, base)
            )
            difference = np.nanmean(sample.estimates - reference.estimates)
            for name, test in tests.items():
                rejected = test(sample, reference, weights, rng) <= level
                rows.append((number, label, name, rejected.mean(), difference))
    return pd.DataFrame(rows, columns=["seeds", "score", "test", "rejected", "difference"])


def rare_scores(
    probabilities: Float[np.ndarray, "seeds examples nodes"],
    targets: Bool[np.ndarray, "examples nodes"],
    weights: Float[np.ndarray, "replicates examples"],
    group: Int[np.ndarray, " nodes"],
) -> dict[str, Sample]:
    """Macro scores of groups of rare nodes in every replicate, as `bootstrap_scores` has them.

    Where nodes have a handful of positives it is many times quicker to go from positive to positive
    than from node to node: in a replicate a node weighs by its support over its own, so
    both scores are `Σ w_i v_i / n_i` over `Σ w_i / n_i`, with i the positives of the group, `n_i` those
    of its node, and `v_i` the precision at its score, or whether that is above 0.5.

    Args:
        probabilities: `[seeds, examples, nodes]`.
        targets: `[examples, nodes]`.
        weights: `[replicates, examples]`.
        group: of each node, from 0.

    Returns:
        By name of the score; a column per group, NaN without (resampled) positives.

    """
    rows = np.concatenate([np.ones_like(weights[:1]), weights]).T
    node, example = np.nonzero(targets.T)
    positives = len(node)
    same_node = sparse.csr_array(node[:, None] == node)
    worth = 1 / np.bincount(node, minlength=targets.shape[1])[node]
    in_group = sparse.csr_array(
        (worth.astype(np.float32), (group[node], np.arange(positives))),
        shape=(group.max() + 1, positives),
    )
    own_weight = rows[example]
    total = in_group @ own_weight
    total[total == 0] = np.nan
    values: dict[str, list[np.ndarray]] = {label: [] for label in SCORES}
    for seed in probabilities:
        score = seed[example, node]
        at_least = (seed.T[node] >= score[:, None]).astype(np.float32) @ rows
        hits = same_node.multiply(score >= score[:, None]).astype(np.float32).tocsr() @ own_weight
        precision = hits / np.maximum(at_least, 1e-30)
        for label, value in zip(SCORES, (precision, (score > 0.5)[:, None]), strict=True):
            values[label].append((in_group @ (own_weight * value) / total).T)
    stacked = {label: np.stack(of_seeds).astype(float) for label, of_seeds in values.items()}
    return {label: Sample(v[:, 0], v[:, 1:]) for label, v in stacked.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """The command: the table, as CSV, to standard output or a file."""
    parser = argparse.ArgumentParser(
        prog="python -m rarenodes.inference.level", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--repetitions", type=int, default=1000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 5, 10])
    parser.add_argument("--effect", type=float, default=0.6, help="in logits, for the power")
    parser.add_argument("--level", type=float, default=0.05)
    parser.add_argument("--root", type=int, default=2602, help="seed of all draws")
    parser.add_argument("--out", default=sys.stdout, help="a CSV file")
    given = parser.parse_args(arguments)
    table = rejection_table(
        numpy_stream(given.root, "level"),
        repetitions=given.repetitions,
        seeds=given.seeds,
        effect=given.effect,
        level=given.level,
    )
    table.round(4).to_csv(given.out, index=False)


if __name__ == "__main__":
    main()
