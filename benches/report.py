"""The report: aims and what was measured, tables and figures, on what machine."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from benches import figures
from benches.loss import KERNEL
from benches.sparse import of_sizes
from rarenodes.pages.plots.style import save_figure
from rarenodes.pages.tables import write_table

# Ways with a matrix, and what to call them.
DENSE = {"dense, max": "max", "dense, amax": "amax", "hmc-torch": "hmc-torch"}
MILLISECONDS = {"ms": "median ms", "ms_lower": "quartile", "ms_upper": "quartile "}


def write(tables: Mapping[str, pd.DataFrame], machine: Mapping[str, object], folder: Path) -> None:
    """Write tables as CSV and Markdown, figures, and `README.md`, which shows all."""
    for name, table in tables.items():
        write_table(table, folder / "tables" / name)
    save_figure(figures.against_size(tables["sizes"], tables["memory"]), folder / "figures/sizes")
    save_figure(figures.of_shapes(tables["shapes"]), folder / "figures/shapes")
    save_figure(figures.of_steps(tables["steps"]), folder / "figures/steps")
    save_figure(figures.of_sparse(tables["sparse"]), folder / "figures/sparse")
    (folder / "README.md").write_text(_page(tables, machine))


def aims(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Each aim with what was measured."""
    rows = []

    def add(what: str, aim: str, measured: str) -> None:
        rows.append({"what": what, "aim": aim, "measured": measured})

    losses = tables["losses"].set_index(["hierarchy", "members", "way"])["ratio"].sort_index()
    for name, aim in (("FUN", 300), ("GO", 15_000)):
        small = losses[name, 1]
        found = {
            way: f"{small[way] / small['coherent']:,.0f} than {words}"
            for way, words in DENSE.items()
            if way in small
        }
        plain = small["dense, max"] / small["plain BCE"]
        add(
            f"coherent loss, {name}, 1 member, 4 examples: times faster than a dense matrix",
            f"≥ {aim:,}",
            f"{', '.join(found.values())}; plain BCE {plain:,.0f} than max",
        )
    add(
        "loss with weights and gmu, GO, 10 members, 64 examples: of plain BCE",
        "≤ 2.5 ×",
        f"{losses['GO', 10, 'coherent, weights, gmu']:.2f} ×",
    )
    steps = tables["steps"].set_index(["hierarchy", "members", "way"])["ratio"].sort_index()
    for name in ("FUN", "GO"):
        add(
            f"training step, {name}, 10 members, 64 examples: of the step with plain BCE",
            "≤ 1.15 ×",
            f"{steps[name, 10, 'coherent']:.2f} ×, with weights and gmu "
            f"{steps[name, 10, 'coherent, weights, gmu']:.2f} ×",
        )
    sizes = tables["sizes"]
    for members in (1, 10):
        coherent, weighted, plain = (
            _growth(sizes, way, members) for way in (*KERNEL[1:], KERNEL[0])
        )
        add(
            f"time a node from 1,600 to 50,000 nodes, {members} member{'s' * (members > 1)}: "
            "of that at 500",
            "within 30 %",
            f"{coherent}, with weights and gmu {weighted}; plain BCE {plain}",
        )
    memory = tables["memory"]
    most = memory.groupby("way")["tensors"].max()
    add(
        "extra memory of loss and gradient, 10 members, 64 examples",
        "≤ 3 tensors of the logits' size",
        f"≤ {most[list(KERNEL[1:])].max():.2f}; plain BCE {most[KERNEL[0]]:.2f}",
    )
    cellcycle = tables["cellcycle"]
    if len(cellcycle):
        scores = ", ".join(f"{value:.3f}" for value in cellcycle["au_prc"])
        add(
            "mcm, 1 member, cellcycle_FUN, 2 cores: training time to a test AU(PRC) of 0.25",
            "≤ 20 s",
            f"{scores} after {cellcycle['seconds'].min():.1f} to "
            f"{cellcycle['seconds'].max():.1f} s",
        )
    for row in tables["icd10cm"].itertuples():
        add(
            f"all of ICD-10-CM, {row.members} member{'s' * (row.members > 1)}, 2 cores",
            "≤ 3 min an epoch, 4 GB" if row.members == 1 else "10 GB",
            f"{row.seconds / 60:.1f} min an epoch, {row.peak_bytes / 1e9:.1f} GB",
        )
    epochs = tables["icd10cm_sparse"]
    best = epochs["valid_active_bce"].idxmin()
    taken = epochs.loc[:best, ["seconds", "validation_seconds"]].sum(axis=None)
    add(
        f"all of ICD-10-CM at active nodes, hidden {epochs['hidden'].iloc[0]}, 1 member, 2 cores",
        "≤ 3 s an epoch; ≤ 3 min to the best validation loss; ≤ 1.5 GB",
        f"{epochs['seconds'].median():.1f} s an epoch (median of {len(epochs)}); best after "
        f"{epochs.loc[best, 'epoch']}, {taken:.0f} s; {epochs['peak_bytes'].max() / 1e9:.2f} GB",
    )
    sizes = tables["sparse"]
    of_all, of_alike = (rows["us_per_active_node"] for rows in of_sizes(sizes))
    add(
        f"time an active node, {sizes['nodes'].min():,} to {sizes['nodes'].max():,} nodes: most of least",
        "within 30 %",
        f"+{of_alike.max() / of_alike.min() - 1:.0%} where a batch's examples share rows as often; "
        f"+{of_all.max() / of_all.min() - 1:.0%} with labels from all nodes",
    )
    for row in tables["million"].itertuples():
        add(
            f"{row.hierarchy} of {row.nodes:,} nodes, {row.examples:,} examples, {row.threads} threads",
            "≤ 2 min an epoch, 8 GB; top 5 of 10,000 examples ≤ 20 s",
            f"{row.epoch_seconds:.0f} s, {row.peak_bytes / 1e9:.1f} GB; {row.us_top_5 / 100:.1f} s",
        )
    for variant, table in tables["predictions"].groupby("variant", sort=False):
        few, many = table.sort_values("texts").iloc[[0, -1]].itertuples()
        add(
            f"predictions of {many.texts:,} texts on {many.nodes:,} nodes, {variant}, 2 cores",
            f"≤ 30 s; memory no more than of {few.texts:,}",
            f"{many.seconds:.1f} s, {many.processor_seconds:.1f} s of processors; "
            f"{many.peak_bytes / 1e9:.2f} GB, of {few.texts:,} {few.peak_bytes / 1e9:.2f} GB",
        )
    return pd.DataFrame(rows)


