"""Parameters are checked before anything runs; messages say what, where, and the mend."""

from pathlib import Path

import pytest
import yaml

from rarenodes.datasets import load_dataset
from rarenodes.settings import SettingsError
from rarenodes.study import Study
from rarenodes.variants import VariantSettings, build_loss

TINY = Path(__file__).parent / "tiny" / "params.yaml"


def study_with(tmp_path: Path, change) -> Study:
    values = yaml.safe_load(TINY.read_text())
    change(values)
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return Study(path)


def set_value(*keys):
    *path, last, value = keys

    def change(values):
        for key in path:
            values = values[key]
        values[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_value("sead", 1), r"params\.yaml: unknown key 'sead'; did you mean 'seed'\?"),
        (
            set_value("training", "epoch", 3),
            r"params\.yaml: training: unknown key 'epoch'; did you mean 'epochs'\?",
        ),
        (
            set_value("training", "epochs", "ten"),
            r"training\.epochs: expected .*integer, found 'ten'",
        ),
        (set_value("training", "epochs", 0), r"training\.epochs: expected greater than 0, found 0"),
        (set_value("training", "seeds", -1), r"training\.seeds: expected greater than 0, found -1"),
        (set_value("training", "fit_on", []), r"training\.fit_on: .*at least 1 item"),
        (set_value("datasets", {}), r"datasets: .*at least 1 item"),
        (set_value("variants", {}), r"variants: .*at least 1 item"),
        (
            set_value("datasets", "toy", "source", "synthetik"),
            r"datasets\.toy: unknown source 'synthetik'; did you mean 'synthetic'\?",
        ),
        (
            set_value("datasets", "toy", "options", {"exampels": 3}),
            r"datasets\.toy\.options: unknown key 'exampels'; did you mean 'examples'\?",
        ),
        (
            set_value("datasets", "toy", "train_fraction", 1.5),
            r"datasets\.toy\.train_fraction: expected less than or equal to 1, found 1\.5",
        ),
        (
            set_value("evaluation", "baseline", "mmc"),
            r"unknown variant 'mmc'; did you mean 'mcm'\?",
        ),
        (
            set_value("evaluation", "contrasts", {"mcm": "weighted_binry"}),
            r"unknown variant 'weighted_binry'; did you mean 'weighted_binary'\?",
        ),
        (
            set_value("variants", "mcm", "focal", {"uncertainty": "gnu"}),
            r"variants\.mcm\.focal\.uncertainty: expected .*'gmu'.*, found 'gnu'",
        ),
        (
            set_value("variants", "mcm", "training", {"membrs": 1}),
            r"variants\.mcm\.training: unknown key 'membrs'; did you mean 'members'\?",
        ),
        (
            set_value("evaluation", "resamples", 0),
            r"evaluation\.resamples: expected greater than 0",
        ),
    ],
)
def test_messages(tmp_path, change, message):
    with pytest.raises(SettingsError, match=message):
        study_with(tmp_path, change)


def test_unknown_names_suggest_the_nearest():
    study = Study(TINY)
    with pytest.raises(SettingsError, match=r"unknown data set 'toi'; did you mean 'toy'\?"):
        study.dataset("toi")
    with pytest.raises(SettingsError, match=r"unknown variant 'mcn'; did you mean 'mcm'\?"):
        study.variant("mcn")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- a\n- b\n", "expected a mapping of settings, found list"),
        ("a: [1\n", "not valid YAML"),
        ("", "expected a mapping of settings, found NoneType"),
    ],
)
def test_files_that_are_no_parameters(tmp_path, content, message):
    (tmp_path / "params.yaml").write_text(content)
    with pytest.raises(SettingsError, match=message):
        Study(tmp_path / "params.yaml")


def test_missing_file(tmp_path):
    with pytest.raises(SettingsError, match="no such file"):
        Study(tmp_path / "params.yaml")


def test_find_walks_up(tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "params.yaml").write_text(TINY.read_text())
    monkeypatch.chdir(tmp_path / "notebooks")
    assert Study.find().folder == Path("..")


def test_find_outside_a_study(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match=r"no params\.yaml in"):
        Study.find()


def test_training_settings_of_data_set_and_variant_win(tmp_path):
    def change(values):
        values["datasets"]["toy"]["training"] = {"epochs": 7, "members": 9}
        values["variants"]["mcm"]["training"] = {"members": 1}

    study = study_with(tmp_path, change)
    assert study.training("toy", "mcm").epochs == 7
    assert study.training("toy", "mcm").members == 1
    assert study.training("toy", "weighted_binary").members == 9
    assert study.training("toy_limited", "mcm").epochs == study.parameters.training.epochs


def test_checkpoints_are_keyed_by_what_a_run_depends_on(tmp_path):
    dataset = load_dataset("synthetic")
    study = study_with(tmp_path, lambda values: None)
    key = study.checkpoint(dataset, "toy", "mcm", 0)
    assert key == study.checkpoint(dataset, "toy", "mcm", 0)
    changed = study_with(tmp_path, set_value("training", "epochs", 99))
    others = [
        study.checkpoint(dataset, "toy", "mcm", 1),
        study.checkpoint(dataset, "toy", "weighted_binary", 0),
        study.checkpoint(load_dataset("synthetic", seed=9), "toy", "mcm", 0),
        changed.checkpoint(dataset, "toy", "mcm", 0),
    ]
    assert len({key, *others}) == 5


@pytest.mark.parametrize(
    ("weights", "positive", "negative"),
    [
        ({"mode": "binary"}, True, False),
        ({"mode": "binary", "target": "negatives"}, False, True),
        ({"mode": "class-wise", "target": "both"}, True, True),
    ],
)
def test_build_loss_puts_weights_where_the_variant_says(weights, positive, negative):
    variant = VariantSettings.model_validate({"about": "a test", "weights": weights})
    loss = build_loss(variant, load_dataset("synthetic"))
    assert (loss.positive_weight is not None) == positive
    assert (loss.negative_weight is not None) == negative


def test_counts_follow_the_parts_trained_on():
    dataset = load_dataset("synthetic")
    variant = VariantSettings.model_validate({"about": "a test", "weights": {"mode": "binary"}})
    on_train = build_loss(variant, dataset).positive_weight
    on_both = build_loss(variant, dataset, ["train", "valid"]).positive_weight
    assert not on_train.equal(on_both)


def test_every_variant_of_the_default_study_is_documented():
    study = Study(Path(__file__).parents[1] / "params.yaml")
    assert all(len(v.about) > 10 for v in study.parameters.variants.values())
