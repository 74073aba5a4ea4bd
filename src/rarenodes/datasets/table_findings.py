"""What is wrong or worth knowing about own data, found without making a data set of them.

Making a data set stops at the first fault; this goes on, so that all can be mended at once.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from rarenodes.datasets.edge_lists import NamedHierarchy, read_named_hierarchy
from rarenodes.datasets.files import FileFault, counted, short
from rarenodes.datasets.label_findings import (
    TableReport,
    known_labels,
    listed,
    note_counts,
    note_half_way,
    note_reversed,
    note_shape,
    note_steps,
    note_unlabelled,
    parts_noted,
    reading_noted,
)
from rarenodes.datasets.label_paths import hierarchy_of_paths
from rarenodes.datasets.sampling import Sampling
from rarenodes.datasets.table import (
    MISSING,
    TableOptions,
    check_column,
    column_of_features,
    names_of_features,
    open_table,
)
from rarenodes.datasets.table_files import Table
from rarenodes.datasets.table_labels import (
    check_names,
    labels_in,
    labels_of,
    rows_of_parts,
    unknown_column,
)
from rarenodes.datasets.text import merge_duplicates, words
from rarenodes.loss.hierarchy import Hierarchy
from rarenodes.settings import SettingsError

# A column whose cells have on average more words is probably one of texts.
WORDS_OF_A_TEXT = 3


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
        named = reading_noted(report, read_named_hierarchy, edges)
    table = reading_noted(report, open_table, options, root)
    if table is not None:
        _columns(report, table, options, named)
        if table.has(options.labels):
            labels = reading_noted(report, labels_of, table, options)
    if options.hierarchy is None and labels is not None:
        paths = [name for names in labels for name in names]
        named = reading_noted(report, hierarchy_of_paths, examples, paths)
    if named is not None:
        note_shape(report, edges, named)
        if table is not None:
            reading_noted(report, check_names, table, options, named, edges)
    if labels is not None and named is not None:
        _examples(report, table, options, labels, named, edges, sampling)
    return report


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
    report.add(
        "note",
        f"{table.path}: {counted(table.rows, 'row')}; columns: {', '.join(meanings)}{guessed}",
    )
    if options.text is not None:
        report.features = options.components
        unused = [name for name in table.columns if name not in wanted.values()]
        if unused:
            report.add("note", f"{table.path}: columns that are not used: {listed(unused)}")
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
    levels = [f"{name} ({count})" for name, count in categories]
    report.add(
        "note",
        f"{table.path}: {counted(len(numbers), 'column')} of numbers ({listed(numbers)}), {len(categories)} of "
        f"categories ({listed(levels)})",
    )
    report.features = len(numbers) + sum(count for _, count in categories)


def _looks_like_text(cells: object) -> bool:
    if not isinstance(cells, list | tuple):
        return False
    known = [cell for cell in cells if cell is not None and cell.strip() not in MISSING]
    lengths = [len(words(cell)) for cell in known]
    return bool(lengths) and sum(lengths) > WORDS_OF_A_TEXT * len(lengths)


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
    note_unlabelled(report, table, options, labels, named.hierarchy)
    note_steps(report, table, options, labels)
    known = known_labels(report, table, options, labels, named, edges)
    if options.hierarchy is not None:
        note_reversed(report, edges, known, named.hierarchy)
    if not any(known):
        return
    note_half_way(report, table, options, known, named.hierarchy)
    parts = parts_noted(report, table, options)
    texts = None
    if options.text is not None and table.has(options.text):
        texts = reading_noted(report, table.text, options.text)
    _duplicates(report, table, options, texts, parts)
    if texts is not None:
        known, parts = _merged(report, table, options, texts, known, parts)
    if not any(known):
        return
    _counts(report, options, known, parts, named.hierarchy, sampling)


def _duplicates(
    report: TableReport,
    table: Table,
    options: TableOptions,
    texts: Sequence[str] | None,
    parts: Sequence[str] | None,
) -> None:
    """Rows that say the same as an earlier one; in another part, they give the answer away."""
    if options.text is not None:
        if texts is None:
            return
        keys = [tuple(words(text)) for text in texts]
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
            f"in {table.place(earlier).rpartition(', ')[2]}, so for {counted(len(across), 'row')}: move or remove "
            "one of the two",
        )
    if within and what == "text":
        report.add(
            "note",
            f"{table.path}: "
            f"{counted(within, 'text says', 'texts say')} the same as another and become one, with the labels of all",
        )
    elif within:
        split = "" if parts is not None else ", and a random split may put them on both sides"
        report.add(
            "warning",
            f"{table.path}: {counted(within, 'row has', 'rows have')} the features of an earlier row{split}",
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
    texts: Sequence[str],
    labels: Sequence[Sequence[str]],
    parts: Sequence[str] | None,
) -> tuple[list[list[str]], list[str] | None]:
    merged = merge_duplicates(texts, labels)
    wordless = [row for row, example in enumerate(merged.group) if example is None]
    if len(wordless) == table.rows:
        report.add("error", f"{table.path}, column {short(options.text)}: found no word")
    elif wordless:
        report.add(
            "warning",
            f"{table.place(wordless[0])}: no word in column {short(options.text)}, in "
            f"{counted(len(wordless), 'row, which is', 'rows, which are')} left out",
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
    def draw(targets: sparse.csr_array) -> Mapping[str, np.ndarray]:
        if parts is not None:
            return sampling.limit(rows_of_parts(parts))
        return sampling.split_examples(targets, options)

    kind = "stratified" if options.stratified else "random"
    kind = kind if parts is None else None
    positives = note_counts(report, options, labels, everything, draw, kind)
    could = parts is None and not options.stratified
    if could and positives is not None and (positives == 0).any():
        report.add("note", "the option stratified gives every node a training example where it can")
