"""Is any rare node ranked better? Every rare node by itself."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy.stats import false_discovery_control

from rarenodes.inference.bootstrap import BootstrapScores, bootstrap_scores
from rarenodes.scores.catalogue import RARE
from rarenodes.stages.audit.switches import Pair
from rarenodes.stages.material import Material

# A node's own difference is tested where it has this many test positives. With fewer, what is
# drawn anew says little of what else might have been drawn: in a simulation of 837 examples, five
# seeds and two variants of which neither was better (1,000 nodes a case, ±1 point, p-values counted
# from replicates that draw examples and seeds anew), nodes with one
# positive were called different in up to 18 % of cases at a level of 5 % and 7 % at 1 %; with two
# in 5 % and 3 %; with three to six in 4 % and 2 % at most.
FEWEST_TESTED = 3

_NODE_COLUMNS = [
    "off",
    "on",
    "trained_alike",
    "node",
    "train_positives",
    "test_positives",
    "off_average_precision",
    "on_average_precision",
    "difference",
    "lower",
    "upper",
    "p",
    "adjusted_p",
]
_COUNT_COLUMNS = [
    "off",
    "on",
    "trained_alike",
    "rare_nodes",
    "higher",
    "lower",
    "tested",
    "better",
    "worse",
    "better_alone",
    "worse_alone",
    "by_chance",
]


def node_differences(material: Material, pairs: Sequence[Pair]) -> pd.DataFrame:
    """Average precision of every rare node with test positives: `on − off`, averaged over seeds.

    The test is that of all other differences (`rarenodes.inference.difference`): a sign or
    permutation test over five seeds cannot give a p-value below 1/16. It is made where a node has
    `FEWEST_TESTED` test positives.

    Args:
        material: of a data set.
        pairs: from `switch_pairs`; of these, whole methods, and the first step there.

    Returns:
        A row per pair and node; `adjusted_p` after Benjamini and Hochberg, over the tested nodes of
        a pair, so that of the nodes called different a share up to the level is expected to be wrong.

    """
    baseline = pairs[0].off
    shown = [pair for pair in pairs if pair.kind == "whole" or pair.off == baseline]
    shown = [pair for pair in shown if pair.kind != "elsewhere"]
    chosen = np.flatnonzero(material.groups[RARE] & (material.support > 0))
    if not len(chosen):
        return pd.DataFrame(columns=_NODE_COLUMNS)
    known = _known(material, chosen)
    scored = {
        variant: _scored_alone(material, variant, chosen)
        for variant in dict.fromkeys(name for pair in shown for name in (pair.off, pair.on))
    }
    columns = [("macro_average_precision", str(node)) for node in chosen]
    tables = []
    for pair in shown:
        on, off = scored[pair.on], scored[pair.off]
        found = material.difference(pair.on, on, pair.off, off, columns)
        lower, upper = found.interval(material.confidence)
        tested = known["test_positives"].to_numpy() >= FEWEST_TESTED
        p = np.where(tested, found.p(), np.nan)
        table = known.assign(
            off=pair.off,
            on=pair.on,
            trained_alike=pair.trained_alike,
            off_average_precision=off.estimate()[columns].to_numpy(),
            on_average_precision=on.estimate()[columns].to_numpy(),
            difference=found.value,
            lower=lower,
            upper=upper,
            p=p,
            adjusted_p=_false_discovery_adjusted(p),
        )
        tables.append(table[_NODE_COLUMNS])
    return pd.concat(tables, ignore_index=True)


def node_counts(nodes: pd.DataFrame, level: float) -> pd.DataFrame:
    """How many rare nodes are ranked better and worse, and how many to expect by chance.

    Args:
        nodes: from `node_differences`.
        level: of the tests.

    Returns:
        A row per pair. `higher` and `lower` count all nodes by the sign of their difference;
        `better` and `worse` the tested ones whose adjusted p-value is at most the level;
        `better_alone` and `worse_alone` those without adjustment, of which about `by_chance`
        are to be expected on either side if nothing differed at all.

    """
    rows = []
    for (off, on), part in nodes.groupby(["off", "on"], sort=False):
        up, down = part["difference"] > 0, part["difference"] < 0
        clear, alone = part["adjusted_p"] <= level, part["p"] <= level
        tested = int(part["p"].notna().sum())
        rows.append(
            {
                "off": off,
                "on": on,
                "trained_alike": part["trained_alike"].iloc[0],
                "rare_nodes": len(part),
                "higher": int(up.sum()),
                "lower": int(down.sum()),
                "tested": tested,
                "better": int((up & clear).sum()),
                "worse": int((down & clear).sum()),
                "better_alone": int((up & alone).sum()),
                "worse_alone": int((down & alone).sum()),
                "by_chance": level / 2 * tested,
            }
        )
    return pd.DataFrame(rows, columns=_COUNT_COLUMNS)


def _known(material: Material, chosen: Int[np.ndarray, " nodes"]) -> pd.DataFrame:
    dataset = material.dataset
    return pd.DataFrame(
        {
            "node": np.array(dataset.hierarchy.nodes)[dataset.evaluated][chosen],
            "train_positives": dataset.counts("train")[dataset.evaluated][chosen],
            "test_positives": material.support[chosen],
        }
    )


def _scored_alone(
    material: Material, variant: str, chosen: Int[np.ndarray, " nodes"]
) -> BootstrapScores:
    """Every node as a group of its own, named after its place."""
    return bootstrap_scores(
        np.ascontiguousarray(material.test[variant][:, :, chosen]),
        material.targets[:, chosen],
        material.examples,
        groups={str(node): chosen == node for node in chosen},
    )


def _false_discovery_adjusted(p: Float[np.ndarray, " tests"]) -> Float[np.ndarray, " tests"]:
    adjusted, known = np.full(len(p), np.nan), ~np.isnan(p)
    if known.any():
        adjusted[known] = false_discovery_control(p[known])
    return adjusted
