"""Parameters are checked before anything runs; messages say what, where, and the mend."""

import re
from pathlib import Path

import pytest
import yaml

from rarenodes.datasets import load_dataset
from rarenodes.settings import SettingsError
from rarenodes.study import params
from rarenodes.study.params import Study, TrainingSettings
from rarenodes.training.variants import VariantSettings, build_loss

TINY = Path(__file__).parents[1] / "tiny" / "params.yaml"


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
        (
            set_value("variants", {}),
            r"params\.yaml: variants: expected at least one",
        ),
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
            r"variants\.mcm\.focal\.uncertainty: unknown uncertainty 'gnu': known are .*gmu",
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
        ("- a\n- b\n", "expected a mapping of settings, found a list"),
        ("a: [1\n", "not valid YAML"),
        ("", "expected a mapping of settings, found nothing"),
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


# What a run does not depend on, and for everything else another value.
NO_PART_OF_A_RUN = {"seeds": 9, "keep_probabilities": False, "keep_ensembles": True}
OTHER_TRAINING = {
    "epochs": 99,
    "batch_size": 7,
    "learning_rate": 0.5,
    "weight_decay": 0.5,
    "hidden": 99,
    "layers": 3,
    "dropout": 0.1,
    "members": 9,
    "ensemble": "dropout",
    "fit_on": ["train", "valid"],
    "device": "cpu",
    "encoder": {"name": "residual"},
    "threads": 2,
}
OTHER_VARIANT = {
    "constraint": "prediction",
    "loss": {"name": "focal"},
    "weights": {"mode": "binary"},
    "focal": {"uncertainty": "gmu"},
    "shift": {"kind": "prior", "strength": 1.0},
    "balance": {},
    "mixture": 0.5,
    "reduction": "released",
    "resampling": {"method": "lp-ros"},
    "conditional_first": 0.5,
    "sparse": "still",
    "unseen": "constant",
    "forest": {},
    "neighbours": {},
    "linear": {},
    "hidden_neighbours": {},
    "training": {"epochs": 99},
}
# Parts that mean something under another constraint alone.
NEEDS_CONSTRAINT = {"conditional_first": "unconditional", "sparse": "conditional"}


def checkpoint_with(tmp_path: Path, change=lambda values: None, run=("toy", "mcm", 0), seed=1):
    dataset = load_dataset("synthetic", seed=seed)
    return study_with(tmp_path, change).checkpoint(dataset, *run)


@pytest.mark.parametrize("name", OTHER_TRAINING)
def test_a_checkpoint_depends_on_every_training_setting(tmp_path, name):
    others = [
        set_value("training", name, OTHER_TRAINING[name]),
        set_value("datasets", "toy", "training", {name: OTHER_TRAINING[name]}),
        set_value("variants", "mcm", "training", {name: OTHER_TRAINING[name]}),
    ]
    key = checkpoint_with(tmp_path)
    assert key == checkpoint_with(tmp_path)
    assert all(checkpoint_with(tmp_path, change) != key for change in others)


@pytest.mark.parametrize("name", OTHER_VARIANT)
def test_a_checkpoint_depends_on_every_part_of_the_variant(tmp_path, name):
    def change(values):
        set_value("variants", "mcm", name, OTHER_VARIANT[name])(values)
        of_constraint(values)

    def of_constraint(values):
        if name in NEEDS_CONSTRAINT:
            set_value("variants", "mcm", "constraint", NEEDS_CONSTRAINT[name])(values)

    assert checkpoint_with(tmp_path, change) != checkpoint_with(tmp_path, of_constraint)


def test_a_checkpoint_depends_on_the_data_the_root_seed_and_the_run(tmp_path):
    keys = {
        checkpoint_with(tmp_path),
        checkpoint_with(tmp_path, seed=9),
        checkpoint_with(tmp_path, set_value("seed", 2)),
        checkpoint_with(tmp_path, run=("toy", "mcm", 1)),
        checkpoint_with(tmp_path, run=("toy", "weighted_binary", 0)),
        checkpoint_with(tmp_path, run=("toy_limited", "mcm", 0)),
    }
    assert len(keys) == 6


def test_a_checkpoint_depends_on_the_code_and_on_the_libraries(tmp_path, monkeypatch):
    keys = {checkpoint_with(tmp_path)}
    with monkeypatch.context() as edited:
        edited.setattr(params, "CODE_DIGEST", "of an edited loop")
        keys.add(checkpoint_with(tmp_path))
    with monkeypatch.context() as other:
        other.setattr(params, "version", lambda package: "2.0" if package == "torch" else "1.0")
        keys.add(checkpoint_with(tmp_path))
        other.setattr(params, "version", lambda package: "1.0")
        keys.add(checkpoint_with(tmp_path))
    assert len(keys) == 4
    assert checkpoint_with(tmp_path) in keys


