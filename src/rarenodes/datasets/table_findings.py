"""What is wrong or worth knowing about own data, found without making a data set of them.

Making a data set stops at the first fault; this goes on, so that all can be mended at once.
"""

import difflib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence, Sized
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Int
from scipy import sparse

from rarenodes.datasets.dataset import SPLITS
from rarenodes.datasets.edge_lists import NamedHierarchy, read_named_hierarchy
from rarenodes.datasets.files import FileFault, brief, short
from rarenodes.datasets.label_paths import BETWEEN, hierarchy_of_paths
from rarenodes.datasets.sampling import Sampling
from rarenodes.datasets.table import (
    MISSING,
    TableOptions,
    check_column,
    column_of_features,
    labels_in,
    labels_of,
    names_of_features,
    open_table,
    unknown_column,
)
from rarenodes.datasets.table_files import Table
from rarenodes.datasets.targets import closed_targets, frequent_nodes, half_way
from rarenodes.datasets.text import merge_duplicates, words
from rarenodes.loss.hierarchy import Hierarchy
from rarenodes.settings import SettingsError

# So many names or columns are listed; the rest are counted.
LISTED = 10
# A column whose cells have on average more words is probably one of texts.
WORDS_OF_A_TEXT = 3
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


def inspect_table(options: TableOptions, root: Path, sampling: Sampling) -> TableReport:
    """Open the files of own data and report.

    Args:
        options: files and columns, as in `table.load`.
        root: data folder, to which the files' paths are relative.
        sampling: draws the split where no column gives it.

    """
    report = TableReport()
    examples = root / options.examples
    edges = examples if options.hierarchy is None else root / options.hierarchy
    named = table = labels = None
    if options.hierarchy is not None:
        named = _read(report, read_named_hierarchy, edges)
    table = _read(report, open_table, options, root)
    if table is not None:
        _columns(report, table, options, named)
        if table.has(options.labels):
            labels = _read(report, labels_of, table, options)
    if options.hierarchy is None and labels is not None:
        paths = [name for names in labels for name in names]
        named = _read(report, hierarchy_of_paths, examples, paths)
    if named is not None:
        _shape(report, edges, named)
    if labels is not None and named is not None:
        _examples(report, table, options, labels, named, edges, sampling)
    return report


def _read(report: TableReport, read: Callable[..., Any], *given: Any) -> Any:
    """What a reader makes of a file; None, and the finding, where it cannot."""
    try:
        return read(*given)
    except (FileFault, OSError) as fault:
        report.add("error", str(fault))
        return None


# --- columns --------------------------------------------------------------------------------------


def _columns(
    report: TableReport, table: Table, options: TableOptions, named: NamedHierarchy | None
) -> None:
    wanted = {"labels": options.labels, "text": options.text, "split": options.split}
    meanings = [f"{meaning} {short(name)}" for meaning, name in wanted.items() if name is not None]
    for meaning, name in wanted.items():
        if name is not None and not table.has(name):
            hint = _hint(table, options, named, meaning)
            report.add("error", f"{unknown_column(table, name)}{hint}")
    for name in [*(options.features or []), *options.categories]:
        try:
            check_column(table, name, options)
        except (SettingsError, FileFault) as fault:
            report.add("error", str(fault))
    told = options.features or options.text is not None or options.matrix is not None
    guessed = "" if told else ", features guessed"
    report.add("note", f"{table.path}: {table.rows} rows; columns: {', '.join(meanings)}{guessed}")
    if options.text is not None:
        report.features = options.components
        unused = [name for name in table.columns if name not in wanted.values()]
        if unused:
            report.add("note", f"{table.path}: columns that are not used: {_listed(unused)}")
    else:
        _features(report, table, options)


def _hint(table: Table, options: TableOptions, named: NamedHierarchy | None, meaning: str) -> str:
    """What to do where the column of a meaning is not there, beyond writing its name right."""
    if meaning == "split":
        return "; without the option split the split is random"
    guess = _labels_column(table, options, named) if meaning == "labels" else None
    return "" if guess is None else f"; {short(guess)} holds names of nodes: set the option"


