"""A model predicts what was trained, from any folder, or says in one line why it cannot."""

import io
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file
from terminal import Terminal

from rarenodes import Model
from rarenodes.datasets import load_dataset
from rarenodes.folders import UnreadableFile
from rarenodes.models import files
from rarenodes.models import model as module
from rarenodes.models.fitting import fit_model, fit_predictor
from rarenodes.models.inputs import read_inputs
from rarenodes.models.predictors.committee import in_step
from rarenodes.models.run import Run
from rarenodes.settings import SettingsError
from rarenodes.training.committee import combine, traces_in, weights_on_validation
from rarenodes.training.loop import Budget, Streams
from rarenodes.training.variants import VariantSettings

EXAMPLES = Path(__file__).parents[2] / "data" / "examples"
TEXTS = {
    "examples": "texts.csv",
    "hierarchy": "animals_edges.csv",
    "text": "text",
    "split": "part",
}
FEATURES = {"examples": "features.csv", "hierarchy": "animals_edges.json", "split": "part"}
BUDGET = Budget(
    epochs=20, batch_size=8, learning_rate=0.02, hidden=16, layers=1, dropout=0.1, members=2
)
VARIANTS = {
    "maximum": {},
    "product": {"constraint": "conditional"},
    "constant": {"constraint": "conditional", "unseen": "constant"},
    "linear": {"linear": {"kind": "conditional"}},
    "flat": {"linear": {"kind": "flat"}},
    "neighbours": {"neighbours": {"count": 5}},
    "hidden": {"constraint": "conditional", "hidden_neighbours": {"count": 5}},
    "forest": {"forest": {"trees": 5, "min_leaf": 1}},
    "committee": {"committee": {"members": ["product", "neighbours", "linear"]}},
    "by rarity": {"committee": {"members": ["hidden", "forest"], "weights": "rarity"}},
    "nested": {
        "committee": {
            "members": ["committee", "hidden"],
            "mean": "arithmetic",
            "weights": "equal",
        }
    },
}
NEW = ["a puppy that barks", "hoots at night", "zebra", ""]


def dataset(options):
    return load_dataset("table", EXAMPLES, seed=1, options=options)


def run_of(variant, name="test", **changes):
    settings = VariantSettings(about="a test", **variant)
    budget = BUDGET.model_copy(update=changes)
    members = [] if settings.committee is None else settings.committee.members
    of_members = tuple(run_of(VARIANTS[member], member, **changes) for member in members)
    return Run(settings, budget, Streams(1, "animals", name, 0), None, of_members)


def fitted(data, variant, **changes):
    return fit_model(data, run_of(variant, **changes))


@pytest.fixture(scope="module")
def texts():
    return dataset(TEXTS)


