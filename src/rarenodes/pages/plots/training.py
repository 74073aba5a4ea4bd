"""How training went, and what the loss weighs."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rarenodes.datasets.dataset import Dataset
from rarenodes.pages.plots.style import BLACK, BLUE, VERMILION, broken, dashes_of, style
from rarenodes.training.variants import VariantSettings, build_loss


def learning_curves(history: pd.DataFrame) -> Figure:
    """Training loss, validation loss and the members' disagreement by epoch, a line a seed."""
    if history.empty:
        return _note("This is not trained in epochs.")
    panels = {
        "train_loss": "training loss (as weighted)",
        "valid_bce": "validation: coherent BCE a node",
        "valid_active_bce": "validation: BCE a node given its parents",
        "valid_disagreement": "validation: members' disagreement (bits)",
    }
    panels = {column: title for column, title in panels.items() if column in history}
    seeds = list(history["seed"].unique())
    with style():
        figure, axes = plt.subplots(1, len(panels), figsize=(3.2 * len(panels), 2.8), squeeze=False)
        for axis, (column, title) in zip(axes[0], panels.items(), strict=True):
            for seed, curve in history.dropna(subset=[column]).groupby("seed"):
                axis.plot(
                    curve["epoch"],
                    curve[column],
                    color=BLUE,
                    linestyle=dashes_of(seeds, seed),
                    label=f"seed {seed}",
                )
            axis.set(title=broken(title, 30), xlabel="epoch")
            # Losses fall by orders of magnitude in the first epochs.
            axis.set_yscale("linear" if column == "valid_disagreement" else "log")
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes[0, 0].legend()
    return figure


def weights_by_rarity(dataset: Dataset, variant: VariantSettings, fit_on: Sequence[str]) -> Figure:
    """The loss weight of a positive and of a negative, by the node's training positives, if any.

    With a focal term these are the weights at its floor and at an uncertainty of 1; with a schedule,
    the first ones.
    """
    if variant.family != "network":
        return _note("This has no loss to weigh.")
    loss = build_loss(variant, dataset, fit_on)
    counts = sum(dataset.counts(part) for part in fit_on)
    shown = np.flatnonzero(dataset.evaluated & (counts > 0))
    ones = np.ones(len(dataset.hierarchy))
    positive = ones if loss.positive_weight is None else loss.positive_weight.cpu().numpy()
    negative = ones if loss.negative_weight is None else loss.negative_weight.cpu().numpy()
    factors = {"": 1.0}
    if loss.focal is not None:
        factors = {", sure": loss.focal.floor, ", unsure": loss.focal.floor + 1}
    with style():
        figure, axes = plt.subplots(figsize=(6.4, 2.8))
        for label, factor in factors.items():
            line = "-" if label != ", sure" else ":"
            for name, weight, colour, marker in (
                ("positive", positive, VERMILION, "o"),
                ("negative", negative, BLACK, "x"),
            ):
                # Nodes of equal counts may differ in weight, as where these are counted otherwise.
                order = shown[np.lexsort((weight[shown], counts[shown]))]
                axes.plot(
                    counts[order],
                    loss.mixture * factor * weight[order] + 1 - loss.mixture,
                    color=colour,
                    linestyle=line,
                    # Where both weigh the same, the line of positives is seen behind the crosses.
                    linewidth=2.5 if name == "positive" else 1,
                    marker=marker,
                    markersize=6 if name == "positive" else 4,
                    markerfacecolor="none",
                    label=f"{name}{label}",
                )
        axes.set(
            xscale="log", yscale="log", xlabel="training positives of the node", ylabel="weight"
        )
        figure.legend(loc="outside right upper")
    return figure


def _note(text: str) -> Figure:
    """A figure that says why there is nothing to show."""
    with style():
        figure, axes = plt.subplots(figsize=(5, 0.6))
        axes.text(0.5, 0.5, text, ha="center", va="center")
        axes.set_axis_off()
    return figure
