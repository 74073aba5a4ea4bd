"""Images themselves: what examples of nodes look like, and which of rare nodes were found."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from rarenodes.datasets.dataset import Dataset
from rarenodes.pages.plots.style import in_font, style
from rarenodes.pages.tables import example_name, most_specific, shown_examples
from rarenodes.scores.catalogue import RARE_BINS
from rarenodes.scores.metrics import rarity_bin

COLUMNS = 6  # images in a row
LETTERS = 18  # of a title

Picture = tuple[int, str]  # number of the example, what stands above it


def contact_sheet(dataset: Dataset, seed: int, rows: int = 6) -> Figure:
    """Some training examples under their most specific nodes, and those of some rare nodes.

    Args:
        dataset: with images.
        seed: of the examples, which are those of `tables.example_table`.
        rows: how many rare nodes, from the rarest to those of most training examples.

    """
    some = shown_examples(dataset, seed, COLUMNS)
    sheet = [("some\nexamples", [(row, _ends(dataset, row)) for row in some.tolist()])]
    counts = dataset.counts("train")
    rare = np.isin(np.asarray(rarity_bin(counts)), RARE_BINS) & dataset.evaluated
    rare = np.flatnonzero(rare)[np.argsort(counts[rare], kind="stable")].tolist()
    chosen = np.unique(np.linspace(0, len(rare) - 1, min(rows, len(rare))).round().astype(int))
    for node in (rare[place] for place in chosen):
        examples = _examples_of(dataset, node)[:COLUMNS]
        name = printable(dataset.names[dataset.hierarchy.nodes[node]])
        sheet.append((f"{name}\n{counts[node]} in train", [(row, "") for row in examples]))
    return _drawn(dataset, sheet)


def found_and_missed(dataset: Dataset, found: pd.DataFrame, variant: str, rows: int = 6) -> Figure:
    """Rare nodes of which a variant finds some test examples and misses others.

    A row a node, those of most test examples first: training examples, then one that was found and one that was
    missed, under what most misses were taken for.

    Args:
        dataset: with images.
        found: the table `rare_nodes` of the evaluation.
        variant: of those in it.
        rows: how many nodes at most.

    """
    both = found[(found["variant"] == variant) & found[["found", "missed"]].notna().all(axis=1)]
    both = both.sort_values(["test_examples", "node"], ascending=[False, True])[:rows]
    number = {example_name(dataset, row): row for row in dataset.split["test"].tolist()}
    sheet = []
    for row in both.itertuples():
        node = dataset.hierarchy.index[row.node]
        learnt = _examples_of(dataset, node)[: COLUMNS - 2]
        pictures: list[Picture | None] = [(example, "train") for example in learnt]
        pictures += [None] * (COLUMNS - 2 - len(learnt))
        pictures += [(number[row.found], "found")]
        pictures += [(number[row.missed], f"missed, for {printable(str(row.taken_for))}")]
        sheet.append((f"{printable(row.name)}\n{row.training_examples} in train", pictures))
    return _drawn(dataset, sheet)


def printable(name: str) -> str:
    """A name as a picture's caption can show it, see `rarenodes.pages.plots.style.in_font`."""
    text = in_font(name)
    return text if len(text) <= LETTERS else text[: LETTERS - 1] + "…"


def _ends(dataset: Dataset, row: int) -> str:
    names = (dataset.hierarchy.nodes[node] for node in most_specific(dataset, row))
    return printable(", ".join(dataset.names[name] for name in names))


def _examples_of(dataset: Dataset, node: int) -> list[int]:
    train = dataset.split["train"]
    return train[dataset.targets[train][:, [node]].toarray().ravel() > 0].tolist()


def _drawn(dataset: Dataset, sheet: Sequence[tuple[str, Sequence[Picture | None]]]) -> Figure:
    with style():
        size = (1.25 * (COLUMNS + 1), 1.35 * max(1, len(sheet)))
        figure, axes = plt.subplots(max(1, len(sheet)), COLUMNS + 1, figsize=size, squeeze=False)
        for axis in axes.flat:
            axis.axis("off")
        for row, (about, pictures) in zip(axes, sheet, strict=False):
            row[0].text(0, 0.5, about, va="center", fontsize=8, transform=row[0].transAxes)
            for axis, picture in zip(row[1:], pictures, strict=False):
                if picture is not None:
                    axis.imshow(dataset.images[picture[0]], cmap="gray", vmin=0, vmax=255)
                    axis.set_title(picture[1], fontsize=7, loc="center")
    return figure
