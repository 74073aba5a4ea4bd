"""A large hierarchy: its variants compared without examples × nodes of anything in memory."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from rarenodes.pages.prose import write_values
from rarenodes.pages.scale import scale_values
from rarenodes.pages.tables import scores_by, seed_summary, write_table
from rarenodes.scores.metrics import RARITY_BINS
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
        finds: a row per rarity bin and variant, see `finds_by_rarity`.
        history: a row per variant, seed and epoch: learning curves.

    """

    overall: pd.DataFrame
    by_rarity: pd.DataFrame
    by_depth: pd.DataFrame
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
        finds=finds_by_rarity(nodes),
        history=pd.concat(histories, ignore_index=True),
    )
    for table, values in summary.tables().items():
        write_table(values, folder / "tables" / table)
    write_values(scale_values(summary.finds, summary.overall), folder)
    return summary


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
