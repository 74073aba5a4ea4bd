"""What an audit is said to show, from tables made by hand: two steps, a partner, two data sets."""

import numpy as np
import pandas as pd
import pytest

from rarenodes.inference.verdict import Rule
from rarenodes.pages import audit
from rarenodes.pages.prose import render

LABELS = {
    audit.RECALL: "macro recall at 0.5",
    audit.RARE_RECALL: "recall of rare nodes at 0.5",
    audit.RARE_RANKING: "average precision of rare nodes",
}
SETTINGS = {
    "confidence": 0.95,
    "rule": Rule(level=0.05, equivalence=0.05, floor=0.002, blunt=10),
    "resamples": 1000,
    "seeds": 5,
    "fewest_tested": 3,
}


def switches(partner: bool = True) -> pd.DataFrame:
    rows = [
        ("there", "weights", "plain", "weighted", True, False),
        ("there", "training data", "weighted", "full", False, False),
        ("back", "weights", "unweighted", "full", True, False),
        ("whole", "weights + training data", "plain", "full", False, True),
    ]
    if partner:
        rows.append(("whole", "weights", "partner", "full", True, True))
    return pd.DataFrame(rows, columns=["kind", "switch", "off", "on", "trained_alike", "main"])


def effects() -> pd.DataFrame:
    rows = []
    for name, found, ranked in (("one", 0.08, "same"), ("two", 0.06, "worse")):
        for kind, switch, off, on, key, before, after, verdict in (
            ("there", "weights", "plain", "weighted", audit.RECALL, 0.02, 0.01, "worse"),
            ("whole", "all", "plain", "full", audit.RECALL, 0.02, found, "better"),
            ("whole", "weights", "partner", "full", audit.RECALL, 0.04, found, "better"),
            ("whole", "all", "plain", "full", audit.RARE_RECALL, 0.01, 0.05, "better"),
            ("whole", "weights", "partner", "full", audit.RARE_RECALL, 0.04, 0.05, "unclear"),
            ("whole", "weights", "partner", "full", audit.RARE_RANKING, 0.3, 0.29, ranked),
        ):
            rows.append((name, kind, switch, off, on, *key, before, after, verdict))
    columns = [
        "dataset", "kind", "switch", "off", "on", "measure", "nodes", "at", "off_score", "on_score",
        "verdict",
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=columns)
    difference = table["on_score"] - table["off_score"]
    return table.assign(difference=difference, lower=difference - 0.01, upper=difference + 0.01)


