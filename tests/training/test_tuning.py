"""Searches score what they say, try what was declared, and choose by one rule."""

import logging
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.metrics import average_precision_score

from rarenodes.datasets import load_dataset
from rarenodes.settings import SettingsError, read_settings
from rarenodes.training import tuning
from rarenodes.training.loop import Budget, Streams, train_ensemble
from rarenodes.training.tuning import (
    SCORES,
    Search,
    Validation,
    budget_of,
    choose,
    knows_its_end,
    search_point,
    with_budget,
)
from rarenodes.training.variants import VariantSettings, build_loss

STREAMS = Streams(1, "synthetic", "any", 1000)
DECLARED = {
    "network": {
        "learning_rate": [0.001, 0.01],
        "weight_decay": [0.0, 1e-4, 1e-2],
        "epochs": [1, 3],
    },
    "neighbours": {"count": [2, 5], "scale": [0.3, 1.0]},
    "linear": {"penalty": [1.0, 10.0]},
    "forest": {"min_leaf": [1, 3]},
}


def declared(**changes) -> Search:
    return read_settings(Search, {**DECLARED, **changes}, "tuning")


def variant(**settings) -> VariantSettings:
    return read_settings(VariantSettings, {"about": "a variant", **settings}, "variants.x")


@pytest.fixture(scope="module")
def dataset():
    return load_dataset("synthetic", seed=3)


@pytest.fixture(scope="module")
def budget() -> Budget:
    return Budget(
        epochs=9, batch_size=32, learning_rate=1.0, hidden=12, layers=1, dropout=0.2, members=2,
        fit_on=["train", "valid"], device="cpu",
    )  # fmt: skip


# --- what is declared -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "grid", "message"),
    [
        (
            "network",
            {"epochs": [3, 1]},
            "network.epochs: expected different values, smallest first",
        ),
        (
            "network",
            {"epochs": [1, 1]},
            "network.epochs: expected different values, smallest first",
        ),
        ("network", {"learning_rate": []}, "network.learning_rate: expected .*at least 1 item"),
        (
            "network",
            {"learning_rate": [-0.1]},
            r"network\.learning_rate\.0: expected greater than 0, found -0\.1",
        ),
        ("network", {"momentum": [1.0]}, "network: unknown key 'momentum'"),
        (
            "network",
            {"weight_decay": [-0.1]},
            r"network\.weight_decay\.0: expected greater than or equal to 0",
        ),
        (
            "linear",
            {"penalty": [0.0, 1.0]},
            r"linear\.penalty\.0: expected greater than 0, found 0",
        ),
    ],
)
def test_grids_are_checked(family, grid, message):
    with pytest.raises(SettingsError, match=message):
        declared(**{family: {**DECLARED[family], **grid}})


def test_first_all_rates_with_the_least_decay():
    assert declared().first_points("network") == [
        {"learning_rate": 0.001, "weight_decay": 0.0},
        {"learning_rate": 0.01, "weight_decay": 0.0},
    ]


def test_then_all_decays_with_the_rates_that_either_score_chooses():
    rows = pd.DataFrame(
        {
            "learning_rate": [0.001, 0.001, 0.01, 0.01],
            "epochs": [1, 3, 1, 3],
            "macro_ap": [0.1, 0.5, 0.3, 0.2],
            "micro_ap": [0.1, 0.5, 0.7, 0.6],
        }
    )
    further = declared().further_points("network", rows)
    assert further == [
        {"learning_rate": 0.001, "weight_decay": 1e-4},
        {"learning_rate": 0.001, "weight_decay": 1e-2},
        {"learning_rate": 0.01, "weight_decay": 1e-4},
        {"learning_rate": 0.01, "weight_decay": 1e-2},
    ]
    agreed = rows.assign(micro_ap=rows["macro_ap"])
    assert declared().further_points("network", agreed) == further[:2]


def test_at_last_more_epochs_for_what_is_best_at_the_last_of_them():
    rows = pd.DataFrame(
        {
            "learning_rate": [0.001, 0.001, 0.01, 0.01],
            "weight_decay": [0.0, 0.0, 1e-4, 1e-4],
            "epochs": [1, 3, 1, 3],
            "macro_ap": [0.1, 0.5, 0.3, 0.2],
            "micro_ap": [0.1, 0.5, 0.7, 0.6],
        }
    )
    search = declared(more_epochs=[5, 8])
    of_macro, of_micro = (
        {"learning_rate": 0.001, "weight_decay": 0.0},
        {"learning_rate": 0.01, "weight_decay": 1e-4},
    )
    assert search.longer_points("network", rows) == [of_macro]
    also = rows.assign(micro_ap=[0.1, 0.5, 0.6, 0.7])
    assert search.longer_points("network", also) == [of_macro, of_micro]
    agreed = rows.assign(micro_ap=rows["macro_ap"])
    assert search.longer_points("network", agreed) == [of_macro]
    assert declared().longer_points("network", rows) == []
    assert search.longer_points("forest", pd.DataFrame()) == []
    assert search.grid("network")["epochs"] == [1, 3, 5, 8]