def _labels_column(table: Table, options: TableOptions, named: NamedHierarchy | None) -> str | None:
    """A column most of whose cells list nodes."""
    if named is None:
        return None
    for name, cells in table.columns.items():
        if isinstance(cells, list | tuple):
            lists = [labels_in(cell or "", options.separator) for cell in cells]
            known = [bool(one) and all(n in named.hierarchy.index for n in one) for one in lists]
            if 2 * sum(known) > len(known):
                return name
    return None


def _features(report: TableReport, table: Table, options: TableOptions) -> None:
    names = [name for name in names_of_features(table, options) if name in table.columns]
    numbers, categories = [], []
    for name in names:
        if _looks_like_text(table.columns[name]):
            report.add(
                "warning",
                f"{table.path}, column {short(name)}: looks like texts: set the option text to it, or "
                "leave it out of the option features",
            )
        try:
            _, levels = column_of_features(table, name, options)
        except FileFault as fault:
            report.add("error", str(fault))
            continue
        if levels is None:
            numbers.append(name)
        else:
            categories.append((name, len(levels)))
    if not names:
        report.add("error", f"{table.path}: no column is left for features; expected at least one")
    counted = [f"{name} ({count})" for name, count in categories]
    report.add(
        "note",
        f"{table.path}: {len(numbers)} columns of numbers ({_listed(numbers)}), {len(categories)} of "
        f"categories ({_listed(counted)})",
    )
    report.features = len(numbers) + sum(count for _, count in categories)


def _looks_like_text(cells: object) -> bool:
    if not isinstance(cells, list | tuple):
        return False
    known = [cell for cell in cells if cell is not None and cell.strip() not in MISSING]
    lengths = [len(words(cell)) for cell in known]
    return bool(lengths) and sum(lengths) > WORDS_OF_A_TEXT * len(lengths)


# --- hierarchy ------------------------------------------------------------------------------------


def _shape(report: TableReport, path: Path, named: NamedHierarchy) -> None:
    hierarchy = named.hierarchy
    kind = "tree" if hierarchy.is_tree else "DAG"
    report.add(
        "note",
        f"{path}: a {kind} of {len(hierarchy)} nodes and {hierarchy.num_edges} edges, depth "
        f"{int(hierarchy.depth.max())}",
    )
    several = [
        f"{short(node)} under {_listed([hierarchy.nodes[p] for p in parents])}"
        for node, parents in zip(hierarchy.nodes, hierarchy.parents, strict=True)
        if len(parents) > 1
    ]
    if several and named.names:
        # Identifiers beside names are given with care: several parents are meant.
        report.add("note", f"{path}: {len(several)} nodes have several parents: {several[0]}")
    elif several:
        report.add(
            "warning",
            f"{path}: {len(several)} names stand in two places: {'; '.join(several[:3])}"
            f"{_more(several, 3)}: give two things two names, or leave it if one has several parents",
        )
    called = defaultdict(list)
    for node in hierarchy.nodes:
        called[named.names.get(node, node)].append(node)
    same = [f"{short(name)}: {_listed(nodes)}" for name, nodes in called.items() if len(nodes) > 1]
    if same:
        report.add(
            "warning",
            f"{path}: {len(same)} names are those of several nodes: {'; '.join(same[:3])}"
            f"{_more(same, 3)}: predictions will tell them by node alone",
        )


# --- labels, parts and counts ---------------------------------------------------------------------


def _examples(
    report: TableReport,
    table: Table,
    options: TableOptions,
    labels: Sequence[Sequence[str]],
    named: NamedHierarchy,
    edges: Path,
    sampling: Sampling,
) -> None:
    _unlabelled(report, table, options, labels, named.hierarchy)
    _steps(report, table, options, labels)
    known = _known_labels(report, table, options, labels, named.hierarchy, edges)
    if options.hierarchy is not None:
        _reversed(report, edges, known, named.hierarchy)
    if not any(known):
        return
    _half_way(report, table, options, known, named.hierarchy)
    parts = _parts(report, table, options)
    _duplicates(report, table, options, parts)
    if options.text is not None and options.text in table.columns:
        known, parts = _merged(report, table, options, known, parts)
    if not any(known):
        return
    _counts(report, options, known, parts, named.hierarchy, sampling)


