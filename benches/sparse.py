"""Sparse conditional training and search on synthetic hierarchies of up to a million nodes.

On trees at about equal active nodes whatever the size, once with labels from all nodes and once from so few
that the examples of a batch share their rows as often as in the smallest tree; and on a tree and a DAG of a
million nodes with as many examples as a catalogue may have. Each case runs in a process of its own, so that
its peak memory is all that it takes.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
import torch
from scipy import sparse as matrices

from benches.timing import in_process, resident, seconds_of
from rarenodes.datasets.targets import closed_targets
from rarenodes.loss.active_nodes import ActiveNodes, active_nodes
from rarenodes.loss.best_first import Likeliest
from rarenodes.loss.conditional import ConditionalLoss
from rarenodes.loss.hierarchy import Hierarchy
from rarenodes.loss.output import Output
from rarenodes.training.ensemble import Ensemble, Shape
from rarenodes.training.sparse_layer import RowAdam
from rarenodes.training.sparse_training import SparseTraining

SIZES = (5_000, 20_000, 100_000, 1_000_000)
# Children of every inner node; so an example has 10 active nodes a level of its path, and the root.
FAN_OUT = 10
EXAMPLES, FEATURES, HIDDEN, BATCH = 20_000, 64, 256, 256
EPOCHS = 3
# Steps that dense training is timed for.
DENSE_STEPS = 3
# More nodes than this are not trained densely.
DENSE_UP_TO = 100_000
# In a DAG one node in so many has a second parent.
SECOND_PARENT = 5


@dataclass(frozen=True)
class Case:
    """What is trained and searched.

    Attributes:
        nodes: of the hierarchy.
        examples: trained on.
        searched: further examples, for whose likeliest nodes is searched.
        dag: whether some nodes have two parents.
        threads: at once.
        within: how many nodes labels are from, the last ones; 0: all.

    """

    nodes: int
    examples: int = EXAMPLES
    searched: int = 2_000
    dag: bool = False
    threads: int = 1
    within: int = 0

    def labels(self, rng: np.random.Generator, number: int) -> np.ndarray:
        """The one label of each of so many examples."""
        first = self.nodes - self.within if self.within else 1
        return rng.integers(first, self.nodes, number)


MILLION = tuple(Case(1_000_000, 200_000, 10_000, dag, 2) for dag in (False, True))


def sparse(sizes: Sequence[int] = SIZES, examples: int = EXAMPLES) -> pd.DataFrame:
    """A row per number of nodes; dense training is timed for some steps and stated per epoch.

    Then a row for each but the smallest, with labels from so few nodes that as many pairs of an example
    and an active node share a row as in the smallest: what is left to differ is the hierarchy's size.
    """
    share = _drawn_rows_a_pair(complete_tree(sizes[0]), Case(sizes[0]))
    shared = [Case(nodes, examples, within=sharing(nodes, share)) for nodes in sizes[1:]]
    return _measured([*(Case(nodes, examples) for nodes in sizes), *shared])


def of_sizes(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of `sparse` with labels from all nodes, and those that share rows as the smallest does."""
    whole = table["labels_from"] == table["nodes"] - 1
    return table[whole], table[~whole | (table["nodes"] == table["nodes"].min())]


def rows_a_pair(active: ActiveNodes, batches: int = 20) -> float:
    """Distinct active nodes of a batch, over its pairs of an example and an active node; a mean."""
    starts = range(0, min(len(active), batches * BATCH), BATCH)
    of_batches = [active.of(np.arange(i, min(i + BATCH, len(active)))).nodes for i in starts]
    return float(np.mean([len(np.unique(nodes)) / len(nodes) for nodes in of_batches]))


def _drawn_rows_a_pair(tree: Hierarchy, case: Case, batches: int = 20) -> float:
    labels = case.labels(np.random.default_rng(0), batches * BATCH)
    return rows_a_pair(active_nodes(paths(case.nodes, labels), tree), batches)