def decomposition() -> pd.DataFrame:
    rows = []
    for name, share in (("one", 1.5), ("two", np.nan)):
        for kind, part, off, on, before, after, lower, upper in (
            ("there", "weights", "plain", "weighted", 0.02, 0.01, -0.02, -0.005),
            ("there", "training data", "weighted", "full", 0.01, 0.08, 0.06, 0.08),
            ("back", "weights", "unweighted", "full", 0.05, 0.08, 0.01, 0.05),
            ("threshold", "tuned threshold", "plain", "full", 0.02, 0.17, 0.1, 0.2),
            ("threshold", "oracle threshold", "plain", "full", 0.02, 0.06, 0.03, 0.05),
            ("threshold", "beyond the oracle", "plain", "full", 0.06, 0.08, 0.01, 0.03),
            ("threshold", "oracle threshold", "partner", "full", 0.04, 0.1, 0.05, 0.07),
            ("threshold", "beyond the oracle", "partner", "full", 0.1, 0.08, -0.03, -0.01),
        ):
            rows.append(
                (name, kind, part, off, on, before, after, after - before, lower, upper, share)
            )
    columns = [
        "dataset", "kind", "part", "off", "on", "off_recall", "on_recall", "difference", "lower",
        "upper", "share",
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(share_lower=table["share"] - 0.5, share_upper=table["share"] + 0.5)


def tables(partner: bool = True) -> dict[str, pd.DataFrame]:
    counts = pd.DataFrame(
        [
            ("one", "plain", "weighted", True, 20, 10, 2, 0, 0.25),
            ("one", "partner", "full", True, 20, 10, 1, 3, 0.25),
            ("one", "plain", "full", False, 20, 10, 9, 9, 0.25),
            ("two", "partner", "full", True, 20, 8, 0, 0, 0.2),
        ],
        columns=[
            "dataset", "off", "on", "trained_alike", "rare_nodes", "tested", "better", "worse",
            "by_chance",
        ],
    )  # fmt: skip
    scores = pd.DataFrame(
        [
            (name, variant, "tuned", score)
            for name in ("one", "two")
            for variant, score in (("plain", 0.1), ("full", np.nan))
        ],
        columns=["dataset", "variant", "at", "score"],
    )
    imputation = pd.DataFrame(
        [("one", "plain", *audit.RECALL, 0.2, 0.03, 0.05), ("one", "full", *audit.RARE_RECALL, 0.04, 0.01, 0.02)],
        columns=[
            "dataset", "variant", "measure", "nodes", "at", "holm_p", "largest_change",
            "features_changed",
        ],
    )  # fmt: skip
    return {
        "switches": switches(partner),
        "effects": effects(),
        "decomposition": decomposition(),
        "node_counts": counts,
        "scores": scores,
        "imputation": imputation,
        "oversampling": pd.DataFrame({"added": [10, 30], "examples": [200, 300]}),
    }


@pytest.fixture
def values():
    return audit.audit_values(tables(), LABELS, **SETTINGS)


def test_values_by_hand(values):
    expected = {
        "data_sets": ["one", "two"],
        "baseline": "plain",
        "released": "full",
        "partner": "partner",
        "compared": "partner",
        "gain_recall_off": [0.02, 0.02],
        "gain_recall_on": [0.08, 0.06],
        "gain_recall_verdict": ["better", "better"],
        "method_recall_off": [0.04, 0.04],
        "method_rare_recall_verdict": ["unclear", "unclear"],
        "method_rare_ranking_verdict": ["same", "worse"],
        "gain_rare_ranking": [None, None],  # not measured for this pair
        "largest_step": ["training data", "training data"],
        # There, weights take recall away; undone, they turn out to add some.
        "depends": [["weights"], ["weights"]],
        "tuned_recall": [0.17, 0.17],
        "oracle_recall": [0.1, 0.1],  # the partner's, not the baseline's
        "beyond_upper": [-0.01, -0.01],
        "nodes_tested": [10, 8],
        "nodes_better": [2, 0],  # of what is trained alike
        "nodes_worse": [3, 0],
        "untuned": ["full"],
        "imputation_features": 0.05,
        "imputation_largest": 0.03,
        "imputation_clear": ["recall of rare nodes at 0.5 of full on one"],
        "oversampling_added": 0.1,
    }
    assert {name: values[name] for name in expected} == expected
    assert values["method_recall"] == pytest.approx([0.04, 0.02])
    assert values["largest_step_share"] == pytest.approx([1.5, np.nan], nan_ok=True)


def test_without_a_partner_the_baseline_is_compared_with():
    values = audit.audit_values(tables(partner=False), LABELS, **SETTINGS)
    assert (values["partner"], values["compared"]) == (None, "plain")
    assert values["oracle_recall"] == [0.06, 0.06]
    text = render("audit_opening", values)
    assert "No variant without the method is trained like full" in text
    assert "the two are not trained alike" in render("audit_threshold", values)


def test_the_opening_says_so_in_five_sentences(values):
    lines = render("audit_opening", values).splitlines()
    assert lines[0] == (
        "**From plain to full, macro recall at 0.5 goes** 0.020 → 0.080 (×4.0), of rare nodes "
        "0.010 → 0.050 (×5.0), which is clearly higher on one and 0.020 → 0.060 (×3.0), of rare nodes "
        "0.010 → 0.050 (×5.0), which is clearly higher on two."
    )
    assert lines[1] == "The largest step is *training data* on both data sets."
    assert lines[2].endswith(
        "macro recall goes 0.040 → 0.080 (×2.0) on one and 0.040 → 0.060 (×1.5) on two, and recall "
        "of rare nodes is not told apart on both data sets."
    )
    assert "0.100 where full has 0.080 (one) and 0.100 where full has 0.060 (two)." in lines[3]
    assert "practically the same on one and clearly lower on two compared with partner" in lines[4]
    assert lines[4].endswith("at most 2 of 10 on one and none of 8 on two.")
    assert len(lines) == 5


def test_sections_by_hand(values):
    gain = render("audit_gain", values)
    assert "Its largest step, *training data*, is 150 % of it." in gain
    assert "That is no clear gain, so there is nothing to divide up." in gain
    assert "(intervals do not overlap): weights." in gain
    threshold = render("audit_threshold", values)
    assert (
        "plain alone has a macro recall of 0.170 instead of 0.020; full at 0.5 has 0.080"
        in threshold
    )
    assert "partner has 0.100 (150 % of the gain); what full has beyond that is −0.020" in threshold
    assert "a threshold alone does more." in threshold
    nodes = render("audit_nodes", values)
    assert "of 10 rare nodes with 3 or more test positives" in nodes
    assert "makes 2 clearly better, and the one that harms most 3 clearly worse" in nodes
    besides = render("audit_besides", values)
    assert "up to 5.0 % of its features, and no probability by more than 0.03" in besides
    assert "clear changes: recall of rare nodes at 0.5 of full on one." in besides
    assert "adds up to 10 % to the training examples" in besides
    limits = render("audit_limits", values)
    assert "No validation examples are left for full" in limits
    assert "10 of 20 rare nodes of one have fewer than 3 test positives" in limits
    assert "12 of 20 rare nodes of two" in limits
    assert "up to 5 % of the score they are compared with, and in any case up to 0.002," in limits


@pytest.mark.parametrize(
    ("lower", "upper", "words"),
    [
        (0.01, 0.03, "more than one threshold for all nodes could do"),
        (-0.03, -0.01, "a threshold alone does more"),
        (-0.01, 0.02, "not told from 0"),
    ],
)
def test_what_is_beyond_a_threshold_follows_from_its_interval(values, lower, upper, words):
    text = render(
        "audit_threshold", values | {"beyond_lower": [lower] * 2, "beyond_upper": [upper] * 2}
    )
    assert text.count(words) == 2


def test_without_rare_nodes_there_is_less_to_say():
    given = tables()
    given["node_counts"] = given["node_counts"].iloc[:0]
    rare = given["effects"]["nodes"] == "rare"
    given["effects"] = given["effects"][~rare]
    values = audit.audit_values(given, LABELS, **SETTINGS)
    assert "no rare node has enough test positives" in render("audit_nodes", values)
    opening = render("audit_opening", values)
    assert "of rare nodes 0" not in opening
    assert "not measured" in opening
    assert "rarest nodes one by one" not in render("audit_limits", values)


# --- tables -------------------------------------------------------------------------------------


def test_cells_of_the_matrix_are_named_after_switches_and_pairs():
    cells = audit.verdict_cells(effects(), LABELS, switches())
    one = cells[cells["dataset"] == "one"]
    assert list(zip(one["variant"], one["label"], one["verdict"], strict=True)) == [
        ("weights", "macro recall at 0.5", "worse"),
        ("full − plain", "macro recall at 0.5", "better"),
        ("full − partner", "macro recall at 0.5", "better"),
        ("full − plain", "recall of rare nodes at 0.5", "better"),
        ("full − partner", "recall of rare nodes at 0.5", "unclear"),
        ("full − partner", "average precision of rare nodes", "same"),
    ]


def test_effects_have_a_star_where_they_are_clear_and_a_dash_where_missing():
    cells = audit.effect_cells(effects(), "one", LABELS).droplevel(["kind", "switch"])
    assert cells.loc["full − plain", "macro recall at 0.5"] == "+0.060 [+0.050, +0.070] *"
    assert cells.loc["full − partner", "recall of rare nodes at 0.5"] == "+0.010 [+0.000, +0.020]"
    assert cells.loc["full − plain", "average precision of rare nodes"] == "–"


def test_shares_of_the_gain_or_a_dash():
    one = audit.decomposition_cells(decomposition(), "one").iloc[0]
    assert one["recall"] == "0.020 → 0.010"
    assert one["share of the gain"] == "150 % [100 %, 200 %]"
    two = audit.decomposition_cells(decomposition(), "two")
    assert set(two["share of the gain"]) == {"–"}


def test_scores_are_means_with_intervals():
    scores = pd.DataFrame(
        {
            "dataset": "one",
            "variant": ["a", "b"],
            "measure": "macro_recall",
            "nodes": "with_positives",
            "at": "half",
            "score": [0.1, np.nan],
            "lower": [0.05, np.nan],
            "upper": [0.2, np.nan],
        }
    )
    cells = audit.score_cells(scores, "one", {audit.RECALL: "recall"})
    assert cells["recall"].to_dict() == {"a": "0.100 [0.050, 0.200]", "b": "–"}


def test_matched_precision_heads_its_columns():
    matched = pd.DataFrame(
        {
            "dataset": "one",
            "reference": "plain",
            "precision": 0.5628,
            "variant": ["a"],
            "recall": [0.02],
            "recall_spread": [0.003],
            "rare_recall": [0.01],
            "rare_recall_spread": [np.nan],
        }
    )
    cells = audit.matched_cells(matched, "one")
    assert cells.loc["a"].to_dict() == {
        "recall at precision of plain (0.56)": "0.020 ± 0.003",
        "rare recall at precision of plain (0.56)": "0.010",
    }
