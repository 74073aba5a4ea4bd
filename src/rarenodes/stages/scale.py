"""A large hierarchy: its variants compared without examples × nodes of anything in memory."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from rarenodes.datasets.dataset import Dataset
from rarenodes.inference.bootstrap import example_weights
from rarenodes.inference.difference import compare
from rarenodes.inference.influence import linear_scores
from rarenodes.inference.verdict import DIFFERENCE_COLUMNS, judged
from rarenodes.pages.prose import write_values
from rarenodes.pages.scale import scale_values
from rarenodes.pages.tables import scores_by, seed_summary, write_table
from rarenodes.randomness import numpy_stream
from rarenodes.scores.catalogue import RARE, RARE_BINS
from rarenodes.scores.metrics import RARITY_BINS
from rarenodes.settings import SettingsError
from rarenodes.stages.score import ScoreTables
from rarenodes.study.params import Study
from rarenodes.study.results import Results


@dataclass(frozen=True)
class Scale:
    """Tables of all variants on one data set.

    Attributes:
        overall: a row per variant: pooled scores, mean and spread over seeds.
        by_rarity: a row per rarity bin and variant, see `rarenodes.pages.tables.scores_by`.
        by_depth: the same by depth.
        differences: a row per variant other than the baseline, group of nodes and measure, see
            `rarenodes.inference.difference.compare`, with verdicts; groups are rarity bins, the rare
            ones together, and all nodes with test positives.
        finds: a row per rarity bin and variant, see `finds_by_rarity`.
        history: a row per variant, seed and epoch: learning curves.

    """

    overall: pd.DataFrame
    by_rarity: pd.DataFrame
    by_depth: pd.DataFrame
    differences: pd.DataFrame
    finds: pd.DataFrame
    history: pd.DataFrame

    def tables(self) -> dict[str, pd.DataFrame]:
        """All tables by name."""
        return dict(vars(self))


def scale(study: Study, name: str, folder: Path) -> Scale:
    """Compare all variants on a data set; tables, and named values for prose, go to `folder`."""
    results = {variant: Results.load(study.results(name, variant)) for variant in study.variants}
    tables = ScoreTables.load(study.scores(name))
    nodes = {variant: tables.nodes[variant] for variant in study.variants}
    histories = [result.history.assign(variant=variant) for variant, result in results.items()]
    summary = Scale(
        overall=seed_summary({variant: tables.seeds[variant] for variant in study.variants}),
        by_rarity=scores_by("rarity", nodes),
        by_depth=scores_by("depth", nodes),
        differences=differences(study, name, nodes, results),
        finds=finds_by_rarity(nodes),
        history=pd.concat(histories, ignore_index=True),
    )
    for table, values in summary.tables().items():
        write_table(values, folder / "tables" / table)
    write_values(scale_values(summary.finds, summary.overall, summary.differences), folder)
    return summary


def differences(
    study: Study, name: str, nodes: Mapping[str, pd.DataFrame], results: Mapping[str, Results]
) -> pd.DataFrame:
    """What all variants differ by from the baseline, over test examples and seeds.

    By the derivatives of scores that runs left, see `rarenodes.inference.influence`.

    Args:
        study: with what is compared, and how.
        name: of the data set.
        nodes: by variant, a row per seed and node.
        results: by variant, with influences.

    Returns:
        Columns as `rarenodes.inference.verdict.DIFFERENCE_COLUMNS`.

    Raises:
        SettingsError: a variant whose probabilities were kept, and not its influences.

    """
    settings, dataset = study.parameters.evaluation, Dataset.load(study.prepared(name))
    for variant, of_variant in results.items():
        if of_variant.influences is None:
            raise SettingsError(
                f"{name} {variant}: its probabilities were kept, which the stage `evaluate` compares; "
                "for the stage `scale` set training.keep_probabilities to false"
            )
    references = settings.compared_with(list(results))
    targets = dataset.targets[dataset.split["test"]][:, dataset.evaluated].tocsr()
    bins = _bins(next(iter(nodes.values())))
    stream = numpy_stream(study.parameters.seed, "bootstrap", name)
    weights = example_weights(targets.shape[0], settings.resamples, stream)
    tables = []
    for column, (measure, at, of_node) in enumerate(_COMPARED):
        scores = {
            variant: linear_scores(
                _sums(of_node(table), table, bins),
                list(results[variant].influences[:, column]),
                measure,
                targets,
                bins,
                _UNIONS,
                weights,
            )
            for variant, table in nodes.items()
            if not of_node(table)[table["test_positives"] > 0].isna().any()
        }
        for reference, variants in references.items():
            chosen = [v for v in dict.fromkeys([reference, *variants]) if v in scores]
            if reference not in scores or len(chosen) < 2:
                continue
            of_reference = compare(
                {variant: scores[variant] for variant in chosen},
                reference,
                list(scores[reference].estimates.columns),
                confidence=settings.confidence,
                deterministic=[v for v in chosen if study.variant(v).deterministic],
            )
            tables.append(of_reference.assign(at=at))
    if not tables:
        return pd.DataFrame(columns=DIFFERENCE_COLUMNS)
    table = pd.concat(tables, ignore_index=True)
    return judged(table, settings.rule, ["measure", "nodes", "at"])[DIFFERENCE_COLUMNS]


def _bins(nodes: pd.DataFrame) -> np.ndarray:
    """The place of every node's bin in `RARITY_BINS`."""
    of_one_seed = nodes[nodes["seed"] == nodes["seed"].iloc[0]]
    return pd.Index(RARITY_BINS).get_indexer(of_one_seed["rarity"].astype(str))


