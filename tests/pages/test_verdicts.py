"""The matrix of verdicts, read back from its figure."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle

from rarenodes.pages.plots.style import BLUE, VERMILION
from rarenodes.pages.plots.verdicts import SIGNS, cell_colour, verdict_matrix

mpl.use("Agg")


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def table(rows, **more) -> pd.DataFrame:
    columns = ["variant", "label", "difference", "lower", "upper", "verdict"]
    return pd.DataFrame(rows, columns=columns).assign(**more)


ROWS = [
    ("a", "recall", 0.4, 0.2, 0.5, "better"),
    ("a", "F1", -0.02, -0.03, -0.01, "worse"),
    ("b", "recall", 0.1, 0.05, 0.2, "better"),
    ("b", "F1", 0.0002, -0.001, 0.002, "same"),
    ("c", "recall", 0.2, -0.1, 0.3, "unclear"),
    ("c", "F1", np.nan, np.nan, np.nan, "untestable"),
]


def texts(axis) -> dict[tuple[int, int], str]:
    """What stands in each cell, by row and column."""
    return {
        (round(text.get_position()[1] + 0.1), text.get_position()[0]): text.get_text()
        for text in axis.texts
    }


def cells(axis) -> dict[tuple[int, int], Rectangle]:
    found = [patch for patch in axis.patches if isinstance(patch, Rectangle)]
    return {(round(p.get_y() + 0.46), round(p.get_x() + 0.48)): p for p in found}


def test_every_cell_shows_its_sign_and_number():
    (axis,) = verdict_matrix(table(ROWS)).axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["a", "b", "c"]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["recall", "F1"]
    assert texts(axis) == {
        (0, 0): "▲ +0.400",
        (0, 1): "▼ −0.020",
        (1, 0): "▲ +0.100",
        (1, 1): "≈ 0.000",
        (2, 0): "? +0.200",
        (2, 1): "×",
    }


def test_verdicts_differ_without_colour():
    signs = [sign for sign, _ in SIGNS.values()]
    assert len(set(signs)) == len(signs)
    (axis,) = verdict_matrix(table(ROWS)).axes
    hatched = [at for at, cell in cells(axis).items() if cell.get_hatch()]
    assert hatched == [(2, 1)]


def test_colour_says_the_sign_and_its_depth_the_size():
    (axis,) = verdict_matrix(table(ROWS)).axes
    colours = {at: cell.get_facecolor()[:3] for at, cell in cells(axis).items()}
    # The largest difference of a column has the full colour, a quarter of it a paler one.
    assert colours[0, 0] == pytest.approx(to_rgb(BLUE))
    assert colours[0, 1] == pytest.approx(to_rgb(VERMILION))
    share = 0.3 + 0.7 * 0.25
    assert colours[1, 0] == pytest.approx([1 - share + share * part for part in to_rgb(BLUE)])
    assert colours[2, 0] == to_rgb("white")  # not decided, whatever its size
    assert cell_colour("better", 0.0, 0.0) == pytest.approx([0.7 + 0.3 * p for p in to_rgb(BLUE)])


def test_bars_are_intervals_on_the_scale_of_their_column():
    (axis,) = verdict_matrix(table(ROWS)).axes
    bars = {}
    for line in axis.lines:
        x, y = line.get_data()
        if y[0] == y[1]:
            bars[round(y[0] - 0.29), round(np.mean(x))] = x
    # The column's largest bound, 0.5, is drawn 0.44 from the middle.
    assert bars[0, 0] == pytest.approx([0.44 * 0.2 / 0.5, 0.44])
    assert bars[2, 0] == pytest.approx([-0.44 * 0.1 / 0.5, 0.44 * 0.3 / 0.5])
    assert bars[0, 1] == pytest.approx([1 - 0.44, 1 - 0.44 / 3])
    assert (2, 1) not in bars


def test_a_panel_for_each_data_set_with_all_rows_in_one_order():
    both = pd.concat([table(ROWS, dataset="first"), table(ROWS[2:4], dataset="second")])
    first, second = verdict_matrix(both).axes
    assert (first.get_title("left"), second.get_title("left")) == ("first", "second")
    assert set(texts(second)) == {(1, 0), (1, 1)}  # what was not compared stays empty
    assert [label.get_text() for label in second.get_yticklabels()] == ["a", "b", "c"]


def test_the_key_names_the_verdicts_that_occur():
    figure = verdict_matrix(table(ROWS[:2]))
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "▲ clearly higher",
        "▼ clearly lower",
    ]


def test_nothing_to_compare():
    (axis,) = verdict_matrix(table([])).axes
    assert axis.texts[0].get_text() == "There is nothing to compare."


def test_unknown_verdicts_and_repeated_cells_are_refused():
    with pytest.raises(ValueError, match="verdict 'good': expected one of better, worse, same"):
        verdict_matrix(table([("a", "recall", 0.1, 0.0, 0.2, "good")]))
    with pytest.raises(ValueError, match="two rows for a, recall on 'toy'"):
        verdict_matrix(table([ROWS[0], ROWS[0]], dataset="toy"))
