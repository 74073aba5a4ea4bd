"""An audit of results that were made up, not trained, so that its answers are known."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from scipy.special import expit

from rarenodes.datasets import load_dataset
from rarenodes.pages.audit import (
    AT_TUNED,
    count_cells,
    decomposition_cells,
    effect_cells,
    matched_cells,
    score_cells,
)
from rarenodes.pages.plots import audit as plots
from rarenodes.pages.prose import read_values, render
from rarenodes.scores import metrics
from rarenodes.settings import SettingsError
from rarenodes.stages import material
from rarenodes.stages.audit import Audit, audit, audit_study, besides
from rarenodes.stages.audit.effects import COMPARED
from rarenodes.stages.audit.rare_nodes import node_counts
from rarenodes.stages.audit.switches import switch_pairs, switch_table
from rarenodes.stages.score import ScoreTables, score
from rarenodes.study.params import Study
from rarenodes.study.results import Results
from rarenodes.training.ensemble import Ensemble, Shape

# Two would have one degree of freedom: hardly anything could be clear.
SEEDS = 4
MORE_DATA = {"fit_on": ["train", "valid"]}
WEIGHTS = {"mode": "class-wise"}
VARIANTS = {
    "plain": {},
    "weighted": {"weights": WEIGHTS},
    "summed": {"weights": WEIGHTS, "reduction": "released"},
    "released": {"weights": WEIGHTS, "reduction": "released", "training": MORE_DATA},
    "unweighted": {"reduction": "released"},
    "plain_more": {"training": MORE_DATA},
}
PARAMETERS = {
    "seed": 1,
    "variants": {name: {"about": name, **values} for name, values in VARIANTS.items()},
    "training": {
        "seeds": SEEDS,
        "members": 1,
        "epochs": 1,
        "batch_size": 64,
        "learning_rate": 0.005,
        "hidden": 16,
    },
    "evaluation": {"baseline": "plain", "resamples": 200},
    "audit": {
        "there": ["plain", "weighted", "summed", "released"],
        "back": {"unweighted": "summed", "plain_more": "released"},
    },
}
DATASET = load_dataset("synthetic", options={"examples": 600, "features": 4})
NODES = DATASET.evaluated
TARGETS = DATASET.targets.toarray()[:, NODES]
NOISE = np.random.default_rng(0).normal(size=(SEEDS, *TARGETS.shape))
# Every (strength, shift) of made-up predictions: how well they rank, and how readily they say yes.
SHIFTED = {
    "plain": (1.5, -3.0),
    "weighted": (1.5, -3.5),
    "summed": (1.5, -2.0),
    "released": (1.5, -1.0),
    "unweighted": (1.5, -2.5),
    "plain_more": (1.5, -3.0),
}
BETTER = {**SHIFTED, "summed": (4.0, -3.0), "released": (4.0, -3.0)}


def predicted(strength: float, shift: float, part: str) -> np.ndarray:
    """`[seeds, examples, nodes]`: equal strengths rank alike, whatever the shift."""
    rows = DATASET.split[part]
    # Double precision: rounding would make ties that a shift undoes.
    return np.ascontiguousarray(expit(NOISE[:, rows] + strength * TARGETS[rows] + shift))


def make(folder: Path, strengths, change=lambda values: None, datasets=("toy",)) -> Study:
    """A study with these results, the same on all of its data sets."""
    values = json.loads(json.dumps(PARAMETERS))
    values["datasets"] = {name: {"about": "made", "source": "synthetic"} for name in datasets}
    change(values)
    (folder / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    study = Study(folder / "params.yaml")
    for name in study.parameters.datasets:
        DATASET.save(study.prepared(name))
        for variant, made in strengths.items():
            fake(study, name, variant, made)
        if set(strengths) == set(values["variants"]):
            score(study, name, study.scores(name))
    return study


def fake(study: Study, name: str, variant: str, made: tuple[float, float]) -> None:
    training = study.training(name, variant)
    test, valid = predicted(*made, "test"), predicted(*made, "valid")
    Results(
        history=pd.DataFrame({"seed": [0], "epoch": [1]}),
        test=test[: training.seeds],
        valid=None if "valid" in training.fit_on else valid[: training.seeds],
    ).save(study.results(name, variant))


@pytest.fixture(scope="module")
def shifted(tmp_path_factory) -> tuple[Study, Audit]:
    """All variants rank alike and differ in a shift of all logits."""
    study = make(tmp_path_factory.mktemp("shifted"), SHIFTED, datasets=("toy", "other"))
    return study, audit_study(study)


@pytest.fixture(scope="module")
def better(tmp_path_factory) -> tuple[Study, Audit]:
    """The summed loss ranks better, and nothing else does anything to speak of."""
    study = make(tmp_path_factory.mktemp("better"), BETTER, datasets=("toy", "other"))
    return study, audit_study(study)


def recall(study: Study, variant: str, seed: int | None = None) -> float:
    recalls = ScoreTables.load(study.scores("toy")).seeds[variant][
        "macro_recall_with_positives_half"
    ]
    return recalls.mean() if seed is None else recalls[seed]


TUNED_F1 = ("macro_f1", "with_positives", "tuned")
RANKED = ("macro_average_precision", "with_positives", "none")


def of(table: pd.DataFrame, dataset: str = "toy") -> pd.DataFrame:
    return table[table["dataset"] == dataset]


# --- which variants differ by what --------------------------------------------------------------


def test_pairs_follow_from_settings(shifted):
    table = switch_table(switch_pairs(shifted[0]))
    found = list(
        table[["kind", "switch", "off", "on", "trained_alike"]].itertuples(index=False, name=None)
    )
    assert found == [
        ("there", "weights", "plain", "weighted", True),
        ("there", "reduction", "weighted", "summed", True),
        ("there", "training data", "summed", "released", False),
        ("back", "weights", "unweighted", "summed", True),
        ("elsewhere", "reduction", "plain", "unweighted", True),
        ("elsewhere", "training data", "plain", "plain_more", False),
        ("whole", "weights + reduction", "plain", "summed", True),
        ("whole", "weights + reduction + training data", "plain", "released", False),
        ("whole", "weights + reduction", "plain_more", "released", True),
    ]
    assert table["settings"][3] == "weights: none → class-wise, paper, examples"
    assert table["settings"][5] == "training.fit_on: train → train + valid"


def test_members_are_part_of_a_method_and_hyperparameters_are_not(tmp_path):
    def change(values):
        values["variants"]["weighted"] = {"about": "w", "training": {"members": 3}}
        values["variants"]["summed"] = {
            "about": "s",
            "training": {"members": 3, "batch_size": 4, "learning_rate": 0.1},
        }

    steps = switch_pairs(make(tmp_path, {}, change))[:2]
    assert [step.switch for step in steps] == ["ensemble", "hyperparameters"]
    assert [step.trained_alike for step in steps] == [True, False]
    assert steps[1].change == "training.batch_size: 64 → 4; training.learning_rate: 0.005 → 0.1"


def drop_audit(values):
    del values["audit"]


def make_equal(values):
    values["variants"]["weighted"] = values["variants"]["plain"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop_audit, r"params.yaml: audit: missing; give `there`"),
        (make_equal, r"audit: 'plain' and 'weighted' differ in no setting"),
    ],
)
def test_studies_that_cannot_be_audited(tmp_path, change, message):
    with pytest.raises(SettingsError, match=message):
        audit_study(make(tmp_path, {}, change))


# --- effects ------------------------------------------------------------------------------------


def test_effects_are_those_of_having_a_switch_on(shifted):
    study, found = shifted
    effects = of(found.effects).set_index(["measure", "nodes", "at", "off", "on"])
    recalls = effects.xs(("macro_recall", "with_positives", "half"), level=(0, 1, 2))
    for (off, on), row in recalls.iterrows():
        assert row["difference"] == pytest.approx(recall(study, on) - recall(study, off), rel=1e-4)
    # Undoing weights on the way back takes recall away: having them on adds it.
    assert recalls.loc[("unweighted", "summed"), "difference"] > 0
    assert recalls.loc[("plain", "weighted"), "difference"] < 0


def test_a_shift_changes_no_ranking(shifted):
    effects = shifted[1].effects
    ranking = effects[effects["at"] == "none"]
    assert set(ranking["measure"]) == {"macro_average_precision", "micro_average_precision"}
    assert (ranking[["difference", "lower", "upper"]] == 0).all(axis=None)
    assert (shifted[1].nodes["difference"] == 0).all()


def test_single_switches_and_whole_methods_are_families_of_their_own(shifted):
    effects = of(shifted[1].effects)
    for _, part in effects.groupby(["measure", "nodes", "at"]):
        for whole in (True, False):
            family = part[(part["kind"] == "whole") == whole]
            smallest = family["p"].min()
            assert family["holm_p"].min() == pytest.approx(min(1, smallest * len(family)))


def test_scores_are_those_of_the_results_and_missing_without_tuned_thresholds(shifted):
    study, found = shifted
    scores = of(found.scores).set_index(["measure", "nodes", "at", "variant"])["score"]
    for variant in VARIANTS:
        seeds = ScoreTables.load(study.scores("toy")).seeds[variant].mean()
        for at in ("half", "tuned"):
            for convention in ("all", "with_positives"):
                expected = seeds[f"macro_f1_{convention}_{at}"]
                assert scores["macro_f1", convention, at, variant] == pytest.approx(
                    expected, rel=1e-4, nan_ok=True
                )
        pooled = scores["micro_average_precision", "all", "none", variant]
        assert pooled == pytest.approx(seeds["micro_average_precision"], rel=1e-4)
    assert np.isnan(scores["macro_recall", "rare", "tuned", "released"])
    assert not np.isnan(scores["macro_recall", "rare", "tuned", "summed"])


def test_rarity_is_that_of_the_training_part_for_all(shifted):
    by_rarity = of(shifted[1].by_rarity)
    counts, tested = DATASET.counts("train")[NODES], DATASET.counts("test")[NODES] > 0
    bins = pd.Series(np.asarray(metrics.rarity_bin(counts))[tested]).value_counts().to_dict()
    for variant, part in by_rarity[by_rarity["measure"] == "recall_half"].groupby("variant"):
        assert dict(zip(part["rarity"], part["nodes"], strict=True)) == bins, variant


# --- where the gain comes from ------------------------------------------------------------------


def moved(found: Audit, off: str, on: str) -> pd.DataFrame:
    """What thresholds do for a pair, by part."""
    table = of(found.decomposition)
    chosen = (table["kind"] == "threshold") & (table["off"] == off) & (table["on"] == on)
    return table[chosen].set_index("part")


@pytest.mark.parametrize("case", ["shifted", "better"])
def test_steps_add_up_to_the_gain_and_so_do_oracle_and_rest(case, request):
    study, found = request.getfixturevalue(case)
    table = of(found.decomposition)
    gain = recall(study, "released") - recall(study, "plain")
    steps = table[table["kind"] == "there"]
    assert steps["difference"].sum() == pytest.approx(gain, rel=1e-5)
    assert steps["share"].sum() == pytest.approx(1)
    whole = table[table["kind"] == "whole"].iloc[0]
    assert whole["difference"] == pytest.approx(gain, rel=1e-5)
    assert whole["share"] == pytest.approx(1)
    assert whole["share_lower"] == pytest.approx(whole["lower"] / gain, rel=1e-5)
    for off, on in (("plain", "released"), ("plain_more", "released"), ("plain", "summed")):
        parts = moved(found, off, on).loc[["oracle threshold", "beyond the oracle"]]
        gain = recall(study, on) - recall(study, off)
        assert parts["difference"].sum() == pytest.approx(gain, rel=1e-5)
        assert parts["share"].sum() == pytest.approx(1)


def test_an_oracle_does_all_that_a_shift_does(shifted):
    study, found = shifted
    for off, on in (("plain", "released"), ("plain_more", "released"), ("plain", "summed")):
        parts = moved(found, off, on)
        # Precision is not monotone: a threshold still lower may be as precise.
        more = parts.loc["oracle threshold", "on_recall"] - recall(study, on)
        assert -1e-6 <= more <= 0.02
        beyond = parts.loc["beyond the oracle"]
        assert beyond["lower"] <= 0 <= beyond["upper"]


def test_an_oracle_does_not_rank(better):
    for off, on in (("plain", "released"), ("plain_more", "released"), ("plain", "summed")):
        assert moved(better[1], off, on).loc["beyond the oracle", "lower"] > 0


def test_tuned_thresholds_are_those_of_the_results(shifted):
    study, found = shifted
    seeds = ScoreTables.load(study.scores("toy")).seeds["plain"]
    tuned = moved(found, "plain", "released").loc["tuned threshold", "on_recall"]
    assert tuned == pytest.approx(seeds["macro_recall_with_positives_tuned"].mean(), rel=1e-5)
    assert "tuned threshold" not in moved(found, "plain_more", "released").index


def test_recall_at_matched_precision_by_hand(better):
    table = of(better[1].matched).set_index(["reference", "variant"])
    test = DATASET.split["test"]
    support = TARGETS[test].sum(axis=0)
    for reference in ("plain", "released"):
        recalls = []
        for own, others in zip(
            predicted(*BETTER["plain"], "test"), predicted(*BETTER[reference], "test"), strict=True
        ):
            wanted = TARGETS[test][others > 0.5].mean()
            # Lower the threshold one score at a time, and keep the last that is precise enough.
            order = np.sort(own.ravel())[::-1]
            hits = TARGETS[test].ravel()[np.argsort(-own.ravel())].cumsum()
            precise = np.flatnonzero(hits / np.arange(1, len(hits) + 1) >= wanted)
            found_at = (own >= order[precise[-1]]) & (TARGETS[test] > 0)
            recalls.append((found_at.sum(axis=0)[support > 0] / support[support > 0]).mean())
        row = table.loc[(reference, "plain")]
        assert row["recall"] == pytest.approx(np.mean(recalls))
        assert row["recall_spread"] == pytest.approx(np.std(recalls, ddof=1))


def test_no_gain_has_no_shares_and_nothing_to_divide_up(tmp_path):
    study = make(tmp_path, dict.fromkeys(VARIANTS, (1.5, -2.0)))
    found = audit_study(study)
    assert found.decomposition["share"].isna().all()
    assert "That is no clear gain, so there is nothing to divide up" in render(
        "audit_gain", found.values
    )


def test_a_released_setting_that_is_never_right_has_no_precision_to_match(tmp_path):
    study = make(tmp_path, {**SHIFTED, "released": (1.5, -50.0)})
    found = audit_study(study)
    assert "oracle threshold" not in moved(found, "plain", "released").index
    rows = found.matched[found.matched["reference"] == "released"]
    assert rows["recall"].isna().all()
    assert found.values["oracle_recall"] == [None]
    assert "released has no precision to match" in render("audit_threshold", found.values)


# --- rare nodes ---------------------------------------------------------------------------------


def test_rare_nodes_have_the_average_precision_of_metrics(better):
    found = of(better[1].nodes)
    pair = found[(found["off"] == "plain") & (found["on"] == "released")].set_index("node")
    counts, test = DATASET.counts("train")[NODES], DATASET.split["test"]
    support = TARGETS[test].sum(axis=0)
    rare = (counts >= 1) & (counts <= 10) & (support > 0)
    names = np.array(DATASET.hierarchy.nodes)[NODES]
    assert list(pair.index) == list(names[rare])
    for side, variant in (("off", "plain"), ("on", "released")):
        expected = np.mean(
            [
                metrics.average_precision(of_seed, TARGETS[test])
                for of_seed in predicted(*BETTER[variant], "test")
            ],
            axis=0,
        )
        assert pair[f"{side}_average_precision"].to_numpy() == pytest.approx(
            expected[rare], rel=1e-5
        )
    assert (pair["p"].notna() == (pair["test_positives"] >= 3)).all()
    assert (pair["adjusted_p"].dropna() >= pair["p"].dropna()).all()


def test_nodes_are_counted_by_sign_and_by_test():
    nodes = pd.DataFrame(
        {
            "off": "plain",
            "on": "other",
            "trained_alike": True,
            "difference": [0.3, 0.2, 0.1, -0.1, -0.2, 0.0],
            "p": [0.001, 0.04, np.nan, 0.03, 0.6, 1.0],
            "adjusted_p": [0.005, 0.067, np.nan, 0.067, 0.75, 1.0],
        }
    )
    (row,) = node_counts(nodes, 0.05).to_dict("records")
    assert row == {
        "off": "plain",
        "on": "other",
        "trained_alike": True,
        "rare_nodes": 6,
        "higher": 3,
        "lower": 2,
        "tested": 5,
        "better": 1,
        "worse": 0,
        "better_alone": 2,
        "worse_alone": 1,
        "by_chance": pytest.approx(0.125),
    }


# --- besides the loss ---------------------------------------------------------------------------


def with_imputation(values):
    values["audit"]["imputation"] = ["plain"]
    values["variants"]["plain"]["training"] = {"keep_ensembles": True}


def keep_networks(study: Study) -> None:
    shape = Shape(features=4, hidden=8, layers=1, nodes=len(DATASET.hierarchy), dropout=0.0)
    for name in study.parameters.datasets:
        for seed in range(SEEDS):
            network = Ensemble(shape, [torch.Generator().manual_seed(seed)])
            network.save(study.results(name, "plain") / f"ensemble-{seed}")


@pytest.mark.parametrize("changed", [0, 3])
def test_imputation_compares_the_same_networks_on_two_fillings(tmp_path, monkeypatch, changed):
    features = DATASET.features.copy()
    features[DATASET.split["test"][:changed], 0] += 1

    def released(source, root, *, seed, train_fraction, options):
        assert options == {"imputation": "released"}
        return replace(DATASET, features=features)

    monkeypatch.setattr(besides, "load_dataset", released)
    study = make(tmp_path, SHIFTED, with_imputation)
    keep_networks(study)
    found = audit_study(study)
    table = of(found.imputation)
    share = changed / (4 * len(DATASET.split["test"]))
    assert table["features_changed"].to_numpy() == pytest.approx(share)
    assert (table["largest_change"] > 0).all() == (changed > 0)
    if not changed:
        assert (table["difference"] == 0).all()
        assert "no change of a score is clear" in render("audit_besides", found.values)
    text = "Filling gaps of the test part with its own means changes up to"
    assert f"{text} {100 * share:.1f} % of its features" in render("audit_besides", found.values)


def test_networks_that_were_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(besides, "load_dataset", lambda *_, **__: DATASET)
    study = make(tmp_path, SHIFTED, with_imputation)
    message = (
        r"toy plain: no networks of seed 0 .* set variants.plain.training.keep_ensembles to true"
    )
    with pytest.raises(SettingsError, match=message):
        audit_study(study)


def test_oversampling_stays_within_its_budget_and_truncation_is_told_apart(shifted):
    table = of(shifted[1].oversampling).set_index("method")
    released = "HROS-PD, released order"
    published = ["LP-ROS", "HROS-PD, whole copies", "HROS-PD, truncated copies"]
    assert list(table.index) == [*published, released]
    assert (table["examples"] == len(DATASET.split["train"])).all()
    assert table.loc[released, "added"] > 0
    table = table.loc[published]
    assert (table["added"] <= table["examples"] / 10).all()
    hros = table.drop("LP-ROS")
    assert (hros["mean_ir_nodes_after"] < hros["mean_ir_nodes_before"]).all()


# --- what is said of it -------------------------------------------------------------------------


def test_words_tell_a_shift_from_a_better_ranking(shifted, better):
    a_shift, a_ranking = shifted[1].values, better[1].values
    assert a_shift["largest_step"] == ["training data"] * 2
    assert a_ranking["largest_step"] == ["reduction"] * 2
    # All variants rank alike: no difference in any seed or replicate.
    assert a_shift["method_ranking_verdict"] == ["same"] * 2
    assert a_ranking["method_ranking_verdict"] == ["better"] * 2
    threshold = render("audit_threshold", a_ranking)
    assert threshold.count("more than one threshold for all nodes could do") == 2
    assert "more than" not in render("audit_threshold", a_shift)
    assert (a_shift["nodes_better"], a_shift["nodes_worse"]) == ([0, 0], [0, 0])
    assert min(a_ranking["nodes_better"]) > 0


def test_words_speak_of_the_partner_that_is_trained_alike(shifted):
    study, found = shifted
    values = found.values
    assert (values["baseline"], values["released"]) == ("plain", "released")
    assert values["partner"] == values["compared"] == "plain_more"
    for side, variant in (("off", "plain_more"), ("on", "released")):
        assert values[f"method_recall_{side}"] == pytest.approx([recall(study, variant)] * 2)
    assert "Against plain_more, which is trained alike" in render("audit_opening", values)


def test_words_say_where_no_partner_is_trained_alike(tmp_path):
    def change(values):
        del values["audit"]["back"]["plain_more"]

    values = audit_study(make(tmp_path, SHIFTED, change)).values
    assert (values["partner"], values["compared"]) == (None, "plain")
    assert "No variant without the method is trained like released" in render(
        "audit_opening", values
    )


def test_words_name_what_depends_on_what_else_is_on(shifted, tmp_path):
    # There, weights take recall away; on the way back, having them on adds some.
    assert all("weights" in switches for switches in shifted[1].values["depends"])
    alike = {"weighted": (1.5, -2.8), "unweighted": (1.5, -2.2), "summed": (1.5, -2.0)}
    found = audit_study(make(tmp_path, {**SHIFTED, **alike}))
    assert "weights" not in found.values["depends"][0]


def test_words_state_limits(shifted):
    text = render("audit_limits", shifted[1].values)
    assert "2 data sets, toy and other" in text
    assert "No validation examples are left for released and plain_more" in text
    assert "4 seeds" in text


def test_cells_show_missing_scores_as_dashes(shifted):
    cells = score_cells(shifted[1].scores, "toy", AT_TUNED)
    assert set(cells.loc["released"]) == {"–"}
    assert "–" not in set(cells.loc["plain"])
    assert list(cells.index) == list(VARIANTS)
    effects = effect_cells(shifted[1].effects, "toy", COMPARED).droplevel(["kind", "switch"])
    tuned, ranked = COMPARED[TUNED_F1], COMPARED[RANKED]
    assert effects.loc["released − summed", tuned] == "–"
    assert effects.loc["summed − weighted", ranked] == "+0.000 [+0.000, +0.000]"


# --- the stage ----------------------------------------------------------------------------------


def test_every_table_is_written(tmp_path):
    found = audit(make(tmp_path, SHIFTED), tmp_path / "out")
    written = {path.name for path in (tmp_path / "out" / "tables").iterdir()}
    expected = {f"{name}.{kind}" for name in found.tables() for kind in ("csv", "md")}
    assert written == expected - {"nodes.md"}
    scores = pd.read_csv(tmp_path / "out" / "tables" / "scores.csv")
    assert len(scores) == len(found.scores)
    values = read_values(tmp_path / "out")
    assert values["released"] == "released"
    assert render("audit_opening", values) == render("audit_opening", found.values)


def test_figures_and_cells_show_every_data_set_and_pair(shifted):
    _, found = shifted
    first = plots.ladder(found.scores, found.switches)
    assert len(first.axes) == 2 * 3
    assert len(plots.switch_effects(found.effects, found.switches).axes) == 2 * 3
    bins = found.by_rarity["rarity"].nunique()
    assert len(plots.precision_by_rarity(found.by_rarity, found.switches).axes) == 2 * bins
    panels = plots.rare_node_differences(found.nodes, "toy", 0.05).axes
    shown = [axis for axis in panels if axis.axison]
    assert len(shown) == len(found.node_counts) / 2
    for cells, table in (
        (decomposition_cells, found.decomposition),
        (matched_cells, found.matched),
        (count_cells, found.node_counts),
    ):
        assert len(cells(table, "toy")) > 0


def test_one_step_is_a_way(tmp_path):
    def change(values):
        values["audit"] = {"there": ["plain", "summed"]}

    values = audit_study(make(tmp_path, SHIFTED, change)).values
    assert values["largest_step"] == ["weights + reduction"]
    # Only weights and reduction differ, so the baseline is the partner.
    assert (values["released"], values["partner"]) == ("summed", "plain")


def test_without_rare_nodes_there_is_less_to_say(tmp_path, monkeypatch):
    monkeypatch.setattr(material, "RARE_BINS", ())
    found = audit_study(make(tmp_path, SHIFTED))
    assert "no rare node has enough test positives" in render("audit_nodes", found.values)
    assert "of rare nodes 0" not in render("audit_opening", found.values)
    figure = plots.rare_node_differences(found.nodes, "toy", 0.05)
    assert "toy has no rare node" in figure.axes[0].texts[0].get_text()
    assert count_cells(found.node_counts, "toy").empty
    assert "average precision of rare nodes" not in effect_cells(found.effects, "toy", COMPARED)


def test_one_seed_is_compared_without_the_randomness_of_training(tmp_path):
    study = make(tmp_path, SHIFTED, lambda values: values["training"].update(seeds=1))
    found = audit_study(study)
    assert found.scores["seed_spread"].isna().all()
    assert "1 seed." in render("audit_limits", found.values)


def test_stages_to_run_first_are_named(tmp_path):
    study = make(tmp_path, {"plain": (1.5, -2.0)})
    with pytest.raises(FileNotFoundError, match="run the stage train@toy-weighted first"):
        audit_study(study)


def test_results_without_probabilities_are_refused(tmp_path):
    study = make(tmp_path, SHIFTED)
    folder = study.results("toy", "summed")
    shutil.rmtree(folder)
    Results(history=pd.DataFrame({"seed": [0], "epoch": [1]})).save(folder)
    with pytest.raises(
        SettingsError, match=r"toy summed: .* set training.keep_probabilities to true"
    ):
        audit_study(study)