def _sums(values: pd.Series, nodes: pd.DataFrame, bins: np.ndarray) -> list[np.ndarray]:
    """For each seed the sum of the scores of each bin's nodes that have test positives."""
    counted = values.where(nodes["test_positives"] > 0, 0)
    return [
        np.bincount(bins, weights=of_seed.to_numpy(float), minlength=len(RARITY_BINS))
        for _, of_seed in counted.groupby(nodes["seed"])
    ]


def _recall(at: str) -> Callable[[pd.DataFrame], pd.Series]:
    return lambda nodes: nodes[f"true_positives_{at}"] / nodes["test_positives"].clip(lower=1)


# Measure, threshold, and score of a node, in the order of `rarenodes.stages.train.ScoredRun.influences`.
_COMPARED = (
    ("macro_average_precision", "none", lambda nodes: nodes["average_precision"]),
    ("macro_recall", "half", _recall("half")),
    ("macro_recall", "tuned", _recall("tuned")),
)
_UNIONS = {
    "with_positives": np.ones(len(RARITY_BINS), dtype=bool),
    RARE: np.isin(RARITY_BINS, RARE_BINS),
    **{name: np.array([name == other for other in RARITY_BINS]) for name in RARITY_BINS},
}


def finds_by_rarity(nodes: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """What each variant finds of nodes with test positives, at 0.5 and at the tuned threshold.

    Args:
        nodes: by variant, a row per seed and node.

    Returns:
        A row per rarity bin, variant and threshold `at`: `nodes` with test positives and their
        `positives`; and, means over seeds: `predicted` and `found`, the share of these nodes that
        is predicted at all, and rightly at least once; pooled `recall` of their positives and pooled
        `precision` of their predictions (missing where nothing is predicted).

    """
    rows = []
    for variant, table in nodes.items():
        table = table[table["test_positives"] > 0]
        for at in ("half", "tuned"):
            hits, false = table[f"true_positives_{at}"], table[f"false_positives_{at}"]
            counted = table[["rarity", "seed", "test_positives"]].assign(
                hits=hits, predictions=hits + false, found=hits > 0, predicted=hits + false > 0
            )
            by_seed = counted.groupby(["rarity", "seed"])
            sums, shares = by_seed.sum(numeric_only=True), by_seed[["predicted", "found"]].mean()
            scores = shares.assign(
                nodes=by_seed.size(),
                positives=sums["test_positives"],
                recall=sums["hits"] / sums["test_positives"],
                precision=sums["hits"] / sums["predictions"].where(sums["predictions"] > 0),
            )
            means = scores.groupby("rarity").mean().reset_index()
            rows.append(means.assign(variant=variant, at=at))
    table = pd.concat(rows, ignore_index=True)
    table["rarity"] = pd.Categorical(table["rarity"], RARITY_BINS, ordered=True)
    columns = ["rarity", "variant", "at", "nodes", "positives"]
    columns += ["predicted", "found", "recall", "precision"]
    return table.sort_values(["rarity"], kind="stable")[columns].reset_index(drop=True)


def finds_table(finds: pd.DataFrame) -> pd.DataFrame:
    """`finds_by_rarity` for reading: a row per rarity bin and variant, both thresholds side by side."""
    names = {"half": "at 0.5", "tuned": "tuned"}
    scores = ["predicted", "found", "recall", "precision"]
    wide = finds.pivot(index=["rarity", "variant"], columns="at", values=scores)
    order = finds.drop_duplicates(["rarity", "variant"]).set_index(["rarity", "variant"]).index
    wide = wide.reindex(order)[[(score, at) for at in names for score in scores]].round(3)
    wide.columns = [f"{score} {names[at]}" for score, at in wide.columns]
    return wide


def precision_table(overall: pd.DataFrame) -> pd.DataFrame:
    """Precision of the likeliest nodes: a row per variant, of all nodes and of leaves; means of seeds.

    Without columns where the study asks for none.
    """
    names = {"precision_at_": "all nodes, at ", "leaf_precision_at_": "leaves, at "}
    columns = {
        column: label + column.removeprefix(start)
        for start, label in names.items()
        for column in overall
        if column.startswith(start) and not column.endswith("_spread")
    }
    return overall.set_index("variant")[list(columns)].rename(columns=columns).round(3)


def cost_table(path: Path) -> pd.DataFrame:
    """What training takes, from the table that `python -m benches` leaves; empty where there is none."""
    if not path.exists():
        return pd.DataFrame()
    costs = pd.read_csv(path)
    return pd.DataFrame(
        {
            "members": costs["members"],
            "batch": costs["batch"],
            "minutes an epoch": (costs["seconds"] / 60).round(1),
            "memory at most, GB": (costs["peak_bytes"] / 1e9).round(1),
        }
    ).set_index("members")
