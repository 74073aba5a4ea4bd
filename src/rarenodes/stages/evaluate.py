"""The stage `evaluate`: all variants on one data set, scored and compared with the baseline."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from scipy import sparse

from rarenodes.inference.verdict import DIFFERENCE_COLUMNS, judged
from rarenodes.pages.tables import example_name, scores_by, seed_summary, write_table
from rarenodes.scores import catalogue, metrics, reach
from rarenodes.scores.catalogue import RARE, RARE_RANKING, family
from rarenodes.scores.finds import NONE, finds
from rarenodes.scores.run_tables import HALF
from rarenodes.scores.unknown import unknown_in
from rarenodes.stages.committee_members import what_members_add
from rarenodes.stages.material import Material
from rarenodes.study.params import Study


@dataclass(frozen=True)
class Evaluation:
    """Tables of one data set; `rarenodes.pages.plots` draws from them, readers get them as files.

    Attributes:
        overall: a row per variant: pooled scores, mean and spread over seeds.
        by_rarity: a row per rarity bin and variant, see `rarenodes.pages.tables.scores_by`.
        by_depth: the same by depth.
        differences: a row per variant and comparison, see `rarenodes.inference.difference.compare`; column
            `at` says at which threshold: `half`, `tuned`, or `none` for average precision.
        matched: a row per variant: recall at the baseline's precision, over all and rare nodes.
        curves: pooled precision–recall curve of each variant.
        sweep: macro scores of each variant over thresholds.
        calibration: predicted and observed frequency of each variant.
        reach: a row per variant, threshold (`at`) and group of examples: how deep predictions reach,
            see `rarenodes.scores.reach`, means and spreads over seeds.
        short: a row per variant, threshold, group of examples and number of levels short: shares.
        members: a row per committee, member and score: what the member adds, see
            `rarenodes.stages.committee_members.what_members_add`.
        rare_nodes: a row per rare node with test positives, of two variants; see `rare_nodes`.

    """

    overall: pd.DataFrame
    by_rarity: pd.DataFrame
    by_depth: pd.DataFrame
    differences: pd.DataFrame
    matched: pd.DataFrame
    curves: pd.DataFrame
    sweep: pd.DataFrame
    calibration: pd.DataFrame
    reach: pd.DataFrame
    short: pd.DataFrame
    members: pd.DataFrame
    rare_nodes: pd.DataFrame

    def tables(self) -> dict[str, pd.DataFrame]:
        """All tables by name."""
        return dict(vars(self))


def evaluate(study: Study, name: str, folder: Path, training: Path) -> Evaluation:
    """Score and compare all variants on a data set; tables and `metrics.json` go to `folder`.

    The executed notebooks of the trainings are copied to `training`, where people read them.
    """
    # The bootstrap adds up rows of memory: a second thread costs time and brings none.
    torch.set_num_threads(1)
    evaluation = evaluate_dataset(study, name)
    for table, values in evaluation.tables().items():
        write_table(values, folder / "tables" / table)
    # Hundreds of rows with texts are for searching, not for reading as they stand.
    (folder / "tables" / "rare_nodes.md").unlink()
    (folder / "metrics.json").write_text(json.dumps(headline(evaluation), indent=1) + "\n")
    training.mkdir(parents=True, exist_ok=True)
    for variant in study.variants:
        executed = study.results(name, variant) / "02_train.ipynb"
        if executed.exists():
            shutil.copyfile(executed, training / f"{variant}.ipynb")
    return evaluation


def headline(evaluation: Evaluation) -> dict[str, dict[str, float]]:
    """The few scores of each variant that `dvc metrics` shows."""
    scored = evaluation.overall.set_index("variant")
    names = {score.column: score.short for score in catalogue.shown("headline")}
    table = scored[[name for name in names if name in scored]].rename(columns=names)
    return {
        variant: {name: round(value, 5) for name, value in row.items() if not np.isnan(value)}
        for variant, row in table.to_dict("index").items()
    }


def evaluate_dataset(study: Study, name: str) -> Evaluation:
    """Score and compare all variants of the study on a data set they were trained on."""
    material = Material.load(study, name, list(study.variants))
    nodes = {variant: material.tables.nodes[variant] for variant in study.variants}
    reached, short = how_deep(material)
    return Evaluation(
        overall=seed_summary({variant: material.tables.with_rare(variant) for variant in nodes}),
        by_rarity=scores_by("rarity", nodes),
        by_depth=scores_by("depth", nodes),
        differences=_differences(study, material),
        matched=recall_at_precision_of(
            study.parameters.evaluation.baseline,
            material.test,
            material.targets,
            material.groups[RARE],
        ),
        curves=_over_seeds(material, metrics.precision_recall_curve, "recall"),
        sweep=_over_seeds(material, metrics.threshold_sweep, "threshold"),
        calibration=_calibration(material),
        reach=reached,
        short=short,
        members=what_members_add(study, material),
        rare_nodes=rare_nodes(material, study.parameters.evaluation.baseline),
    )


def _differences(study: Study, material: Material) -> pd.DataFrame:
    """Differences over test examples and seeds; no rows where there is nothing to compare."""
    settings = study.parameters.evaluation
    references = settings.compared_with(list(material.test))
    tables = [
        material.compared(material.half, variants, reference, family("compared", at)).assign(at=at)
        for at in ("half", "none")
        for reference, variants in references.items()
    ]
    if len(material.tuned) == len(material.test):
        tables += [
            material.compared(material.tuned, variants, reference, family("compared", "tuned"))
            .assign(at="tuned")
            for reference, variants in references.items()
        ]  # fmt: skip
    if not tables:
        return pd.DataFrame(columns=DIFFERENCE_COLUMNS)
    table = pd.concat(tables, ignore_index=True).dropna(subset="difference")
    # One family a question: all variants and contrasts on one measure.
    return judged(table, settings.rule, ["measure", "nodes", "at"])[DIFFERENCE_COLUMNS]


def recall_at_precision_of(
    baseline: str,
    test: Mapping[str, Float[np.ndarray, "_ examples nodes"]],
    targets: sparse.csr_array,
    rare: Bool[np.ndarray, " nodes"],
) -> pd.DataFrame:
    """Recall of each variant at the baseline's own micro precision at one half, seed by seed.

    Args:
        baseline: one of the variants.
        test: by variant, what each seed predicts.
        targets: 0/1, `[examples, nodes]`.
        rare: which nodes are matched, and counted, once more by themselves.

    Returns:
        A row per variant: `micro_recall_all`, `macro_recall_all`, `micro_recall_rare` and
        `macro_recall_rare`, means over seeds.

    """
    rows = []
    for variant, of_variant in test.items():
        row = {"variant": variant}
        for label, chosen in (("all", np.ones_like(rare)), (RARE, rare)):
            if not targets[:, chosen].sum():
                continue
            recalls = [
                metrics.recall_at_matched_precision(
                    probabilities[:, chosen],
                    targets[:, chosen],
                    metrics.micro_precision(of_baseline[:, chosen], targets[:, chosen], HALF),
                )
                for probabilities, of_baseline in zip(of_variant, test[baseline], strict=False)
            ]
            row[f"micro_recall_{label}"] = np.mean([recall.micro_recall for recall in recalls])
            row[f"macro_recall_{label}"] = np.mean([recall.macro_recall for recall in recalls])
        rows.append(row)
    return pd.DataFrame(rows)


def how_deep(material: Material) -> tuple[pd.DataFrame, pd.DataFrame]:
    """How deep the predictions of each variant reach, at 0.5, tuned, and at required confidences.

    Args:
        material: of a data set.

    Returns:
        Two tables with the columns variant, at and examples (`all`, or `rare`: those that belong to a
        rare node). A row each of means over seeds of what `rarenodes.scores.reach` measures, with
        their spreads; and rows by `short`, the levels short of the deepest true node, with the
        share of examples.

    """
    of_rare = np.asarray(material.targets[:, material.groups[RARE]].sum(axis=1)).ravel() > 0
    groups = {"all": None, RARE: of_rare} if of_rare.any() else {"all": None}
    rows, shares = [], []
    for variant, seeds in material.test.items():
        tuned = material.tuned_thresholds(variant)
        for seed, probabilities in enumerate(seeds):
            thresholds = {str(confidence): confidence for confidence in reach.CONFIDENCES}
            if not np.isnan(tuned[seed]).any():
                thresholds["tuned"] = tuned[seed]
            for at, threshold in thresholds.items():
                found = reach.reach(probabilities, material.targets, material.levels, threshold)
                for group, chosen in groups.items():
                    key = {"variant": variant, "at": at, "examples": group}
                    pooled = reach.hierarchical_scores(found) if chosen is None else {}
                    means = reach.summary(found, chosen)
                    rows.append(key | {"number": means.pop("examples")} | means | pooled)
                    share = reach.shares_short(found, chosen)
                    shares += [key | {"short": short, "share": s} for short, s in share.items()]
    by = ["variant", "at", "examples"]
    found = pd.DataFrame(rows).groupby([*by, "number"], sort=False)
    spread = found.std().add_suffix("_spread")
    means = pd.concat([found.mean(), spread], axis=1).reset_index()
    return means, pd.DataFrame(shares).groupby([*by, "short"], sort=False).mean().reset_index()


def rare_nodes(material: Material, baseline: str) -> pd.DataFrame:
    """Which rare nodes were found, by the baseline and by the variant that ranks rare nodes best.

    The best is best on these very test examples: what is said of it is for looking at, no comparison.

    Args:
        material: of a data set.
        baseline: one of its variants.

    Returns:
        A row per variant and rare node with test positives, most missed first: `variant`; `at`, the
        threshold: tuned, or 0.5 where there is none; `node` and its `name`; `training_examples`; what
        `rarenodes.scores.finds` says, with names in the place of nodes, `nothing` among them, and
        texts in the place of examples (their numbers, where there are no texts), cut where long.

    """
    dataset, of_test = material.dataset, material.dataset.split["test"]
    nodes = np.array(dataset.hierarchy.nodes)[dataset.evaluated].tolist()
    names = [dataset.names[node] for node in nodes]
    chosen = np.flatnonzero(material.groups[RARE] & (material.support > 0)).tolist()
    truth = material.targets.toarray().astype(bool)
    tables = []
    for variant in dict.fromkeys([baseline, _best_of_rare(material, baseline)]):
        thresholds = material.tuned_thresholds(variant)
        tuned = not np.isnan(thresholds).any()
        runs = list(material.test[variant])
        found = finds(
            runs, thresholds if tuned else [HALF] * len(runs), truth, material.levels, chosen
        )
        trained = material.tables.nodes[variant].groupby("node")["train_positives"].first()
        found.insert(0, "variant", variant)
        found.insert(1, "at", "tuned" if tuned else str(HALF))
        found.insert(3, "name", [names[node] for node in found["node"]])
        found.insert(4, "training_examples", [trained[nodes[node]] for node in found["node"]])
        found["taken_for"] = [
            "" if misses == 0 else "nothing" if node == NONE else names[node]
            for node, misses in zip(found["taken_for"], found["misses"], strict=True)
        ]
        found["node"] = [nodes[node] for node in found["node"]]
        for column in ("found", "missed"):
            found[column] = [
                "" if place == NONE else example_name(dataset, int(of_test[place]))
                for place in found[column]
            ]
        tables.append(found)
    table = pd.concat(tables, ignore_index=True)
    return table.sort_values(["misses", "node"], ascending=[False, True], ignore_index=True)


def rare_nodes_table(found: pd.DataFrame) -> pd.DataFrame:
    """How many rare nodes each variant found, by their training examples.

    Args:
        found: a row per variant and rare node, see `rare_nodes`.

    Returns:
        A row per bin and variant: its nodes, and how many of them are found in no run and in every
        example of every run; their test examples (an example counts for each of its nodes), hits
        and false alarms, means over runs.

    """
    seen = found.assign(
        rarity=metrics.rarity_bin(found["training_examples"].to_numpy()),
        never=found["hits"] == 0,
        always=found["misses"] == 0,
    )
    groups = seen.groupby(["rarity", "variant"], observed=True)
    counts = ["test_examples", "hits", "false_alarms", "never", "always"]
    table = groups[counts].sum().round(1)
    table.insert(0, "nodes", groups.size())
    table.index.names = ["training examples", "variant"]
    names = {
        "test_examples": "test examples",
        "false_alarms": "false alarms",
        "never": "nodes never found",
        "always": "nodes always found",
    }
    return table.rename(columns=names)


def missed_table(found: pd.DataFrame, variant: str, count: int) -> pd.DataFrame:
    """The rare nodes of most misses, most missed first.

    Args:
        found: a row per variant and rare node, see `rare_nodes`.
        variant: whose misses.
        count: how many nodes.

    """
    names = {
        "name": "node",
        "training_examples": "training examples",
        "test_examples": "test examples",
        "hits": "hits",
        "misses": "misses",
        "false_alarms": "false alarms",
        "taken_for": "misses taken for",
        "found": "an example that was found",
        "missed": "an example that was missed",
    }
    table = found[found["variant"] == variant].head(count)[list(names)].round(1)
    table = table.map(lambda cell: _literal(cell) if isinstance(cell, str) else cell)
    return table.rename(columns=names).set_index("node")


def _literal(text: str) -> str:
    """A text of the data in Markdown that shows it as it is, whatever marks it holds."""
    return "".join(f"&#{ord(sign)};" if sign in _MARKS else sign for sign in text)


_MARKS = frozenset("&<>`*_[]|$~\\")


def _best_of_rare(material: Material, baseline: str) -> str:
    means = {
        variant: material.tables.with_rare(variant).get(catalogue.column(RARE_RANKING))
        for variant in material.test
    }
    ranked = {variant: scores.mean() for variant, scores in means.items() if scores is not None}
    return max(ranked, key=lambda variant: ranked[variant], default=baseline)


def _over_seeds(material: Material, curve: Callable[..., pd.DataFrame], axis: str) -> pd.DataFrame:
    """A curve of each variant, averaged over seeds at equal values of its axis."""
    curves = [
        curve(probabilities, material.targets).assign(variant=variant)
        for variant, seeds in material.test.items()
        for probabilities in seeds
    ]
    return pd.concat(curves).groupby(["variant", axis], sort=False).mean().reset_index()


def _calibration(material: Material) -> pd.DataFrame:
    """Calibration of each variant, all its seeds' predictions together, where it is known what is true."""
    known = np.ones(material.targets.shape, dtype=bool)
    unknown = unknown_in(material.dataset, "test")
    if unknown is not None:
        known = unknown.toarray() == 0
    truth = material.targets.toarray()[known]
    tables = [
        metrics.calibration(
            np.concatenate([probabilities[known] for probabilities in seeds])[:, None],
            np.tile(truth, len(seeds))[:, None],
        ).assign(variant=variant)
        for variant, seeds in material.test.items()
    ]
    return pd.concat(tables, ignore_index=True)
