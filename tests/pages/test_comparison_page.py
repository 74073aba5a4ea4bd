"""What a comparison and a large hierarchy are said to show, from tables made by hand."""

import numpy as np
import pandas as pd
import pytest

from rarenodes.pages.comparison import comparison_values, number_table, verdict_cells
from rarenodes.pages.prose import render
from rarenodes.pages.scale import scale_values

FOUND = ("macro_recall", "rare", "half")
RANKED = ("macro_average_precision", "rare", "none")
TUNED = ("macro_f1", "with_positives", "tuned")
LABELS = {FOUND: "recall", RANKED: "ranking", TUNED: "tuned F1"}


def differences() -> pd.DataFrame:
    rows = [
        # On `one` weights find more and rank worse; on `two` focal ranks better.
        ("one", FOUND, "weighted", "mcm", 0.8, 0.4, 0.3, 0.5, "better"),
        ("one", FOUND, "focal", "mcm", 0.5, 0.4, 0.05, 0.2, "better"),
        ("one", RANKED, "weighted", "mcm", 0.6, 0.7, -0.2, -0.05, "worse"),
        ("one", RANKED, "focal", "mcm", 0.7, 0.7, -0.001, 0.001, "same"),
        ("one", TUNED, "weighted", "mcm", 0.5, 0.48, -0.01, 0.05, "unclear"),
        ("one", TUNED, "focal", "mcm", 0.5, 0.48, -0.01, 0.05, "unclear"),
        ("one", FOUND, "focal", "weighted", 0.5, 0.8, -0.4, -0.2, "worse"),
        ("two", FOUND, "weighted", "mcm", 0.4, 0.4, -0.1, 0.1, "unclear"),
        ("two", FOUND, "focal", "mcm", 0.2, 0.4, -0.3, -0.1, "worse"),
        ("two", RANKED, "weighted", "mcm", 0.7, 0.7, -0.1, 0.1, "unclear"),
        ("two", RANKED, "focal", "mcm", 0.9, 0.6, 0.2, 0.4, "better"),
    ]
    table = pd.DataFrame(
        [(name, *key, *rest) for name, key, *rest in rows],
        columns=[
            "dataset", "measure", "nodes", "at", "variant", "baseline", "score", "baseline_score",
            "lower", "upper", "verdict",
        ],
    )  # fmt: skip
    return table.assign(difference=table["score"] - table["baseline_score"], holm_p=0.01)


REASON = "No test across data sets: with 2 data sets nothing could have been significant."


def test_values_by_hand():
    values = comparison_values(differences(), "mcm", 0.05, REASON)
    assert values["data_sets"] == ["one", "two"]
    assert values["variants"] == ["weighted", "focal"]
    assert values["found_better"] == [["weighted", "focal"], []]
    assert values["found_worse"] == [[], ["focal"]]
    assert values["found_best"] == ["weighted", None]
    assert values["found_best_off"] == [0.4, None]
    assert values["found_best_on"] == [0.8, None]
    assert values["found_best_ranked"] == [pytest.approx(-0.1), None]
    assert values["found_best_ranked_verdict"] == ["worse", None]
    assert values["ranked_best"] == [None, "focal"]
    assert values["ranked_same"] == [["focal"], []]
    assert values["tuned_f1_better"] == [[], None]  # not compared on `two`
    assert values["across_reason"] == REASON
    of_weighted = values["of"]["weighted"]["ranked"]
    assert [row["score"] for row in of_weighted] == [0.6, 0.7]
    assert [row["verdict"] for row in of_weighted] == ["worse", "unclear"]
    assert of_weighted[0]["difference"] == pytest.approx(-0.1)
    assert values["of"]["weighted"]["tuned_f1"][1] == {}  # not compared on `two`
    assert values["of"]["mcm"]["ranked"] == [{"score": 0.7}, {"score": 0.7}]


def test_the_opening_says_so_in_five_sentences_or_fewer():
    text = render("variants_opening", comparison_values(differences(), "mcm", 0.05, REASON))
    lines = text.splitlines()
    assert len(lines) == 5
    assert lines[0] == (
        "**Rare nodes found at 0.5**, compared with `mcm`: clearly more with `weighted`, recall "
        "0.400 → 0.800 (×2.0) on one and not clearly more with any variant on two."
    )
    assert "is clearly lower (−0.100 [−0.200, −0.050], one)." in lines[1]
    assert "by none on one and by `focal` 0.600 → 0.900 (×1.5) on two." in lines[2]
    assert "with none on one and (not compared) on two." in lines[3]
    assert lines[4] == "With 2 data sets no test across data sets could show anything."


