"""Searches for budgets: what epochs and rates do to nodes of each rarity, and what micro scores cost."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator

from rarenodes.pages.plots.style import (
    BLACK,
    BLUE,
    GREY,
    ORANGE,
    VERMILION,
    broken,
    dashes_of,
    entries_beside,
    style,
)
from rarenodes.scores.metrics import RARITY_BINS

_COLOURS = (BLACK, BLUE, VERMILION, ORANGE, GREY)
_MARKERS = ("o", "s", "^", "D", "v")


def epochs_by_rarity(search: pd.DataFrame, chosen: pd.DataFrame, variants: Sequence[str]) -> Figure:
    """Average precision of each rarity by epochs, at the rate and decay that macro scores choose.

    A ring marks where nodes of a rarity rank best. A column per data set, a row per variant.

    Args:
        search: rows of all searches.
        chosen: from `rarenodes.stages.tuned.chosen_points`.
        variants: some that are networks.

    """
    by_macro = chosen[chosen["chosen_by"] == "macro"].set_index(["dataset", "variant"])
    names = list(dict.fromkeys(search["dataset"]))
    with style():
        figure, axes = _panels(len(variants), len(names), (2.9, 2.4))
        for row, variant in enumerate(variants):
            for column, name in enumerate(names):
                best = by_macro.loc[(name, variant)]
                points = search[
                    (search["dataset"] == name)
                    & (search["variant"] == variant)
                    & (search["learning_rate"] == best["learning_rate"])
                    & (search["weight_decay"] == best["weight_decay"])
                ].sort_values("epochs")
                _curves(axes[row, column], points)
                axes[row, column].set_title(f"{broken(variant, 34)}\non {name}")
        for axis in axes[-1]:
            axis.set_xlabel("epochs")
        for axis in axes[:, 0]:
            axis.set_ylabel("average precision")
        figure.legend(
            *axes[0, 0].get_legend_handles_labels(),
            title="training positives",
            loc="outside lower center",
            ncols=entries_beside(figure, len(RARITY_BINS), 0.9),
        )
    return figure


def _curves(axis: Axes, points: pd.DataFrame) -> None:
    for number, rarity in enumerate(RARITY_BINS):
        values = points[f"ap_{rarity}"]
        if values.isna().all():
            continue
        look = {"color": _COLOURS[number], "linestyle": dashes_of(RARITY_BINS, rarity)}
        axis.plot(
            points["epochs"], values, marker=_MARKERS[number], markersize=3, label=rarity, **look
        )
        best = values.idxmax()
        axis.plot(
            points.loc[best, "epochs"], values[best], "o",
            markersize=9, markerfacecolor="none", color=_COLOURS[number],
        )  # fmt: skip
    _ticks(axis, points["epochs"])
    axis.set_ylim(0, 1)


def rates(search: pd.DataFrame) -> Figure:
    """The highest macro average precision at each learning rate, over epochs and decays."""
    networks = search[search["learning_rate"].notna()]
    names = list(dict.fromkeys(networks["dataset"]))
    variants = list(dict.fromkeys(networks["variant"]))
    with style():
        figure, axes = _panels(1, len(names), (3.0, 3.0))
        for axis, name in zip(axes[0], names, strict=True):
            of_data = networks[networks["dataset"] == name]
            for number, variant in enumerate(variants):
                points = of_data[of_data["variant"] == variant]
                best = points.groupby("learning_rate")["macro_ap"].max()
                axis.plot(
                    best.index,
                    best,
                    label=variant,
                    color=_COLOURS[number % len(_COLOURS)],
                    marker=_MARKERS[number % len(_MARKERS)],
                    markersize=4,
                    linestyle=dashes_of(variants, variant),
                )
            axis.set(title=name, xlabel="learning rate")
            _ticks(axis, of_data["learning_rate"])
        axes[0, 0].set_ylabel("macro average precision, best")
        figure.legend(
            *axes[0, 0].get_legend_handles_labels(),
            loc="outside lower center",
            ncols=entries_beside(figure, 3, 2.0),
            fontsize=7.5,
        )
    return figure


def micro_cost(cost: pd.DataFrame) -> Figure:
    """Average precision of rare nodes under the budget that macro and that micro scores choose."""
    names = list(dict.fromkeys(cost["dataset"]))
    with style():
        width = max(3.0, 8.5 / len(names))
        height = 0.8 + 0.22 * cost.groupby("dataset").size().max()
        figure, axes = _panels(1, len(names), (width, height))
        for axis, name in zip(axes[0], names, strict=True):
            rows = cost[cost["dataset"] == name]
            places = -np.arange(len(rows))
            macro, micro = rows["rare_ap_by_macro"], rows["rare_ap_by_micro"]
            axis.hlines(places, macro, micro, color=GREY, linewidth=1)
            axis.plot(macro, places, "o", color=BLUE, label="budget chosen by macro AP")
            axis.plot(
                micro, places, "s", color=VERMILION, markerfacecolor="white",
                label="budget chosen by micro AP",
            )  # fmt: skip
            axis.set_yticks(places, rows["variant"])
            axis.set(title=name, xlabel="average precision of rare nodes")
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def _panels(rows: int, columns: int, size: tuple[float, float]) -> tuple[Figure, np.ndarray]:
    width, height = size
    return plt.subplots(
        rows, columns, figsize=(width * columns, height * rows + 0.4), squeeze=False
    )


def _ticks(axis: Axes, values: pd.Series) -> None:
    """A logarithmic axis with a tick at every value that was tried, named where there is room."""
    tried = np.sort(values.unique())
    named: list[float] = []
    for value in tried:
        if not named or value >= 1.4 * named[-1]:
            named.append(value)
    axis.set_xscale("log")
    axis.set_xticks(tried, [f"{value:g}" if value in named else "" for value in tried])
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_minor_formatter(NullFormatter())
