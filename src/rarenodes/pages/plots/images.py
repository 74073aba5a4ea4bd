"""Gains and scores over two axes: the encoder's quality and the amount of data."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from rarenodes.pages.comparison import CLEAR, SPOKEN_OF, at_key
from rarenodes.pages.images import SCORES
from rarenodes.pages.plots.style import BLUE, VERMILION, broken, dashes_of, style
from rarenodes.pages.plots.verdicts import SIGNS
from rarenodes.pages.prose import signed

_WIDTH = 2.2  # inches of a panel
_GAINS = LinearSegmentedColormap.from_list("gains", [VERMILION, "#ffffff", BLUE])


def gain_grid(gains: pd.DataFrame, variants: Sequence[str]) -> Figure:
    """Difference from the baseline, in points: a row of panels for each variant, a column for each score.

    Within a panel λ rises to the right and the share of the data upwards. The sign is the verdict's;
    cells are coloured where the difference is clear, on one scale in a column.

    Args:
        gains: from `rarenodes.stages.images`.
        variants: which.

    """
    with style():
        figure, axes = plt.subplots(
            len(variants),
            len(SCORES),
            figsize=(_WIDTH * len(SCORES), 0.5 + 1.3 * len(variants)),
            squeeze=False,
        )
        for column, (name, label) in zip(axes.T, SCORES.items(), strict=True):
            of_score = at_key(gains, SPOKEN_OF[name])
            shown = of_score[of_score["variant"].isin(variants)]
            largest = float(shown["difference"].abs().max()) if len(shown) else 0.0
            for axis, variant in zip(column, variants, strict=True):
                _panel(axis, shown[shown["variant"] == variant], "difference", largest)
            column[0].set_title(broken(label, 20))
            column[-1].set_xlabel("λ")
        for row, variant in zip(axes, variants, strict=True):
            row[0].set_ylabel(f"{broken(variant, 20)}\nshare of data", fontsize=8)
    return figure


def baseline_grid(gains: pd.DataFrame) -> Figure:
    """What the baseline scores, in points, over the same axes: how good encoder and data are."""
    with style():
        figure, axes = plt.subplots(1, len(SCORES), figsize=(_WIDTH * len(SCORES), 1.9))
        for axis, (name, label) in zip(axes, SCORES.items(), strict=True):
            of_score = at_key(gains, SPOKEN_OF[name]).drop_duplicates(["blend", "share"])
            _panel(axis, of_score, "baseline_score", float(of_score["baseline_score"].max()))
            axis.set(title=broken(label, 20), xlabel="λ")
        axes[0].set_ylabel("share of data")
    return figure


def by_rarity(table: pd.DataFrame, variant: str, baseline: str) -> Figure:
    """What a variant gains in the bins of rarity: a panel for each score and share, a line for each λ.

    Args:
        table: scores by rarity of all conditions.
        variant: which.
        baseline: what it is compared with.

    """
    scores = {"recall_half": "recall at 0.5", "average_precision": "average precision"}
    keys = ["blend", "share", "rarity"]
    own, base = (
        table[table["variant"] == name].set_index(keys)[list(scores)]
        for name in (variant, baseline)
    )
    gain = 100 * (own - base)
    blends, shares = sorted(table["blend"].unique()), sorted(table["share"].unique())
    bins = list(dict.fromkeys(table["rarity"].astype(str)))
    with style():
        figure, axes = plt.subplots(
            len(scores), len(shares), figsize=(3 * len(shares), 2.2 * len(scores)), squeeze=False,
            sharey="row",
        )  # fmt: skip
        for row, (score, label) in zip(axes, scores.items(), strict=True):
            for axis, share in zip(row, shares, strict=True):
                for blend in blends:
                    if (blend, share) in gain.index:
                        line = gain.loc[(blend, share), score]
                        line.index = line.index.astype(str)
                        axis.plot(
                            bins, line.reindex(bins), marker=".", label=f"λ = {blend:g}",
                            linestyle=dashes_of(blends, blend),
                        )  # fmt: skip
                axis.set_title(f"share {share:g}")
            row[0].set_ylabel(f"{label}:\ngain in points")
        axes[-1, 0].set_xlabel("training positives of a node")
        axes[0, 0].legend()
    return figure


def _panel(axis: Axes, table: pd.DataFrame, score: str, largest: float) -> None:
    blends, shares = sorted(table["blend"].unique()), sorted(table["share"].unique())
    values = np.full((len(shares), len(blends)), np.nan)
    coloured = values.copy()
    gain = score == "difference"
    for row in table.itertuples():
        at = shares.index(row.share), blends.index(row.blend)
        values[at] = 100 * getattr(row, score)
        if not np.isnan(values[at]):
            shown = f"{values[at]:.1f}"
            if gain:
                shown = f"{SIGNS[row.verdict][0]} {signed(values[at], 1)}"
            coloured[at] = 0.0 if gain and row.verdict not in CLEAR else values[at]
            dark = abs(coloured[at]) > 65 * largest
            axis.text(
                at[1], at[0], shown, ha="center", va="center", fontsize=8,
                color="#ffffff" if dark else "#000000",
            )  # fmt: skip
    limit = 100 * largest or 1.0
    axis.imshow(coloured, cmap=_GAINS, vmin=-limit, vmax=limit, origin="lower", aspect="auto")
    axis.set_xticks(range(len(blends)), [f"{blend:g}" for blend in blends])
    axis.set_yticks(range(len(shares)), [f"{share:g}" for share in shares])
    axis.grid(False)
