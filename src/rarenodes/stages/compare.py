"""The stage `compare`: all data sets together, tests across them, and verdicts in words."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from rarenodes.inference.significance import pairwise_table
from rarenodes.pages.tables import write_table
from rarenodes.randomness import numpy_stream
from rarenodes.scores.catalogue import RARE, Key, labels
from rarenodes.settings import SettingsError
from rarenodes.study.params import Study


@dataclass(frozen=True)
class Question:
    """What a reader wants to know, and the comparison that can tell."""

    text: str
    key: Key


LABELS = labels("compared")

QUESTIONS = (
    Question(
        "Are more rare nodes found at the usual threshold of 0.5?",
        ("macro_recall", RARE, "half"),
    ),
    Question(
        "Are rare nodes ranked better, so that the gain is more than a shift of the threshold?",
        ("macro_average_precision", RARE, "none"),
    ),
    Question(
        "Does F1 improve at 0.5?",
        ("macro_f1", "with_positives", "half"),
    ),
    Question(
        "Does F1 improve when every variant has a threshold tuned on validation data?",
        ("macro_f1", "with_positives", "tuned"),
    ),
    Question(
        "Are nodes on the whole ranked better?",
        ("macro_average_precision", "with_positives", "none"),
    ),
)


@dataclass(frozen=True)
class Comparison:
    """Tables over all data sets.

    Attributes:
        main: a row per variant and data set: each compared score with the interval of its
            difference from the baseline.
        differences: the evaluations' differences, with columns `dataset` and `verdict`.
        across: signed-rank tests with the data set as the unit.
        verdicts: a row per question and data set.

    """

    main: pd.DataFrame
    differences: pd.DataFrame
    across: pd.DataFrame
    verdicts: pd.DataFrame

    def tables(self) -> dict[str, pd.DataFrame]:
        """All tables by name."""
        return dict(vars(self))


def compare(study: Study, folder: Path) -> Comparison:
    """Put all data sets side by side; tables go to `folder`."""
    comparison = compare_datasets(study)
    for table, values in comparison.tables().items():
        write_table(values, folder / "tables" / table)
    return comparison


def compare_datasets(study: Study) -> Comparison:
    """Read every data set's evaluation and put them side by side."""
    settings = study.parameters.evaluation
    if len(study.variants) < 2:
        raise SettingsError(
            f"{study.params_file}: variants: a comparison needs at least two, found one"
        )
    tables = []
    for name in study.parameters.datasets:
        path = study.reports("evaluate", name) / "tables" / "differences.csv"
        if not path.exists():
            raise FileNotFoundError(f"{path} is missing: run the stage evaluate@{name} first")
        tables.append(pd.read_csv(path).assign(dataset=name))
    differences = pd.concat(tables, ignore_index=True)
    differences["verdict"] = [
        verdict_on(row, settings.equivalence, 1 - settings.confidence)
        for row in differences.itertuples()
    ]
    baseline = settings.baseline
    return Comparison(
        main=main_table(differences, baseline, list(study.variants)),
        differences=differences,
        across=_across(study, differences),
        verdicts=verdicts(differences, baseline),
    )


def verdict_on(row, equivalence: float, level: float) -> str:
    """What one comparison shows: `better`, `worse`, `equivalent` or `open`.

    Equivalent where the whole interval, taken alone, lies within the region of practical
    equivalence, also where the difference is clear; else better or worse where the Holm-adjusted
    p-value is at most the level; else open.
    """
    if -equivalence < row.lower and row.upper < equivalence:
        return "equivalent"
    if row.holm_p <= level:
        return "better" if row.difference > 0 else "worse"
    return "open"


