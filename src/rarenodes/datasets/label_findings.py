"""What is wrong or worth knowing about any table's labels, hierarchy and parts; see `table_findings`."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Int
from scipy import sparse

from rarenodes.datasets.dataset import SPLITS
from rarenodes.datasets.edge_lists import NamedHierarchy
from rarenodes.datasets.files import FileFault, brief, counted, short
from rarenodes.datasets.label_paths import BETWEEN
from rarenodes.datasets.table_files import Table
from rarenodes.datasets.table_labels import LabelOptions, labels_in, nodes_meant
from rarenodes.datasets.targets import closed_targets, frequent_nodes, half_way
from rarenodes.loss.hierarchy import Hierarchy

# So many names or columns are listed; the rest are counted.
LISTED = 10
SEPARATORS = (";", ",", "|", "/", " ")

Level = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """One line about a data set.

    Attributes:
        level: `error`, with which no data set can be made or trained on; `warning`, which a person
            should look at; `note`.
        text: what was found, where, and what to do.

    """

    level: Level
    text: str


@dataclass
class TableReport:
    """What was found, and how large the data set would be.

    Attributes:
        findings: in the order in which files are read.
        features: how many there would be at most; None if unknown.
        hierarchy: nodes that would be kept; None if unknown.
        training_examples: how many there would be.
        validation_examples: likewise.

    """

    findings: list[Finding] = field(default_factory=list)
    features: int | None = None
    hierarchy: Hierarchy | None = None
    training_examples: int = 0
    validation_examples: int = 0

    def add(self, level: Level, text: str) -> None:
        """Note a finding."""
        self.findings.append(Finding(level, text))


def reading_noted(report: TableReport, read: Callable[..., Any], *given: Any) -> Any:
    """What a reader makes of a file; None, and the finding, where it cannot."""
    try:
        return read(*given)
    except (FileFault, OSError) as fault:
        report.add("error", str(fault))
        return None


def note_shape(report: TableReport, path: Path, named: NamedHierarchy) -> None:
    """Size of the hierarchy; names in two places, and names that several nodes share."""
    hierarchy = named.hierarchy
    kind = "tree" if hierarchy.is_tree else "DAG"
    report.add(
        "note",
        f"{path}: a {kind} of {counted(len(hierarchy), 'node')} and "
        f"{counted(hierarchy.num_edges, 'edge')}, depth "
        f"{int(hierarchy.depth.max())}",
    )
    several = [
        f"{short(node)} under {listed([hierarchy.nodes[p] for p in parents])}"
        for node, parents in zip(hierarchy.nodes, hierarchy.parents, strict=True)
        if len(parents) > 1
    ]
    if several and named.names:
        # Identifiers beside names are given with care: several parents are meant.
        report.add(
            "note",
            f"{path}: "
            f"{counted(len(several), 'node has', 'nodes have')} several parents: {several[0]}",
        )
    elif several:
        report.add(
            "note",
            f"{path}: {counted(len(several), 'node has', 'nodes have')} several parents: "
            f"{'; '.join(several[:3])}"
            f"{more(several, 3)}: right, unless one name is that of two things, which then need two",
        )
    called = defaultdict(list)
    for node in hierarchy.nodes:
        called[named.names.get(node, node)].append(node)
    same = [f"{short(name)}: {listed(nodes)}" for name, nodes in called.items() if len(nodes) > 1]
    if same:
        report.add(
            "warning",
            f"{path}: {counted(len(same), 'name is that', 'names are those')} of several nodes: "
            f"{'; '.join(same[:3])}"
            f"{more(same, 3)}: predictions will tell them by node alone",
        )


def note_unlabelled(
    report: TableReport,
    table: Table,
    options: LabelOptions,
    labels: Sequence[Sequence[str]],
    hierarchy: Hierarchy,
) -> None:
    """Rows without a label."""
    without = [row for row, names in enumerate(labels) if not names]
    if without:
        root = f"the root {short(hierarchy.roots[0])}"
        report.add(
            "error",
            f"{table.place(without[0])}: no label in column {short(options.labels)}, in "
            f"{counted(len(without), 'row')}: leave them out, or give them "
            f"{root if options.path_separator is None else 'a path'}",
        )


def note_steps(
    report: TableReport, table: Table, options: LabelOptions, labels: Sequence[Sequence[str]]
) -> None:
    """Paths that are all of one step are probably written with another separator."""
    given = [name for names in labels for name in names]
    if options.path_separator is not None and given and not any(BETWEEN in name for name in given):
        report.add(
            "warning",
            f"{table.path}, column {short(options.labels)}: no label holds {options.path_separator!r}, as "
            f"in {short(given[0])}: all stand side by side; is the option path_separator right?",
        )


def known_labels(
    report: TableReport,
    table: Table,
    options: LabelOptions,
    labels: Sequence[Sequence[str]],
    named: NamedHierarchy,
    edges: Path,
) -> list[list[str]]:
    """Labels that are nodes; of others, the findings."""
    hierarchy = named.hierarchy
    unknown: Counter[str] = Counter()
    first: dict[str, int] = {}
    for row, names in enumerate(labels):
        for name in names:
            if name not in hierarchy.index:
                unknown[name] += 1
                first.setdefault(name, row)
    for name, count in unknown.most_common(LISTED):
        report.add(
            "error",
            f"{table.place(first[name])}, column {short(options.labels)}: unknown node {short(name)}, "
            f"in {counted(count, 'row')}{_mend(name, options.separator, named, edges)}",
        )
    if len(unknown) > LISTED:
        rest = len(unknown) - LISTED
        are = counted(rest, "more label is", "more labels are")
        report.add("error", f"{table.path}: {are} no node of {edges}")
    return [[name for name in names if name in hierarchy.index] for names in labels]


def _mend(name: str, separator: str, named: NamedHierarchy, edges: Path) -> str:
    for other in SEPARATORS:
        parts = labels_in(name, other)
        if other != separator and len(parts) > 1 and all(p in named.hierarchy.index for p in parts):
            return f"; its parts are nodes: set the option separator to {other!r}"
    meant = nodes_meant(name, named)
    if meant.endswith("?"):
        return f"{meant} Else add the node to {edges}"
    return meant or f": correct it, or add the node to {edges}"


def note_reversed(
    report: TableReport, path: Path, labels: Sequence[Sequence[str]], hierarchy: Hierarchy
) -> None:
    """Labels are mostly at the bottom; where most are at the top, edges may be the wrong way round."""
    tops = set(hierarchy.roots)
    if len(tops) == 1:
        # The one root may be that which was put above several.
        tops |= {hierarchy.nodes[child] for child in hierarchy.children[hierarchy.index[min(tops)]]}
    tops = {name for name in tops if hierarchy.children[hierarchy.index[name]]}
    given = [name for names in labels for name in names]
    at_the_top = sum(name in tops for name in given)
    if 2 * at_the_top > len(given):
        report.add(
            "warning",
            f"{path}: {at_the_top} of {counted(len(given), 'label')} are at the top of the hierarchy, with other "
            "nodes below them: are child and parent exchanged?",
        )


def note_half_way(
    report: TableReport,
    table: Table,
    options: LabelOptions,
    labels: Sequence[Sequence[str]],
    hierarchy: Hierarchy,
) -> None:
    """Labels with nodes below them: meant, or the one name of two things."""
    ends = half_way(closed_targets(labels, hierarchy), hierarchy)
    counts = Counter({hierarchy.nodes[node]: int(ends[node]) for node in np.flatnonzero(ends)})
    if counts:
        most = [f"{short(name)} ({count})" for name, count in counts.most_common(3)]
        mend = (
            ""
            if options.hierarchy is None
            else "; if one is the name of two things, write labels as whole paths"
        )
        below = (
            "the nodes below are left out, as the option unknown_below says"
            if options.unknown_below
            else "the nodes below count as negative, unless the option unknown_below is true"
        )
        report.add(
            "note",
            f"{table.path}, column {short(options.labels)}: "
            f"{counted(counts.total(), 'label stops', 'labels stop')} above the bottom of the hierarchy, at {', '.join(most)}{more(counts, 3)}: {below}{mend}",
        )


def parts_noted(report: TableReport, table: Table, options: LabelOptions) -> list[str] | None:
    """The part that every row says it is in; None where that is unknown."""
    if options.split is None or not table.has(options.split):
        return None
    try:
        parts = [part.strip() for part in table.text(options.split)]
    except FileFault as fault:
        report.add("error", str(fault))
        return None
    wrong = [row for row, part in enumerate(parts) if part not in SPLITS]
    if wrong:
        report.add(
            "error",
            f"{table.place(wrong[0])}, column {short(options.split)}: found {short(parts[wrong[0]])}, "
            f"expected one of {', '.join(SPLITS)}; so in {counted(len(wrong), 'row')}",
        )
    for part in SPLITS:
        if part not in parts:
            report.add(
                "error",
                f"{table.path}: no row has {part!r} in column {short(options.split)}, expected at "
                "least one: add some, or leave out the option split for a random split",
            )
    return None if wrong else parts


def note_counts(
    report: TableReport,
    options: LabelOptions,
    labels: Sequence[Sequence[str]],
    everything: Hierarchy,
    draw: Callable[[sparse.csr_array], Mapping[str, np.ndarray]],
    kind: str | None,
) -> Int[np.ndarray, " nodes"] | None:
    """How many examples of how many nodes there would be, and how rare the nodes are.

    Args:
        report: takes the findings.
        options: columns, and what is left out.
        labels: of every example.
        everything: the hierarchy of all nodes.
        draw: the split, given `[examples, nodes]` of the nodes that are kept.
        kind: what a split that is drawn is called; None where a column gives it.

    Returns:
        Training examples of every node that is kept; None where no data set can be made.

    """
    targets = closed_targets(labels, everything)
    try:
        targets, hierarchy = frequent_nodes(targets, everything, options.min_count)
        split = draw(targets)
    except ValueError as fault:
        report.add("error", brief(fault))
        return None
    report.hierarchy = hierarchy
    report.training_examples = len(split["train"])
    report.validation_examples = len(split["valid"])
    dropped = len(everything) - len(hierarchy)
    if dropped:
        report.add(
            "warning" if dropped > len(hierarchy) else "note",
            f"{dropped} of {len(everything)} nodes have fewer than {options.min_count} examples "
            "(option min_count) and are left out",
        )
    report.add(
        "note",
        f"{counted(len(labels), 'example')}: "
        + ", ".join(f"{len(rows)} {part}" for part, rows in split.items())
        + ("" if kind is None else f" (a {kind} split)"),
    )
    positives = _positives(targets, split["train"])
    report.findings += nodes_without_examples(hierarchy, positives)
    return positives


def nodes_without_examples(
    hierarchy: Hierarchy, positives: Int[np.ndarray, " nodes"]
) -> Iterator[Finding]:
    """How rare nodes are in training; those without an example are a warning.

    Args:
        hierarchy: the nodes.
        positives: training examples of each.

    """
    without = [hierarchy.nodes[node] for node in np.flatnonzero(positives == 0)]
    rare = int(((positives > 0) & (positives <= LISTED)).sum())
    yield Finding("note", f"{rare} of {len(hierarchy)} nodes have 1 to {LISTED} training examples")
    if without:
        yield Finding(
            "warning",
            f"{counted(len(without), 'node has', 'nodes have')} no training example and cannot be learnt: "
            f"{listed(without)}",
        )


def _positives(targets: sparse.csr_array, rows: np.ndarray) -> Int[np.ndarray, " nodes"]:
    return np.asarray(targets[rows].sum(axis=0, dtype=np.int64)).ravel()


def listed(names: Sequence[str]) -> str:
    """Names, the first ten of them."""
    if not names:
        return "none"
    return ", ".join(short(name) for name in names[:LISTED]) + more(names, LISTED)


def more(items: Sized, listed: int) -> str:
    """How many there are beyond those that are listed."""
    return f" and {len(items) - listed} more" if len(items) > listed else ""
