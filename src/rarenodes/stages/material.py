"""What variants on one data set are compared from: predictions, scores, and the bootstrap's draws."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from scipy import sparse

from rarenodes.datasets.dataset import Dataset
from rarenodes.inference.bootstrap import BootstrapScores, bootstrap_scores, example_weights
from rarenodes.inference.difference import (
    Inference,
    compare,
    infer_difference,
    repeated,
    sample_of,
    score_intervals,
)
from rarenodes.randomness import numpy_stream
from rarenodes.scores.catalogue import RARE, RARE_BINS
from rarenodes.scores.metrics import RARITY_BINS, rarity_bin
from rarenodes.scores.run_tables import HALF
from rarenodes.settings import SettingsError
from rarenodes.side_by_side import processes, side_by_side
from rarenodes.stages.score import ScoreTables
from rarenodes.study.params import Study
from rarenodes.study.results import Results

Column = tuple[str, str]  # measure, nodes
# Elements of a draw, replicates × test examples, above which variants are scored side by side.
WORTH_A_PROCESS = 500_000
Thresholds = float | Sequence[float | Float[np.ndarray, " nodes"]]


@dataclass(frozen=True)
class Material:
    """What some variants predict on one data set, ready to be compared.

    All intervals share one draw of test examples. Every random stream is named after what it is
    for, so another variant changes no interval.

    Attributes:
        name: of the data set in the study.
        dataset: the data set.
        tables: score tables of all variants of the study.
        test: by variant `[seeds, test examples, evaluated nodes]`.
        targets: `[test examples, evaluated nodes]`.
        groups: masks of evaluated nodes: the rare ones together, and each rarity bin, counted as
            `evaluation.rarity_counted_in` says.
        examples: `[replicates, test examples]`, from `bootstrap.example_weights`.
        confidence: of intervals.
        deterministic: variants whose training is no chance, so that one seed stands for all.
        pooled: whether micro average precision is among the scores, which doubles the time.

    """

    name: str
    dataset: Dataset
    tables: ScoreTables
    test: Mapping[str, Float[np.ndarray, "seeds examples nodes"]]
    targets: sparse.csr_array
    groups: Mapping[str, Bool[np.ndarray, " nodes"]]
    examples: Float[np.ndarray, "replicates examples"]
    confidence: float
    deterministic: frozenset[str]
    pooled: bool

    @classmethod
    def load(
        cls, study: Study, name: str, variants: Sequence[str], pooled: bool = False
    ) -> "Material":
        """Read a data set and what was trained on it.

        Raises:
            FileNotFoundError: the data set was not prepared, or a variant not trained or scored.
            SettingsError: a variant kept no probabilities.

        """
        dataset = Dataset.load(study.prepared(name))
        test = {v: Results.load(study.results(name, v), dataset).test for v in variants}
        for variant, probabilities in test.items():
            if probabilities is None:
                raise SettingsError(
                    f"{name} {variant}: no test probabilities were kept, and comparisons need them: "
                    "set training.keep_probabilities to true"
                )
        evaluation, root = study.parameters.evaluation, study.parameters.seed
        targets = dataset.targets[dataset.split["test"]][:, dataset.evaluated].tocsr()
        return cls(
            name=name,
            dataset=dataset,
            tables=ScoreTables.load(study.scores(name)),
            test=test,
            targets=targets,
            groups=_rarity_groups(dataset, evaluation.rarity_counted_in),
            examples=example_weights(
                targets.shape[0], evaluation.resamples, numpy_stream(root, "bootstrap", name)
            ),
            confidence=evaluation.confidence,
            deterministic=frozenset(v for v in variants if study.variant(v).deterministic),
            pooled=pooled,
        )

    @property
    def support(self) -> Int[np.ndarray, " nodes"]:
        """Test positives of every evaluated node."""
        return np.asarray(self.targets.sum(axis=0), dtype=np.int64).ravel()

    @property
    def levels(self) -> Int[np.ndarray, " nodes"]:
        """Level of every evaluated node, from 1: its depth below the nodes that are not evaluated."""
        depth = self.dataset.hierarchy.depth.numpy()[self.dataset.evaluated]
        return depth - depth.min() + 1

    @cached_property
    def half(self) -> dict[str, BootstrapScores]:
        """Scores at 0.5, and those that need no threshold, by variant."""
        return self.scored_side_by_side(
            {variant: (predicted, HALF) for variant, predicted in self.test.items()}, ranking=True
        )

    @cached_property
    def tuned(self) -> dict[str, BootstrapScores]:
        """Scores at thresholds tuned on validation data, by variant that has them."""
        tuned = {
            variant: (predicted, self.tuned_thresholds(variant))
            for variant, predicted in self.test.items()
            if not self.tables.nodes[variant]["threshold_tuned"].isna().any()
        }
        return self.scored_side_by_side(tuned, ranking=False)

    def tuned_thresholds(self, variant: str) -> list[Float[np.ndarray, " nodes"]]:
        """For each seed the evaluated nodes' thresholds."""
        by_seed = self.tables.nodes[variant].groupby("seed")["threshold_tuned"]
        return [thresholds.to_numpy() for _, thresholds in by_seed]

    def scored(self, variant: str, threshold: Thresholds, ranking: bool = False) -> BootstrapScores:
        """Scores of a variant, as measured and in every replicate."""
        return self.scores_of(self.test[variant], threshold, ranking)

    def scored_side_by_side(
        self,
        predictions: Mapping[str, tuple[Float[np.ndarray, "seeds examples nodes"], Thresholds]],
        ranking: bool,
    ) -> dict[str, BootstrapScores]:
        """Scores of some predictions at their thresholds, in several processes where it is worth it."""
        shared = (self.targets, self.examples, self.groups, ranking, ranking and self.pooled)
        calls = [(*given, *shared) for given in predictions.values()]
        at_once = processes() if self.examples.size > WORTH_A_PROCESS else 1
        scores = side_by_side(_scores_alone, calls, at_once, f"{self.name} bootstrap")
        return {
            name: replace(of_one, weights=self.examples)
            for name, of_one in zip(predictions, scores, strict=True)
        }

    def scores_of(
        self,
        probabilities: Float[np.ndarray, "seeds examples nodes"],
        threshold: Thresholds,
        ranking: bool = False,
    ) -> BootstrapScores:
        """Scores of any predictions for the test examples."""
        return self.scored_side_by_side({"": (probabilities, threshold)}, ranking)[""]

    def difference(
        self,
        on: str,
        on_scores: BootstrapScores,
        off: str,
        off_scores: BootstrapScores,
        columns: Sequence[Column],
    ) -> Inference:
        """What is known of `on − off`, whatever thresholds or nodes the two were scored at."""
        own, other = sample_of(on_scores, columns), sample_of(off_scores, columns)
        number = max(len(own.estimates), len(other.estimates))
        own = repeated(own, number) if on in self.deterministic else own
        other = repeated(other, number) if off in self.deterministic else other
        return infer_difference(own, other, self.examples)

    def with_intervals(
        self, variant: str, scores: BootstrapScores, columns: Sequence[Column]
    ) -> pd.DataFrame:
        """A row per column: see `difference.score_intervals`; and the variant."""
        table = score_intervals(scores, columns, confidence=self.confidence)
        return table.assign(variant=variant)

    def compared(
        self,
        scores: Mapping[str, BootstrapScores],
        variants: Sequence[str],
        reference: str,
        columns: Sequence[Column],
    ) -> pd.DataFrame:
        """Differences of some variants from a reference: see `difference.compare`."""
        chosen = dict.fromkeys([reference, *variants])
        return compare(
            {variant: scores[variant] for variant in chosen},
            reference,
            columns,
            confidence=self.confidence,
            deterministic=self.deterministic & set(chosen),
        )


def _scores_alone(
    probabilities: Float[np.ndarray, "seeds examples nodes"],
    threshold: Thresholds,
    targets: sparse.csr_array,
    examples: Float[np.ndarray, "replicates examples"],
    groups: Mapping[str, Bool[np.ndarray, " nodes"]],
    ranking: bool,
    pooled: bool,
) -> BootstrapScores:
    """Scores without the draw that they are of, which is large, and which the caller has."""
    torch.set_num_threads(1)
    scores = bootstrap_scores(
        probabilities,
        targets,
        examples,
        threshold=threshold,
        groups=groups,
        ranking=ranking,
        pooled_ranking=pooled,
    )
    return replace(scores, weights=examples[:, :0])


def _rarity_groups(dataset: Dataset, counted_in: Sequence[str]) -> dict[str, np.ndarray]:
    positives = sum(dataset.counts(part) for part in counted_in)[dataset.evaluated]
    rarity = np.asarray(rarity_bin(positives))
    groups = {name: rarity == name for name in RARITY_BINS if (rarity == name).any()}
    return {RARE: np.isin(rarity, RARE_BINS), **groups}
