"""Tables over all data sets follow from the evaluations' differences, by hand."""

import pandas as pd
import pytest

from rarenodes.inference.verdict import Rule
from rarenodes.stages.compare import across_or_reason, found_table, main_table
from rarenodes.study.params import EvaluationSettings

SETTINGS = EvaluationSettings(baseline="mcm", rule=Rule(level=0.05))


def differences() -> pd.DataFrame:
    rows = [
        ("weighted", "mcm", 0.8, 0.4, 0.4, 0.3, 0.5, "better"),
        ("focal", "mcm", 0.3, 0.4, -0.1, -0.2, -0.05, "worse"),
        ("posthoc", "mcm", 0.402, 0.4, 0.002, -0.003, 0.007, "same"),
        ("other", "mcm", 0.42, 0.4, 0.02, -0.03, 0.07, "unclear"),
        ("focal", "weighted", 0.3, 0.8, -0.5, -0.6, -0.4, "worse"),
    ]
    columns = ["variant", "baseline", "score", "baseline_score", "difference", "lower", "upper"]
    table = pd.DataFrame(rows, columns=[*columns, "verdict"])
    return table.assign(dataset="toy", measure="macro_recall", nodes="rare", at="half")


def test_main_table_shows_scores_intervals_and_marks():
    table = main_table(differences(), "mcm", ["mcm", "weighted", "focal", "posthoc", "other"])
    assert table["recall of rare nodes at 0.5"].tolist() == [
        "0.400",
        "0.800 [+0.300, +0.500] *",
        "0.300 [-0.200, -0.050] *",
        "0.402 [-0.003, +0.007] ≈",
        "0.420 [-0.030, +0.070]",
    ]


def test_contrasts_are_no_rows_of_the_main_table():
    table = main_table(differences(), "mcm", ["mcm", "focal"])
    # Not 0.300 [-0.600, -0.400] *, the difference from `weighted`.
    assert table["recall of rare nodes at 0.5"][1] == "0.300 [-0.200, -0.050] *"


def test_found_has_counts_beside_recalls():
    rows = [
        ("1–5", "mcm", 10, 1, 2), ("6–10", "mcm", 20, 3, 4), (">50", "mcm", 90, 80, 9),
        ("1–5", "weighted", 10, 4, 30), ("6–10", "weighted", 20, 12, 50),
    ]  # fmt: skip
    counted = ["rarity", "variant", "positives", "hits_half", "false_half"]
    by_rarity = pd.DataFrame(rows, columns=counted).assign(dataset="toy")
    chosen = differences().query("variant == 'weighted'")
    (row,) = found_table(chosen, by_rarity, "mcm").to_dict("records")
    assert (row["dataset"], row["variant"], row["verdict"]) == ("toy", "weighted", "better")
    assert (row["recall"], row["baseline_recall"], row["ratio"]) == (0.8, 0.4, 2.0)
    assert (row["positives"], row["hits"], row["baseline_hits"]) == (30, 16, 4)
    assert (row["false"], row["baseline_false"]) == (80, 6)


def on_data_sets(steps: list[float]) -> pd.DataFrame:
    """`weighted` scores so much more than `mcm`, one data set each; `other` is its contrast."""
    tables = []
    for number, step in enumerate(steps):
        base = 0.3 + 0.05 * number
        rows = [("weighted", "mcm", base + step, base), ("other", "weighted", 0.1, base + step)]
        table = pd.DataFrame(rows, columns=["variant", "baseline", "score", "baseline_score"])
        tables.append(table.assign(dataset=f"d{number}"))
    return pd.concat(tables).assign(measure="macro_recall", nodes="rare", at="half")


def test_tests_across_data_sets_by_hand():
    # Six of seven are higher, and the lower one is the smallest difference: its rank is 1 of 28.
    steps = [0.02, 0.03, -0.01, 0.04, 0.05, 0.06, 0.07]
    table, reason = across_or_reason(on_data_sets(steps), SETTINGS, 1)
    assert reason is None
    (row,) = table.to_dict("records")
    assert (row["variant"], row["baseline"]) == ("weighted", "mcm")
    assert row["measure"] == "recall of rare nodes at 0.5"
    assert row["rank_biserial"] == pytest.approx((27 - 1) / 28)
    # Of 2^7 signs, two give a sum of at most 1 on one side.
    assert row["p"] == row["holm_p"] == pytest.approx(2 * 2 / 2**7)
    assert row["smallest_p"] == pytest.approx(2 / 2**7)
    assert row["better"] > 0.9 > 0.1 > row["worse"]


def test_too_few_data_sets_are_described_and_a_reason_given():
    table, reason = across_or_reason(on_data_sets([0.1, -0.2]), SETTINGS, 1)
    (row,) = table.to_dict("records")
    assert (row["data_sets"], row["higher"], row["lower"]) == (2, 1, 1)
    assert row["median"] == pytest.approx(-0.05)
    assert (row["least"], row["most"]) == (pytest.approx(-0.2), pytest.approx(0.1))
    # 2 / 2^2; six data sets are the fewest with 2 / 2^n of at most 0.05.
    assert reason == (
        "No test across data sets: with 2 data sets the smallest two-sided p-value of a signed-rank "
        "test is 0.5, 0.5 after Holm's correction over 1 comparison, so no outcome could have been "
        "significant at 0.05; that takes at least 6 data sets."
    )
