"""What a data set looks like: depth, the long tail, and part of the hierarchy."""

import textwrap

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from rarenodes.datasets.dataset import Dataset
from rarenodes.pages.plots.style import BLACK, BLUE, GREY, ORANGE, in_font, style
from rarenodes.scores.metrics import RARITY_BINS, rarity_bin


def nodes_by_depth(dataset: Dataset) -> Figure:
    """Number of evaluated nodes at each depth, and how many of them are rare in training."""
    depth = dataset.hierarchy.depth.numpy()[dataset.evaluated]
    rare = dataset.counts("train")[dataset.evaluated] <= 10
    levels = np.arange(depth.min(), depth.max() + 1)
    with style():
        figure, axes = plt.subplots(figsize=(5, 3))
        total = [(depth == level).sum() for level in levels]
        of_rare = [((depth == level) & rare).sum() for level in levels]
        axes.bar(levels, total, color="white", edgecolor=BLACK, label="all nodes")
        axes.bar(levels, of_rare, color=BLUE, width=0.5, label="10 training positives or fewer")
        axes.bar_label(axes.containers[0], padding=2)
        axes.set(xlabel="depth (steps below a root)", ylabel="nodes", xticks=levels)
        axes.grid(axis="x", visible=False)
        axes.set_ylim(0, max(total) * 1.35)
        axes.legend(loc="upper left")
    return figure


def long_tail(dataset: Dataset) -> Figure:
    """Training positives of every evaluated node, most frequent first, with the rarity bins."""
    counts = np.sort(dataset.counts("train")[dataset.evaluated])[::-1]
    bins = rarity_bin(counts)
    with style():
        figure, axes = plt.subplots(figsize=(6.5, 3.2))
        axes.step(np.arange(1, len(counts) + 1), np.maximum(counts, 0.5), color=BLUE, where="mid")
        # Labels of narrow bins stand below their neighbours'.
        last_at = [np.inf] * 3
        for name in RARITY_BINS:
            places = np.flatnonzero(np.asarray(bins) == name)
            if not len(places):
                continue
            axes.axvline(places[0] + 0.5, color=GREY, linewidth=0.8, linestyle="--")
            # The bins at either end can be narrower than their labels.
            middle = np.clip(
                (places[0] + places[-1]) / 2 + 1, 0.06 * len(counts), 0.94 * len(counts)
            )
            free = [abs(middle - last) > 0.13 * len(counts) for last in last_at]
            level = free.index(True) if any(free) else int(np.argmax(last_at))
            last_at[level] = middle
            axes.text(
                middle,
                0.99 - 0.13 * level,
                f"{name}\n{len(places)} nodes",
                ha="center",
                va="top",
                transform=axes.get_xaxis_transform(),
                fontsize=8,
            )
        axes.set(
            xlabel="nodes, most frequent first",
            ylabel="training positives",
            yscale="log",
            xlim=(0, len(counts) + 1),
            ylim=(0.4, counts.max() * 30),
        )
    return figure


def part_of_hierarchy(dataset: Dataset, most: int = 40) -> Figure:
    """One branch of the hierarchy, drawn as an indented tree, with each node's training positives.

    The branch is the largest one that has at most `most` nodes; of a DAG, each node is drawn once,
    below its first parent.
    """
    counts = dataset.counts("train")
    top = _branch(dataset, most)
    rows = _indented(dataset.hierarchy, top)
    with style():
        figure, axes = plt.subplots(figsize=(8, 0.22 * len(rows) + 0.8))
        place = {node: i for i, (node, _) in enumerate(rows)}
        # Steps in this outline: a node may have a shorter way from the top through another parent.
        level = {}
        for node, parent in rows:
            level[node] = 0 if parent is None else level[parent] + 1
        for node, parent in rows:
            x, y = level[node], -place[node]
            if parent is not None:
                axes.plot(
                    [level[parent], level[parent], x],
                    [-place[parent], y, y],
                    color=GREY,
                    linewidth=0.8,
                )
            rare = counts[node] <= 10
            axes.plot(
                x,
                y,
                "o",
                markersize=3 + 2.5 * np.log10(1 + counts[node]),
                markerfacecolor="white" if rare else ORANGE,
                markeredgecolor=BLACK,
                markeredgewidth=0.8,
            )
            axes.text(x + 0.12, y, _caption(dataset, node, counts), va="center", fontsize=8)
        axes.set_title(
            "hollow: at most 10 training positives; in brackets: training positives", fontsize=8.5
        )
        axes.axis("off")
        axes.set_xlim(-0.3, max(level.values()) + 1.6)
    return figure


def _caption(dataset: Dataset, node: int, counts: np.ndarray) -> str:
    name = dataset.hierarchy.nodes[node]
    title = in_font(name if dataset.titles is None else f"{name}  {dataset.titles[node]}")
    return f"{textwrap.shorten(title, 70, placeholder=' …')}  ({counts[node]})"


def _branch(dataset: Dataset, most: int) -> int:
    sizes = {
        node: len(dataset.hierarchy.descendants(node))
        for node in range(len(dataset.hierarchy))
        if dataset.hierarchy.children[node]
    }
    fitting = {node: size for node, size in sizes.items() if size <= most}
    # A star taller than the page has no branch that fits: draw its smallest one.
    return max(fitting, key=fitting.get) if fitting else min(sizes, key=sizes.get)


def _indented(hierarchy, top: int) -> list[tuple[int, int | None]]:
    """(node, parent) in the order of an outline, each node once."""
    rows, seen, stack = [], set(), [(top, None)]
    while stack:
        node, parent = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        rows.append((node, parent))
        stack.extend((child, node) for child in reversed(hierarchy.children[node]))
    return rows
