"""Evaluation of results that were made up, not trained."""

import numpy as np
import pandas as pd
import pytest
import yaml
from made_up import TRAINING
from scipy import sparse
from scipy.special import expit

from rarenodes.datasets import load_dataset
from rarenodes.stages.evaluate import (
    evaluate,
    evaluate_dataset,
    headline,
    missed_table,
    rare_nodes_table,
    recall_at_precision_of,
)
from rarenodes.stages.material import Material
from rarenodes.stages.score import ScoreTables, score
from rarenodes.study.params import Study
from rarenodes.study.results import Results

PARAMETERS = {
    "seed": 1,
    "datasets": {"toy": {"about": "made", "source": "synthetic"}},
    "training": TRAINING,
    "evaluation": {"baseline": "mcm", "resamples": 100},
}


@pytest.fixture
def study(tmp_path):
    """Makes a study of these variants, with results of given strengths: one a seed."""
    dataset = load_dataset("synthetic")
    targets = dataset.targets.toarray()[:, dataset.evaluated]
    noise = np.random.default_rng(0).normal(size=targets.shape)

    def predicted(strength, part):
        rows = dataset.split[part]
        return expit(noise[rows] + strength * targets[rows] - 2).astype(np.float32)

    def make(variants):
        values = {
            **PARAMETERS,
            "variants": {
                name: {"about": name, "threshold": per or "dataset"}
                for name, (_, per) in variants.items()
            },
        }
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
        made = Study(tmp_path / "params.yaml")
        dataset.save(made.prepared("toy"))
        for name, (strengths, per) in variants.items():
            Results(
                history=pd.DataFrame({"seed": [0], "epoch": [1]}),
                test=np.stack([predicted(s, "test") for s in strengths]),
                valid=None if per is None else np.stack([predicted(s, "valid") for s in strengths]),
            ).save(made.results("toy", name))
        score(made, "toy", made.scores("toy"))
        return made

    return make


def differences(study):
    table = evaluate_dataset(study, "toy").differences
    return table.set_index(["variant", "measure", "nodes", "at"]).sort_index()


RANKING = ("macro_average_precision", "with_positives", "none")
TUNED = ("macro_f1", "with_positives", "tuned")


def test_seeds_are_pairs_where_variants_have_equally_many(study):
    strengths = (0.5, 2.0, 4.0)
    table = differences(
        study(
            {
                "mcm": (strengths, "dataset"),
                "same": (strengths, "dataset"),
                "fewer": (strengths[:2], "dataset"),
            }
        )
    )
    # What has the same predictions in every seed differs in no replicate.
    assert (table.loc["same", ["difference", "lower", "upper"]] == 0).all(axis=None)
    row = table.loc[("fewer", *RANKING)]
    assert row["upper"] - row["lower"] > 0.1


def test_another_variant_changes_no_interval(study):
    two = {"mcm": ((1.0, 2.0), "dataset"), "better": ((1.5, 3.0), "dataset")}
    alone = differences(study(two)).loc["better"]
    with_more = differences(study({**two, "third": ((1.0, 1.0, 1.0), "dataset")}))
    columns = ["difference", "lower", "upper", "p"]
    pd.testing.assert_frame_equal(with_more.loc["better", columns], alone[columns])


@pytest.mark.parametrize("per", ["depth", "node"])
def test_each_variant_is_scored_at_its_own_nodes_thresholds(study, per):
    strengths = (1.0, 2.0, 3.0)
    made = study({"mcm": (strengths, "dataset"), "tuned": (strengths, per)})
    row = differences(made).loc[("tuned", *TUNED)]
    for variant, column in (("tuned", "score"), ("mcm", "baseline_score")):
        seeds = ScoreTables.load(made.scores("toy")).seeds[variant]
        expected = seeds["macro_f1_with_positives_tuned"].mean()
        assert row[column] == pytest.approx(expected, rel=1e-5)
    assert row["difference"] != 0
    # They differ in their thresholds alone.
    assert differences(made).loc[("tuned", *RANKING), "difference"] == 0


def test_where_thresholds_are_missing_nothing_tuned_is_compared(study):
    made = study({"mcm": ((1.0, 2.0), "dataset"), "untuned": ((1.0, 2.0), None)})
    at = differences(made).index.get_level_values("at")
    assert set(at) == {"half", "none"}


def test_recall_at_the_baselines_precision_by_hand():
    # Two nodes, side by side; the second is rare.
    targets = np.array([[1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0]]).T
    # Right in 2 of 3 and in 1 of 2: a precision of 3 / 5, of rare nodes 1 / 2.
    base = np.array([[0.9, 0.8, 0.1, 0.1, 0.6, 0.1], [0.9, 0.1, 0.6, 0.1, 0.1, 0.1]]).T
    # From the top: hit, hit, hit, miss, miss, hit (4 / 6), and then never as precise as 3 / 5
    # again. The rare node: hit, miss, miss, hit (2 / 4), miss.
    own = np.array([[0.9, 0.8, 0.7, 0.01, 0.6, 0.5], [0.45, 0.1, 0.2, 0.2, 0.05, 0.05]]).T
    test = {"mcm": np.stack([base, base]), "other": np.stack([own, base])}
    table = recall_at_precision_of(
        "mcm", test, sparse.csr_array(targets), np.array([False, True])
    ).set_index("variant")
    # The baseline at its own precision: 3 of 6 hits, 2 of 4 and 1 of 2.
    assert table.loc["mcm"].tolist() == [0.5, 0.5, 0.5, 0.5]
    other = table.loc["other"]
    assert other["micro_recall_all"] == pytest.approx((4 / 6 + 3 / 6) / 2)
    assert other["macro_recall_all"] == pytest.approx(((3 / 4 + 1 / 2) / 2 + 1 / 2) / 2)
    assert other["micro_recall_rare"] == pytest.approx((1 + 1 / 2) / 2)
    assert other["macro_recall_rare"] == pytest.approx((1 + 1 / 2) / 2)