def test_one_data_set_needs_no_name_and_no_test_across():
    one = differences().query("dataset == 'one'")
    text = render("variants_opening", comparison_values(one, "mcm", 0.05))
    assert "recall 0.400 → 0.800 (×2.0).\n" in text
    assert "across" not in text


def test_tests_that_could_show_nothing_are_one_sentence():
    values = comparison_values(differences(), "mcm", 0.05, REASON)
    assert render("compare_across", values) == REASON


def test_tests_that_could_show_something_are_explained():
    values = comparison_values(differences(), "mcm", 0.05)
    assert values["across_reason"] is None
    assert "rank-biserial" in render("compare_across", values)
    assert len(render("variants_opening", values).splitlines()) == 4


def test_limits_name_sources_budgets_and_what_does_not_matter():
    more = {
        "sources": ["icd10cm"],
        "rule": {"level": 0.05, "equivalence": 0.05, "floor": 0.002, "blunt": 10},
        "tuned": False,
        "budgets": [
            {"data_set": "one", "epochs": 15, "batch_size": 128, "members": 4, "seeds": 3},
        ],
    }
    values = comparison_values(differences(), "mcm", 0.05) | more
    text = render("compare_limits", values)
    assert "2 data sets from 1 source (icd10cm)" in text
    assert "one: 15 epochs of batches of 128, 4 members" in text
    assert "up to 5 % of the score they are compared with, and in any case up to 0.002," in text
    assert "3 seeds give a rough picture" in text
    fewer = [{**more["budgets"][0], "data_set": "two", "seeds": 2}]
    text_of_both = render("compare_limits", values | {"budgets": more["budgets"] + fewer})
    assert "2 to 3 seeds give a rough picture" in text_of_both
    assert "**Independence.**" in text
    assert "**Independence.**" not in render("compare_limits", values | {"sources": ["a", "b"]})
    assert "15 epochs" in text
    of_its_own = render("compare_limits", values | {"tuned": True})
    assert "15 epochs" not in of_its_own
    assert "Each variant has the budget that one search chose for it" in of_its_own


def test_cells_of_the_matrix_keep_the_order_of_scores_and_name_contrasts():
    cells = verdict_cells(differences(), LABELS, "mcm")
    assert list(dict.fromkeys(cells["label"])) == ["recall", "ranking", "tuned F1"]
    assert len(cells) == 10
    contrasts = verdict_cells(differences().query("baseline != 'mcm'"), LABELS)
    (row,) = contrasts.to_dict("records")
    assert (row["variant"], row["label"], row["verdict"]) == ("focal − weighted", "recall", "worse")
    assert row["difference"] == pytest.approx(-0.3)


def test_numbers_behind_the_matrix():
    row = number_table(differences(), LABELS).iloc[0]
    assert row["from → to"] == "0.400 → 0.800"
    assert row["difference"] == "+0.400 [+0.300, +0.500]"
    assert (row["score"], row["compared with"], row["verdict"]) == ("recall", "mcm", "better")


# --- a large hierarchy --------------------------------------------------------------------------


def finds(unseen: float) -> pd.DataFrame:
    rows = [
        ("0", "mcm", "half", 60, unseen, 0.0, np.nan),
        ("0", "mcm", "tuned", 60, 0.0, 0.0, np.nan),
        ("1–5", "mcm", "half", 30, 0.2, 0.15, 0.72),
        ("1–5", "mcm", "tuned", 30, 0.4, 0.33, 0.37),
        (">50", "mcm", "half", 10, 0.9, 0.8, 0.9),
    ]
    columns = ["rarity", "variant", "at", "nodes", "found", "recall", "precision"]
    return pd.DataFrame(rows, columns=columns)


OVERALL = pd.DataFrame({"variant": ["mcm"], "macro_average_precision_with_positives": [0.465]})


def large_differences() -> pd.DataFrame:
    rows = [
        (nodes, *rest)
        for nodes in ("with_positives", "0", "1–5")
        for rest in (
            ("sparse", "mcm", 0.5, 0.001, 0.499, 0.4, 0.6, "better"),
            ("near", "mcm", 0.001, 0.001, 0.0, -0.001, 0.001, "same"),
            ("near", "sparse", 0.2, 0.5, -0.3, -0.4, -0.2, "worse"),
        )
    ]
    columns = ["nodes", "variant", "baseline", "score", "baseline_score", "difference"]
    table = pd.DataFrame(rows, columns=[*columns, "lower", "upper", "verdict"])
    return table.assign(measure="macro_average_precision", at="none")