def _growth(sizes: pd.DataFrame, way: str, members: int) -> str:
    """How much more time a node takes than at the smallest size, trees and DAGs alike."""
    part = sizes[(sizes["way"] == way) & (sizes["members"] == members)]
    by_size = part.pivot(index="nodes", columns="hierarchy", values="ns_per_node")
    growth = (by_size / by_size.iloc[0] - 1).iloc[1:]
    return f"{growth.min(axis=None):+.0%} to {growth.max(axis=None):+.0%}"


def _page(tables: Mapping[str, pd.DataFrame], machine: Mapping[str, object]) -> str:
    on = ", ".join(f"{key} {value}" for key, value in machine.items() if value)
    columns = ["hierarchy", "nodes", "members", "batch", "way", *MILLISECONDS, "ratio"]
    losses = tables["losses"][columns].rename(columns=MILLISECONDS)
    steps = tables["steps"][columns].rename(columns=MILLISECONDS)
    return f"""# What the hierarchy costs

Measured by `make bench`; {on}. Medians with quartiles, one thread unless said; ratios are medians over neighbouring turns of one run. Single figures move by some per cent from run to run, more where a machine is shared; tables are in `tables/`.

## Aims

{aims(tables).to_markdown(index=False)}

Dense: the definition with a matrix of nodes × nodes. What plain BCE on logits reaches against it, with no hierarchy at all, bounds what a loss can.

## Loss and gradient

`ratio` is to plain BCE on logits.

{losses.to_markdown(index=False, floatfmt=".3f")}

## Size and shape

![Time and memory against the number of nodes](figures/sizes.svg)

![Time a node by shape](figures/shapes.svg)

Trees and DAGs (1.4 edges a node) of depth 6; the shapes have 5,000 nodes, 10 members and 64 examples.

## A training step

![A training step and its parts](figures/steps.svg)

{steps.to_markdown(index=False, floatfmt=".3f")}

## Training and searching active nodes alone

Complete trees, one member, batches of 256; `active` are an example's active nodes. A row is read for every pair of an example and an active node, and updated once a batch: `rows_a_pair` of them, fewer where examples of a batch share active nodes, as they do in small trees. So trees are measured twice, with labels from all nodes and from so few (`labels_from`) that rows are shared as often as in the smallest: hollow in the figure. Dense epochs are stated from single steps. Precision is that of examples not trained on; below the root, most have 4 positive nodes at 5,000 nodes and 5 at 100,000, which bounds it at 5.

![Seconds an epoch, and time an active node, against the number of nodes](figures/sparse.svg)

{tables["sparse"].to_markdown(index=False, floatfmt=".4g")}

A million nodes; in the DAG one node in five has a second parent.

{tables["million"].to_markdown(index=False, floatfmt=".4g")}

All of ICD-10-CM by epoch, data prepared before; `valid_active_bce` is the cross-entropy at active nodes of the validation part.

{tables["icd10cm_sparse"].to_markdown(index=False, floatfmt=".4g")}

## Beside label trees

All of ICD-10-CM, from the same split: sparse conditional training and [napkinXC](https://napkinxc.readthedocs.io), where it is installed (`pip install -e '.[peers]'`), on two threads. Each gives its 100 likeliest nodes of every test text and is scored by these; precision at 1, 3 and 5, and average precision as a mean over nodes with test texts, by number of training texts.

{tables["napkinxc"].to_markdown(index=False, floatfmt=".4g")}

## Predictions

Of `python -m rarenodes predict --top 5` for short texts, in whole processes on two cores, from reading the model to the written table.

{tables["predictions"].to_markdown(index=False, floatfmt=".4g")}
"""