@pytest.mark.parametrize("counted_in", [["train"], ["train", "valid"]])
def test_rare_nodes_are_counted_in_the_declared_part(study, counted_in):
    made = study({"mcm": ((1.0, 2.0), "dataset")})
    evaluation = made.parameters.evaluation.model_copy(update={"rarity_counted_in": counted_in})
    made.parameters = made.parameters.model_copy(update={"evaluation": evaluation})
    rare = Material.load(made, "toy", ["mcm"]).groups["rare"]
    dataset = load_dataset("synthetic")
    rows = np.concatenate([dataset.split[part] for part in counted_in])
    positives = dataset.targets.toarray()[rows].sum(axis=0)[dataset.evaluated]
    np.testing.assert_array_equal(rare, (positives >= 1) & (positives <= 10))
    other = dataset.counts("test")[dataset.evaluated]
    assert ((other >= 1) & (other <= 10) != rare).any()


def test_rare_nodes_have_headlines_and_what_became_of_them(study, tmp_path):
    variants = {"mcm": ((1.0, 2.0), "dataset"), "better": ((3.0, 4.0), "dataset")}
    made = study({**variants, "untuned": ((0.5, 0.5), None)})
    evaluation = evaluate(made, "toy", tmp_path / "reports", tmp_path / "training")
    tables = ScoreTables.load(made.scores("toy"))
    nodes = tables.nodes["better"]
    rare = nodes[nodes["rarity"].isin(["1–5", "6–10"]) & (nodes["test_positives"] > 0)]
    by_seed = rare.groupby("seed")["average_precision"].mean()
    assert headline(evaluation)["better"]["rare AP"] == pytest.approx(by_seed.mean(), abs=1e-5)
    written = pd.read_csv(tmp_path / "reports" / "tables" / "rare_nodes.csv", keep_default_na=False)
    assert not (tmp_path / "reports" / "tables" / "rare_nodes.md").exists()
    assert set(written["variant"]) == {"mcm", "better"}
    own = written[written["variant"] == "better"].set_index("node")
    assert set(own.index) == set(rare["node"])
    assert own["misses"].tolist() == sorted(own["misses"], reverse=True)
    at_tuned = rare.groupby("node")[["true_positives_tuned", "false_positives_tuned"]].mean()
    assert own["hits"].to_dict() == pytest.approx(at_tuned["true_positives_tuned"].to_dict())
    assert own["false_alarms"].to_dict() == pytest.approx(
        at_tuned["false_positives_tuned"].to_dict()
    )
    assert (own["hits"] + own["misses"] == own["test_examples"]).all()
    dataset = load_dataset("synthetic")
    missed = own[own["missed"] != ""].iloc[0]
    row = int(missed["missed"].removeprefix("example "))
    assert row in dataset.split["test"]
    assert dataset.targets[row, dataset.hierarchy.index[missed.name]] == 1


def test_without_a_tuned_threshold_one_half_is_taken(study):
    table = evaluate_dataset(study({"mcm": ((1.0, 2.0), None)}), "toy").rare_nodes
    assert set(table["at"]) == {"0.5"}


def finds() -> pd.DataFrame:
    """Three rare nodes of two variants, most missed first."""
    columns = "variant name training_examples test_examples hits misses false_alarms taken_for found missed"
    rows = [
        ("mcm", "a", 5, 4, 0.0, 4.0, 1.0, "b*", "", "<x> & `y`"),
        ("mcm", "b*", 6, 3, 1.25, 1.75, 0.5, "nothing", "$1", "a|b"),
        ("better", "a", 5, 4, 3.5, 0.5, 2.0, "nothing", "x", "y"),
        ("mcm", "c", 1, 2, 2.0, 0.0, 0.0, "", "z", ""),
        ("better", "b*", 6, 3, 3.0, 0.0, 0.0, "", "x", ""),
        ("better", "c", 1, 2, 0.0, 2.0, 0.0, "nothing", "", "z"),
    ]
    return pd.DataFrame(rows, columns=columns.split())


def test_rare_nodes_that_were_found_are_counted_by_their_training_examples():
    table = rare_nodes_table(finds())
    assert table.index.tolist() == [
        ("1–5", "better"), ("1–5", "mcm"), ("6–10", "better"), ("6–10", "mcm"),
    ]  # fmt: skip
    assert table.columns.tolist() == [
        "nodes", "test examples", "hits", "false alarms", "nodes never found", "nodes always found",
    ]  # fmt: skip
    assert table.loc[("1–5", "mcm")].tolist() == [2, 6, 2.0, 1.0, 1, 1]
    assert table.loc[("1–5", "better")].tolist() == [2, 6, 3.5, 2.0, 1, 0]
    assert table.loc[("6–10", "better")].tolist() == [1, 3, 3.0, 0.0, 0, 1]


def test_the_most_missed_are_shown_with_texts_as_they_are():
    table = missed_table(finds(), "mcm", 2)
    assert table.index.tolist() == ["a", "b&#42;"]
    assert table["misses"].tolist() == [4.0, 1.8]
    assert table["misses taken for"].tolist() == ["b&#42;", "nothing"]
    assert table["an example that was missed"].tolist() == [
        "&#60;x&#62; &#38; &#96;y&#96;", "a&#124;b",
    ]  # fmt: skip
    assert table["an example that was found"].tolist() == ["", "&#36;1"]