@pytest.fixture(scope="module")
def saved(texts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "one"
    fitted(texts, VARIANTS["product"]).save(folder)
    return folder


@pytest.fixture(scope="module")
def nested(texts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "nested"
    fitted(texts, VARIANTS["nested"]).save(folder)
    return folder


def with_root(data, probabilities):
    """Probabilities with that of the one root, of which networks are not to be asked."""
    (root,) = data.hierarchy.roots
    probabilities[:, data.hierarchy.index[root]] = 1
    return probabilities


@pytest.mark.parametrize("variant", VARIANTS)
def test_same_bits_from_another_folder(texts, tmp_path, variant):
    model = fitted(texts, VARIANTS[variant])
    model.save(tmp_path / "here")
    shutil.copytree(tmp_path / "here", tmp_path / "far" / "away")
    shutil.rmtree(tmp_path / "here")
    loaded = Model.load(str(tmp_path / "far" / "away"))
    before, after = model.probabilities(NEW), loaded.probabilities(NEW)
    assert before.shape == (4, len(texts.hierarchy))
    np.testing.assert_array_equal(before, after)
    pd.testing.assert_frame_equal(model.predict(NEW, top=3), loaded.predict(NEW, top=3))
    assert loaded.card == model.card


def test_features_of_texts_are_those_it_was_trained_on(texts, saved):
    model = Model.load(saved)
    np.testing.assert_array_equal(model.transformation.apply(texts.texts), texts.features)


def test_features_of_columns_are_those_it_was_trained_on(tmp_path):
    data = dataset(FEATURES)
    model = fitted(data, VARIANTS["maximum"])
    model.save(tmp_path / "model")
    loaded = Model.load(tmp_path / "model")
    table = pd.read_csv(EXAMPLES / "features.csv")
    test = data.split["test"]
    expected = with_root(data, np.concatenate(list(model.predictor.predictions(data.features))))
    np.testing.assert_array_equal(loaded.probabilities(table), expected)
    assert len(loaded.predict(table.iloc[test], top=1)) == len(test)


def test_features_of_lists_are_those_it_was_trained_on():
    files = {"examples": "embeddings.parquet", "hierarchy": "animals_edges.csv", "split": "part"}
    data = dataset(files)
    model = fitted(data, VARIANTS["maximum"])
    expected = with_root(data, np.concatenate(list(model.predictor.predictions(data.features))))
    table = pd.read_parquet(EXAMPLES / "embeddings.parquet")
    np.testing.assert_array_equal(model.probabilities(table), expected)
    read = read_inputs(EXAMPLES / "embeddings.parquet", model.transformation)
    np.testing.assert_array_equal(model.probabilities(read), expected)
    matrix = np.stack(table["embedding"]).astype(np.float64)
    np.testing.assert_array_equal(model.probabilities(matrix), expected)


def test_a_matrix_in_a_file_is_what_it_was_trained_on():
    files = {"examples": "matrix_labels.csv", "hierarchy": "animals_edges.csv", "split": "part"}
    data = dataset({**files, "matrix": "matrix.npy"})
    model = fitted(data, VARIANTS["linear"])
    expected = with_root(data, np.concatenate(list(model.predictor.predictions(data.features))))
    read = read_inputs(EXAMPLES / "matrix.npy", model.transformation)
    np.testing.assert_array_equal(model.probabilities(read), expected)


def test_predicted_paths_are_those_of_the_labels():
    files = {"examples": "paths.csv", "path_separator": ">", "text": "text", "split": "part"}
    model = fitted(dataset(files), VARIANTS["linear"])
    first = model.predict(["a puppy that barks"], top=30).set_index("node")
    assert first.loc["animal > mammal > dog", "name"] == "dog"
    # The one root, which says nothing, is left out of paths.
    assert first.loc["animal > mammal > dog", "path"] == "mammal > dog"


def test_probabilities_are_those_of_the_training_run(texts, saved):
    predictor = fit_predictor(texts, run_of(VARIANTS["product"]))
    expected = with_root(texts, next(predictor.predictions(texts.features)))
    np.testing.assert_array_equal(Model.load(saved).probabilities(texts.texts), expected)


def test_networks_under_dropout_predict_the_same_each_time(texts, tmp_path):
    model = fitted(texts, {}, ensemble="dropout", members=3)
    model.save(tmp_path / "model")
    loaded = Model.load(tmp_path / "model")
    np.testing.assert_array_equal(model.probabilities(NEW), loaded.probabilities(NEW))
    np.testing.assert_array_equal(loaded.probabilities(NEW), loaded.probabilities(NEW))
    assert any("Dropout" in limit for limit in loaded.card["limits"])


def test_rules(saved):
    model = Model.load(saved)
    p = model.probabilities(NEW)
    top = model.predict(NEW, top=2)
    assert list(top.columns) == ["row", "node", "name", "path", "probability"]
    assert top["row"].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert not top["node"].isin(model.hierarchy.roots).any()
    best = p[:, model.evaluated].max(axis=1)
    np.testing.assert_array_equal(top["probability"].to_numpy()[::2], best)
    leaves = model.predict(NEW, top=2, leaves=True)
    assert leaves["node"].isin(model.hierarchy.leaves).all()
    for scope in ("global", "depth", "node"):
        chosen = (p > model.thresholds[scope].astype(np.float32)) & model.evaluated
        assert len(model.predict(NEW, threshold=scope)) == chosen.sum()
    pd.testing.assert_frame_equal(model.predict(NEW), model.predict(NEW, threshold="global"))
    assert model.predict([], top=1).empty


def test_thresholds_are_those_of_the_study(texts, saved):
    from rarenodes.scores.run_tables import Predictions, tune_thresholds

    model = Model.load(saved)
    p = model.probabilities(texts.texts)[:, texts.evaluated]
    held_out = Predictions(p[texts.split["valid"]], p[texts.split["test"]])
    for scope, per in (("global", "dataset"), ("depth", "depth"), ("node", "node")):
        expected = tune_thresholds(texts, held_out, per)
        np.testing.assert_array_equal(model.thresholds[scope][texts.evaluated], expected)
        assert np.isnan(model.thresholds[scope][~texts.evaluated]).all()


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"top": 0}, "top: expected at least 1, found 0"),
        ({"confidence": 1.5}, "confidence: expected above 0 and at most 1, found 1.5"),
        ({"threshold": "nodes"}, "threshold: expected one of global, depth, node, found 'nodes'"),
        ({"top": 1, "confidence": 0.5}, "expected one of top, confidence and threshold"),
        ({"leaves": True}, "leaves is of top alone"),
    ],
)
def test_rules_that_cannot_be(saved, rule, message):
    with pytest.raises(ValueError, match=message):
        Model.load(saved).predict(NEW, **rule)