def _unlabelled(
    report: TableReport,
    table: Table,
    options: TableOptions,
    labels: Sequence[Sequence[str]],
    hierarchy: Hierarchy,
) -> None:
    without = [row for row, names in enumerate(labels) if not names]
    if without:
        root = f"the root {short(hierarchy.roots[0])}"
        report.add(
            "error",
            f"{table.place(without[0])}: no label in column {short(options.labels)}, in "
            f"{len(without)} rows: leave them out, or give them "
            f"{root if options.path_separator is None else 'a path'}",
        )


def _steps(
    report: TableReport, table: Table, options: TableOptions, labels: Sequence[Sequence[str]]
) -> None:
    """Paths that are all of one step are probably written with another separator."""
    given = [name for names in labels for name in names]
    if options.path_separator is not None and given and not any(BETWEEN in name for name in given):
        report.add(
            "warning",
            f"{table.path}, column {short(options.labels)}: no label holds {options.path_separator!r}, as "
            f"in {short(given[0])}: all stand side by side; is the option path_separator right?",
        )


def _known_labels(
    report: TableReport,
    table: Table,
    options: TableOptions,
    labels: Sequence[Sequence[str]],
    hierarchy: Hierarchy,
    edges: Path,
) -> list[list[str]]:
    """Labels that are nodes; of others, the findings."""
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
            f"in {count} rows{_mend(name, options.separator, hierarchy, edges)}",
        )
    if len(unknown) > LISTED:
        rest = len(unknown) - LISTED
        report.add("error", f"{table.path}: {rest} more labels are no node of {edges}")
    return [[name for name in names if name in hierarchy.index] for names in labels]


def _mend(name: str, separator: str, hierarchy: Hierarchy, edges: Path) -> str:
    for other in SEPARATORS:
        parts = labels_in(name, other)
        if other != separator and len(parts) > 1 and all(p in hierarchy.index for p in parts):
            return f"; its parts are nodes: set the option separator to {other!r}"
    # The root that several tops are put under is no name of theirs.
    near = difflib.get_close_matches(name[:100], hierarchy.nodes[:20000], n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f": correct it, or add the node to {edges}"


def _reversed(
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
            f"{path}: {at_the_top} of {len(given)} labels are at the top of the hierarchy, with other "
            "nodes below them: are child and parent exchanged?",
        )


def _half_way(
    report: TableReport,
    table: Table,
    options: TableOptions,
    labels: Sequence[Sequence[str]],
    hierarchy: Hierarchy,
) -> None:
    """Labels with nodes below them: meant, or the one name of two things."""
    ends = half_way(closed_targets(labels, hierarchy), hierarchy)
    counts = Counter({hierarchy.nodes[node]: int(ends[node]) for node in np.flatnonzero(ends)})
    if counts:
        listed = [f"{short(name)} ({count})" for name, count in counts.most_common(3)]
        mend = (
            ""
            if options.hierarchy is None
            else ": if one is the name of two things, write labels as whole paths"
        )
        report.add(
            "note",
            f"{table.path}, column {short(options.labels)}: {sum(counts.values())} labels stop above "
            f"the bottom of the hierarchy, at {', '.join(listed)}{_more(counts, 3)}{mend}",
        )


def _parts(report: TableReport, table: Table, options: TableOptions) -> list[str] | None:
    if options.split is None or options.split not in table.columns:
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
            f"expected one of {', '.join(SPLITS)}; so in {len(wrong)} rows",
        )
    for part in SPLITS:
        if part not in parts:
            report.add(
                "error",
                f"{table.path}: no row has {part!r} in column {short(options.split)}, expected at "
                "least one: add some, or leave out the option split for a random split",
            )
    return None if wrong else parts


