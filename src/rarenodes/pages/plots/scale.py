"""A large hierarchy: learning curves, scores by rarity and depth, and what is found at all."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rarenodes.pages.plots.style import BLACK, BLUE, GREY, ORANGE, VERMILION, dashes_of, style

# What moves with the threshold, what does not, and what is left when each has its best one.
SCORES = {
    "recall_half": "recall at 0.5",
    "average_precision": "average precision",
    "f1_tuned": "F1 at tuned threshold",
}
_COLOURS = (BLACK, BLUE, VERMILION, ORANGE, GREY)
_MARKERS = ("o", "s", "^", "D", "v")


def learning_curves(history: pd.DataFrame) -> Figure:
    """Training loss and validation score of each variant by epoch, means over seeds.

    Args:
        history: a row per variant, seed and epoch.

    """
    panels = {
        "train_loss": "training loss (as weighted)",
        "valid_bce": "validation: coherent BCE a node",
    }
    panels = {column: title for column, title in panels.items() if column in history}
    variants = list(dict.fromkeys(history["variant"]))
    with style():
        figure, axes = plt.subplots(1, len(panels), figsize=(3.6 * len(panels), 2.8), squeeze=False)
        for axis, (column, title) in zip(axes[0], panels.items(), strict=True):
            curves = history.dropna(subset=[column]).groupby(["variant", "epoch"])[column].mean()
            for variant in variants:
                if variant in curves.index.get_level_values("variant"):
                    curve = curves.loc[variant]
                    axis.plot(curve.index, curve, label=variant, **_line(variants, variant))
            axis.set(title=title, xlabel="epoch", yscale="log")
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes[0, 0].legend()
    return figure


def scores_by_group(table: pd.DataFrame, group: str) -> Figure:
    """Macro scores over the nodes of each group that have test positives, a line for each variant.

    Args:
        table: from `rarenodes.pages.tables.scores_by`.
        group: `rarity` or `depth`.

    """
    variants = list(dict.fromkeys(table["variant"]))
    sizes = table.drop_duplicates(group).set_index(group)["nodes"]
    unit = "training positives" if group == "rarity" else "depth"
    with style():
        figure, axes = plt.subplots(1, len(SCORES), figsize=(3.2 * len(SCORES), 3), sharey=True)
        for axis, (score, label) in zip(axes, SCORES.items(), strict=True):
            for variant in variants:
                part = table[table["variant"] == variant].set_index(group)[score]
                part = part.reindex(sizes.index)
                axis.plot(np.arange(len(part)), part, label=variant, **_line(variants, variant))
            axis.set(title=label, xlabel=f"{unit}\n(nodes)")
            axis.set_xticks(np.arange(len(sizes)), [f"{n}\n({c:,})" for n, c in sizes.items()])
            axis.tick_params(axis="x", labelsize=7)
            axis.set_ylim(0, 1)
        axes[0].legend(fontsize=8)
    return figure


def finds(table: pd.DataFrame) -> Figure:
    """Which share of nodes is predicted at all, and rightly at least once, by rarity.

    Args:
        table: from `rarenodes.stages.scale.finds.finds_by_rarity`.

    """
    variants = list(dict.fromkeys(table["variant"]))
    titles = {"half": "at 0.5", "tuned": "at tuned threshold"}
    with style():
        figure, axes = plt.subplots(1, len(titles), figsize=(9, 3.2), sharey=True)
        for axis, (at, title) in zip(axes, titles.items(), strict=True):
            _draw_finds(axis, table[table["at"] == at], variants)
            axis.set(title=title, xlabel="training positives\n(nodes with test positives)")
        axes[0].set_ylabel("share of nodes")
        axes[0].set_ylim(0, 1.02)
        axes[0].legend(fontsize=8)
    return figure


def _draw_finds(axis: Axes, table: pd.DataFrame, variants: Sequence[str]) -> None:
    bins = table.drop_duplicates("rarity").set_index("rarity")["nodes"]
    width = 0.8 / len(variants)
    for number, variant in enumerate(variants):
        part = table[table["variant"] == variant].set_index("rarity").reindex(bins.index)
        places = np.arange(len(bins)) + (number - (len(variants) - 1) / 2) * width
        colour, marker = _COLOURS[number % len(_COLOURS)], _MARKERS[number % len(_MARKERS)]
        axis.vlines(places, part["found"], part["predicted"], color=colour, linewidth=1)
        look = {"color": colour, "linestyle": "none", "marker": marker, "markersize": 5}
        axis.plot(places, part["predicted"], markerfacecolor="white", **look)
        axis.plot(places, part["found"], label=variant, **look)
    axis.plot([], [], "o", color=BLACK, markerfacecolor="white", label="hollow: predicted at all")
    axis.set_xticks(np.arange(len(bins)), [f"{name}\n({int(n):,})" for name, n in bins.items()])
    axis.grid(axis="x", visible=False)


def _line(variants: Sequence[str], variant: str) -> dict:
    number = list(variants).index(variant)
    return {
        "color": _COLOURS[number % len(_COLOURS)],
        "marker": _MARKERS[number % len(_MARKERS)],
        "markersize": 4,
        "linestyle": dashes_of(variants, variant),
    }
