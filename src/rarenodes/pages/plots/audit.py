"""An audit: scores on the way there and back, the effect of every switch, rare nodes one by one."""

import textwrap
from collections.abc import Sequence

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator

from rarenodes.pages.plots.style import BLACK, BLUE, GREY, ORANGE, VERMILION, style
from rarenodes.pages.tables import UNSEEN, findable, left_out
from rarenodes.scores.catalogue import Key
from rarenodes.scores.metrics import RARITY_BINS

# What is found at a threshold, and what no threshold can fake.
RECALL_AND_RANKING: dict[Key, str] = {
    ("macro_recall", "with_positives", "half"): "macro recall at 0.5",
    ("macro_average_precision", "with_positives", "none"): "macro average precision",
    ("micro_average_precision", "all", "none"): "micro AU(PRC)",
}

# Ticks of a node's difference in average precision.
_LINEAR_UP_TO = 0.01
_DIFFERENCES = (-1, -0.1, -0.01, 0, 0.01, 0.1, 1)

# Marker, colour and face of an effect by where it was measured, and its place within a row.
_KINDS = {
    "there": ("o", BLUE, BLUE, "on the way there", -0.22),
    "back": ("s", VERMILION, "white", "undone on the way back", -0.05),
    "elsewhere": ("^", BLACK, "white", "between other variants", 0.12),
}


def ladder(scores: pd.DataFrame, switches: pd.DataFrame) -> Figure:
    """Scores of every variant with intervals, in the order of the way there; the others below.

    Args:
        scores: from an audit: a row per data set, variant and score.
        switches: from an audit: a row per pair.

    """
    there = _way_there(switches)
    others = [v for v in dict.fromkeys(scores["variant"]) if v not in there]
    place = _places(there, others)
    datasets = list(dict.fromkeys(scores["dataset"]))
    with style():
        figure, axes = plt.subplots(
            len(datasets),
            len(RECALL_AND_RANKING),
            figsize=(9.5, (1.1 + 0.24 * len(place)) * len(datasets)),
            sharey=True,
            squeeze=False,
        )
        for row, dataset in zip(axes, datasets, strict=True):
            for axis, (key, label) in zip(row, RECALL_AND_RANKING.items(), strict=True):
                part = _part(scores, dataset, key).set_index("variant")
                axis.axvline(part.loc[there[0], "score"], color=GREY, linewidth=1)
                axis.plot(
                    part.loc[there, "score"], [place[v] for v in there], color=BLUE, linewidth=0.8
                )
                for variant, at in place.items():
                    _dot(axis, part.loc[variant], "score", at, variant in there)
                axis.grid(axis="y", visible=False)
                axis.xaxis.set_major_locator(MaxNLocator(5))
                axis.set_title(label)
            row[0].set_ylabel(dataset)
        axes[0, 0].set_yticks(list(place.values()), list(place))
        axes[0, 0].invert_yaxis()
        _legend_below(
            figure,
            [
                _handle("o", BLUE, BLUE, "on the way there, one switch more in each"),
                _handle("s", BLACK, "white", "one or more switches undone"),
                Line2D([], [], color=GREY, label=there[0]),
            ],
        )
    return figure