def test_more_epochs_are_more_than_those_before():
    with pytest.raises(SettingsError, match="more_epochs: expected different numbers above 3"):
        declared(more_epochs=[3, 5])


def test_of_other_families_all_combinations_are_tried():
    assert declared().first_points("neighbours") == [
        {"count": 2, "scale": 0.3},
        {"count": 2, "scale": 1.0},
        {"count": 5, "scale": 0.3},
        {"count": 5, "scale": 1.0},
    ]
    assert declared().further_points("neighbours", pd.DataFrame()) == []
    assert declared().first_points("forest") == [{"min_leaf": 1}, {"min_leaf": 3}]


def test_a_committee_has_nothing_to_search():
    with pytest.raises(ValueError, match="a committee has no budget of its own: tune its members"):
        declared().first_points("committee")


# --- scores ---------------------------------------------------------------------------------------


def test_scores_by_hand():
    # Three evaluated nodes of four: one rare, one common, one without validation positives.
    validation = Validation(
        targets=sparse.csr_array([[1, 1, 0], [0, 1, 0], [0, 0, 0]]),
        evaluated=np.array([False, True, True, True]),
        rarity=np.array(["1–5", ">50", "0"]),
    )
    predicted = np.array([[1.0, 0.3, 0.9, 0.0], [1.0, 0.6, 0.2, 0.1], [1.0, 0.1, 0.4, 0.05]])
    scores = validation.scores(predicted)
    # The rare node's positive comes second: 1/2. The common one's come first and third: (1 + 2/3) / 2.
    assert scores["rare_ap"] == scores["ap_1–5"] == pytest.approx(1 / 2)
    assert scores["ap_>50"] == pytest.approx(5 / 6)
    assert scores["macro_ap"] == pytest.approx((1 / 2 + 5 / 6) / 2)
    # All pairs, from 0.9: hit, miss (.6), miss (.4), hit (.3), hit (.2).
    assert scores["micro_ap"] == pytest.approx((1 + 2 / 4 + 3 / 5) / 3)
    assert np.isnan(scores["ap_0"])
    assert np.isnan(scores["ap_6–10"])
    assert set(scores) == set(SCORES)


def test_scores_are_of_the_validation_part_and_rarity_of_the_training_part(dataset):
    validation = Validation.of(dataset)
    rng = np.random.default_rng(0)
    predicted = rng.random((len(dataset.split["valid"]), len(dataset.hierarchy)))
    targets = dataset.targets[dataset.split["valid"]].toarray()
    training = dataset.targets[dataset.split["train"]].toarray().sum(axis=0)
    of_node = {
        node: average_precision_score(targets[:, node], predicted[:, node])
        for node in np.flatnonzero(dataset.evaluated & targets.any(axis=0))
    }
    scores = validation.scores(predicted)
    assert scores["macro_ap"] == pytest.approx(np.mean(list(of_node.values())))
    rare = [score for node, score in of_node.items() if 1 <= training[node] <= 10]
    assert 0 < len(rare) < len(of_node)
    assert scores["rare_ap"] == pytest.approx(np.mean(rare))


def test_a_data_set_without_validation_positives_is_refused(dataset):
    bare = replace(dataset, split={**dataset.split, "valid": np.array([], dtype=np.int64)})
    with pytest.raises(ValueError, match="validation part has no positive example"):
        Validation.of(bare)


# --- trying a point -------------------------------------------------------------------------------


def tried(dataset, budget, settings, point):
    return search_point(settings, dataset, budget, point, [1, 3], STREAMS, Validation.of(dataset))


def test_scores_on_the_way_are_those_of_shorter_trainings(dataset, budget):
    """One run serves all numbers of epochs: what is scored after one is what one epoch gives."""
    point = {"learning_rate": 0.01, "weight_decay": 1e-4}
    rows = tried(dataset, budget, variant(), point)
    assert [row["epochs"] for row in rows] == [1, 3]
    for row in rows:
        spent = budget.model_copy(update={**point, "epochs": row["epochs"], "fit_on": ["train"]})
        loss = build_loss(variant(), dataset, ["train"])
        ensemble = train_ensemble(dataset, loss, spent, STREAMS).ensemble
        features = torch.from_numpy(dataset.features[dataset.split["valid"]])
        predicted = ensemble.predict(features, dataset.hierarchy).numpy()
        expected = {**point, "epochs": row["epochs"], **Validation.of(dataset).scores(predicted)}
        assert row == pytest.approx(expected, nan_ok=True)
    assert rows[0]["macro_ap"] != rows[1]["macro_ap"]