def test_without_validation_data_there_are_no_thresholds(texts, tmp_path):
    model = fitted(texts, {}, fit_on=["train", "valid"])
    model.save(tmp_path / "model")
    model = Model.load(tmp_path / "model")
    assert model.thresholds == {}
    with pytest.raises(ValueError, match="none were tuned, as no validation data were held out"):
        model.predict(NEW, threshold="global")
    pd.testing.assert_frame_equal(model.predict(NEW), model.predict(NEW, confidence=0.5))
    assert "no validation data were held out" in (tmp_path / "model" / "card.md").read_text()


def test_card(texts, saved):
    card = json.loads((saved / "card.json").read_text())
    assert card["data"]["sha256"] == texts.checksum()
    assert card["hierarchy"]["scored_nodes"] == 10
    assert [row["rarity"] for row in card["scores"]["by_rarity"]] == ["1–5", "6–10"]
    assert sum(row["nodes"] for row in card["scores"]["by_rarity"]) == 10
    page = (saved / "card.md").read_text()
    assert texts.checksum() in page
    assert f"{card['scores']['by_rarity'][0]['average_precision']:.3f}" in page


@pytest.mark.parametrize("variant", ["maximum", "linear", "nested"])
def test_files_may_be_read_by_whoever_reads_new_files(texts, tmp_path, variant):
    fitted(texts, VARIANTS[variant]).save(tmp_path / "model")
    (tmp_path / "new").touch()
    found = {path.stat().st_mode for path in (tmp_path / "model").rglob("*") if path.is_file()}
    assert found == {(tmp_path / "new").stat().st_mode}


def test_nothing_is_pickled(saved, nested):
    for folder in (saved, nested):
        found = [path for path in folder.rglob("*") if path.is_file()]
        assert {path.suffix for path in found} == {".json", ".md", ".safetensors", ""}
        for path in found:
            if path.suffix == ".safetensors":
                load_file(path)
            else:
                path.read_text(encoding="utf-8")


IN_A_MEMBER = "members/committee/members/"


