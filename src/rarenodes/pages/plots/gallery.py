"""What each loss and each weight does to a positive and to a negative."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from torch import Tensor

from rarenodes.pages.plots.style import BLACK, BLUE, DASHES, GREY, ORANGE, VERMILION, style

LABELS = ("positive", "negative")
# The sixth of Okabe and Ito's colours, for the sixth line of a panel.
_COLOURS = (BLACK, BLUE, VERMILION, ORANGE, GREY, "#009E73")
_MARKERS = "os^Dvx"
# Level and colour: dark values need light lines.
_CONTOURS = {0.25: "white", 0.5: "white", 0.75: "black"}


def element_losses(curves: pd.DataFrame, most: float = 8) -> Figure:
    """Loss, and push on the logit, of a positive and of a negative, by predicted probability.

    Args:
        curves: from `rarenodes.stages.gallery.element_curves`.
        most: upper end of the axis of losses.

    """
    with style():
        figure, axes = plt.subplots(2, 2, figsize=(9, 6.2), sharex=True, sharey="row")
        for column, label in zip(axes.T, LABELS, strict=True):
            part = curves[curves["label"] == label]
            _draw_by_name(column[0], part, "probability", "loss")
            _draw_by_name(column[1], part, "probability", "push")
            column[0].set_title(f"a {label}")
            column[1].set_xlabel("predicted probability")
        axes[0, 0].set(ylabel="loss", ylim=(0, most))
        axes[1, 0].set(ylabel="push: size of the gradient\nby the logit", yscale="log")
        axes[1, 0].set_ylim(1e-5, 3)
        _probabilities_on(list(axes.flat))
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncol=3)
    return figure


def weights_by_count(curves: pd.DataFrame, marked: Mapping[str, int]) -> Figure:
    """Each formula's weight by count, and what a node's two classes then weigh in an epoch.

    Args:
        curves: from `rarenodes.stages.gallery.weight_curves`.
        marked: numbers of positives to mark, by what their nodes are called.

    """
    modes = list(dict.fromkeys(curves["mode"]))
    with style():
        figure, axes = plt.subplots(
            3, len(modes), figsize=(2.4 * len(modes) + 0.4, 7.4), sharex=True, sharey="row"
        )
        for column, mode in zip(axes.T, modes, strict=True):
            paper, released = (
                curves[(curves["mode"] == mode) & (curves["orientation"] == orientation)]
                for orientation in ("paper", "released")
            )
            _draw_count(column[0], paper, "weight", BLUE, "one example")
            column[0].axhline(1, color=BLACK, linewidth=0.8, linestyle=":")
            column[0].set_title(mode, pad=15)
            for axis, part in zip(column[1:], (paper, released), strict=True):
                _draw_count(axis, part, "positives_total", VERMILION, "all positives of a node")
                _draw_count(axis, part, "negatives_total", BLACK, "all its negatives")
            column[2].set_xlabel("positives of the node")
            _mark_counts(column, marked)
        axes[0, 0].set_ylabel("weight of one example")
        axes[1, 0].set_ylabel("weight on positives (paper):\ntotal in an epoch")
        axes[2, 0].set_ylabel("weight on negatives (code):\ntotal in an epoch")
        figure.legend(*axes[1, 0].get_legend_handles_labels(), loc="outside lower center", ncol=2)
    return figure


def best_constants(curves: pd.DataFrame, plain: str, marked: Mapping[str, int]) -> Figure:
    """The constant prediction that costs least, by number of positives; a panel a group of losses.

    Args:
        curves: from `rarenodes.stages.gallery.constant_curves`, with a column `group`.
        plain: the name of the loss that is drawn in every panel, and its group.
        marked: numbers of positives to mark, by what their nodes are called.

    """
    reference = curves[curves["group"] == plain]
    groups = [group for group in dict.fromkeys(curves["group"]) if group != plain]
    with style():
        figure, axes = plt.subplots(
            1, len(groups), figsize=(3.35 * len(groups), 5), sharex=True, sharey=True
        )
        for axis, group in zip(axes, groups, strict=True):
            axis.axhline(0.5, color=BLACK, linewidth=0.8, linestyle=":")
            shown = pd.concat([reference, curves[curves["group"] == group]])
            _draw_by_name(axis, shown, "positives", "best_constant")
            axis.set_xlabel("positives of the node")
            axis.set_title(group, pad=15)
            axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), fontsize=8)
            _mark_counts([axis], marked)
        axes[0].set(
            xscale="log",
            ylabel="best constant prediction",
            yscale="logit",
            ylim=(1e-6, 0.999),
            yticks=[1e-5, 1e-4, 1e-3, 0.01, 0.1, 0.5, 0.9, 0.99],
            yticklabels=["0.001 %", "0.01 %", "0.1 %", "1 %", "10 %", "50 %", "90 %", "99 %"],
        )
        axes[0].yaxis.set_minor_locator(NullLocator())
    return figure


def uncertainties(
    mean: Float[Tensor, "grid grid"],
    apart: Float[Tensor, "grid grid"],
    kinds: Mapping[str, Float[Tensor, "grid grid"]],
) -> Figure:
    """Every uncertainty, over the members' mean probability and how far their camps are apart.

    Args:
        mean: of the members' probabilities.
        apart: distance of each camp from the mean.
        kinds: each uncertainty by name.

    """
    with style():
        figure, grid = plt.subplots(2, 4, figsize=(10, 4.6), sharex=True, sharey=True)
        axes = grid.flat
        for axis, (kind, values) in zip(axes, kinds.items(), strict=False):
            mesh = (mean.numpy(), apart.numpy(), values.numpy())
            axis.pcolormesh(
                *mesh, cmap="cividis", vmin=0, vmax=1, shading="gouraud", rasterized=True
            )
            lines = axis.contour(
                *mesh, levels=list(_CONTOURS), colors=list(_CONTOURS.values()), linewidths=0.9
            )
            axis.clabel(lines, fontsize=7.5, fmt="%g", manual=_label_places(lines))
            axis.plot([0, 0.5, 1], [0, 0.5, 0], color=BLACK, linewidth=0.8)
            axis.set(title=kind, xlim=(0, 1), ylim=(0, 0.52))
            axis.grid(visible=False)
        unused = axes[len(kinds)]
        unused.axis("off")
        bar = figure.colorbar(
            ScalarMappable(Normalize(0, 1), cmap="cividis"),
            cax=unused.inset_axes((0.05, 0.55, 0.9, 0.12)),
            orientation="horizontal",
            extend="max",
        )
        bar.set_label("uncertainty u\n(focal weight: floor + u)")
        figure.supxlabel("mean probability of the members", fontsize=9)
        figure.supylabel("distance of each camp from the mean", fontsize=9)
    return figure


def focal_weights(curves: pd.DataFrame) -> Figure:
    """Weight, and push on the logit, of a positive and of a negative by predicted probability.

    Args:
        curves: from `rarenodes.stages.gallery.element_curves`.

    """
    with style():
        figure, axes = plt.subplots(2, 2, figsize=(9, 5.6), sharex=True, sharey="row")
        for column, label in zip(axes.T, LABELS, strict=True):
            part = curves[curves["label"] == label]
            _draw_by_name(column[0], part, "probability", "weight")
            _draw_by_name(column[1], part, "probability", "push")
            column[0].set_title(f"a {label}")
            column[1].set_xlabel("predicted probability, the same of all members")
        axes[0, 0].set_ylabel("weight: loss as a multiple\nof cross-entropy")
        axes[1, 0].set_ylabel("push: size of the gradient\nby the logit")
        _probabilities_on(list(axes.flat))
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncol=2)
    return figure


def destinations(
    gradients: Mapping[str, Float[Tensor, "examples nodes nodes"]],
    nodes: Sequence[str],
    labels: Sequence[str],
) -> Figure:
    """Which logit the loss of each node moves, and how strongly: a panel per network and example.

    Args:
        gradients: from `rarenodes.stages.gallery.gradient_destinations`, by what the network says.
        nodes: of the hierarchy.
        labels: what the examples are.

    """
    with style():
        figure, axes = plt.subplots(
            len(gradients), len(labels), figsize=(10, 3.1 * len(gradients)), squeeze=False
        )
        for row, (network, of_examples) in zip(axes, gradients.items(), strict=True):
            for axis, label, gradient in zip(row, labels, of_examples.numpy(), strict=True):
                _draw_destinations(axis, gradient, nodes)
                axis.set_title(f"labels: {label}")
            row[0].set_yticks(range(len(nodes)), [f"loss of {node}" for node in nodes])
            row[0].set_ylabel(network)
        for axis in axes[-1]:
            axis.set_xlabel("moves the logit of … (in all)")
    return figure


def schedules(shares: Mapping[str, Mapping[str, Sequence[float]]], epochs: int) -> Figure:
    """The share of the first weights at every step of a training; a row a span, a column a kind.

    Args:
        shares: from `rarenodes.stages.gallery.shares`, by span and kind.
        epochs: of the training.

    """
    kinds = list(next(iter(shares.values())))
    with style():
        figure, axes = plt.subplots(
            len(shares), len(kinds), figsize=(9, 4.2), sharex=True, sharey=True, squeeze=False
        )
        for row, (span, of_kinds) in zip(axes, shares.items(), strict=True):
            row[0].set_ylabel(f"over the {span}:\nshare of first weights")
            for axis, (kind, values) in zip(row, of_kinds.items(), strict=True):
                at = np.arange(len(values)) * epochs / len(values)
                axis.plot(at, values, color=BLUE, linewidth=0.9, marker="o", markersize=3.5)
                axis.axhline(np.mean(values), color=VERMILION, linewidth=1, linestyle="--")
                axis.set_title(f"{kind} (mean {np.mean(values):.2f})")
                axis.set_xticks(range(epochs + 1))
                axis.grid(axis="y", visible=False)
        for axis in axes[-1]:
            axis.set_xlabel("epoch")
    return figure


def _draw_by_name(axis: Axes, table: pd.DataFrame, x: str, y: str) -> None:
    """A line a name, told apart by colour, dashes and markers."""
    names = list(dict.fromkeys(table["name"]))
    for number, name in enumerate(names):
        part = table[table["name"] == name]
        spacing = max(len(part) // 12, 1)
        axis.plot(
            part[x],
            part[y],
            color=_COLOURS[number % len(_COLOURS)],
            linestyle=DASHES[number % len(DASHES)],
            marker=_MARKERS[number % len(_MARKERS)],
            markevery=(number * spacing // len(names), spacing),
            markersize=4.5,
            markerfacecolor="none",
            label=name,
        )


def _draw_count(axis: Axes, part: pd.DataFrame, column: str, colour: str, label: str) -> None:
    """A quantity by number of positives, both on log scales; negatives are dashed."""
    dashed = column == "negatives_total"
    axis.plot(
        part["positives"],
        part[column],
        color=colour,
        linestyle="--" if dashed else "-",
        marker=None if dashed else "o",
        markevery=4,
        markersize=4,
        label=label,
    )
    axis.set(xscale="log", yscale="log")
    axis.minorticks_off()


def _mark_counts(axes: Sequence[Axes], marked: Mapping[str, int]) -> None:
    """Lines at some numbers of positives, named above the first of the axes."""
    for number, axis in enumerate(axes):
        for name, count in marked.items():
            axis.axvline(count, color=GREY, linewidth=0.8)
            if number == 0:
                above = axis.get_xaxis_transform()
                axis.text(count, 1.02, name, transform=above, ha="center", fontsize=7.5)


def _label_places(lines: ContourSet) -> list[tuple[float, float]]:
    """A place for the label of each contour that has room for one.

    Contours here are symmetric about 0.5: the label is where one crosses it, or else halfway along
    the left one of a pair.
    """
    places = []
    for path in lines.get_paths():
        pieces = [_evenly(piece) for piece in path.to_polygons(closed_only=False)]
        pieces = [piece for piece in pieces if piece[:, 0].min() < 0.5]
        if not pieces:
            continue
        longest = max(pieces, key=lambda piece: np.ptp(piece, axis=0).max())
        crosses = longest[:, 0].max() > 0.5
        # Triangles are narrow at the top, where lines cross.
        if np.ptp(longest, axis=0).max() < (0.2 if crosses else 0.1):
            continue
        at = np.abs(longest[:, 0] - 0.5).argmin() if crosses else len(longest) // 2
        places.append(tuple(longest[at]))
    return places


def _evenly(piece: np.ndarray, points: int = 201) -> np.ndarray:
    """Points at even distances along a line: straight stretches have no vertices of their own."""
    along = np.insert(np.hypot(*np.diff(piece, axis=0).T).cumsum(), 0, 0)
    at = np.linspace(0, along[-1], points)
    return np.stack([np.interp(at, along, axis) for axis in piece.T], axis=1)


def _probabilities_on(axes: Sequence[Axes]) -> None:
    """Axes of probabilities on the scale of logits."""
    for axis in axes:
        axis.set(
            xscale="logit",
            xticks=[0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999],
            xticklabels=["0.1 %", "1 %", "10 %", "50 %", "90 %", "99 %", "99.9 %"],
        )
        axis.xaxis.set_minor_locator(NullLocator())


def _draw_destinations(axis: Axes, gradient: np.ndarray, nodes: Sequence[str]) -> None:
    """A matrix of pushes, with their sums below it."""
    axis.imshow(np.abs(gradient), cmap="Greys", vmin=0, vmax=1.6)
    for (row, column), value in np.ndenumerate(gradient):
        axis.text(column, row, _push(value), ha="center", va="center", fontsize=10)
    for border in np.arange(1, len(nodes)) - 0.5:
        axis.axhline(border, color=GREY, linewidth=0.5)
        axis.axvline(border, color=GREY, linewidth=0.5)
    sums = [_push(total) or "0" for total in gradient.sum(axis=0)]
    axis.set_xticks(range(len(nodes)), [f"{n}\n{s}" for n, s in zip(nodes, sums, strict=True)])
    axis.set_yticks(range(len(nodes)), [""] * len(nodes))
    axis.tick_params(length=0)
    axis.grid(visible=False)


def _push(derivative: float) -> str:
    """Size and direction of what training does: it lifts where the derivative is negative."""
    return f"{'↑' if derivative < 0 else '↓'} {abs(derivative):.1f}" if derivative else ""
