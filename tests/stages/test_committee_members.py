"""What each member adds to a committee, from predictions to a table."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from rarenodes.models.model import Model
from rarenodes.scores.metrics import average_precision
from rarenodes.stages.combine import combine
from rarenodes.stages.committee_members import COLUMNS, mean_without, what_members_add
from rarenodes.stages.fit import _run, fit
from rarenodes.stages.material import Material
from rarenodes.stages.prepare import prepare
from rarenodes.stages.score import score
from rarenodes.stages.train import train
from rarenodes.study.params import Study
from rarenodes.study.results import Results

TINY = Path(__file__).parents[1] / "tiny" / "params.yaml"
NAME = "toy"


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    folder = tmp_path_factory.mktemp("study")
    values = yaml.safe_load(TINY.read_text())
    values["datasets"].pop("toy_limited")
    values["variants"] = {
        "mcm": {"about": "the baseline"},
        "neighbours": {"about": "neighbours", "neighbours": {"count": 5}},
        "pair": {
            "about": "both, alike",
            "committee": {"members": ["mcm", "neighbours"], "weights": "equal"},
        },
        "by_rarity": {
            "about": "both, by rarity",
            "committee": {"members": ["mcm", "neighbours"], "weights": "rarity"},
        },
    }
    values["evaluation"] = {"baseline": "mcm", "resamples": 50}
    values["stages"] = ["prepare", "train", "combine", "score", "scores", "evaluate"]
    values["committees"] = ["pair", "by_rarity"]
    committees = {name: values["variants"].pop(name) for name in values["committees"]}
    (folder / "catalogue.yaml").write_text(yaml.safe_dump({"variants": committees}))
    values["catalogue"] = ["catalogue.yaml"]
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    study = Study(folder / "params.yaml")
    prepare(study, NAME, study.prepared(NAME))
    for variant in ("mcm", "neighbours"):
        train(study, NAME, variant, study.results(NAME, variant))
    combine(study, NAME, folder / "combined" / NAME)
    score(study, NAME, study.scores(NAME))
    return study


@pytest.fixture(scope="module")
def material(study) -> Material:
    return Material.load(study, NAME, list(study.variants))


@pytest.mark.parametrize("committee", ["pair", "by_rarity"])
@pytest.mark.parametrize(("left", "other"), [("mcm", "neighbours"), ("neighbours", "mcm")])
def test_without_one_of_two_the_other_ranks_alone(study, material, committee, left, other):
    """A geometric mean of one member alone ranks the examples of each node as it does itself."""
    alone = Results.load(study.results(NAME, other)).test
    found = mean_without(study, material.dataset, NAME, committee, left)
    assert len(found) == 2  # seeds of the committee
    for seed, probabilities in enumerate(found):
        expected = average_precision(alone[min(seed, len(alone) - 1)], material.targets)
        np.testing.assert_allclose(
            average_precision(probabilities, material.targets), expected, atol=1e-6
        )


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("committee", ["pair", "by_rarity"])
def test_a_model_that_is_kept_is_that_run_of_the_study(study, material, committee, seed, tmp_path):
    model = fit(study, NAME, committee, tmp_path / "model", seed)
    rows = material.dataset.split["test"]
    expected = Results.load(study.results(NAME, committee)).test[seed]
    for kept in (model, Model.load(tmp_path / "model")):
        found = kept.probabilities(material.dataset.features[rows])
        np.testing.assert_array_equal(found[:, material.dataset.evaluated], expected)


def test_members_that_are_trained_by_chance_have_the_run_that_is_asked_for(study, tmp_path):
    card = fit(study, NAME, "pair", tmp_path / "model", seed=5).card
    runs = {member["variant"]: member["seed"]["run"] for member in card["members"]}
    assert runs == {"mcm": 5, "neighbours": 0}


def test_a_member_with_fewer_runs_has_the_one_that_is_combined(study, material, tmp_path):
    values = yaml.safe_load(study.params_file.read_text())
    values["variants"]["once"] = {"about": "one run", "training": {"seeds": 1}}
    values["variants"]["uneven"] = {"about": "", "committee": {"members": ["mcm", "once"]}}
    values["committees"] = ["uneven"]
    values.pop("catalogue")
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    uneven = Study(tmp_path / "params.yaml")
    for seed, expected in ((1, [1, 0]), (5, [5, 5])):
        run = _run(uneven, material.dataset, NAME, "uneven", seed)
        assert [member.streams.seed for member in run.members] == expected


def test_the_table_says_what_the_predictions_say(study, material):
    table = what_members_add(study, material)
    assert list(table.columns) == COLUMNS
    row = table.query(
        "committee == 'pair' and member == 'neighbours' and nodes == 'with_positives'"
    ).iloc[0]
    whole = Results.load(study.results(NAME, "pair")).test
    without = mean_without(study, material.dataset, NAME, "pair", "neighbours")

    def precision(runs: np.ndarray) -> float:
        return float(
            np.mean([np.nanmean(average_precision(run, material.targets)) for run in runs])
        )

    assert row["score"] == pytest.approx(precision(whole), abs=1e-5)
    assert row["without"] == pytest.approx(precision(without), abs=1e-5)
    assert row["gain"] == pytest.approx(row["score"] - row["without"])
    assert row["lower"] < row["gain"] < row["upper"]
    assert row["weight"] == 0.5


def test_a_study_without_committees_has_an_empty_table(material):
    table = what_members_add(Study(TINY), material)
    assert list(table.columns) == COLUMNS
    assert table.empty
