"""What the figures of searches show, read back from their axes."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from rarenodes.pages.plots import tuning

mpl.use("Agg")


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def searched() -> pd.DataFrame:
    """Two data sets: on the second everything is 0.1 higher."""
    rows = [
        {"dataset": name, "variant": variant, "learning_rate": rate, "weight_decay": 0.0,
         "epochs": epochs, "macro_ap": 0.1 * epochs + rate + more,
         "ap_0": np.nan, "ap_1–5": 0.2 * epochs + more, "ap_6–10": 0.3 - 0.1 * epochs + more,
         "ap_11–50": np.nan, "ap_>50": 0.5 + more}
        for name, more in (("one", 0.0), ("two", 0.1))
        for variant in ("mcm", "other")
        for rate in (0.01, 0.1)
        for epochs in (1, 2)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_epochs_are_drawn_at_the_chosen_rate_with_a_ring_at_each_rarity_s_best():
    search = searched()
    search.loc[search["learning_rate"] == 0.01, "ap_1–5"] = 0.9  # not the chosen rate
    chosen = search[(search["epochs"] == 2) & (search["learning_rate"] == 0.1)]
    figure = tuning.epochs_by_rarity(search, chosen.assign(chosen_by="macro"), ["mcm"])
    first, second = figure.axes
    assert [axis.get_title("left") for axis in figure.axes] == ["mcm\non one", "mcm\non two"]
    lines = {line.get_label(): line for line in second.lines if line.get_label()[0] != "_"}
    assert list(lines) == ["1–5", "6–10", ">50"]
    assert lines["1–5"].get_xdata().tolist() == [1, 2]
    assert lines["1–5"].get_ydata() == pytest.approx([0.3, 0.5])
    rings = [line.get_xdata()[0] for line in second.lines if line.get_markersize() == 9]
    assert rings == [2, 1, 1]
    assert [tick.get_text() for tick in first.get_xticklabels()] == ["1", "2"]


def test_rates_show_the_best_over_epochs():
    figure = tuning.rates(searched())
    lines = {line.get_label(): line for line in figure.axes[1].lines}
    assert list(lines) == ["mcm", "other"]
    assert lines["mcm"].get_xdata() == pytest.approx([0.01, 0.1])
    assert lines["mcm"].get_ydata() == pytest.approx([0.31, 0.4])


def test_micro_cost_shows_each_variant_under_both_budgets():
    cost = pd.DataFrame(
        {
            "dataset": ["one", "one"],
            "variant": ["mcm", "other"],
            "rare_ap_by_macro": [0.5, 0.6],
            "rare_ap_by_micro": [0.4, 0.1],
        }
    )
    (axis,) = tuning.micro_cost(cost).axes
    drawn = {line.get_label(): line for line in axis.lines}
    assert drawn["budget chosen by macro AP"].get_xdata().tolist() == [0.5, 0.6]
    assert drawn["budget chosen by micro AP"].get_xdata().tolist() == [0.4, 0.1]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["mcm", "other"]
    assert drawn["budget chosen by macro AP"].get_ydata().tolist() == [0, -1]