def test_every_setting_is_known_to_be_a_part_of_a_run_or_none():
    assert set(TrainingSettings.model_fields) == {*OTHER_TRAINING, *NO_PART_OF_A_RUN}
    # Descriptions are for readers; thresholds are tuned after the training. Committees are combined,
    # not trained; of another's budget the values count.
    no_part = {"about", "source", "threshold", "committee", "budget_of", "networks_of"}
    assert set(VariantSettings.model_fields) == {*OTHER_VARIANT, *no_part}


@pytest.mark.parametrize("name", NO_PART_OF_A_RUN)
@pytest.mark.parametrize(
    "where", [("training",), ("datasets", "toy", "training"), ("variants", "mcm", "training")]
)
def test_a_checkpoint_does_not_depend_on_how_many_runs_or_what_is_kept(tmp_path, name, where):
    def change(values):
        for key in where:
            values = values.setdefault(key, {})
        values[name] = NO_PART_OF_A_RUN[name]

    assert checkpoint_with(tmp_path, change) == checkpoint_with(tmp_path)


@pytest.mark.parametrize("name", ["about", "source"])
def test_a_checkpoint_does_not_depend_on_descriptions(tmp_path, name):
    changed = checkpoint_with(tmp_path, set_value("variants", "mcm", name, "in other words"))
    assert changed == checkpoint_with(tmp_path)


@pytest.mark.parametrize(
    ("weights", "positive", "negative"),
    [
        ({"mode": "binary"}, True, False),
        ({"mode": "binary", "orientation": "released"}, False, True),
        ({"mode": "class-wise", "orientation": "both"}, True, True),
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


# Variants that mean nothing


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            {"weights": {"mode": "binary", "beta": 0.9}},
            "variants.mcm.weights: weighting mode 'binary' has no option 'beta': it has floor=0.25",
        ),
        (
            {"weights": {"mode": "effective-number", "floor": 0.25}},
            "variants.mcm.weights: weighting mode 'effective-number' has no option 'floor': it has "
            "beta=0.999",
        ),
        (
            {"weights": {"mode": "positive"}},
            "variants.mcm.weights.mode: unknown weighting mode 'positive': known are class-wise, "
            "binary, effective-number, positive-ratio",
        ),
        (
            {"weights": {"mode": "binary", "schedule": {"kind": "linear", "ends": 1.0}}},
            "variants.mcm.weights.schedule: unknown key 'ends'; did you mean 'end'?",
        ),
        (
            {"loss": {"name": "focal", "options": {"gama": 1.0}}},
            "variants.mcm.loss: element loss 'focal' has no option 'gama': its options are "
            "gamma=2.0, alpha=None",
        ),
        (
            {"loss": {"name": "focal", "options": {"gamma": -1.0}}},
            "variants.mcm.loss: option 'gamma' of element loss 'focal' must be at least 0, found "
            "-1.0",
        ),
        (
            {"loss": {"name": "asymetric"}},
            "variants.mcm.loss.name: expected 'bce', 'focal', 'asymmetric' or 'negative_tolerant', "
            "found 'asymetric'",
        ),
        ({"shift": {"kind": "prior"}}, "variants.mcm.shift.strength: missing; it is required"),
        (
            {"mixture": 1.5},
            "variants.mcm.mixture: expected less than or equal to 1, found 1.5",
        ),
        (
            {"resampling": {"method": "lp-ros", "copies": "truncated"}},
            "variants.mcm.resampling: lp-ros makes whole copies; `copies: truncated` is of hros-pd",
        ),
        (
            {"forest": {}, "loss": {"name": "focal"}},
            "variants.mcm: a forest has no loss: remove loss",
        ),
        (
            {"forest": {}, "weights": {"mode": "binary"}, "focal": {"uncertainty": "gmu"}},
            "variants.mcm: a forest has no loss: remove focal, weights",
        ),
        (
            {"threshold": "nodes"},
            "variants.mcm.threshold: expected 'dataset', 'depth' or 'node', found 'nodes'",
        ),
        (
            {"wieghts": {"mode": "binary"}},
            "variants.mcm: unknown key 'wieghts'; did you mean 'weights'?",
        ),
    ],
)
def test_messages_of_variants_that_mean_nothing(tmp_path, entry, message):
    change = set_value("variants", "mcm", {"about": "a test", **entry})
    with pytest.raises(SettingsError, match=f"{re.escape(f'params.yaml: {message}')}$") as error:
        study_with(tmp_path, change)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["mixture", "reduction", "constraint"])
