"""What an audit of one data set is made from: results, nodes, and the draws of the bootstrap."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from scipy import sparse

from rarenodes.datasets.dataset import Dataset
from rarenodes.inference.bootstrap import (
    BootstrapScores,
    bootstrap_scores,
    compare,
    example_weights,
    interval,
    seed_weights,
)
from rarenodes.randomness import numpy_stream
from rarenodes.scores.catalogue import RARE, RARE_BINS
from rarenodes.scores.metrics import RARITY_BINS, rarity_bin
from rarenodes.scores.run_tables import HALF
from rarenodes.settings import SettingsError
from rarenodes.stages.audit.switches import audited_variants
from rarenodes.study.params import Study
from rarenodes.study.results import Results

Column = tuple[str, str]  # measure, nodes
Thresholds = float | Sequence[float | Float[np.ndarray, " nodes"]]


@dataclass(frozen=True)
class Material:
    """Results of all audited variants on one data set, ready to be scored.

    All intervals share one draw of test examples and seeds, that of the stage `evaluate`.

    Attributes:
        name: of the data set in the study.
        dataset: the data set.
        results: by variant.
        targets: `[test examples, evaluated nodes]`.
        groups: masks of evaluated nodes: each rarity bin, and the rare ones together. Positives are
            counted in the training part alone, also for variants that are trained on more, so
            that all are scored on the same nodes.
        examples: `[replicates, test examples]`, from `bootstrap.example_weights`.
        seeds: by variant `[replicates, seeds]`, from `bootstrap.seed_weights`; None where a variant
            has one seed.
        confidence: of intervals.

    """

    name: str
    dataset: Dataset
    results: Mapping[str, Results]
    targets: sparse.csr_array
    groups: Mapping[str, Bool[np.ndarray, " nodes"]]
    examples: Float[np.ndarray, "replicates examples"]
    seeds: Mapping[str, Float[np.ndarray, "replicates _"]] | None
    confidence: float

    @classmethod
    def load(cls, study: Study, name: str) -> "Material":
        """Read a data set and what was trained on it.

        Raises:
            FileNotFoundError: the data set was not prepared, or a variant not trained.
            SettingsError: a variant kept no probabilities.

        """
        dataset = Dataset.load(study.prepared(name))
        results = {v: Results.load(study.results(name, v)) for v in audited_variants(study)}
        for variant, result in results.items():
            if result.probabilities is None:
                raise SettingsError(
                    f"{name} {variant}: no test probabilities were kept, and an audit needs them: "
                    "set training.keep_probabilities to true"
                )
        evaluation, root = study.parameters.evaluation, study.parameters.seed
        targets = dataset.targets[dataset.split["test"]][:, dataset.evaluated].tocsr()
        return cls(
            name=name,
            dataset=dataset,
            results=results,
            targets=targets,
            groups=_rarity_groups(dataset),
            examples=example_weights(
                targets.shape[0], evaluation.resamples, numpy_stream(root, "bootstrap", name)
            ),
            seeds=_seed_weights(study, name, results),
            confidence=evaluation.confidence,
        )

    @property
    def support(self) -> Int[np.ndarray, " nodes"]:
        """Test positives of every evaluated node."""
        return np.asarray(self.targets.sum(axis=0), dtype=np.int64).ravel()

    def probabilities(self, variant: str) -> Float[np.ndarray, "seeds examples nodes"]:
        """What a variant predicts for the test examples."""
        return self.results[variant].probabilities

    @cached_property
    def half(self) -> dict[str, BootstrapScores]:
        """Scores at 0.5, and those that need no threshold, by variant."""
        return {variant: self.scored(variant, HALF, ranking=True) for variant in self.results}

    @cached_property
    def tuned(self) -> dict[str, BootstrapScores]:
        """Scores at thresholds tuned on validation data, by variant that has them."""
        return {
            variant: self.scored(variant, _tuned_thresholds(result))
            for variant, result in self.results.items()
            if not result.nodes["threshold_tuned"].isna().any()
        }

    def scored(self, variant: str, threshold: Thresholds, ranking: bool = False) -> BootstrapScores:
        """Scores of a variant, as measured and in every replicate."""
        return self.scores_of(self.probabilities(variant), threshold, ranking)

    def scores_of(
        self,
        probabilities: Float[np.ndarray, "seeds examples nodes"],
        threshold: Thresholds,
        ranking: bool = False,
    ) -> BootstrapScores:
        """Scores of any predictions for the test examples."""
        return bootstrap_scores(
            probabilities,
            self.targets,
            self.examples,
            threshold=threshold,
            groups=self.groups,
            ranking=ranking,
            pooled_ranking=ranking,
        )

    def replicates(self, variant: str, scores: BootstrapScores) -> pd.DataFrame:
        """Scores of a variant in every replicate, averaged over its seeds."""
        return scores.averaged(None if self.seeds is None else self.seeds[variant])

    def with_intervals(
        self, variant: str, scores: BootstrapScores, columns: Sequence[Column]
    ) -> pd.DataFrame:
        """A row per column: variant, measure, nodes, score, lower, upper, seed_spread."""
        chosen = list(columns)
        estimate = scores.estimate()[chosen].to_numpy()
        replicates = self.replicates(variant, scores)[chosen].to_numpy()
        lower, upper = interval(estimate, replicates, self.confidence)
        return pd.DataFrame(chosen, columns=["measure", "nodes"]).assign(
            variant=variant,
            score=estimate,
            lower=lower,
            upper=upper,
            seed_spread=scores.seed_spread()[chosen].to_numpy(),
        )

    def compared(
        self,
        scores: Mapping[str, BootstrapScores],
        off: str,
        on: str,
        columns: Sequence[Column],
    ) -> pd.DataFrame:
        """Differences `on − off`: see `bootstrap.compare`."""
        return compare(
            {off: scores[off], on: scores[on]},
            off,
            columns,
            confidence=self.confidence,
            seeds=self.seeds,
        )


def _rarity_groups(dataset: Dataset) -> dict[str, np.ndarray]:
    rarity = np.asarray(rarity_bin(dataset.counts("train")[dataset.evaluated]))
    groups = {name: rarity == name for name in RARITY_BINS if (rarity == name).any()}
    return {RARE: np.isin(rarity, RARE_BINS), **groups}


def _seed_weights(
    study: Study, name: str, results: Mapping[str, Results]
) -> dict[str, np.ndarray] | None:
    """One draw for all variants with equally many seeds, which are pairs: same initial weights."""
    numbers = {variant: len(result.probabilities) for variant, result in results.items()}
    if min(numbers.values()) < 2:
        return None
    root, replicates = study.parameters.seed, study.parameters.evaluation.resamples
    draws = {
        number: seed_weights(
            number, replicates, numpy_stream(root, "bootstrap", name, "seeds", number)
        )
        for number in set(numbers.values())
    }
    return {variant: draws[number] for variant, number in numbers.items()}


def _tuned_thresholds(result: Results) -> list[np.ndarray]:
    """For each seed `[evaluated nodes]`, thresholds tuned on validation data."""
    return [of_seed.to_numpy() for _, of_seed in result.nodes.groupby("seed")["threshold_tuned"]]
