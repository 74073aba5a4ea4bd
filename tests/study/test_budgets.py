"""Tuned budgets: each data set and variant gets its own, and nobody goes without unnoticed."""

from pathlib import Path

import pytest
import yaml

from rarenodes.datasets import load_dataset
from rarenodes.settings import SettingsError
from rarenodes.stages.pipeline import pipeline_text
from rarenodes.study.params import Study

TINY = Path(__file__).parents[1] / "tiny" / "params.yaml"
CHOSEN = {"learning_rate": 0.25, "weight_decay": 0.5, "epochs": 7}


def budgets(**changes) -> dict:
    options = Study(TINY).searched_data("toy").options
    return {
        "datasets": {"toy": {"source": "synthetic", "train_fraction": 1.0, "options": options}},
        "budgets": {
            "toy": {
                "mcm": dict(CHOSEN),
                "weighted_binary": {"learning_rate": 0.125, "weight_decay": 0.0, "epochs": 3},
                "linear": {"penalty": 30.0},
            }
        },
        **changes,
    }


def study_with(folder: Path, chosen: dict, change=lambda values: None) -> Study:
    values = yaml.safe_load(TINY.read_text())
    del values["datasets"]["toy_limited"], values["variants"]["released_focal_gmu"]
    values["variants"]["linear"] = {"about": "a linear model", "linear": {"kind": "flat"}}
    values["evaluation"]["contrasts"] = {}
    values["budgets"] = "tuning/budgets.yaml"
    change(values)
    (folder / "tuning").mkdir(exist_ok=True)
    (folder / "tuning" / "budgets.yaml").write_text(yaml.safe_dump(chosen))
    (folder / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    return Study(folder / "params.yaml")


def test_each_variant_gets_its_own_budget_and_keeps_the_rest(tmp_path):
    study = study_with(tmp_path, budgets())
    of_mcm, of_weighted = (study.training("toy", v) for v in ("mcm", "weighted_binary"))
    assert (of_mcm.learning_rate, of_mcm.weight_decay, of_mcm.epochs) == (0.25, 0.5, 7)
    assert (of_weighted.learning_rate, of_weighted.epochs) == (0.125, 3)
    assert (of_mcm.hidden, of_mcm.batch_size, of_mcm.members) == (16, 64, 2)
    assert study.variant("linear", "toy").linear.penalty == 30.0
    assert study.variant("linear", "toy").linear.kind == "flat"
    assert study.variant("linear").linear.penalty == 1.0


def test_a_budget_goes_before_what_data_set_and_variant_say(tmp_path):
    def change(values):
        values["datasets"]["toy"]["training"] = {"epochs": 11, "hidden": 5}
        values["variants"]["mcm"]["training"] = {"learning_rate": 0.75, "members": 3}

    training = study_with(tmp_path, budgets(), change).training("toy", "mcm")
    assert (training.epochs, training.learning_rate) == (7, 0.25)
    assert (training.hidden, training.members) == (5, 3)


def test_a_variant_that_was_not_searched_is_refused_with_the_mend(tmp_path):
    chosen = budgets()
    del chosen["budgets"]["toy"]["weighted_binary"]
    with pytest.raises(
        SettingsError,
        match=r"tuning/budgets\.yaml: budgets\.toy\.weighted_binary: missing.*run `dvc repro`.*"
        r"'toy' or 'weighted_binary' under `untuned`",
    ):
        study_with(tmp_path, chosen)


@pytest.mark.parametrize("name", ["weighted_binary", "toy"])
def test_what_is_named_untuned_keeps_the_declared_settings(tmp_path, name):
    chosen = budgets()
    del chosen["budgets"]["toy"]["weighted_binary"]
    study = study_with(tmp_path, chosen, lambda values: values.update(untuned=[name]))
    assert study.training("toy", "weighted_binary").epochs == 2
    assert study.training("toy", "mcm").epochs == (7 if name == "weighted_binary" else 2)


def four_networks(of: str):
    def change(values):
        values["variants"]["four"] = {
            "about": "four networks", "budget_of": of, "training": {"members": 4}
        }  # fmt: skip

    return change


def test_a_larger_ensemble_takes_the_budget_of_a_smaller_one(tmp_path):
    study = study_with(tmp_path, budgets(), four_networks("mcm"))
    four, two = (study.training("toy", v) for v in ("four", "mcm"))
    assert (four.members, two.members) == (4, 2)
    assert four.model_dump(exclude={"members"}) == two.model_dump(exclude={"members"})
    # A further data set trains nothing again.
    stages = yaml.safe_load(pipeline_text(study))["stages"]
    assert {"tuning/budgets.yaml": ["budgets.${item.dataset}"]} in stages["train"]["params"]


@pytest.mark.parametrize(
    ("of", "message"),
    [
        ("mmc", r"variants\.four\.budget_of: unknown variant 'mmc'.*'mcm'"),
        ("linear", r"variants\.four\.budget_of: expected a variant of the same family"),
        ("four", r"variants\.four\.budget_of: expected .* a budget of its own, found 'four'"),
    ],
)
def test_a_budget_is_taken_of_a_searched_variant_of_the_same_family(tmp_path, of, message):
    with pytest.raises(SettingsError, match=message):
        study_with(tmp_path, budgets(), four_networks(of))


@pytest.mark.parametrize(
    ("chosen", "change", "message"),
    [
        ({}, {"untuned": ["mmc"]}, "untuned: unknown data set or variant 'mmc'.*'mcm'"),
        ({}, {"budgets": "none.yaml"}, r"params\.yaml: budgets: .*none\.yaml: no such file"),
        ({"chosen": {}}, {}, r"budgets\.yaml: unknown key 'chosen'"),
        (
            {"datasets": {"toy": {"source": "synthetic", "train_fraction": 0.5, "options": {}}}},
            {},
            r"budgets\.yaml: datasets\.toy: the search was on other data than .*params\.yaml",
        ),
        (
            {"budgets": {"toy": {"mcm": {**CHOSEN, "epoch": 3}}}},
            {"untuned": ["weighted_binary", "linear"]},
            r"budgets\.toy\.mcm of .*budgets\.yaml: unknown key 'epoch'",
        ),
        (
            {"budgets": {"toy": {"linear": {"penalty": -1.0}}}},
            {"untuned": ["weighted_binary", "mcm"]},
            r"budgets\.yaml: budgets\.toy\.linear: linear\.penalty: expected greater than 0",
        ),
    ],
)
def test_faults_are_named(tmp_path, chosen, change, message):
    with pytest.raises(SettingsError, match=message):
        study_with(tmp_path, budgets(**chosen), lambda values: values.update(change))


def test_another_budget_is_another_checkpoint(tmp_path):
    dataset = load_dataset("synthetic", seed=1)
    kept = [study_with(tmp_path, budgets())]
    longer = budgets()
    longer["budgets"]["toy"]["mcm"]["epochs"] = 8
    longer["budgets"]["toy"]["linear"]["penalty"] = 31.0
    kept.append(study_with(tmp_path, longer))
    for variant, same in (("mcm", False), ("linear", False), ("weighted_binary", True)):
        paths = {study.checkpoint(dataset, "toy", variant, 0) for study in kept}
        assert len(paths) == (1 if same else 2), variant


def test_the_pipeline_follows_the_items_own_budget(tmp_path):
    stages = yaml.safe_load(pipeline_text(study_with(tmp_path, budgets())))["stages"]
    assert {"tuning/budgets.yaml": ["budgets.${item.dataset}.${item.variant}"]} in stages["train"][
        "params"
    ]
    assert {"tuning/budgets.yaml": ["budgets.${item.dataset}"]} in stages["score"]["params"]
    assert {"tuning/budgets.yaml": ["budgets"]} in stages["compare"]["params"]
    assert not [key for key in stages["prepare"]["params"] if "tuning/budgets.yaml" in key]


@pytest.mark.parametrize(
    ("untuned", "key"),
    [
        (["mcm"], "budgets.${item.dataset}"),
        (["toy"], "budgets"),
        (["mcm", "linear", "weighted_binary"], "budgets"),
    ],
)
def test_where_one_item_is_untuned_all_follow_what_is_there(tmp_path, untuned, key):
    """DVC refuses a key that is not there."""
    study = study_with(tmp_path, budgets(), lambda values: values.update(untuned=untuned))
    stages = yaml.safe_load(pipeline_text(study))["stages"]
    assert {"tuning/budgets.yaml": [key]} in stages["train"]["params"]