def test_a_forest_refuses_whatever_is_of_the_loss(tmp_path, name):
    entry = {"about": "a test", "forest": {}, name: OTHER_VARIANT[name]}
    with pytest.raises(
        SettingsError, match=rf"variants\.mcm: a forest has no loss: remove {name}$"
    ):
        study_with(tmp_path, set_value("variants", "mcm", entry))


# The catalogue


def with_catalogue(tmp_path: Path, change=lambda values: None, **contents: str) -> Study:
    """The tiny study with files of further variants, given as YAML by stem."""
    for stem, content in contents.items():
        (tmp_path / f"{stem}.yaml").write_text(content)

    def add(values):
        values["catalogue"] = [f"{stem}.yaml" for stem in contents]
        change(values)

    return study_with(tmp_path, add)


EXTRA = (
    "variants:\n  extra:\n    about: another\n    source: a test\n    training:\n      epochs: 7\n"
)


def test_variants_of_the_catalogue_can_be_trained_by_name_but_are_not_compared(tmp_path):
    study = with_catalogue(tmp_path, extra=EXTRA)
    assert study.variant("extra").about == "another"
    assert study.training("toy", "extra").epochs == 7
    assert "extra" not in study.variants
    table = study.variant_table().set_index("variant")
    assert list(table.index) == ["mcm", "weighted_binary", "released_focal_gmu", "extra"]
    assert table.loc["extra"].tolist() == ["another", "a test", ""]
    assert (table["compared"].iloc[:3] == "yes").all()


def test_a_study_may_name_variants_of_the_catalogue(tmp_path):
    def change(values):
        values["variants"] = ["extra"]
        values["evaluation"] = {"baseline": "extra"}

    study = with_catalogue(tmp_path, change, extra=EXTRA)
    assert list(study.variants) == ["extra"]
    assert not study.defines_variants
    assert study.variant_table()["compared"].tolist() == ["yes"]


def test_the_same_entry_may_be_in_several_files(tmp_path):
    tiny = TINY.read_text()
    study = with_catalogue(tmp_path, one=EXTRA, two=EXTRA, three=tiny)
    assert list(study.catalogue) == ["extra"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: [1\n", r"/more\.yaml: line 2: not valid YAML"),
        ("", r"/more\.yaml: expected a mapping of settings, found nothing$"),
        (
            "mcm: {about: a test}\n",
            r"/more\.yaml: variants: expected a mapping of names to variants$",
        ),
        ("variants: [mcm]\n", r"/more\.yaml: variants: expected a mapping of names to variants$"),
        (
            "variants:\n  mcm: {about: not the same}\n",
            r"/more\.yaml: variants: 'mcm' is defined differently elsewhere \(.*params\.yaml, or its "
            "catalogue\\); give one of the two another name$",
        ),
        (
            "variants:\n  extra: {about: a test, focl: {}}\n",
            r"/more\.yaml: variants\.extra: unknown key 'focl'; did you mean 'focal'\?$",
        ),
        (
            "variants:\n  extra: {about: a test, weights: {mode: binary, cap: 2.0}}\n",
            r"/more\.yaml: variants\.extra(\.|: )weights: weighting mode 'binary' has no option 'cap': it has "
            r"floor=0\.25$",
        ),
        ("variants:\n  extra:\n", r"/more\.yaml: variants\.extra: expected .*, found None$"),
        (
            "variants:\n  two words: {about: a test}\n",
            r"variants: expected a name of letters, digits, _ and -, found 'two words'",
        ),
        (
            "variants:\n  2024: {about: a test}\n",
            r"variants: line 2: expected a name as key, found '2024'; put it in quotes$",
        ),
        (
            "variants:\n  extra: {about: a test, training: {membrs: 1}}\n",
            r"variants\.extra\.training: unknown key 'membrs'; did you mean 'members'\?$",
        ),
    ],
)
def test_messages_of_bad_catalogues(tmp_path, content, message):
    with pytest.raises(SettingsError, match=message) as error:
        with_catalogue(tmp_path, more=content)
    assert len(str(error.value).splitlines()) == 1


def test_message_of_two_files_that_disagree(tmp_path):
    message = r"/two\.yaml: variants: 'extra' is defined differently elsewhere"
    with pytest.raises(SettingsError, match=message):
        with_catalogue(tmp_path, one=EXTRA, two=EXTRA.replace("another", "yet another"))


def test_message_of_a_missing_catalogue_says_who_names_it(tmp_path):
    with pytest.raises(
        SettingsError, match=r"params\.yaml: catalogue: .*none\.yaml: no such file.*from /"
    ):
        study_with(tmp_path, set_value("catalogue", ["none.yaml"]))


def test_only_compared_variants_may_be_contrasted_or_audited(tmp_path):
    for change in (
        set_value("evaluation", "baseline", "extra"),
        set_value("evaluation", "contrasts", {"mcm": "extra"}),
        set_value("audit", {"there": ["mcm", "extra"]}),
    ):
        with pytest.raises(SettingsError, match="unknown variant 'extra'"):
            with_catalogue(tmp_path, change, extra=EXTRA)