def switch_effects(effects: pd.DataFrame, switches: pd.DataFrame) -> Figure:
    """The effect of having each switch on, with intervals, on the way there and elsewhere.

    Args:
        effects: from an audit: a row per data set, pair and score.
        switches: from an audit: a row per pair.

    """
    single = effects[effects["kind"] != "whole"]
    steps = list(switches.loc[switches["kind"] == "there", "switch"])
    rest = [name for name in dict.fromkeys(single["switch"]) if name not in steps]
    place = {name: i for i, name in enumerate([*dict.fromkeys(steps), *rest])}
    datasets = list(dict.fromkeys(effects["dataset"]))
    with style():
        figure, axes = plt.subplots(
            len(datasets),
            len(RECALL_AND_RANKING),
            figsize=(9.5, (1.1 + 0.4 * len(place)) * len(datasets)),
            sharex="col",
            sharey=True,
            squeeze=False,
        )
        for row, dataset in zip(axes, datasets, strict=True):
            for axis, (key, label) in zip(row, RECALL_AND_RANKING.items(), strict=True):
                axis.axvline(0, color=BLACK, linewidth=0.8)
                part = _part(single, dataset, key)
                repeated = part.groupby(["switch", "kind"]).cumcount()
                for effect, number in zip(part.itertuples(), repeated, strict=True):
                    marker, colour, face, _, offset = _KINDS[effect.kind]
                    y = place[effect.switch] + offset + 0.15 * number
                    axis.plot([effect.lower, effect.upper], [y, y], color=colour, linewidth=1.2)
                    axis.plot(
                        effect.difference,
                        y,
                        marker,
                        color=colour,
                        markerfacecolor=face,
                        markersize=5,
                    )
                axis.grid(axis="y", visible=False)
                axis.xaxis.set_major_locator(MaxNLocator(5))
                axis.set_title(label)
            row[0].set_ylabel(dataset)
        axes[0, 0].set_yticks(
            list(place.values()), ["\n".join(textwrap.wrap(name, 18)) for name in place]
        )
        axes[0, 0].invert_yaxis()
        kinds = [kind for kind in _KINDS if (single["kind"] == kind).any()]
        _legend_below(figure, [_handle(*_KINDS[kind][:4]) for kind in kinds])
    return figure


def precision_by_rarity(by_rarity: pd.DataFrame, switches: pd.DataFrame) -> Figure:
    """Average precision of every variant with intervals, by the nodes' training positives.

    Nodes without training positives have no panel where nothing finds any of them.

    Args:
        by_rarity: from an audit: a row per data set, bin, variant and measure.
        switches: from an audit: a row per pair.

    """
    recall = by_rarity[by_rarity["measure"] == "recall_half"]
    hidden = {name: findable(part, ["score"])[1] for name, part in recall.groupby("dataset")}
    table = by_rarity[by_rarity["measure"] == "average_precision"]
    unseen = table["rarity"].astype(str) == UNSEEN
    table = table[~(unseen & (table["dataset"].map(hidden).fillna(0) > 0))]
    there = _way_there(switches)
    others = [v for v in dict.fromkeys(table["variant"]) if v not in there]
    place = _places(there, others)
    bins = [name for name in RARITY_BINS if (table["rarity"] == name).any()]
    datasets = list(dict.fromkeys(table["dataset"]))
    with style():
        figure, axes = plt.subplots(
            len(datasets),
            len(bins),
            figsize=(1.7 + 1.7 * len(bins), (1.1 + 0.22 * len(place)) * len(datasets)),
            sharex="col",
            sharey=True,
            squeeze=False,
        )
        for row, dataset in zip(axes, datasets, strict=True):
            for axis, name in zip(row, bins, strict=True):
                part = table[(table["dataset"] == dataset) & (table["rarity"] == name)]
                if part.empty:
                    axis.axis("off")
                    continue
                part = part.set_index("variant")
                axis.axvline(part.loc[there[0], "score"], color=GREY, linewidth=1)
                for variant, at in place.items():
                    _dot(axis, part.loc[variant], "score", at, variant in there)
                axis.grid(axis="y", visible=False)
                axis.set_title(f"{name} positives\n({part['nodes'].iloc[0]} nodes)")
            row[0].set_ylabel(dataset)
        axes[0, 0].set_yticks(list(place.values()), list(place))
        axes[0, 0].invert_yaxis()
        notes = [f"{name}: {left_out(n)}" for name, n in hidden.items() if n]
        label = "average precision, mean over nodes with test positives"
        figure.supxlabel("\n".join([label, *notes]), fontsize=9)
    return figure


