"""Tables for readers, with values worked out by hand."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from rarenodes.datasets.dataset import Dataset
from rarenodes.loss.hierarchy import Hierarchy
from rarenodes.pages import tables
from rarenodes.training.variants import VariantSettings


def node_rows() -> pd.DataFrame:
    """Two seeds of three nodes; the last has no test positive and must not count."""
    return pd.DataFrame(
        {
            "seed": [0, 0, 0, 1, 1, 1],
            "node": ["a", "b", "c"] * 2,
            "rarity": ["1–5", "1–5", "1–5"] * 2,
            "depth": [1, 2, 2] * 2,
            "test_positives": [4, 2, 0] * 2,
            "true_positives_half": [1, 2, 0, 3, 0, 0],
            "false_positives_half": [3, 0, 5, 1, 0, 0],
            "false_negatives_half": [3, 0, 0, 1, 2, 0],
            "true_positives_tuned": [2, 1, 0, 4, 1, 0],
            "false_positives_tuned": [0, 1, 0, 4, 0, 0],
            "false_negatives_tuned": [2, 1, 0, 0, 1, 0],
            "average_precision": [0.5, 0.9, 0.0, 0.3, 0.1, 0.0],
        }
    )


def test_recall_precision_and_f1_of_a_node():
    scored = tables.with_node_scores(node_rows()).iloc[0]
    # 1 of 4 positives found; 1 of 4 predictions right at 0.5, 2 of 2 at the tuned threshold.
    assert (scored["recall_half"], scored["precision_half"]) == (0.25, 0.25)
    assert (scored["recall_tuned"], scored["precision_tuned"]) == (0.5, 1.0)
    assert scored["f1_tuned"] == pytest.approx(2 / 3)


def test_without_a_tuned_threshold_its_scores_are_missing():
    nodes = node_rows()
    nodes[["true_positives_tuned", "false_positives_tuned", "false_negatives_tuned"]] = np.nan
    scored = tables.with_node_scores(nodes)
    assert scored[["recall_tuned", "precision_tuned", "f1_tuned"]].isna().all(axis=None)


def test_scores_by_rarity_are_means_over_nodes_then_seeds():
    (row,) = tables.scores_by("rarity", {"mcm": node_rows()}).to_dict("records")
    assert (row["variant"], row["rarity"], row["nodes"]) == ("mcm", "1–5", 2)
    # Seed 0: recalls 1/4 and 1, precisions 1/4 and 1; seed 1: 3/4 and 0, 3/4 and 0.
    assert row["recall_half"] == pytest.approx((0.625 + 0.375) / 2)
    assert row["recall_half_spread"] == pytest.approx(0.25 / 2**0.5)
    assert row["precision_half"] == pytest.approx((0.625 + 0.375) / 2)
    # Average precision: 0.7 and 0.2.
    assert row["average_precision"] == pytest.approx(0.45)
    assert row["average_precision_spread"] == pytest.approx(0.5 / 2**0.5)
    # Counts of both nodes: hits 1 + 2 and 3 + 0, false alarms 3 and 1.
    assert (row["positives"], row["hits_half"], row["false_half"]) == (6, 3, 2)


def test_recall_is_not_precision_in_scores_by():
    nodes = node_rows().iloc[[0, 3]].assign(false_positives_half=0)
    (row,) = tables.scores_by("depth", {"mcm": nodes}).to_dict("records")
    assert row["precision_half"] == 1.0
    assert row["recall_half"] == pytest.approx((1 / 4 + 3 / 4) / 2)
    assert tables.NODE_SCORES["recall_half"] == "recall at 0.5"
    assert tables.NODE_SCORES["precision_half"] == "precision at 0.5"


def test_variants_keep_their_order_and_rarity_its_own():
    other = node_rows().assign(rarity=[">50", "0", "6–10"] * 2)
    table = tables.scores_by("rarity", {"z": other, "a": other})
    assert list(zip(table["rarity"], table["variant"], strict=True)) == [
        ("0", "z"),
        ("0", "a"),
        (">50", "z"),
        (">50", "a"),
    ]


def test_seeds_are_summed_up_by_mean_and_standard_deviation():
    seeds = pd.DataFrame({"seed": [0, 1, 2], "f1": [0.1, 0.2, 0.6], "recall": [0.3, 0.3, 0.3]})
    (row,) = tables.seed_summary({"mcm": seeds}).to_dict("records")
    assert row["variant"] == "mcm"
    assert row["f1"] == pytest.approx(0.3)  # not 0.1, the least, nor 0.2, the median
    assert row["f1_spread"] == pytest.approx(0.07**0.5)
    assert (row["recall"], row["recall_spread"]) == pytest.approx((0.3, 0.0))
    assert "seed" not in row


def test_one_seed_has_no_spread():
    (row,) = tables.seed_summary({"mcm": pd.DataFrame({"seed": [0], "f1": [0.1]})}).to_dict(
        "records"
    )
    assert row["f1"] == 0.1
    assert np.isnan(row["f1_spread"])
    assert tables.mean_and_spread(row["f1"], row["f1_spread"]) == "0.100"
    assert tables.mean_and_spread(0.12345, 0.0046) == "0.123 ± 0.005"
    assert tables.mean_and_spread(np.nan, 0.1) == "–"


@pytest.fixture
def dataset() -> Dataset:
    """Root → a, b, c; in train a has 2 positives, b 6, c none; in test b none, c 1."""
    hierarchy = Hierarchy([("a", "root"), ("b", "root"), ("c", "root")])
    leaves = ["a"] * 2 + ["b"] * 6 + ["c"] * 12 + ["a", "c"]
    targets = np.zeros((len(leaves), 4), dtype=np.uint8)
    targets[:, hierarchy.index["root"]] = 1
    for row, leaf in enumerate(leaves):
        targets[row, hierarchy.index[leaf]] = 1
    split = {"train": np.arange(8), "valid": np.arange(8, 20), "test": np.array([20, 21])}
    return Dataset(
        name="toy",
        features=np.zeros((len(leaves), 1), dtype=np.float32),
        targets=sparse.csr_array(targets),
        hierarchy=hierarchy,
        split=split,
        evaluated=np.array([node != "root" for node in hierarchy.nodes]),
        card={},
    )


def test_settings_are_read_without_brackets():
    variant = VariantSettings(about="a", weights={"mode": "binary"}, focal={"uncertainty": "gmu"})
    shown = tables.settings_table(variant)["value"]
    assert shown["weights"].startswith("mode binary, orientation paper")
    assert not shown.str.contains(r"[\[{'\"]").any()


def test_rarity_is_counted_in_the_training_part_and_the_root_left_out(dataset):
    table = tables.rarity_table(dataset)
    # In the validation part c has 12 positives, and none of the others has any.
    assert table["nodes"].to_dict() == {"0": 1, "1–5": 1, "6–10": 1, "11–50": 0, ">50": 0}
    tested = table["with test positives"].to_dict()
    assert tested == {"0": 1, "1–5": 1, "6–10": 0, "11–50": 0, ">50": 0}


def test_a_card_is_shown_with_no_entry_that_fills_pages(dataset):
    card = {"letters": "ab" * 1000, "source": "s" * tables.MOST_LETTERS}
    shown = tables.card_table(replace(dataset, card=card))["value"]
    assert shown["letters"] == "ab" * 50 + " … (2,000 letters in all)"
    assert shown["source"] == card["source"]
    assert shown["nodes"] == "4 (3 evaluated)"


def test_parts_are_counted_by_themselves(dataset):
    table = tables.split_table(dataset)
    assert table["examples"].to_dict() == {"train": 8, "valid": 12, "test": 2}
    assert table["labels"].to_dict() == {"train": 16, "valid": 24, "test": 4}
    assert table["nodes with positives"].to_dict() == {"train": 2, "valid": 1, "test": 2}


# --- what is shown ------------------------------------------------------------------------------


def test_levels_of_an_index_are_columns():
    table = pd.DataFrame(
        {"recall": ["0.1", "a|b"]},
        index=pd.MultiIndex.from_tuples(
            [("icd10cm", "mcm"), ("icd10cm", "other")], names=["data set", "variant"]
        ),
    )
    assert tables.as_markdown(table).splitlines() == [
        "| data set   | variant   | recall   |",
        "|:-----------|:----------|:---------|",
        "| icd10cm    | mcm       | 0.1      |",
        "| icd10cm    | other     | a\\|b     |",
    ]


def test_levels_of_columns_are_joined_and_a_plain_index_keeps_its_name():
    table = pd.DataFrame([[1, 2]], index=pd.Index(["added"], name="what"))
    table.columns = pd.MultiIndex.from_tuples([("toy", "LP-ROS"), ("toy", "HROS-PD")])
    assert tables.as_markdown(table).splitlines()[0] == (
        "| what   |   toy, LP-ROS |   toy, HROS-PD |"
    )


def test_a_folded_table_stays_markdown():
    shown = tables.folded("Scores", pd.DataFrame({"a": [1, 2]})).data
    first, _, *table, _, last = shown.split("\n")
    assert first == "<details><summary>Scores (2 rows)</summary>"
    assert last == "</details>"
    assert "\n".join(table) == tables.as_markdown(pd.DataFrame({"a": [1, 2]}))


def by_rarity(found: float) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "rarity": ["0", "0", "1–5", "1–5"],
            "variant": ["a", "b"] * 2,
            "nodes": [7, 7, 3, 3],
            "recall_half": [0.0, 0.0, 0.0, 0.0],
            "f1_tuned": [0.0, found, 0.0, 0.0],
        }
    )


def test_nodes_that_nothing_finds_are_left_out_if_nothing_could():
    shown, nodes = tables.findable(by_rarity(0.0), ("recall_half", "f1_tuned"))
    # Nothing finds the others either, but something could have.
    assert (set(shown["rarity"]), nodes) == ({"1–5"}, 7)
    assert tables.left_out(nodes).startswith("Left out: 7 nodes without training positives")
    shown, nodes = tables.findable(by_rarity(0.1), ("recall_half", "f1_tuned"))
    assert (set(shown["rarity"]), nodes) == ({"0", "1–5"}, 0)
    assert tables.left_out(nodes) == ""


def test_an_interval_without_ends_is_a_dash():
    columns = (
        "variant measure num_data_sets median lower upper rank_biserial p holm_p smallest_holm_p "
        "worse equivalent better"
    )
    row = ["a", "recall", 2, 0.1234, -np.inf, np.inf, 1.0, 0.5, 1.0, 1.0, 0.0, 0.035, 0.965]
    shown = tables.across_table(pd.DataFrame([row], columns=columns.split())).iloc[0]
    assert (shown["lower"], shown["upper"]) == ("–", "–")
    assert (shown["median difference"], shown["P(better)"]) == (0.123, 0.965)
    assert (shown["Holm p"], shown["smallest possible Holm p"], shown["p"]) == (1.0, 1.0, 0.5)


def test_matched_recall_is_shown_as_pooled_and_macro():
    matched = pd.DataFrame(
        {
            "variant": ["a"],
            "micro_recall_all": [0.1],
            "macro_recall_all": [0.2],
            "micro_recall_rare": [0.3],
            "macro_recall_rare": [0.4],
        }
    )
    assert tables.matched_table(matched).loc["a"].to_dict() == {
        "pooled recall": 0.1,
        "macro recall": 0.2,
        "pooled recall, rare nodes": 0.3,
        "macro recall, rare nodes": 0.4,
    }


def test_pooled_scores_are_shown_under_their_names():
    scores = {name: i / 100 for i, name in enumerate(tables._POOLED)}
    overall = pd.DataFrame([{"variant": "a", **scores, **{f"{s}_spread": 0.001 for s in scores}}])
    shown = tables.overall_table(overall).loc["a"]
    expected = {
        "recall at 0.5": "macro_recall_with_positives_half",
        "precision at 0.5": "macro_precision_with_positives_half",
        "F1 at 0.5, all nodes": "macro_f1_all_half",
        "F1 tuned": "macro_f1_with_positives_tuned",
    }
    for label, score in expected.items():
        assert shown[label] == f"{scores[score]:.3f} ± 0.001"


def test_compared_scores_are_named_and_have_their_spread():
    key = ("macro_recall", "rare", "half")
    rows = [("d", "a", 0, *key, 0.1), ("d", "a", 1, *key, 0.3), ("e", "a", 0, *key, 0.5)]
    rows.append(("e", "b", 0, "macro_f1", "with_positives", "half", 0.25))
    columns = ["dataset", "variant", "seed", "measure", "nodes", "at", "score"]
    shown = tables.compared_scores(pd.DataFrame(rows, columns=columns))
    assert list(zip(shown["data set"], shown["variant"], strict=True)) == [
        ("d", "a"), ("e", "a"), ("e", "b"),
    ]  # fmt: skip
    assert shown["recall of rare nodes at 0.5"].tolist() == ["0.200 ± 0.141", "0.500", "–"]
    assert shown["macro F1 at 0.5"].tolist() == ["–", "–", "0.250"]
    assert set(shown["average precision of rare nodes"]) == {"–"}


def test_the_best_of_rare_nodes_is_that_of_the_highest_mean():
    key = {"measure": "macro_average_precision", "nodes": "rare", "at": "none"}
    runs = [("a", "x", 0.2), ("a", "x", 0.6), ("a", "y", 0.5), ("a", "y", 0.4), ("b", "x", np.nan)]
    long = pd.DataFrame(
        [{**key, "dataset": name, "variant": v, "score": score} for name, v, score in runs]
    )
    other = long.assign(measure="macro_recall", score=9.0)
    assert tables.best_of_rare(pd.concat([long, other])) == {"a": "y"}
    assert tables.best_of_rare(other) == {}