# A study in a folder below


@pytest.fixture
def below(tmp_path) -> Path:
    """A study two folders below the files it shares with others."""
    (tmp_path / "variants.yaml").write_text(EXTRA)
    values = yaml.safe_load(TINY.read_text())
    values["catalogue"] = ["../../variants.yaml"]
    values["data"] = "../../data"
    folder = tmp_path / "benchmark" / "audit"
    folder.mkdir(parents=True)
    (folder / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    return folder


def test_files_are_relative_to_the_folder_of_the_study(below, tmp_path):
    study = Study(below / "params.yaml")
    assert study.variant("extra").about == "another"
    assert study.reports("train", "toy") == below / "reports" / "train" / "toy"
    assert study.prepared("toy").resolve() == tmp_path / "data" / "processed" / "toy"
    assert study.results("toy", "mcm") == below / "results" / "toy" / "mcm"
    assert study.checkpoint(load_dataset("synthetic"), "toy", "mcm", 0).is_relative_to(below)


@pytest.mark.parametrize(("here", "above"), [(".", "."), ("notebooks", "..")])
def test_reports_of_a_study_that_is_found_from_within(below, monkeypatch, here, above):
    (below / "notebooks").mkdir()
    monkeypatch.chdir(below / here)
    study = Study.find()
    assert study.reports("compare") == Path(above, "reports", "compare")
    assert study.variant("extra").about == "another"


def test_a_missing_catalogue_of_a_study_below_is_named_where_it_was_looked_for(below, tmp_path):
    (tmp_path / "variants.yaml").unlink()
    with pytest.raises(SettingsError, match=re.escape(str(tmp_path / "variants.yaml"))):
        Study(below / "params.yaml")


# The audit


@pytest.mark.parametrize(
    ("audit", "message"),
    [
        (
            {"there": ["mcm", "weighted_binry"]},
            r"unknown variant 'weighted_binry'; did you mean 'weighted_binary'\?",
        ),
        (
            {"there": ["mcm", "weighted_binary"], "back": {"mcn": "mcm"}},
            r"unknown variant 'mcn'; did you mean 'mcm'\?",
        ),
        (
            {"there": ["mcm", "weighted_binary"], "back": {"mcm": "weighted_binry"}},
            r"unknown variant 'weighted_binry'; did you mean 'weighted_binary'\?",
        ),
        (
            {"there": ["mcm", "weighted_binary"], "imputation": ["mcn"]},
            r"unknown variant 'mcn'; did you mean 'mcm'\?",
        ),
        ({"there": ["mcm"]}, r"audit\.there: expected .*at least 2 items"),
        ({"there": ["mcm", "weighted_binary"], "bakc": {}}, r"audit: unknown key 'bakc'; did you"),
    ],
)
def test_messages_of_a_bad_audit(tmp_path, audit, message):
    with pytest.raises(SettingsError, match=message) as error:
        study_with(tmp_path, set_value("audit", audit))
    assert len(str(error.value).splitlines()) == 1


def test_an_audit_of_imputation_needs_the_networks_it_asks_for(tmp_path):
    audit = {"there": ["mcm", "weighted_binary"], "imputation": ["mcm"]}
    with pytest.raises(SettingsError, match=r"audit\.imputation: .*mcm.*keep_ensembles"):
        study_with(tmp_path, set_value("audit", audit))

    def keeping(values):
        values["audit"] = audit
        values["variants"]["mcm"]["training"] = {"keep_ensembles": True}

    assert study_with(tmp_path, keeping).training("toy", "mcm").keep_ensembles


@pytest.mark.parametrize(
    ("training", "message"),
    [
        (
            {"layers": 0},
            "layers: expected at least 1, found 0: 'hidden' looks neighbours up in the",
        ),
        ({"ensemble": "dropout"}, "ensemble: expected networks, found dropout"),
    ],
)
def test_neighbours_in_a_hidden_layer_need_one_before_anything_trains(tmp_path, training, message):
    def change(values):
        values["variants"]["hidden"] = {"about": "", "hidden_neighbours": {}}
        values["training"] |= training

    with pytest.raises(SettingsError, match=re.escape(message)):
        study_with(tmp_path, change)


def test_a_committee_is_named_once(tmp_path):
    values = yaml.safe_load(TINY.read_text())
    members = {"members": ["mcm", "weighted_binary"], "weights": "equal"}
    values["variants"]["both"] = {"about": "a committee", "committee": members}
    values["committees"] = ["both", "both"]
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    with pytest.raises(SettingsError, match="committees: 'both' is named twice"):
        Study(tmp_path / "params.yaml")