@pytest.mark.parametrize(
    "name",
    [
        "networks/ensemble.safetensors",
        "transformation.json",
        "card.md",
        "model.json",
        "committee.safetensors",
        "members/hidden/examples.safetensors",
        f"{IN_A_MEMBER}linear/linear.safetensors",
    ],
)
def test_a_damaged_model_is_refused(saved, nested, tmp_path, name):
    folder = tmp_path / "model"
    shutil.copytree(saved if (saved / name).exists() else nested, folder)
    content = bytearray((folder / name).read_bytes())
    content[-3] ^= 1
    (folder / name).write_bytes(bytes(content))
    with pytest.raises(UnreadableFile, match=r"copy the model again") as fault:
        Model.load(folder)
    assert "\n" not in str(fault.value)
    assert str(folder / name) in str(fault.value)


@pytest.mark.parametrize("name", ["SHA256SUMS", "thresholds.safetensors", "networks/ensemble.json"])
def test_a_model_of_which_a_file_is_missing_is_refused(saved, tmp_path, name):
    folder = tmp_path / "model"
    shutil.copytree(saved, folder)
    (folder / name).unlink()
    with pytest.raises(UnreadableFile, match=r"copy the model again"):
        Model.load(folder)


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no model"):
        Model.load(tmp_path)


def test_versions_that_read_a_model(saved, monkeypatch):
    assert files.library_range("0.3.7") == ("0.3.0", "0.4.0")
    assert files.library_range("2.0.1rc1") == ("2.0.0", "2.1.0")
    monkeypatch.setattr(files, "library_version", lambda: "0.1.99")
    Model.load(saved)
    monkeypatch.setattr(files, "library_version", lambda: "0.2.0")
    with pytest.raises(UnreadableFile, match=r"expected 0\.1\.0 or later, below 0\.2\.0") as fault:
        Model.load(saved)
    assert "\n" not in str(fault.value)


