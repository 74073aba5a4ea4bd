"""What figures show, read back from their axes."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt
from scipy import sparse

from rarenodes.datasets.dataset import Dataset
from rarenodes.loss.hierarchy import Hierarchy
from rarenodes.pages.plots import audit, comparison, data, evaluation, scale, training
from rarenodes.pages.tables import NODE_SCORES
from rarenodes.training.variants import VariantSettings

mpl.use("Agg")


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def by_group(group: str, found: float = 0.0) -> pd.DataFrame:
    """Two variants in two groups; each score has a value of its own."""
    rows = []
    for name, nodes in (("0", 7), ("1–5", 3)):
        for number, variant in enumerate(("mcm", "other")):
            scores = {
                score: 0.1 * (i + 1) + 0.01 * number if name != "0" else found
                for i, score in enumerate(NODE_SCORES)
            }
            spreads = {f"{score}_spread": 0.005 for score in NODE_SCORES}
            rows.append({group: name, "variant": variant, "nodes": nodes, **scores, **spreads})
    return pd.DataFrame(rows)


def dataset_of(edges: list[tuple[str, str]], counts: dict[str, int]) -> Dataset:
    """So many training examples end at each node."""
    hierarchy = Hierarchy(edges)
    ends = [hierarchy.index[node] for node, count in counts.items() for _ in range(count)]
    targets = np.zeros((len(ends), len(hierarchy)), dtype=np.uint8)
    targets[range(len(ends)), ends] = 1
    nothing = np.array([], dtype=int)
    return Dataset(
        name="toy",
        features=np.zeros((len(ends), 1), dtype=np.float32),
        targets=sparse.csr_array(hierarchy.close(torch.from_numpy(targets)).numpy()),
        hierarchy=hierarchy,
        split={"train": np.arange(len(ends)), "valid": nothing, "test": nothing},
        evaluated=np.array([node != "root" for node in hierarchy.nodes]),
        card={},
    )


def test_an_outline_stands_each_node_right_of_the_one_above_it():
    # `mid` is a child of the top, too: its depth is that of `left`, below which it is drawn.
    edges = [
        ("left", "root"),
        ("right", "root"),
        ("mid", "left"),
        ("mid", "root"),
        ("木", "mid"),
    ]
    figure = data.part_of_hierarchy(dataset_of(edges, {"mid": 2, "木": 1, "right": 3}))
    (axes,) = figure.axes
    places = {t.get_text().split()[0]: t.get_position() for t in axes.texts}
    assert set(places) == {"root", "left", "right", "mid", "U+6728"}
    steps = {name: x - places["root"][0] for name, (x, _) in places.items()}
    expected = {"root": 0, "left": 1, "right": 1, "mid": 2, "U+6728": 3}
    assert steps == pytest.approx(expected)
    assert len({y for _, y in places.values()}) == len(places)


def test_bins_narrower_than_their_labels_have_them_below_each_other():
    counts = {"a": 60, "b": 20, "c": 8, **{f"n{i}": 1 for i in range(60)}}
    figure = data.long_tail(dataset_of([(node, "root") for node in counts], counts))
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert len(boxes) == 4
    assert not [1 for i, one in enumerate(boxes) for two in boxes[:i] if one.overlaps(two)]


@pytest.mark.parametrize("family", ["forest", "neighbours", "linear"])
def test_what_has_no_loss_says_so_in_place_of_weights(family):
    kind = {"linear": {"kind": "flat"}}.get(family, {})
    variant = VariantSettings(about="a model", **{family: kind})
    figure = training.weights_by_rarity(dataset_of([("a", "root")], {"a": 1}), variant, ["train"])
    assert [text.get_text() for text in figure.axes[0].texts] == ["This has no loss to weigh."]


def test_every_score_is_drawn_in_the_row_that_names_it():
    figure = evaluation.scores_by_group(by_group("depth"), "depth", "mcm")
    axes = np.array(figure.axes).reshape(len(NODE_SCORES), 2)
    for row, (score, label) in enumerate(NODE_SCORES.items()):
        assert axes[row, 1].get_xlabel() == label
        (drawn,) = axes[row, 1].containers
        values = by_group("depth").query("depth == '1–5'")[score].tolist()
        assert drawn.lines[0].get_xdata() == pytest.approx(values)
        (baseline,) = (
            line
            for line in axes[row, 1].lines
            if line.get_label() != "_nolegend_" and len(set(line.get_xdata())) == 1
        )
        assert baseline.get_xdata()[0] == pytest.approx(values[0])
    assert [label.get_text() for label in axes[0, 0].get_yticklabels()] == ["mcm", "other"]
    assert axes[0, 1].get_title("left") == "1–5 steps deep\n(3 nodes)"


def test_nodes_that_cannot_be_found_have_no_panel_but_a_note():
    figure = evaluation.scores_by_group(by_group("rarity"), "rarity", "mcm")
    assert len(figure.axes) == len(NODE_SCORES)
    assert figure.get_supxlabel().startswith("Left out: 7 nodes without training positives")
    figure = evaluation.scores_by_group(by_group("rarity", found=0.2), "rarity", "mcm")
    assert len(figure.axes) == 2 * len(NODE_SCORES)
    assert figure.get_supxlabel() == ""


def test_a_score_that_nothing_has_has_no_row():
    table = by_group("depth").assign(f1_tuned=np.nan)
    axes = np.array(evaluation.scores_by_group(table, "depth", "mcm").axes).reshape(-1, 2)
    drawn = {score: label for score, label in NODE_SCORES.items() if score != "f1_tuned"}
    assert [axis.get_xlabel() for axis in axes[:, 1]] == list(drawn.values())


def test_calibration_has_predictions_across_and_what_came_true_upward():
    table = pd.DataFrame(
        {
            "variant": ["mcm"] * 3 + ["other"] * 3,
            "mean_predicted": [0.1, 0.4, 0.8] * 2,
            "observed_frequency": [0.05, 0.2, 0.6, 0.1, 0.0, 0.7],
            "count": [10, 10, 10, 10, 10, 10],
        }
    )
    _, other = evaluation.calibration_curves(table, "mcm").axes
    assert (other.get_xlabel(), other.get_title("left")) == ("predicted", "other")
    behind, _, own, _ = other.lines
    assert behind.get_xdata().tolist() == [0.1, 0.4, 0.8]
    assert behind.get_ydata().tolist() == [0.05, 0.2, 0.6]
    # Nothing came true of the second: it has no place on a log-odds scale.
    assert own.get_xdata().tolist() == [0.1, 0.8]
    assert own.get_ydata().tolist() == [0.1, 0.7]


def test_precision_and_recall_have_their_own_axes():
    curves = pd.DataFrame(
        {"variant": ["mcm"] * 2, "recall": [0.1, 0.9], "precision": [0.8, 0.3], "lowest_score": 0.5}
    )
    (axis,) = evaluation.precision_recall_curves(curves, "mcm").axes
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("recall", "precision")
    (line,) = axis.lines
    assert line.get_xydata().tolist() == [[0.1, 0.8], [0.9, 0.3]]


def test_thresholds_are_marked_at_a_half_and_where_tuned():
    sweep = pd.DataFrame(
        {"variant": "mcm", "threshold": [0.1, 0.3, 0.5], "macro_f1_with_positives": [0.2, 0.4, 0.3]}
    )
    overall = pd.DataFrame({"variant": ["mcm"], "threshold_tuned": [0.2]})
    (axis,) = evaluation.threshold_sweep(sweep, overall, "mcm").axes
    _, half, tuned = axis.lines
    assert half.get_xydata().tolist() == [[0.5, 0.3]]
    assert tuned.get_xydata()[0] == pytest.approx([0.2, 0.3])


KEY = ("macro_recall", "rare", "half")


def differences() -> pd.DataFrame:
    rows = [
        ("toy", "a", "mcm", 0.3, 0.2, 0.4),
        ("toy", "b", "mcm", -0.1, -0.2, 0.1),
        ("toy", "b", "a", -0.4, -0.5, -0.3),
    ]
    columns = ["dataset", "variant", "baseline", "difference", "lower", "upper"]
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(measure=KEY[0], nodes=KEY[1], at=KEY[2])


def test_differences_are_drawn_with_their_sign_and_filled_where_they_leave_out_0():
    (axis,) = evaluation.difference_forest(differences(), "mcm", {KEY: "recall"}).axes
    _, bar_a, dot_a, bar_b, dot_b = axis.lines
    assert bar_a.get_xdata() == pytest.approx([0.2, 0.4])
    assert (dot_a.get_xydata().tolist(), dot_a.get_markerfacecolor() == "white") == (
        [[0.3, 0]],
        False,
    )
    assert bar_b.get_xdata() == pytest.approx([-0.2, 0.1])
    assert (dot_b.get_xydata().tolist(), dot_b.get_markerfacecolor()) == ([[-0.1, 1]], "white")


def test_recall_against_ranking_shows_each_score_under_its_name():
    ranking = differences().assign(
        measure="macro_average_precision", at="none", difference=lambda t: t["difference"] / 10
    )
    both = pd.concat([differences(), ranking])
    found, ranked = comparison.recall_against_ranking(both, "mcm").axes
    assert found.lines[2].get_xdata().tolist() == [0.3]
    assert ranked.lines[2].get_xdata() == pytest.approx([0.03])
    assert "recall" in found.get_title("left")
    assert "average precision" in ranked.get_title("left")


# --- an audit -----------------------------------------------------------------------------------

SWITCHES = pd.DataFrame(
    {
        "kind": ["there", "back"],
        "switch": ["w", "w"],
        "off": ["plain", "back"],
        "on": ["full", "full"],
    }
)


def by_rarity(found: float) -> pd.DataFrame:
    rows = [
        (measure, rarity, nodes, variant, score)
        for rarity, nodes in (("0", 35), ("1–5", 140))
        for measure in ("average_precision", "recall_half")
        for variant, score in (
            ("plain", found if rarity == "0" else 0.2),
            ("full", found if rarity == "0" else 0.3),
            ("back", found if rarity == "0" else 0.25),
        )
    ]
    table = pd.DataFrame(rows, columns=["measure", "rarity", "nodes", "variant", "score"])
    return table.assign(dataset="toy", lower=table["score"] - 0.1, upper=table["score"] + 0.1)


def test_ranking_by_rarity_leaves_out_what_nothing_finds():
    figure = audit.precision_by_rarity(by_rarity(0.0), SWITCHES)
    (axis,) = figure.axes
    assert axis.get_title("left") == "1–5 positives\n(140 nodes)"
    assert "toy: Left out: 35 nodes" in figure.get_supxlabel()
    dots = [line.get_xdata()[0] for line in axis.lines if len(line.get_xdata()) == 1]
    assert dots == pytest.approx([0.2, 0.3, 0.25])
    assert len(audit.precision_by_rarity(by_rarity(0.1), SWITCHES).axes) == 2


def test_effects_of_switches_lie_where_they_were_measured():
    keys = list(audit.RECALL_AND_RANKING)
    rows = [
        ("there", "w", 0.05, *keys[0]),
        ("back", "w", 0.03, *keys[0]),
        ("whole", "w", 9.0, *keys[0]),
    ]
    table = pd.DataFrame(rows, columns=["kind", "switch", "difference", "measure", "nodes", "at"])
    table = table.assign(
        dataset="toy", lower=table["difference"] - 0.01, upper=table["difference"] + 0.01
    )
    first, *others = audit.switch_effects(table, SWITCHES).axes
    dots = {
        line.get_marker(): line.get_xdata()[0] for line in first.lines if len(line.get_xdata()) == 1
    }
    assert dots == pytest.approx({"o": 0.05, "s": 0.03})  # and no whole method
    assert all(len(axis.lines) == 1 for axis in others)


def test_rare_nodes_are_sorted_and_marked_by_their_corrected_p():
    nodes = pd.DataFrame(
        {
            "dataset": "toy",
            "off": "plain",
            "on": "full",
            "difference": [0.2, -0.3, 0.1, 0.0],
            "lower": [0.1, -0.4, -0.1, -0.1],
            "upper": [0.3, -0.2, 0.2, 0.1],
            "p": [0.001, 0.001, 0.5, np.nan],
            "adjusted_p": [0.01, 0.01, 0.6, np.nan],
        }
    )
    figure = audit.rare_node_differences(nodes, "toy", 0.05, columns=1)
    _, untested, open_, better, worse = figure.axes[0].lines
    assert better.get_xydata().tolist() == [[3, 0.2]]
    assert worse.get_xydata().tolist() == [[0, -0.3]]
    assert open_.get_xydata().tolist() == [[2, 0.1]]
    assert untested.get_xydata().tolist() == [[1, 0.0]]


# --- a large hierarchy --------------------------------------------------------------------------


def test_what_is_found_lies_below_what_is_predicted():
    table = pd.DataFrame(
        {
            "rarity": ["1–5", "1–5", ">50", ">50"],
            "variant": "mcm",
            "at": ["half", "tuned"] * 2,
            "nodes": [30, 30, 10, 10],
            "predicted": [0.2, 0.4, 0.9, 1.0],
            "found": [0.1, 0.3, 0.8, 0.95],
        }
    )
    half, tuned = scale.finds(table).axes
    assert (half.get_title("left"), tuned.get_title("left")) == ("at 0.5", "at tuned threshold")
    for axis, hollow, filled in ((half, [0.2, 0.9], [0.1, 0.8]), (tuned, [0.4, 1.0], [0.3, 0.95])):
        predicted, found, _ = axis.lines
        assert predicted.get_markerfacecolor() == "white"
        assert predicted.get_ydata().tolist() == hollow
        assert found.get_ydata().tolist() == filled


def test_learning_curves_are_means_over_seeds():
    history = pd.DataFrame(
        {"variant": "mcm", "seed": [0, 0, 1, 1], "epoch": [1, 2] * 2, "train_loss": [4.0, 2, 6, 4]}
    )
    (axis,) = scale.learning_curves(history).axes
    assert axis.lines[0].get_xydata().tolist() == [[1, 5.0], [2, 3.0]]


def test_bars_of_levels_short_are_the_shares_in_order():
    steps = ["0", "1", "2", "3 or more", "nothing"]
    given = {("mcm", "0.5"): [0.4, 0.3, 0.1, 0.05, 0.15], ("mcm", "0.95"): [0, 0, 0, 0, 1]}
    rows = [
        {"variant": variant, "at": at, "examples": "all", "short": step, "share": share}
        for (variant, at), shares in given.items()
        for step, share in zip(steps, shares, strict=True)
    ]
    figure = evaluation.levels_short(pd.DataFrame(rows))
    (axis,) = figure.axes  # only 0.5 and the tuned threshold are drawn
    assert axis.get_title(loc="left") == "all examples, at 0.5"
    widths = [bar[0].get_width() for bar in axis.containers]
    assert widths == pytest.approx(given["mcm", "0.5"])
    lefts = np.cumsum([0, *given["mcm", "0.5"][:-1]])
    assert [bar[0].get_x() for bar in axis.containers] == pytest.approx(list(lefts))
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert (words[0], words[-1]) == ("found to the end", "nothing right")
