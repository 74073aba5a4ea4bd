"""The summary of a large hierarchy: by hand, and for a tiny study as the stage makes it."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from rarenodes.pages.plots import scale as plots
from rarenodes.pages.plots.verdicts import verdict_matrix
from rarenodes.pages.prose import read_values, render
from rarenodes.pages.scale import intervals_table, matrix_of
from rarenodes.scores.metrics import RARITY_BINS
from rarenodes.settings import SettingsError
from rarenodes.stages.evaluate import evaluate_dataset
from rarenodes.stages.prepare import prepare
from rarenodes.stages.scale import (
    cost_table,
    differences,
    finds_by_rarity,
    finds_table,
    precision_table,
    scale,
)
from rarenodes.stages.score import score
from rarenodes.stages.train import train as train_stage
from rarenodes.study.notebook import run_notebook
from rarenodes.study.params import Study
from rarenodes.study.results import Results

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "06_scale.ipynb"
TINY = Path(__file__).parents[1] / "tiny" / "params.yaml"


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    """A tiny study, prepared and trained."""
    values = yaml.safe_load(TINY.read_text())
    del values["datasets"]["toy_limited"]
    values["training"] |= {"seeds": 2, "members": 1, "keep_probabilities": False}
    folder = tmp_path_factory.mktemp("study")
    (folder / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    study = Study(folder / "params.yaml")
    prepare(study, "toy", study.prepared("toy"))
    for variant in study.variants:
        train_stage(study, "toy", variant, study.results("toy", variant))
    score(study, "toy", study.scores("toy"))
    return study


def nodes_of_two_seeds() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "seed": [0, 0, 0, 0, 1, 1, 1, 1],
            "rarity": ["1–5", "1–5", "1–5", ">50"] * 2,
            "test_positives": [4, 1, 0, 10] * 2,
            "true_positives_half": [2, 0, 0, 9, 0, 0, 0, 5],
            "false_positives_half": [2, 1, 7, 3, 0, 0, 0, 0],
            "true_positives_tuned": [4, 1, 0, 9] * 2,
            "false_positives_tuned": [0, 0, 0, 1] * 2,
        }
    )


def test_finds_by_hand():
    finds = finds_by_rarity({"mcm": nodes_of_two_seeds()}).set_index(["rarity", "at"])
    rare = finds.loc[("1–5", "half")]
    # Seed 0 predicts both nodes and finds one; seed 1 predicts nothing.
    assert (rare["nodes"], rare["positives"]) == (2, 5)
    assert (rare["predicted"], rare["found"]) == (0.5, 0.25)
    assert rare["recall"] == pytest.approx((2 / 5 + 0) / 2)
    assert rare["precision"] == pytest.approx(2 / 5)
    common = finds.loc[(">50", "half")]
    assert common["precision"] == pytest.approx((9 / 12 + 1) / 2)
    assert finds.loc[("1–5", "tuned"), ["found", "recall", "precision"]].tolist() == [1, 1, 1]
    assert finds.index.get_level_values("rarity").tolist() == ["1–5", "1–5", ">50", ">50"]


def test_precisions_of_all_nodes_and_of_leaves():
    overall = pd.DataFrame(
        {
            "variant": ["mcm", "b"],
            "precision_at_1": [0.75, 0.5],
            "precision_at_1_spread": [0.1, 0.1],
            "leaf_precision_at_1": [0.25, 0.125],
            "macro_f1_all_half": [0.1, 0.2],
        }
    )
    table = precision_table(overall)
    assert table.columns.tolist() == ["all nodes, at 1", "leaves, at 1"]
    assert table.loc["mcm"].tolist() == [0.75, 0.25]
    assert precision_table(overall[["variant"]]).shape == (2, 0)


def test_finds_side_by_side():
    table = finds_table(finds_by_rarity({"mcm": nodes_of_two_seeds(), "b": nodes_of_two_seeds()}))
    assert table.index.tolist() == [("1–5", "mcm"), ("1–5", "b"), (">50", "mcm"), (">50", "b")]
    assert table.loc[("1–5", "b"), "found at 0.5"] == 0.25
    assert table.columns[-1] == "precision tuned"


def test_costs_are_those_of_the_benches(tmp_path):
    assert cost_table(tmp_path / "none.csv").empty
    path = tmp_path / "costs.csv"
    path.write_text("seed,seconds,au_prc,peak_bytes,members,batch\n0,90.0,0.5,1.26e9,5,256\n")
    assert cost_table(path).loc[5].tolist() == [256, 1.5, 1.3]


def test_the_summary_covers_all_variants(study, tmp_path):
    summary = scale(study, "toy", tmp_path)
    for name, table in summary.tables().items():
        expected = set(study.variants) - ({"mcm"} if name == "differences" else set())
        assert set(table["variant"]) == expected, name
        assert len(pd.read_csv(tmp_path / "tables" / f"{name}.csv")) == len(table)
        assert (tmp_path / "tables" / f"{name}.md").exists()
    values = read_values(tmp_path)
    assert values["variants"] == list(study.variants)
    assert values["ranking"] == pytest.approx(
        summary.overall["macro_average_precision_with_positives"]
    )
    text = render("scale_opening", values)
    assert "**Ranking**" in text
    row = values["against"]["all"][0]
    assert f"`{row['variant']}` {row['score']:.3f} ({row['difference']:+.3f} [" in text


def test_differences_are_near_those_of_the_bootstrap(study, tmp_path):
    """The same trainings with their probabilities kept, compared by the stage `evaluate`."""
    values = yaml.safe_load(study.params_file.read_text())
    values["training"]["keep_probabilities"] = True
    values["evaluation"]["resamples"] = 1000
    tables = {}
    for name in ("kept", "not"):
        folder = tmp_path / name
        shutil.copytree(study.folder, folder)
        values["training"]["keep_probabilities"] = name == "kept"
        (folder / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
        tables[name] = Study(folder / "params.yaml")
    kept = tables["kept"]
    for variant in kept.variants:
        train_stage(kept, "toy", variant, kept.results("toy", variant))
    score(kept, "toy", kept.scores("toy"))
    key = ["measure", "nodes", "at", "variant", "baseline"]
    exact = evaluate_dataset(kept, "toy").differences.set_index(key)
    found = scale(tables["not"], "toy", tmp_path / "scale").differences.set_index(key)
    both = exact.index.intersection(found.index)
    assert {measure for measure, *_ in both} == {"macro_average_precision", "macro_recall"}
    assert {nodes for _, nodes, *_ in both} >= {"with_positives", "rare"}
    exact, found = exact.loc[both], found.loc[both]
    for column in ("score", "baseline_score", "difference"):
        np.testing.assert_allclose(found[column], exact[column], atol=1e-6)
    np.testing.assert_allclose(found["positives"], exact["positives"])
    # 75 test examples: what is not to first order is at its largest.
    ratio = found["standard_error"] / exact["standard_error"]
    assert ratio.between(0.65, 1.5).all()
    assert ratio.median() == pytest.approx(1, abs=0.1)


def test_kept_probabilities_are_compared_by_another_stage(study, tmp_path):
    results = Results(pd.DataFrame({"seed": [0], "epoch": [1]}))
    with pytest.raises(SettingsError, match=r"mcm: .* set training.keep_probabilities to false"):
        differences(study, "toy", {}, {"mcm": results})


def test_one_variant_is_shown_without_differences(study, tmp_path):
    shutil.copytree(study.folder, tmp_path / "study")
    values = yaml.safe_load(study.params_file.read_text())
    values["variants"] = {"mcm": values["variants"]["mcm"]}
    values["evaluation"]["contrasts"] = {}
    (tmp_path / "study" / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    alone = Study(tmp_path / "study" / "params.yaml")
    score(alone, "toy", alone.scores("toy"))
    summary = scale(alone, "toy", tmp_path)
    assert summary.differences.empty
    assert intervals_table(summary.differences).empty
    verdict_matrix(matrix_of(summary.differences))
    assert "nothing to compare it with: `mcm`" in render("scale_opening", read_values(tmp_path))


def test_the_matrix_has_bins_in_order(study, tmp_path):
    table = matrix_of(scale(study, "toy", tmp_path).differences)
    labels = list(dict.fromkeys(table["label"]))
    assert labels[0] == "average precision, all nodes"
    assert labels[-2:] == ["recall of rare nodes at 0.5", "recall of rare nodes at tuned threshold"]
    bins = [label.removeprefix("average precision, nodes with ") for label in labels[1:-2]]
    assert bins == [name for name in RARITY_BINS if name in bins]
    assert set(table["baseline"]) == {"mcm"}  # contrasts with others are in the table alone
    shown = intervals_table(scale(study, "toy", tmp_path).differences)
    assert set(shown["beside"]) == {"mcm", "weighted_binary"}


def test_figures_show_every_variant(study, tmp_path):
    summary = scale(study, "toy", tmp_path)
    for figure in (
        plots.learning_curves(summary.history),
        plots.scores_by_group(summary.by_rarity, "rarity"),
        plots.finds(summary.finds),
    ):
        legend = {text.get_text() for text in figure.axes[0].get_legend().get_texts()}
        assert set(study.variants) <= legend


@pytest.mark.slow
def test_notebook(study):
    shown = run_notebook(
        NOTEBOOK, {"dataset": "toy"}, {"folder": Path("reports/scale")}, study.folder
    )
    text = shown.read_text()
    assert "released_focal_gmu" in text
    assert {path.stem for path in (shown.parent / "figures").glob("*.svg")} == {
        "by_depth",
        "by_rarity",
        "finds",
        "learning_curves",
        "verdicts",
    }
    shutil.rmtree(shown.parent)
