"""Searches for budgets as the stages make them, and what is concluded from them, by hand."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from rarenodes.pages.prose import render
from rarenodes.pages.tuning import budget_table, cost_table, needs_table, tuning_values
from rarenodes.settings import SettingsError
from rarenodes.stages import tune as stage
from rarenodes.stages.prepare import prepare
from rarenodes.stages.run import run_without_notebook
from rarenodes.stages.tuned import at_edges, choose_budgets, cost_of_micro, needs_by_rarity
from rarenodes.study.notebook import run_notebook
from rarenodes.study.params import Study
from rarenodes.training.tuning import SCORES, SETTINGS, Search

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "08_tune.ipynb"
TINY = Path(__file__).parents[1] / "tiny" / "params.yaml"
VARIANTS = {
    "mcm": {"about": "a network"},
    "forest": {"about": "a forest", "forest": {"trees": 3}},
    "neighbours": {"about": "neighbours", "neighbours": {}},
    "linear": {"about": "a linear model", "linear": {}},
}
TUNING = {
    "network": {"learning_rate": [0.005, 0.05], "weight_decay": [0.0, 0.001], "epochs": [1, 2]},
    "neighbours": {"count": [2, 5], "scale": [0.3]},
    "linear": {"penalty": [1.0, 10.0]},
    "forest": {"min_leaf": [1, 3]},
}


def write(folder: Path, **changes) -> Path:
    values = yaml.safe_load(TINY.read_text())
    del values["datasets"]["toy_limited"]
    values |= {"stages": ["prepare", "tune", "tuned"], "variants": VARIANTS, "tuning": TUNING}
    values["evaluation"]["contrasts"] = {}
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump({**values, **changes}, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    """A tiny study, prepared and searched."""
    study = Study(write(tmp_path_factory.mktemp("study")))
    prepare(study, "toy", study.prepared("toy"))
    for variant in study.variants:
        run_without_notebook(study, "tune", {"dataset": "toy", "variant": variant})
    return study


def test_a_search_has_a_row_for_every_point_and_number_of_epochs(study):
    searches = {v: pd.read_csv(study.search("toy", v) / "search.csv") for v in VARIANTS}
    for variant, search in searches.items():
        assert list(search) == ["dataset", "variant", *SETTINGS, *SCORES]
        assert set(search["variant"]) == {variant}
        assert search["macro_ap"].between(0, 1).all()
    tried = searches["mcm"][["learning_rate", "weight_decay", "epochs"]]
    assert not tried.duplicated().any()
    first = [(rate, 0.0, epochs) for rate in (0.005, 0.05) for epochs in (1, 2)]
    assert list(tried[:4].itertuples(index=False, name=None)) == first
    assert set(tried[4:]["weight_decay"]) == {0.001}
    assert searches["forest"]["min_leaf"].tolist() == [1, 3]
    assert searches["forest"]["epochs"].isna().all()


def test_a_finished_point_is_not_trained_again_and_a_new_one_is(study, tmp_path, monkeypatch):
    points = []
    search_point = stage.search_point

    def counted(variant, dataset, budget, point, *given):
        points.append(point)
        return search_point(variant, dataset, budget, point, *given)

    monkeypatch.setattr(stage, "search_point", counted)
    before = (study.search("toy", "forest") / "search.csv").read_bytes()
    stage.tune(study, "toy", "forest", tmp_path)
    assert points == []
    assert (tmp_path / "search.csv").read_bytes() == before
    tuning = {**TUNING, "forest": {"min_leaf": [1, 2, 3]}}
    larger = Study(write(study.folder, tuning=tuning))
    try:
        stage.tune(larger, "toy", "forest", tmp_path)
    finally:
        write(study.folder)
    assert points == [{"min_leaf": 2}]


def test_what_is_best_at_the_last_epoch_is_trained_for_longer(study, tmp_path):
    tuning = {**TUNING, "more_epochs": [40]}
    longer = Study(write(study.folder, tuning=tuning))
    try:
        search = stage.tune(longer, "toy", "mcm", tmp_path)
    finally:
        write(study.folder)
    before = pd.read_csv(study.search("toy", "mcm") / "search.csv")
    added = search[search["epochs"] == 40]
    best = before.loc[[before["macro_ap"].idxmax(), before["micro_ap"].idxmax()]]
    points = best[best["epochs"] == 2][["learning_rate", "weight_decay"]].drop_duplicates()
    assert len(points) > 0
    tried = added[["learning_rate", "weight_decay"]].to_numpy()
    assert tried.tolist() == points.to_numpy().tolist()
    assert len(search) == len(before) + len(points)


def test_another_seed_is_another_search(study, tmp_path):
    kept = [
        stage._kept_point(given, "data", "toy", "mcm", {"learning_rate": 0.01}, [1, 2])
        for given in (study, Study(write(tmp_path, seed=2)), Study(write(tmp_path)))
    ]
    names = [path.name for path in kept]
    assert names[0] == names[2] != names[1]


def test_a_study_without_a_search_says_where_there_is_one(study, tmp_path):
    write(tmp_path, tuning=None)
    with pytest.raises(SettingsError, match="tuning: missing; searches are declared in studies/"):
        stage.tune(Study(tmp_path / "params.yaml"), "toy", "mcm", tmp_path)
    with pytest.raises(SettingsError, match="tuning: missing"):
        choose_budgets(Study(tmp_path / "params.yaml"), tmp_path)


def test_whoever_has_the_log_alone_decides_the_same(study, tmp_path):
    run_without_notebook(study, "tuned", {})
    log = pd.read_csv(study.reports("search.csv"))
    other = Study(write(tmp_path))
    for (dataset, variant), rows in log.groupby(["dataset", "variant"]):
        other.search(dataset, variant).mkdir(parents=True)
        rows.to_csv(other.search(dataset, variant) / "search.csv", index=False)
    run_without_notebook(other, "tuned", {})
    for path in ("budgets.yaml", "reports/search.csv", "reports/tuned/values.json"):
        assert (other.folder / path).read_bytes() == (study.folder / path).read_bytes()


def test_a_variant_without_a_search_is_named_with_the_command(study, tmp_path):
    with pytest.raises(FileNotFoundError, match="run `python -m rarenodes tune toy mcm`"):
        choose_budgets(Study(write(tmp_path)), tmp_path)


def test_chosen_budgets_are_the_best_rows_and_a_study_trains_with_them(study):
    run_without_notebook(study, "tuned", {})
    search = pd.read_csv(study.reports("search.csv"))
    best = search[search["variant"] == "mcm"].sort_values("macro_ap").iloc[-1]
    values = yaml.safe_load((study.folder / "params.yaml").read_text())
    del values["tuning"]
    values |= {"budgets": "budgets.yaml", "stages": ["prepare", "train"]}
    (study.folder / "using.yaml").write_text(yaml.safe_dump(values))
    using = Study(study.folder / "using.yaml")
    training = using.training("toy", "mcm")
    assert training.learning_rate == best["learning_rate"]
    assert training.weight_decay == best["weight_decay"]
    assert training.epochs == best["epochs"]
    assert (training.hidden, training.batch_size) == (16, 64)
    forests = search[search["variant"] == "forest"].set_index("min_leaf")["macro_ap"]
    assert using.variant("forest", "toy").forest.min_leaf == forests.idxmax()
    assert using.variant("forest", "toy").forest.trees == 3
    assert using.variant("forest").forest.min_leaf == 5


def test_notebook(study):
    executed = run_notebook(NOTEBOOK, {}, {"folder": Path("reports/tuned")}, study.folder)
    text = executed.read_text()
    assert "Highest macro average precision on validation data" in text
    for figure in ("epochs", "rates", "micro_cost"):
        assert (study.reports("tuned") / "figures" / f"{figure}.svg").stat().st_size > 0
    budgets = yaml.safe_load((study.folder / "budgets.yaml").read_text())
    assert set(budgets["budgets"]["toy"]) == set(VARIANTS)
    assert (study.reports("tuned") / "values.json").exists()


# --- conclusions, by hand -------------------------------------------------------------------------


def searched() -> pd.DataFrame:
    """Two epochs at two rates: the rare nodes need the second epoch, the common ones lose by it."""
    nothing = dict.fromkeys((*SETTINGS, *SCORES), np.nan)
    rows = [
        {"learning_rate": 0.01, "epochs": 1, "ap_1–5": 0.1, "ap_>50": 0.9, "macro_ap": 0.5},
        {"learning_rate": 0.01, "epochs": 2, "ap_1–5": 0.5, "ap_>50": 0.7, "macro_ap": 0.6},
        {"learning_rate": 0.1, "epochs": 1, "ap_1–5": 0.6, "ap_>50": 0.5, "macro_ap": 0.55},
        {"learning_rate": 0.1, "epochs": 2, "ap_1–5": 0.2, "ap_>50": 0.6, "macro_ap": 0.4},
    ]
    table = pd.DataFrame([{**nothing, "weight_decay": 0.0, **row} for row in rows])
    table["rare_ap"], table["micro_ap"] = table["ap_1–5"], table["ap_>50"]
    table.insert(0, "dataset", "toy")
    table.insert(1, "variant", "mcm")
    return table


def chosen() -> pd.DataFrame:
    rows = searched().iloc[[1, 0]].reset_index(drop=True)
    rows.insert(2, "family", "network")
    rows.insert(3, "chosen_by", ["macro", "micro"])
    return rows


def test_what_each_rarity_needs_by_hand():
    needs = needs_by_rarity(searched()).set_index("rarity")
    assert needs.index.tolist() == ["1–5", ">50"]
    assert needs.loc["1–5", ["learning_rate", "epochs", "ap", "ap_by_macro"]].tolist() == [
        0.1, 1, 0.6, 0.5,
    ]  # fmt: skip
    assert needs.loc[">50", ["learning_rate", "epochs", "ap", "ap_by_macro"]].tolist() == [
        0.01, 1, 0.9, 0.7,
    ]  # fmt: skip
    shown = needs_table(needs_by_rarity(searched()))
    assert shown.loc[("toy", "1–5"), "more than by macro's budget"] == pytest.approx(0.1)


def test_what_a_budget_by_micro_costs_by_hand():
    (row,) = cost_of_micro(chosen()).to_dict("records")
    assert (row["rare_ap_by_macro"], row["rare_ap_by_micro"]) == (0.5, 0.1)
    assert (row["macro_ap_by_macro"], row["macro_ap_by_micro"]) == (0.6, 0.5)
    assert (row["micro_ap_by_macro"], row["micro_ap_by_micro"]) == (0.7, 0.9)
    assert cost_table(cost_of_micro(chosen())).loc[("toy", "mcm"), "rare AP"] == "0.500 → 0.100"


def test_choices_at_an_edge_and_what_they_gain_by_hand():
    search = Search.model_validate(
        {
            "network": {"learning_rate": [0.01, 0.1], "weight_decay": [0.0], "epochs": [1, 2]},
            "neighbours": {"count": [1], "scale": [1.0]},
            "linear": {"penalty": [1.0]},
            "forest": {"min_leaf": [1]},
        }
    )
    edges = at_edges(chosen(), searched(), search)
    found = edges[["chosen_by", "setting", "edge"]].itertuples(index=False, name=None)
    assert list(found) == [
        ("macro", "learning_rate", "lowest"),
        ("macro", "epochs", "highest"),
        ("micro", "learning_rate", "lowest"),
        ("micro", "epochs", "lowest"),
    ]
    # By macro: .6 against .55 at the other rate, and .55 after the other epoch. By micro: .9; .6, .7.
    assert edges["gain"].tolist() == pytest.approx([0.05, 0.05, 0.3, 0.2])


def test_prose_and_table_say_what_was_found():
    edges = pd.DataFrame({"chosen_by": ["macro", "macro", "micro"], "gain": [0.004, 0.1, 0.2]})
    needs = needs_by_rarity(searched())
    values = tuning_values(chosen(), cost_of_micro(chosen()), needs, edges)
    assert values["rare_cost"] == pytest.approx([0.4])
    assert values["micro_gain"] == pytest.approx([0.2])
    assert (values["edges"], values["steep_edges"]) == (2, 1)
    text = render("tuning_opening", values)
    assert "after 1 epochs at rate 0.1 and 1 at 0.01 on toy" in text
    assert "−0.400 on toy (`mcm` −0.400)" in text
    assert "rises by 0.200" in text
    assert "`mcm` 0.600 on toy" in text
    assert "2 lie at an edge of what was tried, where 1 of them gains more than 0.005" in text
    assert budget_table(chosen(), "toy").loc["mcm", "chosen"] == "learning rate 0.01, epochs 2"
