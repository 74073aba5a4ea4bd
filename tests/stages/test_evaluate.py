"""Evaluation of results that were made up, not trained."""

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy.special import expit

from rarenodes.datasets import load_dataset
from rarenodes.stages.evaluate import evaluate_dataset
from rarenodes.stages.score import ScoreTables, score
from rarenodes.study.params import Study
from rarenodes.study.results import Results

PARAMETERS = {
    "seed": 1,
    "datasets": {"toy": {"about": "made", "source": "synthetic"}},
    "training": {
        "seeds": 3,
        "members": 1,
        "epochs": 1,
        "batch_size": 64,
        "learning_rate": 0.005,
        "hidden": 16,
    },
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


def test_seeds_are_drawn_in_pairs_where_variants_have_equally_many(study):
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
