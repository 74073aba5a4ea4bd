"""Variants on one data set: scores by rarity and depth, curves, thresholds, calibration."""

from collections.abc import Callable, Mapping, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from rarenodes.pages.plots.style import BLACK, BLUE, GREY, VERMILION, broken, entries_beside, style
from rarenodes.pages.tables import findable, left_out
from rarenodes.scores.catalogue import NODE_SCORES

# Panels side by side: more are too small to read on a page.
_MOST_COLUMNS = 7
_LEGEND = 1.6  # inches of an entry
# What the levels between the reached and the deepest true node are called.
_SHORT = {
    "0": "found to the end",
    "1": "1 level short",
    "2": "2 short",
    "3 or more": "3 or more",
    "nothing": "nothing right",
}


def scores_by_group(table: pd.DataFrame, group: str, baseline: str) -> Figure:
    """A panel for each score and group; a dot for each variant, its bar one standard deviation.

    By rarity, nodes that cannot be found have no panel: a note says how many they are. Scores that nothing
    has, as those at tuned thresholds where no examples are left to tune them on, have no row.

    Args:
        table: from `rarenodes.pages.tables.scores_by`.
        group: `rarity` or `depth`.
        baseline: variant whose score is drawn as a line through each panel.

    """
    hidden = 0
    if group == "rarity":
        table, hidden = findable(table, ("recall_half", "f1_tuned"))
    variants = list(dict.fromkeys(table["variant"]))
    groups = list(dict.fromkeys(table[group]))
    scores = {score: label for score, label in NODE_SCORES.items() if table[score].notna().any()}
    place = {variant: i for i, variant in enumerate(variants)}
    blocks = -(-len(groups) // _MOST_COLUMNS)
    columns = -(-len(groups) // blocks)
    unit = "training positives" if group == "rarity" else "steps deep"
    with style():
        figure, axes = plt.subplots(
            len(scores) * blocks,
            columns,
            figsize=(1.6 + 1.75 * columns, (0.6 + 0.17 * len(variants)) * len(scores) * blocks),
            sharey=True,
            squeeze=False,
        )
        for line, (score, label) in enumerate(scores.items()):
            panels = axes[line * blocks : (line + 1) * blocks].ravel()
            for axis in panels[1:]:
                axis.sharex(panels[0])
            for axis in panels[len(groups) :]:
                axis.set_axis_off()
            for axis, name in zip(panels, groups, strict=False):
                part = table[table[group] == name]
                of_baseline = part.loc[part["variant"] == baseline, score]
                axis.axvline(of_baseline.iloc[0], color=GREY, linewidth=1)
                axis.errorbar(
                    part[score],
                    part["variant"].map(place),
                    xerr=part[f"{score}_spread"].fillna(0),
                    fmt="o",
                    markersize=4,
                    color=BLUE,
                    elinewidth=1.2,
                )
                axis.grid(axis="y", visible=False)
                if line == 0 or blocks > 1:
                    axis.set_title(f"{name} {unit}\n({part['nodes'].iloc[0]} nodes)")
            axes[(line + 1) * blocks - 1, columns // 2].set_xlabel(label)
        name_rows(axes[0, 0], variants)
        if hidden:
            figure.supxlabel(left_out(hidden), fontsize=9)
    return figure


def levels_short(short: pd.DataFrame) -> Figure:
    """Of how many examples the prediction goes to the end, and how far short it stops of others.

    A panel for each group of examples and threshold, a bar for each variant: dark is found to the
    end, white is not one true node found.

    Args:
        short: a row per `variant`, `at`, `examples` and `short`: `share`.

    """
    thresholds = [at for at in ("0.5", "tuned") if at in set(short["at"])]
    groups = list(dict.fromkeys(short["examples"]))
    variants = list(dict.fromkeys(short["variant"]))
    steps = list(dict.fromkeys(short["short"]))
    shades = mpl.colormaps["Blues"](np.linspace(0.95, 0.0, len(steps)))
    with style():
        figure, axes = plt.subplots(
            len(groups),
            len(thresholds),
            figsize=(1.8 + 3.6 * len(thresholds), (0.9 + 0.22 * len(variants)) * len(groups)),
            sharex=True,
            sharey=True,
            squeeze=False,
        )
        for row, group in enumerate(groups):
            for column, at in enumerate(thresholds):
                axis = axes[row, column]
                part = short[(short["examples"] == group) & (short["at"] == at)]
                wide = part.pivot(index="variant", columns="short", values="share")
                left = np.zeros(len(variants))
                for step, shade in zip(steps, shades, strict=True):
                    share = wide.loc[variants, step].to_numpy()
                    axis.barh(
                        variants, share, left=left, color=shade, edgecolor=BLACK, linewidth=0.5,
                        height=0.75, label=_SHORT[step],
                    )  # fmt: skip
                    left = left + share
                axis.set_xlim(0, 1)
                axis.grid(visible=False)
                of = "all examples" if group == "all" else "examples with a rare node"
                axis.set_title(f"{of}, {'at 0.5' if at == '0.5' else 'tuned threshold'}")
        axes[0, 0].invert_yaxis()
        for axis in axes[-1]:
            axis.set_xlabel("share of test examples")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        beside = entries_beside(figure, len(steps), _LEGEND)
        figure.legend(handles, labels, loc="outside lower center", ncols=beside)
    return figure


def precision_recall_curves(curves: pd.DataFrame, baseline: str) -> Figure:
    """The pooled precision–recall curve of each variant, the baseline's behind it."""

    def draw(axis: Axes, curve: pd.DataFrame, colour: str, line: str) -> None:
        axis.plot(curve["recall"], curve["precision"], color=colour, linestyle=line)

    return _small_multiples(
        curves, baseline, draw, xlabel="recall", ylabel="precision", ylim=(0, 1.02)
    )


def threshold_sweep(sweep: pd.DataFrame, overall: pd.DataFrame, baseline: str) -> Figure:
    """Macro F1 by threshold; dots at 0.5 and at the tuned threshold (mean over seeds)."""
    score = "macro_f1_with_positives"
    tuned = overall.set_index("variant")["threshold_tuned"]

    def draw(axis: Axes, curve: pd.DataFrame, colour: str, line: str) -> None:
        axis.plot(curve["threshold"], curve[score], color=colour, linestyle=line)
        if line != "-":
            return
        variant = curve["variant"].iloc[0]
        for at, marker in ((0.5, "s"), (tuned[variant], "^")):
            height = np.interp(at, curve["threshold"], curve[score])
            axis.plot(at, height, marker, color=VERMILION, markersize=6, markeredgecolor=BLACK)

    return _small_multiples(
        sweep,
        baseline,
        draw,
        xlabel="threshold",
        ylabel="macro F1",
        xscale="logit",
        ylim=(0, None),
        xticks=[0.01, 0.1, 0.5, 0.9, 0.99],
        xticklabels=["1 %", "10", "50", "90", "99"],
    )


def calibration_curves(calibration: pd.DataFrame, baseline: str) -> Figure:
    """Observed frequency against predicted probability, both on log-odds scales."""
    filled = calibration[(calibration["count"] > 0)]

    def draw(axis: Axes, curve: pd.DataFrame, colour: str, line: str) -> None:
        seen = curve[(curve["observed_frequency"] > 0) & (curve["observed_frequency"] < 1)]
        marker = "o" if line == "-" else None
        axis.plot(
            seen["mean_predicted"],
            seen["observed_frequency"],
            color=colour,
            linestyle=line,
            marker=marker,
            markersize=3,
        )
        axis.plot([1e-4, 0.999], [1e-4, 0.999], color=BLACK, linewidth=0.6)

    return _small_multiples(
        filled,
        baseline,
        draw,
        xlabel="predicted",
        ylabel="observed",
        xscale="logit",
        yscale="logit",
        xlim=(5e-5, 0.9995),
        ylim=(5e-5, 0.9995),
        xticks=[0.001, 0.1, 0.9],
        xticklabels=["0.1 %", "10", "90"],
        yticks=[0.001, 0.1, 0.9],
        yticklabels=["0.1 %", "10", "90"],
    )


def difference_forest(
    differences: pd.DataFrame, baseline: str, labels: Mapping[tuple[str, str, str], str]
) -> Figure:
    """Difference of each variant from the baseline with its interval, a panel a comparison.

    Args:
        differences: from an evaluation.
        baseline: the variant compared with.
        labels: what to call a comparison (measure, nodes, at); those not made are left out.

    """
    against = differences[differences["baseline"] == baseline]
    if against.empty:
        with style():
            figure, axes = plt.subplots(figsize=(5, 0.6))
            axes.text(0, 0.5, f"There is no variant to compare {baseline} with.")
            axes.axis("off")
        return figure
    variants = list(dict.fromkeys(against["variant"]))
    against = against.set_index(["measure", "nodes", "at"])
    labels = {key: label for key, label in labels.items() if key in against.index}
    with style():
        figure, axes = plt.subplots(
            1,
            len(labels),
            figsize=(1.5 + 1.9 * len(labels), 0.9 + 0.26 * len(variants)),
            sharey=True,
            squeeze=False,
        )
        for axis, (key, label) in zip(axes[0], labels.items(), strict=True):
            draw_forest(axis, against.loc[[key]], variants)
            axis.set_title(broken(label, 22))
        name_rows(axes[0, 0], variants)
        figure.supxlabel(f"difference from {baseline}, with interval", fontsize=9)
    return figure


def draw_forest(axis: Axes, part: pd.DataFrame, variants: Sequence[str]) -> None:
    """Differences with intervals, a row a variant; filled where the interval leaves out 0, hollow where it does not."""
    axis.axvline(0, color=BLACK, linewidth=0.8)
    for _, row in part.iterrows():
        y = variants.index(row["variant"])
        clear = row["lower"] > 0 or row["upper"] < 0
        axis.plot([row["lower"], row["upper"]], [y, y], color=BLUE)
        axis.plot(row["difference"], y, "o", color=BLUE, markerfacecolor=BLUE if clear else "white")
    axis.grid(axis="y", visible=False)
    axis.margins(x=0.1)
    axis.xaxis.set_major_locator(MaxNLocator(nbins=4))


def name_rows(axis: Axes, variants: Sequence[str]) -> None:
    """Variants along the axis, the first at the top, with room for the dots of the first and the last."""
    axis.set_yticks(range(len(variants)), variants)
    axis.set_ylim(len(variants) - 0.5, -0.5)


def _small_multiples(
    table: pd.DataFrame,
    baseline: str,
    draw: Callable[[Axes, pd.DataFrame, str, str], None],
    **axes_settings,
) -> Figure:
    """A panel for each variant; the baseline's curve dashed behind each."""
    of_baseline = table[table["variant"] == baseline]
    # seaborn arranges its grids itself.
    with style(), mpl.rc_context({"figure.constrained_layout.use": False}):
        grid = sns.FacetGrid(
            table, col="variant", col_wrap=5, height=1.9, aspect=1.05, sharex=True, sharey=True
        )
        for variant, axis in grid.axes_dict.items():
            if variant != baseline:
                draw(axis, of_baseline, GREY, "--")
            draw(axis, table[table["variant"] == variant], BLUE, "-")
            axis.set_title(broken(variant, 20), fontsize=9)
        grid.set(**axes_settings)
        for axis in grid.axes.flat:
            axis.xaxis.set_minor_locator(NullLocator())
        grid.tight_layout()
    return grid.figure
