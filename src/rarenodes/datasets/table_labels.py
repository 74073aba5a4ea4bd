"""What any table of examples says besides features: labels in a hierarchy, and parts of the split."""

import difflib
import operator
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from pydantic import Field, model_validator

from rarenodes.datasets.dataset import SPLITS
from rarenodes.datasets.edge_lists import NamedHierarchy, read_named_hierarchy
from rarenodes.datasets.files import brief, short
from rarenodes.datasets.label_paths import hierarchy_of_paths, path_of
from rarenodes.datasets.sampling import SplitOptions
from rarenodes.datasets.table_files import Table, TableError
from rarenodes.loss.hierarchy import Hierarchy
from rarenodes.settings import FileName, SettingsError, unknown_name


class LabelOptions(SplitOptions):
    """Where a table and its hierarchy lie, and what the columns of labels and parts mean.

    Attributes:
        examples: CSV or Parquet file, one row an example; relative to the data folder.
        hierarchy: CSV, JSON or OBO file of edges, see `edge_lists.read_hierarchy`; none where labels
            are paths.
        labels: column of labels: text, or, in Parquet, lists.
        separator: what stands between the labels of an example, in text.
        path_separator: what stands between the steps of a label that is a whole path, such as `>` in
            `a > b > c`; the hierarchy is then that of all paths, see `label_paths`.
        split: column that says `train`, `valid` or `test`; without it the split is random.
        min_count: a node is kept if at least so many examples belong to it or its descendants.
        unknown_below: whether a label that stops half-way says nothing about the nodes below it:
            training and scores leave these pairs out. Otherwise the example is negative in them.

    """

    examples: FileName
    hierarchy: FileName | None = None
    labels: str = "labels"
    separator: str = Field(";", min_length=1)
    path_separator: str | None = Field(None, min_length=1)
    split: str | None = None
    min_count: int = Field(1, ge=1)
    unknown_below: bool = Field(False, exclude_if=operator.not_)

    @model_validator(mode="after")
    def _have_one_hierarchy(self):
        if self.hierarchy is None and self.path_separator is None:
            raise ValueError(
                "hierarchy: missing; it is required, unless labels are whole paths: name the file, or "
                "say by path_separator what stands between their steps"
            )
        if self.hierarchy is not None and self.path_separator is not None:
            raise ValueError(
                "hierarchy and path_separator are both given, but the paths are the hierarchy: leave "
                "one out"
            )
        if (
            self.path_separator is not None
            and self.separator.strip() == self.path_separator.strip()
        ):
            raise ValueError(
                f"separator and path_separator are both {self.separator!r}, expected one between "
                "labels and another between the steps of a label"
            )
        return self


def read_labels(
    table: Table, options: LabelOptions, root: Path
) -> tuple[list[list[str]], NamedHierarchy]:
    """The labels of every row, at least one each, and the hierarchy that they are nodes of.

    Args:
        table: has the columns that the options name.
        options: files and columns.
        root: data folder, to which the files' paths are relative.

    Raises:
        OSError: a file is missing or cannot be read.
        EdgeListError: the hierarchy cannot be read.
        TableError: a row has no label, or one that is no node; or a node's name lists other nodes.

    """
    if options.hierarchy is None:
        labels = labels_of(table, options)
        _check_labelled(table, options, labels, "a path")
        return labels, hierarchy_of_paths(table.path, (name for names in labels for name in names))
    named = read_named_hierarchy(root / options.hierarchy)
    check_names(table, options, named, root / options.hierarchy)
    labels = labels_of(table, options)
    _check_labelled(table, options, labels, f"the root {named.hierarchy.roots[0]!r}")
    _check_labels(table, options, labels, named, root / options.hierarchy)
    return labels, named


def check_names(table: Table, options: LabelOptions, named: NamedHierarchy, edges: Path) -> None:
    """Refuse nodes whose names list others, which no label could name.

    Raises:
        TableError: there is one.

    """
    nodes = named.hierarchy.index
    for name in [] if options.labels in table.lists else nodes:
        parts = labels_in(name, options.separator)
        if len(parts) > 1 and any(part in nodes for part in parts):
            raise TableError(
                f"{edges}: found the node {short(name)}, expected one name, since {options.separator!r} "
                "stands between labels (option separator): write a line for each"
            )