def _duplicates(
    report: TableReport, table: Table, options: TableOptions, parts: Sequence[str] | None
) -> None:
    """Rows that say the same as an earlier one; in another part, they give the answer away."""
    if options.text is not None:
        if options.text not in table.columns:
            return
        keys = [tuple(words(text)) for text in table.text(options.text)]
        what, level = "text", "error"
    else:
        names = [name for name in names_of_features(table, options) if name in table.columns]
        columns = [table.columns[name] for name in names]
        if not all(isinstance(cells, list | tuple | np.ndarray) for cells in columns):
            return
        keys = _rows_of(columns)
        what, level = "features", "warning"
    first: dict[tuple, int] = {}
    across, within = [], 0
    for row, key in enumerate(keys):
        earlier = first.setdefault(key, row)
        if earlier == row or not key:
            continue
        if parts is not None and parts[earlier] != parts[row]:
            across.append((earlier, row))
        else:
            within += 1
    if across:
        earlier, row = across[0]
        report.add(
            level,
            f"{table.place(row)}: the same {what} is in {parts[row]!r} here and in {parts[earlier]!r} "
            f"in {table.place(earlier).rpartition(', ')[2]}, so for {len(across)} rows: move or remove "
            "one of the two",
        )
    if within and what == "text":
        report.add("note", f"{table.path}: {within} texts say the same as another and become one")
    elif within:
        split = "" if parts is not None else ", and a random split may put them on both sides"
        report.add(
            "warning", f"{table.path}: {within} rows have the features of an earlier row{split}"
        )


def _rows_of(columns: Sequence[Sequence[Any] | np.ndarray]) -> list[Any]:
    """What is compared of every row; of numbers alone their bytes, as embeddings are wide."""
    if columns and all(isinstance(cells, np.ndarray) for cells in columns):
        return [row.tobytes() for row in np.column_stack(columns) + 0.0]  # + 0.0: -0.0 is 0
    return list(zip(*columns, strict=True))


def _merged(
    report: TableReport,
    table: Table,
    options: TableOptions,
    labels: Sequence[Sequence[str]],
    parts: Sequence[str] | None,
) -> tuple[list[list[str]], list[str] | None]:
    try:
        merged = merge_duplicates(table.text(options.text), labels)
    except FileFault as fault:
        report.add("error", str(fault))
        return [], None
    wordless = [row for row, example in enumerate(merged.group) if example is None]
    if len(wordless) == table.rows:
        report.add("error", f"{table.path}, column {short(options.text)}: found no word")
    elif wordless:
        report.add(
            "warning",
            f"{table.place(wordless[0])}: no word in column {short(options.text)}, in {len(wordless)} "
            "rows, which are left out",
        )
    if parts is not None:
        first: dict[int, str] = {}
        for part, example in zip(parts, merged.group, strict=True):
            if example is not None:
                first.setdefault(example, part)
        parts = [first[example] for example in range(len(merged.texts))]
    return [sorted(names) for names in merged.labels], parts


def _counts(
    report: TableReport,
    options: TableOptions,
    labels: Sequence[Sequence[str]],
    parts: Sequence[str] | None,
    everything: Hierarchy,
    sampling: Sampling,
) -> None:
    targets = closed_targets(labels, everything)
    try:
        targets, hierarchy = frequent_nodes(targets, everything, options.min_count)
        split = (
            sampling.split_examples(targets, options)
            if parts is None
            else {part: np.flatnonzero(np.array(parts) == part) for part in SPLITS}
        )
    except ValueError as fault:
        report.add("error", brief(fault))
        return
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
    kind = "stratified" if options.stratified else "random"
    report.add(
        "note",
        f"{len(labels)} examples: "
        + ", ".join(f"{len(rows)} {part}" for part, rows in split.items())
        + ("" if parts is not None else f" (a {kind} split)"),
    )
    positives = _positives(targets, split["train"])
    report.findings += nodes_without_examples(hierarchy, positives)
    if parts is None and not options.stratified and (positives == 0).any():
        report.add("note", "the option stratified gives every node a training example where it can")


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
            f"{len(without)} nodes have no training example and cannot be learnt: {_listed(without)}",
        )


def _positives(targets: sparse.csr_array, rows: np.ndarray) -> Int[np.ndarray, " nodes"]:
    return np.asarray(targets[rows].sum(axis=0, dtype=np.int64)).ravel()


def _listed(names: Sequence[str]) -> str:
    if not names:
        return "none"
    return ", ".join(short(name) for name in names[:LISTED]) + _more(names, LISTED)


def _more(items: Sized, listed: int) -> str:
    return f" and {len(items) - listed} more" if len(items) > listed else ""