def rare_node_differences(
    nodes: pd.DataFrame, dataset: str, level: float, columns: int = 5
) -> Figure:
    """What every method does to the average precision of each rare node, sorted.

    Dots are nodes; lines their intervals, where the node is tested; triangles are clearly better or
    worse after correction for the number of nodes. The scale is linear near 0, where most nodes are,
    and logarithmic beyond.

    Args:
        nodes: from an audit: a row per data set, pair and node.
        dataset: the one to show.
        level: of the corrected p-values.
        columns: of panels.

    """
    part = nodes[nodes["dataset"] == dataset]
    pairs = list(dict.fromkeys(zip(part["off"], part["on"], strict=True)))
    with style():
        if not pairs:
            figure, axis = plt.subplots(figsize=(5, 0.6))
            axis.text(0, 0.5, f"{dataset} has no rare node with test positives.")
            axis.axis("off")
            return figure
        rows = -(-len(pairs) // columns)
        figure, axes = plt.subplots(
            rows,
            columns,
            figsize=(2.05 * columns, 2.3 * rows + 0.5),
            sharex=True,
            sharey=True,
            squeeze=False,
        )
        for axis in axes.flat[len(pairs) :]:
            axis.axis("off")
        for axis, (off, on) in zip(axes.flat, pairs, strict=False):
            pair = part[(part["off"] == off) & (part["on"] == on)]
            _sorted_nodes(axis, pair, level)
            axis.set_title(f"{on}\n− {off}", fontsize=8.5)
        axes[0, 0].set_yscale("symlog", linthresh=_LINEAR_UP_TO)
        axes[0, 0].set_yticks(
            _DIFFERENCES, [f"{tick:+g}" if tick else "0" for tick in _DIFFERENCES]
        )
        axes[0, 0].yaxis.set_minor_locator(NullLocator())
        axes[-1, 0].set_xlabel("rare nodes, by difference")
        figure.supylabel("difference in average precision", fontsize=9)
        _legend_below(
            figure,
            [
                _handle("^", BLUE, BLUE, "clearly better"),
                _handle("v", VERMILION, VERMILION, "clearly worse"),
                _handle("o", BLACK, BLACK, "tested, with interval"),
                _handle("o", ORANGE, "white", "not tested: too few test positives"),
            ],
        )
    return figure


def _sorted_nodes(axis: Axes, pair: pd.DataFrame, level: float) -> None:
    pair = pair.sort_values("difference", ignore_index=True)
    tested, clear = pair["p"].notna(), pair["adjusted_p"] <= level
    up = pair["difference"] > 0
    axis.axhline(0, color=BLACK, linewidth=0.8)
    axis.vlines(
        pair.index[tested], pair["lower"][tested], pair["upper"][tested], color=GREY, linewidth=0.7
    )
    for chosen, marker, colour, face, size in (
        (~tested, "o", ORANGE, "white", 2.5),
        (tested & ~clear, "o", BLACK, BLACK, 2),
        (clear & up, "^", BLUE, BLUE, 5),
        (clear & ~up, "v", VERMILION, VERMILION, 5),
    ):
        axis.plot(
            pair.index[chosen],
            pair["difference"][chosen],
            marker,
            color=colour,
            markerfacecolor=face,
            markersize=size,
            markeredgewidth=0.7,
        )
    axis.grid(axis="x", visible=False)


def _way_there(switches: pd.DataFrame) -> list[str]:
    steps = switches[switches["kind"] == "there"]
    return [steps["off"].iloc[0], *steps["on"]]


def _places(there: Sequence[str], others: Sequence[str]) -> dict[str, float]:
    """Heights of variants, with a gap between the way there and the others."""
    places: dict[str, float] = {variant: float(i) for i, variant in enumerate(there)}
    return places | {variant: len(there) + 0.6 + i for i, variant in enumerate(others)}


def _dot(axis: Axes, row: pd.Series, name: str, at: float, filled: bool) -> None:
    colour = BLUE if filled else BLACK
    axis.plot([row["lower"], row["upper"]], [at, at], color=colour, linewidth=1.2)
    marker = "o" if filled else "s"
    axis.plot(
        row[name],
        at,
        marker,
        color=colour,
        markerfacecolor=colour if filled else "white",
        markersize=5,
    )


def _part(table: pd.DataFrame, dataset: str, key: Key) -> pd.DataFrame:
    keyed = table[table["dataset"] == dataset].set_index(["measure", "nodes", "at"])
    return keyed.loc[[key]] if key in keyed.index else keyed.iloc[:0]


def _handle(marker: str, colour: str, face: str, label: str) -> Line2D:
    return Line2D([], [], color=colour, marker=marker, markerfacecolor=face, label=label)


def _legend_below(figure: Figure, handles: Sequence[Line2D]) -> None:
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8.5)
