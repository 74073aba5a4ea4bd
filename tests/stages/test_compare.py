"""Verdicts follow from the tables by the rules that the notebooks state."""

from types import SimpleNamespace

import pandas as pd
import pytest

from rarenodes.stages.compare import in_words, main_table, verdict_on, verdict_text, verdicts


@pytest.mark.parametrize(
    ("difference", "lower", "upper", "holm_p", "verdict"),
    [
        (0.2, 0.1, 0.3, 0.01, "better"),
        (-0.2, -0.3, -0.1, 0.01, "worse"),
        (0.2, 0.1, 0.3, 0.2, "open"),
        (0.0, -0.3, 0.3, 1.0, "open"),
        (0.001, -0.004, 0.006, 1.0, "equivalent"),
        (0.005, 0.002, 0.008, 0.01, "equivalent"),  # clear, but too small to matter
        (0.02, 0.005, 0.035, 0.05, "better"),  # at the level
    ],
)
def test_verdict(difference, lower, upper, holm_p, verdict):
    row = SimpleNamespace(difference=difference, lower=lower, upper=upper, holm_p=holm_p)
    assert verdict_on(row, equivalence=0.01, level=0.05) == verdict


def differences() -> pd.DataFrame:
    rows = [
        ("weighted", "mcm", 0.8, 0.4, 0.4, 0.3, 0.5, "better"),
        ("focal", "mcm", 0.3, 0.4, -0.1, -0.2, -0.05, "worse"),
        ("posthoc", "mcm", 0.402, 0.4, 0.002, -0.003, 0.007, "equivalent"),
        ("other", "mcm", 0.42, 0.4, 0.02, -0.03, 0.07, "open"),
        ("focal", "weighted", 0.3, 0.8, -0.5, -0.6, -0.4, "worse"),
    ]
    columns = ["variant", "baseline", "score", "baseline_score", "difference", "lower", "upper"]
    table = pd.DataFrame(rows, columns=[*columns, "verdict"])
    return table.assign(dataset="toy", measure="macro_recall", nodes="rare", at="half")


def test_words_name_every_variant_strongest_first():
    table = differences()
    assert in_words(table[table["baseline"] == "mcm"], "mcm") == (
        "Yes, more than mcm: weighted (0.400 → 0.800, ×2.0). "
        "Less than mcm: focal (0.400 → 0.300, ×0.7). "
        "Practically the same as mcm: posthoc (+0.002). "
        "Not decided against mcm: other (+0.020)."
    )


def test_words_say_when_nothing_is_better():
    table = differences()
    assert in_words(table[table["verdict"] == "open"], "mcm").startswith(
        "No variant is clearly better. Not decided against mcm: other"
    )


def test_main_table_shows_scores_intervals_and_marks():
    table = main_table(differences(), "mcm", ["mcm", "weighted", "focal", "posthoc", "other"])
    assert table["recall of rare nodes at 0.5"].tolist() == [
        "0.400",
        "0.800 [+0.300, +0.500] *",
        "0.300 [-0.200, -0.050] *",
        "0.402 [-0.003, +0.007] ≈",
        "0.420 [-0.030, +0.070]",
    ]


def test_contrasts_get_a_question_of_their_own():
    text = verdict_text(verdicts(differences(), "mcm"))
    assert "### What does focal change over weighted?" in text
    assert "recall of rare nodes at 0.5 -0.500 (worse)." in text