def labels_of(table: Table, options: LabelOptions) -> list[list[str]]:
    """The labels of every row: names of nodes, which the hierarchy may not have.

    Raises:
        TableError: the column holds something else, or a path with an empty step.

    """
    if options.labels in table.lists:
        lists = table.lists[options.labels]()
        labels = [[name.strip() for name in names if name.strip()] for names in lists]
    else:
        labels = [labels_in(cell, options.separator) for cell in table.text(options.labels)]
    if options.path_separator is None:
        return labels
    return [
        [_path(table, options, row, name) for name in names] for row, names in enumerate(labels)
    ]


def _path(table: Table, options: LabelOptions, row: int, name: str) -> str:
    try:
        return path_of(name, options.path_separator)
    except ValueError as error:
        raise table.fault(
            row,
            options.labels,
            f"found {error} in {short(name)}, expected a path such as "
            f"'a {options.path_separator.strip()} b': remove what stands too much",
        ) from None


def _check_labelled(
    table: Table, options: LabelOptions, labels: Sequence[Sequence[str]], instead: str
) -> None:
    for row, names in enumerate(labels):
        if not names:
            raise TableError(
                f"{table.place(row)}: no label in column {options.labels!r}, expected at least one: "
                f"leave the row out, or give it {instead}"
            )


def _check_labels(
    table: Table,
    options: LabelOptions,
    labels: Sequence[Sequence[str]],
    named: NamedHierarchy,
    edges: Path,
) -> None:
    nodes = named.hierarchy.index
    for row, names in enumerate(labels):
        for name in names:
            if name not in nodes:
                mend = nodes_meant(name, named) or (
                    f", expected one of the {len(nodes)} nodes of {edges}: correct it, "
                    "set the option separator, or add the node there"
                )
                raise table.fault(row, options.labels, f"unknown node {short(name)}{mend}")


def nodes_meant(name: str, named: NamedHierarchy) -> str:
    """The end of a message about a label that is no node: those of that name, or the nearest node."""
    called = [node for node, words in named.names.items() if words == name]
    if called:
        nodes = " or ".join(map(short, called[:3]))
        return f", expected the node itself, not what it is called: write {nodes}"
    near = [node for node in named.hierarchy.nodes if node.casefold() == name.casefold()]
    near = near or difflib.get_close_matches(
        name[:100], named.hierarchy.nodes[:20000], n=1, cutoff=0.5
    )
    return f"; did you mean {near[0]!r}?" if near else ""


def labels_in(cell: str, separator: str) -> list[str]:
    """The labels that a cell lists."""
    return [name.strip() for name in cell.split(separator) if name.strip()]


def parts_of(table: Table, options: LabelOptions) -> list[str] | None:
    """The part of the split that every row says it is in; None where no column says so.

    Raises:
        TableError: a cell says something else, or a part has no row.

    """
    if options.split is None:
        return None
    parts = [part.strip() for part in table.text(options.split)]
    for row, part in enumerate(parts):
        if part not in SPLITS:
            raise table.fault(
                row, options.split, f"found {short(part)}, expected one of {', '.join(SPLITS)}"
            )
    return check_all_there(table, options, parts)


def check_all_there(table: Table, options: LabelOptions, parts: list[str]) -> list[str]:
    """The parts, if each has an example.

    Raises:
        TableError: one has none.

    """
    for part in SPLITS:
        if part not in parts:
            raise TableError(
                f"{table.path}: no row has {part!r} in column {options.split!r}, expected at least "
                "one: add some, or leave out the option split for a random split"
            )
    return parts


def rows_of_parts(parts: Sequence[str]) -> dict[str, np.ndarray]:
    """Rows of every part of the split, sorted."""
    return {part: np.flatnonzero(np.array(parts) == part) for part in SPLITS}


def titles_of(hierarchy: Hierarchy, names: Mapping[str, str]) -> tuple[str, ...] | None:
    """What every node is called in words; None where the hierarchy's file does not say."""
    return tuple(names.get(node, node) for node in hierarchy.nodes) if names else None


def unknown_column(table: Table, name: str) -> SettingsError:
    """The error for a column that the table does not have, with the nearest one that it has."""
    whole = [known for known in (*table.columns, *table.vectors) if not _is_part(table, known)]
    known = [brief(known, 40) for known in whole]
    return unknown_name("column", name, known[:20], str(table.path))


def _is_part(table: Table, name: str) -> bool:
    return any(name in parts for parts in table.vectors.values())
