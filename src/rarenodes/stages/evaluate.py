"""The stage `evaluate`: all variants on one data set, scored and compared with the baseline."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy import sparse

from rarenodes.datasets.dataset import Dataset
from rarenodes.inference.bootstrap import bootstrap_scores, compare, example_weights, seed_weights
from rarenodes.inference.significance import holm
from rarenodes.pages.tables import scores_by, seed_summary, write_table
from rarenodes.randomness import numpy_stream
from rarenodes.scores import metrics
from rarenodes.scores.catalogue import RARE, RARE_BINS
from rarenodes.scores.run_tables import HALF
from rarenodes.settings import SettingsError
from rarenodes.study.params import Study
from rarenodes.study.results import Results

Family = tuple[tuple[str, str], ...]

# The comparisons made of every variant with the baseline, and of every contrast. Holm's correction
# is over all pairs of one such comparison on one data set.
AT_HALF: Family = (
    ("macro_recall", RARE),
    ("macro_f1", "with_positives"),
)
WITHOUT_THRESHOLD: Family = (
    ("macro_average_precision", "with_positives"),
    ("macro_average_precision", RARE),
)
AT_TUNED: Family = (("macro_f1", "with_positives"),)


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
    "seed_spread",
    "baseline_seed_spread",
]


@dataclass(frozen=True)
class Evaluation:
    """Tables of one data set; `rarenodes.pages.plots` draws from them, readers get them as files.

    Attributes:
        overall: a row per variant: pooled scores, mean and spread over seeds.
        by_rarity: a row per rarity bin and variant, see `rarenodes.pages.tables.scores_by`.
        by_depth: the same by depth.
        differences: a row per variant and comparison, see `rarenodes.inference.bootstrap.compare`; column
            `at` says at which threshold: `half`, `tuned`, or `none` for average precision.
        matched: a row per variant: recall at the baseline's precision, over all and rare nodes.
        curves: pooled precision–recall curve of each variant.
        sweep: macro scores of each variant over thresholds.
        calibration: predicted and observed frequency of each variant.

    """

    overall: pd.DataFrame
    by_rarity: pd.DataFrame
    by_depth: pd.DataFrame
    differences: pd.DataFrame
    matched: pd.DataFrame
    curves: pd.DataFrame
    sweep: pd.DataFrame
    calibration: pd.DataFrame

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
    (folder / "metrics.json").write_text(json.dumps(headline(evaluation), indent=1) + "\n")
    training.mkdir(parents=True, exist_ok=True)
    for variant in study.variants:
        executed = study.results(name, variant) / "02_train.ipynb"
        if executed.exists():
            shutil.copyfile(executed, training / f"{variant}.ipynb")
    return evaluation


def headline(evaluation: Evaluation) -> dict[str, dict[str, float]]:
    """The few scores of each variant that `dvc metrics` shows."""
    shown = {
        "macro_average_precision_with_positives": "macro AP",
        "micro_average_precision": "micro AP",
        "macro_recall_with_positives_half": "macro recall at 0.5",
        "macro_f1_with_positives_half": "macro F1 at 0.5",
        "macro_f1_with_positives_tuned": "macro F1 tuned",
    }
    table = evaluation.overall.set_index("variant")[list(shown)].rename(columns=shown)
    return {
        variant: {name: round(value, 5) for name, value in row.items() if not np.isnan(value)}
        for variant, row in table.to_dict("index").items()
    }


def evaluate_dataset(study: Study, name: str) -> Evaluation:
    """Score and compare all variants of the study on a data set they were trained on."""
    dataset = Dataset.load(study.prepared(name))
    results = {variant: Results.load(study.results(name, variant)) for variant in study.variants}
    for variant, result in results.items():
        if result.probabilities is None:
            raise SettingsError(
                f"{name} {variant}: no test probabilities were kept, and comparisons need them: set "
                "training.keep_probabilities to true"
            )
    nodes = {variant: result.nodes for variant, result in results.items()}
    targets = dataset.targets[dataset.split["test"]][:, dataset.evaluated].tocsr()
    return Evaluation(
        overall=seed_summary({variant: result.seeds for variant, result in results.items()}),
        by_rarity=scores_by("rarity", nodes),
        by_depth=scores_by("depth", nodes),
        differences=_differences(study, name, results, targets),
        matched=_matched(results, targets, study.parameters.evaluation.baseline),
        curves=_over_seeds(results, targets, metrics.precision_recall_curve, "recall"),
        sweep=_over_seeds(results, targets, metrics.threshold_sweep, "threshold"),
        calibration=_calibration(results, targets),
    )


def _differences(
    study: Study, name: str, results: Mapping[str, Results], targets: sparse.csr_array
) -> pd.DataFrame:
    """Paired bootstrap over test examples and seeds; no rows where there is nothing to compare.

    Every random stream is named after what it is for, so another variant changes no interval.
    """
    settings, root = study.parameters.evaluation, study.parameters.seed
    weights = example_weights(
        targets.shape[0], settings.resamples, numpy_stream(root, "bootstrap", name)
    )
    seeds = None
    if all(len(result.seeds) > 1 for result in results.values()):
        seeds = _seed_weights(study, name, results)
    references = {settings.baseline: list(results)} if len(results) > 1 else {}
    for variant, reference in settings.contrasts.items():
        references.setdefault(reference, [reference]).append(variant)

    def compared(
        at: str,
        thresholds: Mapping[str, float | Sequence[np.ndarray]],
        family: Family,
        ranking: bool,
    ) -> list[pd.DataFrame]:
        scores = {
            variant: bootstrap_scores(
                result.probabilities,
                targets,
                weights,
                threshold=thresholds[variant],
                groups={RARE: _rare(result)},
                ranking=ranking,
            )
            for variant, result in results.items()
        }
        return [
            compare(
                {variant: scores[variant] for variant in variants},
                reference,
                family,
                confidence=settings.confidence,
                seeds=seeds,
            ).assign(at=at)
            for reference, variants in references.items()
        ]

    half = dict.fromkeys(results, HALF)
    tables = compared("half", half, (*AT_HALF, *WITHOUT_THRESHOLD), ranking=True)
    if not any(result.nodes["threshold_tuned"].isna().any() for result in results.values()):
        tuned = {variant: _tuned_thresholds(result) for variant, result in results.items()}
        tables += compared("tuned", tuned, AT_TUNED, ranking=False)
    if not tables:
        return pd.DataFrame(columns=DIFFERENCE_COLUMNS)
    table = pd.concat(tables, ignore_index=True).dropna(subset="difference")
    table.loc[table["measure"] == "macro_average_precision", "at"] = "none"
    # One family a question: all variants and contrasts on one measure.
    table["holm_p"] = table.groupby(["measure", "nodes", "at"])["p"].transform(
        lambda p: holm(p.to_numpy())
    )
    return table[DIFFERENCE_COLUMNS]


def _seed_weights(study: Study, name: str, results: Mapping[str, Results]) -> dict[str, np.ndarray]:
    """One draw of seeds for all variants with equally many, as their seeds are pairs.

    A seed starts from the same weights and sees the same batches in every variant. Variants with
    different numbers of seeds share no draw: between them, seeds are drawn independently.
    """
    root, replicates = study.parameters.seed, study.parameters.evaluation.resamples
    draws = {
        number: seed_weights(
            number, replicates, numpy_stream(root, "bootstrap", name, "seeds", number)
        )
        for number in {len(result.seeds) for result in results.values()}
    }
    return {variant: draws[len(result.seeds)] for variant, result in results.items()}


def _tuned_thresholds(result: Results) -> list[np.ndarray]:
    """For each seed `[evaluated nodes]`, thresholds tuned on validation data."""
    return [of_seed.to_numpy() for _, of_seed in result.nodes.groupby("seed")["threshold_tuned"]]


def _rare(result: Results) -> np.ndarray:
    """`[evaluated nodes]` bool: nodes with 1 to 10 training positives."""
    nodes = result.nodes[result.nodes["seed"] == result.nodes["seed"].min()]
    return nodes["rarity"].isin(RARE_BINS).to_numpy()


def _matched(
    results: Mapping[str, Results], targets: sparse.csr_array, baseline: str
) -> pd.DataFrame:
    """Recall of each variant at the baseline's own micro precision at one half."""
    rare = _rare(results[baseline])
    rows = []
    for variant, result in results.items():
        row = {"variant": variant}
        for label, chosen in (("all", np.ones_like(rare)), (RARE, rare)):
            if not targets[:, chosen].sum():
                continue
            recalls = [
                metrics.recall_at_matched_precision(
                    probabilities[:, chosen],
                    targets[:, chosen],
                    _micro_precision(of_baseline[:, chosen], targets[:, chosen]),
                )
                for probabilities, of_baseline in zip(
                    result.probabilities, results[baseline].probabilities, strict=False
                )
            ]
            row[f"micro_recall_{label}"] = np.mean([recall.micro_recall for recall in recalls])
            row[f"macro_recall_{label}"] = np.mean([recall.macro_recall for recall in recalls])
        rows.append(row)
    return pd.DataFrame(rows)


def _micro_precision(probabilities: np.ndarray, targets: sparse.csr_array) -> float:
    counts = metrics.confusion_counts(probabilities, targets, HALF)
    precision, _, _ = metrics.precision_recall_f1(*(np.atleast_1d(c.sum()) for c in counts))
    return float(precision[0])


def _over_seeds(
    results: Mapping[str, Results],
    targets: sparse.csr_array,
    curve: Callable[..., pd.DataFrame],
    axis: str,
) -> pd.DataFrame:
    """A curve of each variant, averaged over seeds at equal values of its axis."""
    curves = [
        curve(probabilities, targets).assign(variant=variant)
        for variant, result in results.items()
        for probabilities in result.probabilities
    ]
    return pd.concat(curves).groupby(["variant", axis], sort=False).mean().reset_index()


def _calibration(results: Mapping[str, Results], targets: sparse.csr_array) -> pd.DataFrame:
    """Calibration of each variant, all its seeds' predictions together."""
    tables = [
        metrics.calibration(
            np.concatenate(list(result.probabilities)),
            sparse.vstack([targets] * len(result.probabilities)),
        ).assign(variant=variant)
        for variant, result in results.items()
    ]
    return pd.concat(tables, ignore_index=True)