def test_saving_replaces_a_model_and_nothing_else(saved, tmp_path):
    model = Model.load(saved)
    folder = tmp_path / "model"
    model.save(folder)
    model.save(folder)
    Model.load(folder)
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match="found something that is no model"):
        model.save(other)
    assert (other / "thesis.tex").exists()
    (folder / "members" / "thesis").mkdir(parents=True)
    (folder / "members" / "thesis" / "thesis.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match=r"found 'members/thesis/thesis\.tex' beside"):
        model.save(folder)
    shutil.rmtree(folder / "members")
    (folder / "thesis.tex").write_text("years of work")
    with pytest.raises(
        FileExistsError, match=r"found 'thesis\.tex' beside a model, which would be lost"
    ):
        model.save(folder)
    assert (folder / "thesis.tex").exists()


def test_a_model_among_the_members_of_another_is_not_lost(saved, nested, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(nested, folder)
    Model.load(nested).save(folder)
    shutil.copytree(saved, folder / "members" / "other")
    with pytest.raises(FileExistsError, match=r"found 'members/other/.*' beside a model"):
        Model.load(nested).save(folder)
    assert (folder / "members" / "other" / "model.json").exists()


@pytest.mark.parametrize("name", ["committee", "by rarity", "nested"])
def test_a_committee_is_the_mean_of_its_members(texts, name):
    run = run_of(VARIANTS[name])
    predictor = fit_predictor(texts, run)
    settings, here = run.variant.committee, texts.evaluated
    every = texts.features
    of_members = [
        np.concatenate(list(fit_predictor(texts, member).predictions(every)))
        for member in run.members
    ]
    traces = traces_in(texts, [member.variant.family for member in run.members], settings.mean)
    given = None if traces is None else traces[:, here]
    valid = [p[texts.split["valid"]][:, here] for p in of_members]
    weights = weights_on_validation("test", texts, settings, valid, given)
    expected = combine(
        [p[:, here] for p in of_members], weights, settings.mean, texts.hierarchy, here, given
    )
    found = np.concatenate(list(predictor.predictions(every)))
    np.testing.assert_allclose(found[:, here], expected, rtol=1e-6)
    assert texts.hierarchy.is_coherent(torch.from_numpy(found))
    # A root that no score decides on is at least as probable as what is below it, and no certainty.
    (root,) = texts.hierarchy.indices(texts.hierarchy.roots)
    assert (found[:, root] >= found.max(axis=1)).all()


def test_members_of_different_batches_go_in_step():
    rows = np.arange(10, dtype=np.float32)[:, None]
    streams = [iter(np.split(rows, cuts)) for cuts in ([4, 8], [3], [1, 2, 9])]
    found = list(in_step(streams))
    for some in found:
        for other in some[1:]:
            np.testing.assert_array_equal(some[0], other)
    np.testing.assert_array_equal(np.concatenate([some[0] for some in found]), rows)
    assert list(in_step([iter([]), iter([])])) == []


def test_a_committee_needs_data_to_weigh_its_members_on(texts):
    with pytest.raises(SettingsError, match=r"^animals test decides weights on validation data"):
        fitted(texts, VARIANTS["committee"], fit_on=["train", "valid"])
    equal = {"members": ["product", "linear"], "weights": "equal"}
    model = fitted(texts, {"committee": equal}, fit_on=["train", "valid"])
    assert model.thresholds == {}
    assert [member["weight"] for member in model.card["members"]] == [0.5, 0.5]
    alone = Run(VariantSettings(about="x", committee=equal), BUDGET, Streams(1, "animals", "x", 0))
    with pytest.raises(SettingsError, match=r"a committee's members are variants"):
        fit_predictor(texts, alone)


def test_a_card_says_what_a_model_is_made_of_and_holds(texts, nested):
    card = json.loads((nested / "card.json").read_text())
    assert [member["variant"] for member in card["members"]] == ["committee", "hidden"]
    inner = card["members"][0]["members"]
    assert [member["family"] for member in inner] == ["network", "neighbours", "linear"]
    assert sum(member["weight"] for member in inner) == pytest.approx(1)
    page = (nested / "card.md").read_text()
    assert f"It holds the {len(texts.split['train'])} examples it was fitted on" in page
    assert "    - `neighbours` (a test), which counts" in page
    plain = json.loads(json.dumps(fitted(texts, VARIANTS["forest"]).card))
    assert not [limit for limit in plain["limits"] if "It holds" in limit]


def test_a_model_whose_card_names_no_members_can_be_saved_again(saved, tmp_path):
    model = Model.load(saved)
    older = {name: value for name, value in model.card.items() if name != "members"}
    replace(model, card=older).save(tmp_path / "again")
    Model.load(tmp_path / "again")


def test_memory_holds_one_batch(texts, saved, monkeypatch):
    seen = []
    loaded = Model.load(saved)
    apply = type(loaded.transformation).apply
    monkeypatch.setattr(module, "BATCH", 8)
    monkeypatch.setattr(
        type(loaded.transformation),
        "apply",
        lambda self, inputs: seen.append(len(inputs)) or apply(self, inputs),
    )
    many = list(texts.texts)
    tables = list(loaded.predictions(many, top=1))
    assert seen == [8, 8, 8, 4]
    assert [len(table) for table in tables] == seen
    assert pd.concat(tables)["row"].tolist() == list(range(28))


def test_networks_predict_on_the_cpu_unless_asked(saved):
    model = Model.load(saved)
    assert model.predictor.ensemble.weights[0].device == torch.device("cpu")


def test_long_predictions_show_a_bar_in_a_terminal_alone(saved, monkeypatch):
    model = Model.load(saved)
    expected = model.predict(NEW, top=1)

    def written(where: io.StringIO, seconds: float, **how: bool) -> str:
        monkeypatch.setattr(module, "SECONDS_BEFORE_BAR", seconds)
        monkeypatch.setattr(sys, "stderr", where)
        found = pd.concat(model.predictions(NEW, top=1, **how), ignore_index=True)
        pd.testing.assert_frame_equal(found, expected)
        return where.getvalue()

    assert "predicting: 100%" in written(Terminal(), 0)
    assert written(Terminal(), 60) == ""
    assert written(Terminal(), 0, progress=False) == ""
    assert written(io.StringIO(), 0) == ""