def main_table(differences: pd.DataFrame, baseline: str, variants: Sequence[str]) -> pd.DataFrame:
    """Each variant's scores by data set; in brackets the interval of the difference to the baseline.

    A star marks a clear difference (Holm-adjusted), `≈` practical equivalence.
    """
    against = differences[differences["baseline"] == baseline]
    rows = []
    for dataset, of_dataset in against.groupby("dataset", sort=False):
        indexed = of_dataset.set_index(["variant", "measure", "nodes", "at"])
        keys = [key for key in LABELS if key in set(indexed.droplevel("variant").index)]
        for variant in variants:
            row = {"data set": dataset, "variant": variant}
            for key in keys:
                if variant == baseline:
                    row[LABELS[key]] = (
                        f"{indexed.xs(key, level=(1, 2, 3))['baseline_score'].iloc[0]:.3f}"
                    )
                else:
                    row[LABELS[key]] = _cell(indexed.loc[(variant, *key)])
            rows.append(row)
    return pd.DataFrame(rows)


def _cell(row: pd.Series) -> str:
    mark = {"better": " *", "worse": " *", "equivalent": " ≈", "open": ""}[row["verdict"]]
    return f"{row['score']:.3f} [{row['lower']:+.3f}, {row['upper']:+.3f}]{mark}"


