"""The stages `score` and `scores`: from predictions to tables, a row per node and in one long format."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from rarenodes.datasets.dataset import Dataset
from rarenodes.folders import (
    reading,
    verified,
    write_checksums,
    write_whole,
    writing,
)
from rarenodes.scores.catalogue import RARE, shown
from rarenodes.scores.long import COLUMNS, long_scores
from rarenodes.scores.run_tables import Predictions, in_tables, node_table, score_run
from rarenodes.study.params import Study
from rarenodes.study.results import NODES, SEEDS, Results


@dataclass(frozen=True)
class ScoreTables:
    """Scores of all variants of a study on one data set.

    Attributes:
        nodes: by variant, a row per seed and evaluated node: the columns of
            `rarenodes.scores.run_tables.score_run`.
        seeds: by variant, a row per seed: pooled scores.

    """

    nodes: dict[str, pd.DataFrame]
    seeds: dict[str, pd.DataFrame]

    def save(self, folder: Path) -> None:
        """Write one file for each kind of table, and their checksums.

        Raises:
            OSError: they cannot be written.

        """
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            _together(self.nodes).to_parquet(folder / NODES, index=False)
            _together(self.seeds).to_csv(folder / SEEDS, index=False)
            write_checksums(folder, [NODES, SEEDS])

    @classmethod
    def load(cls, folder: Path) -> "ScoreTables":
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: the folder holds no scores.
            UnreadableFile: a file is damaged, or not the one that was written.

        """
        mend = verified(folder, SEEDS, "scores", f"score@{folder.name}")
        with reading(folder, mend):
            nodes = pd.read_parquet(folder / NODES)
            seeds = pd.read_csv(folder / SEEDS)
        return cls(_by_variant(nodes), _by_variant(seeds))

    def long(self, variant: str) -> pd.DataFrame:
        """All scores of a variant's runs, see `rarenodes.scores.long`, with `variant` and `seed`."""
        pooled = self.seeds[variant].set_index("seed")
        runs = [
            long_scores(nodes, pooled.loc[seed].to_dict()).assign(variant=variant, seed=seed)
            for seed, nodes in self.nodes[variant].groupby("seed")
        ]
        return pd.concat(runs, ignore_index=True)

    def with_rare(self, variant: str) -> pd.DataFrame:
        """Pooled scores of a variant, a row per seed, and those of rare nodes that are headlines.

        The latter are missing where there are no rare nodes with test positives.
        """
        long, pooled = self.long(variant), self.seeds[variant]
        for score in shown("headline"):
            measure, nodes, at = score.key
            of_rare = long[
                (long["measure"] == measure) & (long["nodes"] == nodes) & (long["at"] == at)
            ]
            if nodes == RARE and len(of_rare):
                by_seed = of_rare.set_index("seed")["score"]
                pooled = pooled.assign(**{score.column: pooled["seed"].map(by_seed)})
        return pooled


def score(study: Study, name: str, folder: Path) -> ScoreTables:
    """Score every variant of a study on a data set; tables go to `folder`."""
    dataset = Dataset.load(study.prepared(name))
    tables = ScoreTables({}, {})
    for variant in study.variants:
        tables.nodes[variant], tables.seeds[variant] = score_variant(study, dataset, name, variant)
    tables.save(folder)
    return tables


def score_variant(
    study: Study, dataset: Dataset, name: str, variant: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A table with a row per seed and node, and one with a row per seed, of a trained variant."""
    results = Results.load(study.results(name, variant), dataset)
    if results.test is None:
        # What was not kept was scored where it was predicted.
        return results.nodes, results.seeds
    per = study.variant(variant).threshold
    nodes = node_table(dataset, study.parameters.evaluation.rarity_counted_in)
    runs = [
        score_run(
            dataset,
            Predictions(None if results.valid is None else results.valid[seed], test),
            nodes,
            per,
            study.parameters.evaluation.precision_at,
        )
        for seed, test in enumerate(results.test)
    ]
    return in_tables(runs)


def collect(study: Study) -> pd.DataFrame:
    """Put the scores of all data sets, variants and seeds into `reports/scores.csv`."""
    rows = []
    for name in study.parameters.datasets:
        tables = ScoreTables.load(study.scores(name))
        for variant in study.variants:
            rows.append(tables.long(variant).assign(dataset=name))
    table = pd.concat(rows, ignore_index=True)[["dataset", "variant", "seed", *COLUMNS]]
    write_whole(study.reports("scores.csv"), table.to_csv(index=False, float_format="%.6g"))
    return table


def _together(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    named = [table.assign(variant=variant) for variant, table in tables.items()]
    return pd.concat(named, ignore_index=True)


def _by_variant(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    groups = table.groupby("variant", sort=False)
    return {
        variant: part.drop(columns="variant").reset_index(drop=True) for variant, part in groups
    }
