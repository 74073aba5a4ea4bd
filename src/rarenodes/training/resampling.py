"""Random oversampling of rare label sets and rare label paths, and the imbalance it acts on.

A *label set* is all that an example is labelled with; a *label path* is one most specific label
with all its ancestors. The functions say which training rows to append; they change nothing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy import sparse

from rarenodes.datasets.targets import closed_targets
from rarenodes.loss.hierarchy import Hierarchy

COPIES = ("whole", "truncated")
ORDERS = ("published", "released")


@dataclass(frozen=True)
class Added:
    """What to append to the training examples.

    Attributes:
        rows: `[added]`, the examples to duplicate, as rows of the targets that were resampled; a
            row may occur several times.
        targets: `[added, nodes]`, sparse 0/1, ancestor-closed: the targets of the duplicates.

    """

    rows: Int[np.ndarray, " added"]
    targets: sparse.csr_array

    def __len__(self) -> int:
        return len(self.rows)


# Measures of imbalance


def imbalance_ratios(counts: Int[np.ndarray, " labels"]) -> Float[np.ndarray, " labels"]:
    """How many times rarer every label is than the most frequent one: IRLbl.

    `IRLbl_j = max_k n_k / n_j`. A label is a node, a label path or a label set, as counted by
    `node_counts`, `path_counts` or `label_sets`. In closed targets the most frequent node is a
    root.

    Args:
        counts: `[labels]`, examples of each label, at least 0.

    Returns:
        `[labels]`, at least 1; NaN where a label has no examples.

    Source: Charte, Rivera, del Jesus and Herrera, Neurocomputing 163, 2015.

    """
    counts = np.where(counts > 0, counts, np.nan)
    return np.nanmax(counts, initial=0) / counts


def mean_imbalance_ratio(counts: Int[np.ndarray, " labels"]) -> float:
    """Mean of the imbalance ratios of all labels that have examples: MeanIR.

    `MeanIR = (1 / |L|) Σ_{j ∈ L} IRLbl_j` with `L` the labels of at least one example. The original
    runs over all labels, each of which it takes to occur; NaN where none does.

    Args:
        counts: `[labels]`, examples of each label, at least 0.

    Source: Charte, Rivera, del Jesus and Herrera, Neurocomputing 163, 2015.

    """
    ratios = imbalance_ratios(counts[counts > 0])
    return float(ratios.mean()) if len(ratios) else float("nan")


def node_counts(targets: sparse.csr_array) -> Int[np.ndarray, " nodes"]:
    """Number of examples of every node, from `[examples, nodes]` targets."""
    return _column_counts(_binary(targets))


def path_counts(targets: sparse.csr_array, hierarchy: Hierarchy) -> Int[np.ndarray, " nodes"]:
    """Number of examples of every label path, at the index of the node that ends it.

    `n_j = |{i : y_ij = 1 and y_ic = 0 for every child c of j}|`: a path ends at each *most specific*
    label of an example, which need not be a leaf. An example of several such labels counts for
    several paths.

    In a DAG several ways lead from the roots to a node, but targets hold all of them or none: the
    one path that ends at a node is the node with all its ancestors.

    Args:
        targets: `[examples, nodes]`, 0/1, ancestor-closed.
        hierarchy: their hierarchy.

    Returns:
        `[nodes]`; 0 where no path ends, even if the node has examples.

    """
    return _column_counts(_most_specific(_binary(targets), hierarchy))


def label_sets(
    targets: sparse.csr_array,
) -> tuple[Int[np.ndarray, " examples"], Int[np.ndarray, " sets"]]:
    """The distinct label sets, numbered as they first occur, and how often each does.

    Two examples have one label set where their targets are equal. For closed targets that is the
    same as equal most specific labels. No label at all is a label set, too.

    Args:
        targets: `[examples, nodes]`, 0/1.

    Returns:
        `[examples]`, the number of each example's label set, and `[sets]`, examples of each set.

    """
    binary = _binary(targets)
    numbers: dict[bytes, int] = {}
    of_example = np.array(
        [
            numbers.setdefault(binary.indices[start:end].tobytes(), len(numbers))
            for start, end in zip(binary.indptr[:-1], binary.indptr[1:], strict=True)
        ],
        dtype=np.int64,
    )
    return of_example, np.bincount(of_example, minlength=len(numbers))


def label_statistics(targets: sparse.csr_array, hierarchy: Hierarchy, added: Added) -> pd.DataFrame:
    """What resampling did to the labels.

    Args:
        targets: `[examples, nodes]`, 0/1, ancestor-closed: what was resampled.
        hierarchy: their hierarchy.
        added: what `lp_ros` or `hros_pd` returned for them.

    Returns:
        Rows `before` and `after`; columns `examples`, `added` (examples), `mean_ir_nodes` and
        `mean_ir_paths` (MeanIR), `label_sets`, `minority_label_sets` (smaller than the mean),
        `paths` and `minority_paths` (IRLbl above MeanIR). What is minority is judged afresh
        `after`; truncated copies may bring label sets that were not there before.

    Raises:
        ValueError: no examples, a number of nodes that is not the hierarchy's, or targets that are
            not ancestor-closed.

    """
    _check_targets(targets, hierarchy)
    after = sparse.vstack([targets, added.targets], format="csr")
    rows = [_statistics(targets, hierarchy, 0), _statistics(after, hierarchy, len(added))]
    return pd.DataFrame(rows, index=["before", "after"])


# Resampling


def lp_ros(
    targets: sparse.csr_array,
    hierarchy: Hierarchy,
    rng: np.random.Generator,
    budget: float = 0.10,
) -> Added:
    """Label powerset random oversampling: duplicate random examples of rare label sets.

    A label set is minority where it has fewer examples than the mean, `|s| < N / S` of `N` examples
    in `S` sets. The budget is shared equally among the minority sets, from the largest to the
    smallest; a set takes no more than it lacks to the mean, and what it leaves is shared among the
    smaller ones. So rarer sets gain more.

    Left open by the paper, and decided here:

    * Whole copies: a set that lacks a fraction takes one more example, `⌈N / S − |s|⌉` at most, or
      unique label sets, the rule in hierarchical data, could gain nothing.
    * Shares are rounded down, so that leftover copies go to the smallest sets. With fewer copies
      than minority sets, only the smallest get one.
    * Sets of one size are in random order. Examples of a set are drawn with replacement.
    * The mean is that of the targets given. Where all minority sets have reached it, resampling
      stops, with part of the budget unspent.

    Args:
        targets: `[examples, nodes]`, sparse 0/1, ancestor-closed: the training examples.
        hierarchy: their hierarchy.
        rng: the only source of randomness.
        budget: most examples to add, as a share of the examples, in (0, 1]; rounded down.

    Returns:
        The duplicates, each with all labels of its original.

    Raises:
        ValueError: a budget outside (0, 1], no examples, a number of nodes that is not the
            hierarchy's, or targets that are not ancestor-closed.

    Source: Charte, Rivera, del Jesus and Herrera, Neurocomputing 163, 2015,
    doi 10.1016/j.neucom.2014.08.091.

    """
    _check_targets(targets, hierarchy)
    limit = _most_to_add(budget, targets.shape[0])
    of_example, sizes = label_sets(targets)
    members = np.split(np.argsort(of_example, kind="stable"), np.cumsum(sizes)[:-1])
    minority = np.flatnonzero(sizes < sizes.mean())
    order = _ascending(-sizes, minority, rng)
    room = np.ceil(sizes.mean() - sizes[order]).astype(np.int64)
    copies = _equal_shares(room.tolist(), limit)
    drawn = [rng.choice(members[s], n) for s, n in zip(order, copies, strict=True)]
    rows = np.concatenate([np.empty(0, dtype=np.int64), *drawn])
    return Added(rows, targets[rows])


def hros_pd(
    targets: sparse.csr_array,
    hierarchy: Hierarchy,
    rng: np.random.Generator,
    budget: float = 0.10,
    copies: str = "whole",
) -> Added:
    """Hierarchical random oversampling: duplicate random examples of rare label paths.

    A label path, counted as in `path_counts`, is minority where its imbalance ratio exceeds the
    mean, `IRLbl_j > MeanIR`. In every round each minority path, the rarest first, gets one copy of
    a random example that has it; the copy counts at once, for all paths that it carries. A path
    whose ratio is no longer above the mean sits out. Resampling stops when the budget is spent or
    no minority path is left.

    The paper was known to us at second hand only: oversampling along label paths, a budget of 10 %,
    and minority as above. The rest is our reading:

    * A path may end at an inner node (labels of partial depth). A node with many examples, hardly
      any of which end there, is the end of a rare path.
    * In a DAG the path that ends at a node is the node with all its ancestors.
    * `MeanIR`, and which paths are minority, are those of the targets given, as in ML-ROS of
      Charte et al.; the ratios, largest count included, follow the copies. A whole copy may so
      spare another minority path its own, or raise the largest count.
    * Paths of one count are in random order, drawn anew each round. Only originals are copied, with
      replacement.

    Args:
        targets: `[examples, nodes]`, sparse 0/1, ancestor-closed: the training examples.
        hierarchy: their hierarchy.
        rng: the only source of randomness.
        budget: most examples to add, as a share of the examples, in (0, 1]; rounded down.
        copies: `whole`: a copy has all labels of its original; `truncated`: it keeps just the rare
            label and its ancestors, as the released code of arXiv 2602.08986 does, which makes its
            other labels negatives.

    Returns:
        The duplicates.

    Raises:
        ValueError: unknown copies, a budget outside (0, 1], no examples, a number of nodes that is
            not the hierarchy's, or targets that are not ancestor-closed.

    Source: Pereira, Costa and Silla, Toward hierarchical classification of imbalanced data using
    random resampling algorithms, Information Sciences, 2021, doi 10.1016/j.ins.2021.07.033.

    """
    _check_copies(copies)
    _check_targets(targets, hierarchy)
    limit = _most_to_add(budget, targets.shape[0])
    ends = _most_specific(_binary(targets), hierarchy)
    rows, rare = _draw_along_paths(ends, limit, copies == "whole", rng)
    return _added(targets, hierarchy, rows, rare, copies)


def hros_pd_released(
    targets: sparse.csr_array,
    hierarchy: Hierarchy,
    rng: np.random.Generator,
    budget: float = 0.10,
    copies: str = "truncated",
) -> Added:
    """Hierarchical random oversampling as the released code of arXiv 2602.08986 has it.

    Every node with examples ends a path, and `n_j`, its *size*, is the number of examples that are
    positive in it, those of its descendants included (`node_counts`). A path is minority where its
    imbalance ratio exceeds the mean, `max_k n_k / n_j > MeanIR`. One pass over the minority paths,
    from the deepest nodes up, adds to each

        min(⌈S · N / P⌉, mean size − n_j)

    copies of random examples that are positive in the node: an equal share, rounded up, of the
    budget `S` of `N` examples among `P` minority paths, and no more than lifts the path to the mean
    size. Copies count at once for all nodes that they are positive in, so that what deep paths get,
    the paths above them lack no longer. `hros_pd` differs in all of this: what a path is, its size,
    the order, the share, and where to stop.

    Left open by what is known of it, and decided here:

    * The deepest come first: the reverse of the hierarchy's order, in which depth is the shortest
      distance from a root. In a DAG a node may so come after one of its ancestors.
    * `MeanIR`, the mean size, `P` and which paths are minority are those of the targets given.
    * The mean size is rounded down.
    * Only originals are copied, with replacement.

    Args:
        targets: `[examples, nodes]`, sparse 0/1, ancestor-closed: the training examples.
        hierarchy: their hierarchy.
        rng: the only source of randomness.
        budget: `S`, as a share of the examples, in (0, 1]. As shares are rounded up, up to `P − 1`
            more examples may be added.
        copies: `truncated`: a copy keeps just the rare label and its ancestors, as in the released
            code; `whole`: it has all labels of its original.

    Returns:
        The duplicates, those of the deepest paths first.

    Raises:
        ValueError: as `hros_pd`.

    """
    _check_copies(copies)
    _check_targets(targets, hierarchy)
    _check_budget(budget)
    binary = _binary(targets)
    by_node, counts = binary.tocsc(), _column_counts(binary)
    minority = np.flatnonzero(imbalance_ratios(counts) > mean_imbalance_ratio(counts))[::-1]
    paths = closed_targets([[hierarchy.nodes[node]] for node in minority], hierarchy)
    mean_size = int(counts[counts > 0].mean()) if counts.any() else 0
    # 0.07 · 100 is 7.000…01.
    share = math.ceil(budget * targets.shape[0] / max(len(minority), 1) - 1e-9)
    rows: list[int] = []
    rare: list[int] = []
    for number, node in enumerate(minority):
        path = paths.indices[paths.indptr[number] : paths.indptr[number + 1]]
        having = by_node.indices[by_node.indptr[node] : by_node.indptr[node + 1]]
        for row in rng.choice(having, max(min(share, mean_size - counts[node]), 0)):
            labels = binary.indices[binary.indptr[row] : binary.indptr[row + 1]]
            counts[labels if copies == "whole" else path] += 1
            rows.append(row)
            rare.append(node)
    drawn = np.array(rows, dtype=np.int64), np.array(rare, dtype=np.int64)
    return _added(targets, hierarchy, *drawn, copies)


def _added(
    targets: sparse.csr_array,
    hierarchy: Hierarchy,
    rows: Int[np.ndarray, " added"],
    rare: Int[np.ndarray, " added"],
    copies: str,
) -> Added:
    """Copies of rows, each made for the path that ends at a node."""
    if copies == "whole":
        return Added(rows, targets[rows])
    paths = closed_targets([[hierarchy.nodes[end]] for end in rare], hierarchy)
    return Added(rows, paths.astype(targets.dtype))


def _draw_along_paths(
    ends: sparse.csr_array, limit: int, whole: bool, rng: np.random.Generator
) -> tuple[Int[np.ndarray, " added"], Int[np.ndarray, " added"]]:
    """Examples to copy, and the end of the rare path that each is copied for."""
    by_path = ends.tocsc()
    counts = _column_counts(ends)
    mean = mean_imbalance_ratio(counts)
    waiting = np.flatnonzero(imbalance_ratios(counts) > mean)
    rows: list[int] = []
    rare: list[int] = []
    progress = True
    while progress:
        progress = False
        for end in _ascending(counts, waiting, rng):
            if len(rows) == limit:
                break
            # Not judged once a round: a whole copy made since may have lifted this path, too.
            if counts.max() / counts[end] <= mean:
                continue
            row = rng.choice(by_path.indices[by_path.indptr[end] : by_path.indptr[end + 1]])
            rows.append(row)
            rare.append(end)
            counts[ends.indices[ends.indptr[row] : ends.indptr[row + 1]] if whole else end] += 1
            progress = True
    return np.array(rows, dtype=np.int64), np.array(rare, dtype=np.int64)


def _equal_shares(room: Sequence[int], total: int) -> list[int]:
    """Share out `total` equally, none above its room; `room` ascending, so one pass is exact."""
    shares = []
    for number, most in enumerate(room):
        shares.append(min(most, total // (len(room) - number)))
        total -= shares[-1]
    return shares


def _ascending(
    values: Int[np.ndarray, " all"], of: Int[np.ndarray, " some"], rng: np.random.Generator
) -> Int[np.ndarray, " some"]:
    """The indices `of` in ascending order of their values, ties at random."""
    return of[np.lexsort((rng.random(len(of)), values[of]))]


def _most_specific(binary: sparse.csr_array, hierarchy: Hierarchy) -> sparse.csr_array:
    """The labels of which no child is a label, `[examples, nodes]`."""
    nodes = len(hierarchy)
    child, parent = hierarchy.edge_index.numpy().T
    # One entry per edge: a node's column sums its positive children, more than a byte may hold.
    to_parent = sparse.csr_array(
        (np.ones(len(child), dtype=np.int32), (child, parent)), shape=(nodes, nodes)
    )
    has_positive_child = (binary.astype(np.int32) @ to_parent).astype(bool)
    return _binary((binary > binary.multiply(has_positive_child)).tocsr())


def _binary(targets: sparse.csr_array) -> sparse.csr_array:
    """The same targets as booleans, with nothing but positives stored, in order of columns."""
    binary = targets.copy()
    binary.sum_duplicates()
    binary.eliminate_zeros()
    return binary.astype(bool)


def _column_counts(binary: sparse.csr_array) -> Int[np.ndarray, " nodes"]:
    return np.bincount(binary.indices, minlength=binary.shape[1])


def _statistics(targets: sparse.csr_array, hierarchy: Hierarchy, added: int) -> dict:
    _, sizes = label_sets(targets)
    paths = path_counts(targets, hierarchy)
    mean_ir_paths = mean_imbalance_ratio(paths)
    return {
        "examples": targets.shape[0],
        "added": added,
        "mean_ir_nodes": mean_imbalance_ratio(node_counts(targets)),
        "mean_ir_paths": mean_ir_paths,
        "label_sets": len(sizes),
        "minority_label_sets": int((sizes < sizes.mean()).sum()),
        "paths": int((paths > 0).sum()),
        "minority_paths": int((imbalance_ratios(paths) > mean_ir_paths).sum()),
    }


def _check_copies(copies: str) -> None:
    if copies not in COPIES:
        raise ValueError(f"unknown copies {copies!r}: known are {', '.join(COPIES)}")


def _check_budget(budget: float) -> None:
    if not 0 < budget <= 1:
        raise ValueError(
            f"the budget must be a share of the examples above 0 and at most 1, found {budget}"
        )


def _most_to_add(budget: float, examples: int) -> int:
    _check_budget(budget)
    # 0.29 · 100 is 28.999…
    return int(budget * examples + 1e-9)


def _check_targets(targets: sparse.csr_array, hierarchy: Hierarchy) -> None:
    examples, nodes = targets.shape
    if not examples:
        raise ValueError("resampling needs at least one training example, found none")
    if nodes != len(hierarchy):
        raise ValueError(f"targets have {nodes} nodes, but the hierarchy has {len(hierarchy)}")
    binary = _binary(targets)
    child, parent = hierarchy.edge_index.numpy().T
    orphaned = (binary[:, child] > binary[:, parent]).tocoo()
    if orphaned.nnz:
        row, edge = min(zip(*orphaned.coords, strict=True))
        raise ValueError(
            f"targets are not ancestor-closed: in row {row} node "
            f"{hierarchy.nodes[child[edge]]!r} is positive and its parent "
            f"{hierarchy.nodes[parent[edge]]!r} is not; close them with Hierarchy.close"
        )
