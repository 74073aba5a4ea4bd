"""Figures of the report."""

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from benches.loss import KERNEL
from benches.sparse import of_sizes
from benches.step import PARTS
from rarenodes.pages.plots.style import BLACK, BLUE, GREY, ORANGE, VERMILION, style

_LOOKS = {
    "plain BCE": {"color": GREY, "marker": "s", "linestyle": ":"},
    "coherent": {"color": BLUE, "marker": "o", "linestyle": "-"},
    "coherent, weights, gmu": {"color": VERMILION, "marker": "^", "linestyle": "--"},
}
_FILLS = {"network": (GREY, ""), "loss": (VERMILION, "//"), "optimiser": (ORANGE, "..")}


def against_size(sizes: pd.DataFrame, memory: pd.DataFrame) -> Figure:
    """Time a node and example, and extra memory, against the number of nodes."""
    with style():
        figure, axes = plt.subplots(1, 3, figsize=(10, 3.2))
        for axis, members in zip(axes, (1, 10), strict=False):
            part = sizes[sizes["members"] == members]
            for way in KERNEL:
                for kind, filled in (("tree", True), ("DAG", False)):
                    row = part[(part["way"] == way) & (part["hierarchy"] == kind)]
                    look = _LOOKS[way] | ({} if filled else {"markerfacecolor": "white"})
                    label = way if filled else None
                    axis.plot(row["nodes"], row["ns_per_node"], label=label, markersize=5, **look)
            axis.set(
                title=f"time, {members} member{'s' * (members > 1)}, 64 examples",
                ylabel="ns a node, example and member",
            )
        for way in KERNEL:
            row = memory[memory["way"] == way]
            axes[2].plot(row["nodes"], row["tensors"], label=way, markersize=5, **_LOOKS[way])
        axes[2].set(title="memory, 10 members", ylabel="extra tensors of the logits' size")
        axes[0].plot([], [], "o", color=BLACK, markerfacecolor="white", label="hollow: DAGs")
        axes[0].legend(fontsize=8)
        for axis in axes:
            axis.set(xscale="log", xlabel="nodes")
            axis.set_ylim(0, None)
    return figure


def of_sparse(sparse: pd.DataFrame) -> Figure:
    """Seconds an epoch against the number of nodes, dense and of active nodes; time an active node."""
    with style():
        figure, (epochs, nodes) = plt.subplots(1, 2, figsize=(7, 3))
        sparse, alike = of_sizes(sparse)
        for column, label, look in (
            ("dense_epoch_seconds", "all nodes", {"color": GREY, "marker": "s", "linestyle": ":"}),
            ("epoch_seconds", "active nodes", {"color": BLUE, "marker": "o"}),
        ):
            row = sparse.dropna(subset=[column])
            epochs.plot(row["nodes"], row[column], label=label, markersize=5, **look)
        epochs.set(xscale="log", yscale="log", xlabel="nodes", ylabel="seconds an epoch")
        epochs.legend(fontsize=8)
        for rows, label, look in (
            (sparse, "labels from all nodes", {}),
            (alike, "as many rows a pair", {"linestyle": "--", "markerfacecolor": "white"}),
        ):
            look = {"color": BLUE, "marker": "o", "markersize": 5} | look
            nodes.plot(rows["nodes"], rows["us_per_active_node"], label=label, **look)
        nodes.legend(fontsize=8, loc="lower right")
        nodes.set(xscale="log", xlabel="nodes", ylabel="µs an active node and example")
        nodes.set_ylim(0, None)
    return figure


def of_shapes(shapes: pd.DataFrame) -> Figure:
    """Time a node and example for shallow and deep hierarchies."""
    names = list(dict.fromkeys(shapes["hierarchy"]))
    with style():
        figure, axis = plt.subplots(figsize=(6.5, 2.8))
        for way in KERNEL:
            row = shapes[shapes["way"] == way].set_index("hierarchy")["ns_per_node"]
            look = _LOOKS[way] | {"linestyle": "none"}
            axis.plot(row.reindex(names), range(len(names)), label=way, **look)
        axis.set_yticks(range(len(names)), names)
        axis.invert_yaxis()
        axis.set_xlim(0, None)
        axis.set(xlabel="ns a node, example and member")
        axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def of_steps(steps: pd.DataFrame) -> Figure:
    """What network, loss and optimiser take of a training step."""
    cases = steps.groupby(["hierarchy", "members"], sort=False)
    with style():
        figure, axes = plt.subplots(1, len(cases), figsize=(11, 2.6), sharey=True)
        for axis, ((name, members), part) in zip(axes, cases, strict=True):
            left = np.zeros(len(part))
            for piece in PARTS:
                colour, hatch = _FILLS[piece]
                width = part[f"ms_{piece}"].to_numpy()
                axis.barh(
                    part["way"], width, left=left, color=colour, hatch=hatch, edgecolor="white",
                    height=0.7, label=piece,
                )  # fmt: skip
                left += width
            axis.set(title=f"{name}, {members} member{'s' * (members > 1)}", xlabel="ms a step")
            axis.grid(axis="y", visible=False)
        axes[0].invert_yaxis()
        axes[-1].legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