@pytest.mark.parametrize(
    ("settings", "knows"),
    [
        ({}, False),
        ({"weights": {"mode": "binary", "schedule": {"kind": "linear"}}}, True),
        ({"weights": {"mode": "binary", "schedule": {"kind": "linear", "over": "epoch"}}}, False),
        ({"weights": {"mode": "binary", "schedule": {"kind": "alternating"}}}, False),
        (
            {
                "weights": {
                    "mode": "binary",
                    "schedule": {"kind": "linear", "reading": "released"},
                },
                "reduction": "released",
            },
            False,
        ),
        ({"constraint": "unconditional", "conditional_first": 0.5}, True),
    ],
)
def test_a_loss_that_knows_its_end_is_trained_anew_for_each_number_of_epochs(
    dataset, budget, monkeypatch, settings, knows
):
    lengths = []
    train = tuning.train_ensemble

    def counted(examples, loss, spent, *given, **named):
        lengths.append(spent.epochs)
        return train(examples, loss, spent, *given, **named)

    monkeypatch.setattr(tuning, "train_ensemble", counted)
    point = {"learning_rate": 0.01, "weight_decay": 0.0}
    rows = tried(dataset, budget, variant(**settings), point)
    assert knows_its_end(variant(**settings)) == knows
    assert lengths == ([1, 3] if knows else [3])
    assert [row["epochs"] for row in rows] == [1, 3]


def test_a_training_that_breaks_off_has_no_scores_from_there_on(dataset, budget, caplog):
    point = {"learning_rate": 1e30, "weight_decay": 0.0}
    with caplog.at_level(logging.WARNING):
        rows = tried(dataset, budget, variant(), point)
    assert [row["epochs"] for row in rows] == [1, 3]
    assert np.isnan(rows[-1]["macro_ap"])
    assert "this point of the grid is given up" in caplog.text


@pytest.mark.parametrize(
    ("settings", "point"),
    [
        ({"neighbours": {}}, {"count": 2, "scale": 1.0}),
        ({"linear": {"kind": "flat"}}, {"penalty": 3.0}),
        ({"forest": {"trees": 3}}, {"min_leaf": 4}),
    ],
)
def test_other_families_are_scored_once_with_the_point_s_settings(dataset, budget, settings, point):
    (row,) = tried(dataset, budget, variant(**settings), point)
    assert set(row) == {*point, *SCORES}
    (family,) = settings
    (fixed,) = tried(dataset, budget, variant(**{family: settings[family] | point}), point)
    assert row == pytest.approx(fixed, nan_ok=True)
    (other,) = tried(dataset, budget, variant(**settings), {k: v * 3 for k, v in point.items()})
    assert row["macro_ap"] != other["macro_ap"]


# --- choosing -------------------------------------------------------------------------------------


def test_the_best_row_is_chosen_by_either_score():
    rows = pd.DataFrame(
        {
            "learning_rate": [0.001, 0.01],
            "weight_decay": [0.0, 0.1],
            "epochs": [3.0, 1.0],
            "macro_ap": [0.2, 0.1],
            "micro_ap": [0.4, 0.8],
        }
    )
    by_macro, by_micro = (budget_of(choose(rows, by), "network") for by in ("macro_ap", "micro_ap"))
    assert by_macro == {"learning_rate": 0.001, "weight_decay": 0.0, "epochs": 3}
    assert by_micro == {"learning_rate": 0.01, "weight_decay": 0.1, "epochs": 1}
    assert isinstance(by_macro["epochs"], int)
    assert isinstance(by_macro["weight_decay"], float)


def test_of_equal_rows_the_shortest_training_is_chosen_and_a_broken_one_never():
    rows = pd.DataFrame(
        {"epochs": [1, 9, 3, 3], "macro_ap": [np.nan, 0.5, 0.5, 0.5], "row": [0, 1, 2, 3]}
    )
    assert choose(rows, "macro_ap")["row"] == 2
    with pytest.raises(ValueError, match="every training broke off"):
        choose(rows.assign(macro_ap=np.nan), "macro_ap")


def test_a_budget_changes_the_settings_of_the_family_and_no_other():
    forest = variant(forest={"trees": 7})
    assert (
        with_budget(forest, {"min_leaf": 9}).forest
        == variant(forest={"trees": 7, "min_leaf": 9}).forest
    )
    plain = variant(weights={"mode": "binary"})
    assert with_budget(plain, {"epochs": 3}) == plain
    with pytest.raises(SettingsError, match="file: linear: unknown key 'min_leaf'"):
        with_budget(variant(linear={}), {"min_leaf": 9}, "file")