def verdicts(differences: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """For every question and data set, which variants differ from the baseline, in words."""
    rows = []
    for question in QUESTIONS:
        for dataset, of_dataset in differences.groupby("dataset", sort=False):
            part = of_dataset.set_index(["measure", "nodes", "at"])
            if question.key not in part.index:
                continue
            part = part.loc[[question.key]]
            rows.append(
                {
                    "question": question.text,
                    "data set": dataset,
                    "answer": in_words(part[part["baseline"] == baseline], baseline),
                }
            )
    rows += _contrasts(differences[differences["baseline"] != baseline])
    return pd.DataFrame(rows)


def _contrasts(differences: pd.DataFrame) -> list[dict[str, str]]:
    """A row for each further comparison of two variants, over all measures."""
    rows = []
    pairs = differences.groupby(["variant", "baseline", "dataset"], sort=False)
    for (variant, reference, dataset), part in pairs:
        outcomes = part.set_index(["measure", "nodes", "at"])
        phrases = [
            f"{label} {row['difference']:+.3f} ({_IN_ONE_WORD[row['verdict']]})"
            for key, label in LABELS.items()
            if key in outcomes.index
            for _, row in outcomes.loc[[key]].iterrows()
        ]
        question = f"What does {variant} change over {reference}?"
        rows.append({"question": question, "data set": dataset, "answer": "; ".join(phrases) + "."})
    return rows


_IN_ONE_WORD = {
    "better": "better",
    "worse": "worse",
    "equivalent": "practically the same",
    "open": "not decided",
}


def in_words(part: pd.DataFrame, baseline: str) -> str:
    """The outcome of one comparison for all variants, strongest first."""
    phrases = []
    for verdict, phrase in (
        ("better", "Yes, more than {}: "),
        ("worse", "Less than {}: "),
        ("equivalent", "Practically the same as {}: "),
        ("open", "Not decided against {}: "),
    ):
        rows = part[part["verdict"] == verdict].sort_values("difference", ascending=False, key=abs)
        if len(rows):
            named = ", ".join(_named(row) for row in rows.itertuples())
            phrases.append(phrase.format(baseline) + named + ".")
    if not (part["verdict"] == "better").any():
        phrases.insert(0, "No variant is clearly better.")
    return " ".join(phrases)


def _named(row) -> str:
    if row.verdict in ("better", "worse") and row.baseline_score > 0:
        factor = row.score / row.baseline_score
        return f"{row.variant} ({row.baseline_score:.3f} → {row.score:.3f}, ×{factor:.1f})"
    return f"{row.variant} ({row.difference:+.3f})"


def across_text(study: Study, comparison: Comparison) -> str:
    """What to make of the tests across data sets, given how many there are."""
    level = 1 - study.parameters.evaluation.confidence
    smallest = comparison.across["smallest_holm_p"].min()
    if smallest > level:
        return (
            f"**No outcome could have been significant**: with {len(study.parameters.datasets)} data "
            f"set(s) and this many comparisons the smallest possible Holm-corrected p-value is "
            f"{smallest:.2g}. The table is here for studies with more data sets; of this one read "
            "the median differences only."
        )
    return "Effect size: matched-pairs rank-biserial correlation; interval: Hodges–Lehmann."


def _across(study: Study, differences: pd.DataFrame) -> pd.DataFrame:
    """Signed-rank tests over data sets; with few of them the table says what it could not show."""
    settings = study.parameters.evaluation
    against = differences[differences["baseline"] == settings.baseline]
    scores = {}
    for key, label in LABELS.items():
        part = against.set_index(["measure", "nodes", "at"])
        if key not in part.index:
            continue
        part = part.loc[[key]]
        table = part.pivot(index="dataset", columns="variant", values="score")
        table[settings.baseline] = part.groupby("dataset")["baseline_score"].first()
        scores[label] = table
    if not scores:
        return pd.DataFrame()
    return pairwise_table(
        scores,
        [settings.baseline],
        rope=settings.equivalence,
        rng=numpy_stream(study.parameters.seed, "across data sets"),
        confidence=settings.confidence,
    )


def verdict_text(verdicts: pd.DataFrame) -> str:
    """The verdicts as Markdown: a heading for each question, a line for each data set."""
    lines = []
    for question, part in verdicts.groupby("question", sort=False):
        lines += [f"### {question}", ""]
        lines += [f"- **{row['data set']}**: {row['answer']}" for _, row in part.iterrows()] + [""]
    return "\n".join(lines)


def limits(study: Study, comparison: Comparison) -> str:
    """What the study's evidence cannot show, as a Markdown list."""
    parameters = study.parameters
    level = 1 - parameters.evaluation.confidence
    sources = sorted({dataset.source for dataset in parameters.datasets.values()})
    count = len(parameters.datasets)
    smallest = 2.0 ** (1 - count)
    lines = [
        f"- **Other data.** {count} data set(s) from {len(sources)} source(s) ({', '.join(sources)}). "
        f"With {count} the smallest two-sided p-value of a signed-rank test is {smallest:.3g}"
        + (f": no test across data sets can reach {level:.2g}." if smallest > level else "."),
        f"- **The randomness of training.** {parameters.training.seeds} seeds give a rough picture of "
        "it; intervals allow for it, as far as so few seeds can tell.",
        "- **Other splits.** Test examples are resampled, training examples are not: intervals hold "
        "for this training part.",
        "- **Other budgets.** On a data set all variants have the same budget unless `params.yaml` "
        f"says otherwise ({_budgets(study)}). A variant might do better with a budget of its own.",
        "- **Very rare nodes.** A node with one or two test positives gives a score of few steps; "
        "only means over many such nodes say anything. Which nodes are rare depends on the training "
        "part, so they are different ones in different data sets.",
        f"- **Practical importance.** Differences up to {parameters.evaluation.equivalence:g} count "
        "as none, whatever the size of the score.",
    ]
    if count > len(sources):
        lines.insert(
            1,
            "- **Independence.** Data sets from one source share nodes and test examples; agreement "
            "between them is weaker evidence than agreement between unrelated ones.",
        )
    pairs = comparison.differences.groupby(["dataset", "measure", "nodes", "at"]).size().max()
    finest = pairs * 2 / (parameters.evaluation.resamples + 1)
    if finest > level:
        lines.append(
            f"- **Anything, by Holm's correction.** {pairs} comparisons and "
            f"{parameters.evaluation.resamples} resamples cannot give a corrected p-value below "
            f"{finest:.2g}: raise `evaluation.resamples`."
        )
    return "\n".join(lines)


def _budgets(study: Study) -> str:
    baseline = study.parameters.evaluation.baseline
    budgets = {name: study.training(name, baseline) for name in study.parameters.datasets}
    return "; ".join(
        f"{name}: {b.epochs} epochs of batches of {b.batch_size}, {b.members} members"
        for name, b in budgets.items()
    )
