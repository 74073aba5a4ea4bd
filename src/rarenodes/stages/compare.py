"""The stage `compare`: all data sets together, and tests across them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rarenodes.inference.significance import across_data_sets
from rarenodes.pages.comparison import at_key, comparison_values
from rarenodes.pages.prose import write_values
from rarenodes.pages.tables import write_table
from rarenodes.randomness import numpy_stream
from rarenodes.scores.catalogue import RARE, RARE_BINS, labels
from rarenodes.settings import SettingsError
from rarenodes.study.params import EvaluationSettings, Study


@dataclass(frozen=True)
class Comparison:
    """Tables over all data sets.

    Attributes:
        main: a row per variant and data set: each compared score with the interval of its
            difference from the baseline.
        differences: the evaluations' differences, with a column `dataset`.
        found: a row per data set and variant: rare nodes found at 0.5, as a score and in counts, see
            `found_table`.
        across: signed-rank tests with the data set as the unit; where there are too few for any
            outcome to be significant, a description without tests.
        values: what prose may say of it, by name.

    """

    main: pd.DataFrame
    differences: pd.DataFrame
    found: pd.DataFrame
    across: pd.DataFrame
    values: Mapping[str, Any]

    def tables(self) -> dict[str, pd.DataFrame]:
        """All tables by name."""
        return {
            name: value for name, value in vars(self).items() if isinstance(value, pd.DataFrame)
        }


def compare(study: Study, folder: Path) -> Comparison:
    """Put all data sets side by side; tables go to `folder`."""
    comparison = compare_datasets(study)
    for table, values in comparison.tables().items():
        write_table(values, folder / "tables" / table)
    write_values(comparison.values, folder)
    return comparison


def compare_datasets(study: Study) -> Comparison:
    """Read every data set's evaluation and put them side by side."""
    settings = study.parameters.evaluation
    if len(study.variants) < 2:
        raise SettingsError(
            f"{study.params_file}: variants: a comparison needs at least two, found one"
        )
    differences = _of_all(study, "differences")
    across, reason = across_or_reason(differences, settings, study.parameters.seed)
    return Comparison(
        main=main_table(differences, settings.baseline, list(study.variants)),
        differences=differences,
        found=found_table(differences, _of_all(study, "by_rarity"), settings.baseline),
        across=across,
        values={
            **comparison_values(differences, settings.baseline, settings.rule.level, reason),
            "sources": sorted({d.source for d in study.parameters.datasets.values()}),
            "resamples": settings.resamples,
            "rule": settings.rule.model_dump(),
            "tuned": study.budgets_file is not None,
            "budgets": [
                {"data_set": name, **study.training(name, settings.baseline).model_dump()}
                for name in study.parameters.datasets
            ],
        },
    )


def evaluated(study: Study, name: str, table: str) -> pd.DataFrame:
    """A table that the evaluation of a data set left.

    Raises:
        FileNotFoundError: the data set was not evaluated.

    """
    path = study.reports("evaluate", name) / "tables" / f"{table}.csv"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: run the stage evaluate@{name} first")
    return pd.read_csv(path)


def _of_all(study: Study, table: str) -> pd.DataFrame:
    """A table of every data set's evaluation."""
    names = study.parameters.datasets
    tables = [evaluated(study, name, table).assign(dataset=name) for name in names]
    return pd.concat(tables, ignore_index=True)


def found_table(differences: pd.DataFrame, by_rarity: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """How many positives of rare nodes are predicted at 0.5, beside the macro recall.

    A ratio of small recalls says little without the counts behind it.

    Args:
        differences: of all data sets.
        by_rarity: scores and counts by rarity, of all data sets.
        baseline: what variants are compared with.

    Returns:
        A row per data set and variant other than the baseline: macro `recall` of rare nodes and the
        `baseline_recall`, their `ratio` (NaN where the baseline finds nothing), `lower` and `upper`
        of the difference, its `verdict`; `positives` of rare nodes in the test part, how many are
        `hits` and `baseline_hits`, and how many pairs that do not hold are predicted, `false` and
        `baseline_false` (means over seeds).

    """
    rare = by_rarity[by_rarity["rarity"].isin(RARE_BINS)]
    counts = rare.groupby(["dataset", "variant"])[["positives", "hits_half", "false_half"]].sum()
    against = at_key(
        differences[differences["baseline"] == baseline], ("macro_recall", RARE, "half")
    )
    rows = []
    for row in against.itertuples():
        own, other = counts.loc[(row.dataset, row.variant)], counts.loc[(row.dataset, baseline)]
        rows.append(
            {
                "dataset": row.dataset,
                "variant": row.variant,
                "recall": row.score,
                "baseline_recall": row.baseline_score,
                "ratio": row.score / row.baseline_score if row.baseline_score > 0 else np.nan,
                "lower": row.lower,
                "upper": row.upper,
                "verdict": row.verdict,
                "positives": float(own["positives"]),
                "hits": own["hits_half"],
                "baseline_hits": other["hits_half"],
                "false": own["false_half"],
                "baseline_false": other["false_half"],
            }
        )
    return pd.DataFrame(rows)


def main_table(differences: pd.DataFrame, baseline: str, variants: Sequence[str]) -> pd.DataFrame:
    """Each variant's scores by data set; in brackets the interval of the difference to the baseline.

    A star marks a clear difference (Holm-adjusted), `≈` practical equivalence.
    """
    against = differences[differences["baseline"] == baseline]
    names = labels("compared")
    rows = []
    for dataset, of_dataset in against.groupby("dataset", sort=False):
        indexed = of_dataset.set_index(["variant", "measure", "nodes", "at"])
        keys = [key for key in names if key in set(indexed.droplevel("variant").index)]
        for variant in variants:
            row = {"data set": dataset, "variant": variant}
            for key in keys:
                if variant == baseline:
                    score = indexed.xs(key, level=(1, 2, 3))["baseline_score"].iloc[0]
                    row[names[key]] = f"{score:.3f}"
                else:
                    row[names[key]] = _cell(indexed.loc[(variant, *key)])
            rows.append(row)
    return pd.DataFrame(rows)


def _cell(row: pd.Series) -> str:
    mark = {"better": " *", "worse": " *", "same": " ≈"}.get(row["verdict"], "")
    return f"{row['score']:.3f} [{row['lower']:+.3f}, {row['upper']:+.3f}]{mark}"


def across_or_reason(
    differences: pd.DataFrame, settings: EvaluationSettings, root: int
) -> tuple[pd.DataFrame, str | None]:
    """Signed-rank tests over data sets; or a description, and the reason why there are none.

    Args:
        differences: of all data sets; contrasts are left out.
        settings: which baseline, and which rule.
        root: seed of the study.

    Returns:
        (`AcrossDataSets.tests`, None) or (`AcrossDataSets.described`, a sentence).

    """
    against = differences[differences["baseline"] == settings.baseline]
    scores = {}
    for key, label in labels("compared").items():
        part = against.set_index(["measure", "nodes", "at"])
        if key not in part.index:
            continue
        part = part.loc[[key]]
        table = part.pivot(index="dataset", columns="variant", values="score")
        table[settings.baseline] = part.groupby("dataset")["baseline_score"].first()
        scores[label] = table
    if not scores:
        return pd.DataFrame(), "Nothing was compared."
    across = across_data_sets(
        scores,
        [settings.baseline],
        rope=settings.rule.margin,
        rng=numpy_stream(root, "across data sets"),
        level=settings.rule.level,
    )
    return (across.described if across.tests is None else across.tests), across.reason