def sharing(nodes: int, share: float) -> int:
    """From how many nodes labels are, so that `rows_a_pair` is about `share`: by bisection."""
    tree, low, high = complete_tree(nodes), 1, nodes - 1
    while high - low > max(1, low // 50):
        middle = (low + high) // 2
        if _drawn_rows_a_pair(tree, Case(nodes, within=middle)) < share:
            low = middle
        else:
            high = middle
    return high


def million(cases: Sequence[Case] = MILLION) -> pd.DataFrame:
    """A row each for a tree and a DAG of a million nodes."""
    return _measured(cases)


def _measured(cases: Sequence[Case]) -> pd.DataFrame:
    return pd.DataFrame([in_process("benches.sparse", json.dumps(asdict(case))) for case in cases])


def measure(case: Case) -> dict[str, float]:
    """Seconds, peak memory and precision of one case."""
    torch.set_num_threads(case.threads)
    nodes, examples = case.nodes, case.examples
    hierarchy = (dag if case.dag else complete_tree)(nodes)
    rng = np.random.default_rng(0)
    labels = case.labels(rng, examples + case.searched)
    if case.dag:
        every = closed_targets([[f"{label:08}"] for label in labels], hierarchy)
    else:
        every = paths(nodes, labels)
    of_every = _features(every, rng)
    targets, features, unseen = every[:examples], of_every[:examples], of_every[examples:]
    active = active_nodes(targets, hierarchy)
    shape = Shape(FEATURES, HIDDEN, 1, nodes, 0.0)
    ensemble = Ensemble(shape, [torch.Generator().manual_seed(0)], output=Output("product"))
    training = SparseTraining(ensemble, RowAdam(2e-3))
    training.epoch(features, active, np.arange(BATCH), BATCH)  # compiles
    taken = [
        seconds_of(lambda: training.epoch(features, active, rng.permutation(examples), BATCH))
        for _ in range(EPOCHS)
    ]
    counted = torch.ones(nodes, dtype=torch.bool)
    counted[0] = False
    training.likeliest(unseen[:1], hierarchy, most=1)  # compiles
    found: list[Likeliest] = []
    searching = seconds_of(
        lambda: found.append(training.likeliest(unseen, hierarchy, most=5, counted=counted))
    )
    peak = resident("VmHWM")  # before dense training
    return {
        "hierarchy": "DAG" if case.dag else "tree",
        "nodes": nodes,
        "examples": examples,
        "threads": case.threads,
        "labels_from": case.within or nodes - 1,
        "active": len(active.nodes) / examples,
        "rows_a_pair": rows_a_pair(active),
        "epoch_seconds": float(np.median(taken)),
        "us_per_active_node": 1e6 * float(np.median(taken)) / len(active.nodes),
        "us_top_5": 1e6 * searching / case.searched,
        "searched": case.searched,
        "precision_at_1": precision(found[0], every[examples:], 1),
        "precision_at_5": precision(found[0], every[examples:], 5),
        "peak_bytes": peak,
        "dense_epoch_seconds": _dense_epoch(ensemble, hierarchy, features, targets)
        if nodes <= DENSE_UP_TO
        else np.nan,
    }


def complete_tree(nodes: int) -> Hierarchy:
    """Every inner node has `FAN_OUT` children; node numbers are names, in the hierarchy's order."""
    return Hierarchy((f"{i:08}", f"{(i - 1) // FAN_OUT:08}") for i in range(1, nodes))


def dag(nodes: int) -> Hierarchy:
    """The complete tree, in which one node in `SECOND_PARENT` also has the node before its parent."""
    tree = [(i, (i - 1) // FAN_OUT) for i in range(1, nodes)]
    second = [(i, above - 1) for i, above in tree if above and i % SECOND_PARENT == 0]
    return Hierarchy((f"{i:08}", f"{above:08}") for i, above in (*tree, *second))


def paths(nodes: int, labels: np.ndarray) -> matrices.csr_array:
    """Closed targets `[examples, nodes]` of one label each in the complete tree."""
    rows, columns, at = [], [], labels.copy()
    above = np.arange(len(labels))
    while len(at):
        rows.append(above)
        columns.append(at)
        inner = at > 0
        above, at = above[inner], (at[inner] - 1) // FAN_OUT
    row, column = np.concatenate(rows), np.concatenate(columns)
    ones = np.ones(len(row), np.uint8)
    return matrices.csr_array((ones, (row, column)), shape=(len(labels), nodes))


def _features(targets: matrices.csr_array, rng: np.random.Generator) -> torch.Tensor:
    """Sums of random directions of the nodes on the path, and noise."""
    directions = rng.standard_normal((targets.shape[1], FEATURES), dtype=np.float32)
    noise = rng.standard_normal((targets.shape[0], FEATURES), dtype=np.float32)
    return torch.from_numpy((targets.astype(np.float32) @ directions + 0.3 * noise) / 2)


def precision(found: Likeliest, targets: matrices.csr_array, most: int) -> float:
    """Share of the first `most` nodes found of every example that it is positive in."""
    best = np.stack([found.of(example)[0][:most] for example in range(len(found))])
    positive = targets[np.arange(len(found)).repeat(most), best.ravel()]
    return float(np.mean(positive == 1))


def _dense_epoch(
    ensemble: Ensemble, hierarchy: Hierarchy, features: torch.Tensor, targets: matrices.csr_array
) -> float:
    """Seconds an epoch of the dense loop takes, by the median of some steps."""
    adam = torch.optim.Adam(ensemble.parameters(), lr=2e-3, fused=True)
    loss = ConditionalLoss(hierarchy)

    def step() -> None:
        rows = slice(0, BATCH)
        of_batch = torch.from_numpy(targets[rows].toarray().astype(np.float32))
        value = loss(ensemble(features[rows]), of_batch)
        adam.zero_grad()
        value.backward()
        adam.step()

    step()
    taken = [seconds_of(step) for _ in range(DENSE_STEPS)]
    return float(np.median(taken)) * targets.shape[0] / BATCH


if __name__ == "__main__":
    print(json.dumps(measure(Case(**json.loads(sys.argv[1])))))
