"""All data sets together: is a gain in recall a gain in ranking?"""

from collections.abc import Sequence

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from rarenodes.pages.plots.evaluation import draw_forest, name_rows
from rarenodes.pages.plots.style import style
from rarenodes.scores.catalogue import Key, labels

RECALL_AND_RANKING: tuple[Key, ...] = (
    ("macro_recall", "rare", "half"),
    ("macro_average_precision", "rare", "none"),
)


def recall_against_ranking(
    differences: pd.DataFrame, baseline: str, keys: Sequence[Key] = RECALL_AND_RANKING
) -> Figure:
    """For each data set, what each variant gains at a fixed threshold and what no threshold fakes.

    Filled dots: the interval leaves out 0.
    """
    against = differences[differences["baseline"] == baseline]
    datasets = list(dict.fromkeys(against["dataset"]))
    variants = list(dict.fromkeys(against["variant"]))
    with style():
        figure, axes = plt.subplots(
            len(datasets),
            len(keys),
            figsize=(1.8 + 3.1 * len(keys), (0.7 + 0.24 * len(variants)) * len(datasets)),
            sharex="col",
            sharey=True,
            squeeze=False,
        )
        for row, dataset in zip(axes, datasets, strict=True):
            part = against[against["dataset"] == dataset].set_index(["measure", "nodes", "at"])
            for axis, key in zip(row, keys, strict=True):
                draw_forest(axis, part.loc[[key]], variants)
                axis.set_title(f"{dataset}:\n{labels('compared')[key]}")
        name_rows(axes[0, 0], variants)
        figure.supxlabel(f"difference from {baseline}, with interval", fontsize=9)
    return figure