def test_what_a_large_hierarchy_shows_by_hand():
    values = scale_values(finds(0.0), OVERALL, large_differences())
    assert (values["nodes"], values["unseen_nodes"], values["unseen_found"]) == (100, 60, 0.0)
    assert values["rarest_recall_half"] == [0.15]
    assert values["rarest_precision_half"] == [0.72]
    assert values["rarest_recall_tuned"] == [0.33]
    assert values["ranking"] == [0.465]
    assert [row["variant"] for row in values["against"]["unseen"]] == ["sparse", "near"]
    text = render("scale_opening", values)
    assert (
        "**Of 100 nodes with test positives, 60 have no training positive**; of these `mcm` has 0.001, "
        "`sparse` 0.500 (+0.499 [+0.400, +0.600], clearly higher) and `near` 0.001 (0.000 [-0.001, "
        "+0.001], practically the same)."
    ).replace("[-", "[−") in text
    assert "nodes with 1 to 5 training positives** `mcm` has 0.001, " in text
    assert "**Of all nodes with test positives** `mcm` has 0.001, " in text
    assert "`near` 0.200" not in text  # a contrast is not from the baseline
    assert "nothing finds any node without a training positive" in text
    assert "`mcm` 15 % (precision 0.720) and 33 % (0.370)." in text


def test_a_large_hierarchy_with_one_variant():
    text = render("scale_opening", scale_values(finds(0.0), OVERALL, large_differences().iloc[:0]))
    assert "nothing to compare it with: `mcm` 0.465." in text


def test_nodes_without_training_positives_that_are_found_all_the_same():
    assert "a variant finds at most 2.0 % of the nodes without a training positive" in render(
        "scale_opening", scale_values(finds(0.02), OVERALL, large_differences())
    )


# --- what is said of the paper's claims ----------------------------------------------------------


def claim_values() -> dict:
    """The hand-made differences, with one variant named as the paper's; counts for `found`."""
    renamed = differences().replace({"weighted": "weighted_binary"})
    half = renamed[renamed["at"] == "tuned"].assign(at="half")
    table = pd.concat([renamed, half], ignore_index=True)
    found = pd.DataFrame(
        {
            "dataset": ["one"], "variant": ["weighted_binary"], "recall": [0.8],
            "baseline_recall": [0.4], "ratio": [2.0], "lower": [0.3], "upper": [0.5],
            "verdict": ["better"], "positives": [30.0], "hits": [16.0], "baseline_hits": [4.0],
            "false": [80.0], "baseline_false": [6.0],
        }
    )  # fmt: skip
    one = table[table["dataset"] == "one"]
    return comparison_values(one, "mcm", 0.05) | {
        "tables": {"found": found},
        "budgets": [{"seeds": 5}],
    }


def test_a_claim_of_recall_comes_with_counts_and_ranking():
    text = render("claim_recall", claim_values())
    assert "1 of 1 find clearly more rare nodes at 0.5 than `mcm`, 0 of 1 clearly fewer" in text
    assert "0 of 1 rank them clearly better, 1 of 1 clearly worse" in text
    assert "means over 5 seeds." in text
    row = text.splitlines()[-1]
    assert "0.400 → 0.800 (×2.0), clearly higher" in row
    assert "4.0 → 16.0 of 30 | 6.0 → 80.0" in row
    assert "−0.100 [−0.200, −0.050], clearly lower" in row
    assert "focal" not in row  # no variant of the paper's by that name


def test_a_claim_of_f1_says_where_thresholds_are_tuned():
    values = claim_values()
    values["of"] = {
        variant: {**scores, "all_ranked": scores["ranked"]}
        for variant, scores in values["of"].items()
    }
    text = render("claim_f1", values)
    assert "clearly higher with 0 of 1 of the paper's treatments" in text
    assert "0.480 → 0.500" in text.splitlines()[-1]
    assert "with a threshold tuned on validation data for each" in text
    for scores in values["of"].values():
        scores["tuned_f1"] = [{}]
    assert "thresholds cannot be tuned here" in render("claim_f1", values)


def test_what_helps_shows_the_ranking_of_every_variant():
    lines = render("helps", comparison_values(differences(), "mcm", 0.05)).splitlines()
    assert lines[0] == "| variant | one | two |"
    assert lines[2] == "| `mcm` | 0.700 | 0.700 |"
    assert lines[3] == "| `weighted` | 0.600 [−0.200, −0.050] ▼ | 0.700 [−0.100, +0.100] |"
    assert lines[4].endswith("| 0.900 [+0.200, +0.400] ▲ |")
