"""Own data: a table of features or texts with a column of labels, and a hierarchy."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from rarenodes.datasets.columns import column_means, filled, one_hot, standardised
from rarenodes.datasets.dataset import SPLITS, Dataset
from rarenodes.datasets.edge_lists import read_hierarchy
from rarenodes.datasets.raw_files import sha256
from rarenodes.datasets.sampling import Sampling, SplitOptions
from rarenodes.datasets.targets import closed_targets, frequent_nodes
from rarenodes.datasets.text import TextOptions, embed, merge_duplicates
from rarenodes.loss.hierarchy import Hierarchy
from rarenodes.settings import unknown_name

if TYPE_CHECKING:
    import pandas as pd

# A column with more is an identifier or a text, not a category.
MOST_CATEGORIES = 256


class TableError(ValueError):
    """A table that cannot be read; the message says where, what, and the mend."""


class TableOptions(SplitOptions, TextOptions):
    """Where the own data lie, and what their columns mean.

    Attributes:
        examples: CSV or Parquet file, one row an example; relative to the data folder.
        hierarchy: CSV, JSON or OBO file of edges, see `edge_lists.read_hierarchy`.
        labels: column of labels.
        separator: what stands between the labels of an example.
        text: column of texts. If given, texts are the only features; those with the same words
            become one example.
        features: columns of features; all others by default. Columns that are not numeric are
            taken as categories.
        split: column that says `train`, `valid` or `test`; without it the split is random.
        min_count: a node is kept if at least so many examples belong to it or its descendants.

    """

    examples: str
    hierarchy: str
    labels: str = "labels"
    separator: str = Field(";", min_length=1)
    text: str | None = None
    features: list[str] | None = Field(None, min_length=1)
    split: str | None = None
    min_count: int = Field(1, ge=1)


def load(source: str, root: Path, options: TableOptions, sampling: Sampling) -> Dataset:
    """A data set from one's own files.

    Texts are embedded as in `text.embed`, fitted on the training part. Other features are
    treated as in the benchmarks: categories become 0/1 columns, missing values take the column's
    mean, and columns are standardised, over train + valid. Roots are not evaluated.

    Args:
        source: name of the data set.
        root: data folder, to which the files' paths are relative.
        options: files and columns.
        sampling: draws the split where no column gives it, and limits `train`.

    Raises:
        FileNotFoundError: no such file.
        EdgeListError: the hierarchy cannot be read.
        TableError: the table cannot be read, or does not fit the hierarchy.
        SettingsError: a column that the table does not have.

    """
    path = root / options.examples
    hierarchy = read_hierarchy(root / options.hierarchy)
    table = _read(path, options)
    labels = _labels(path, table, options, hierarchy)
    parts = _parts(path, table, options)
    texts, merged = None, 0
    if options.text is not None:
        combined = merge_duplicates(table[options.text].tolist(), labels)
        parts = _merged_parts(path, parts, combined.group)
        texts, labels, merged = combined.texts, combined.labels, combined.merged
    targets, hierarchy = frequent_nodes(
        closed_targets(labels, hierarchy), hierarchy, options.min_count
    )
    split = sampling.split(len(labels), options) if parts is None else sampling.limit(_rows(parts))
    if texts is not None:
        features = embed(texts, split["train"], options, sampling.sklearn_seed("svd"))
    else:
        learned_from = np.concatenate([split["train"], split["valid"]])
        columns = _columns(path, table, options)
        complete = filled(columns, column_means(columns, learned_from))
        features = standardised(complete, learned_from)
    return Dataset(
        name=source,
        features=features,
        targets=targets,
        hierarchy=hierarchy,
        split=split,
        evaluated=~np.isin(hierarchy.nodes, hierarchy.roots),
        card={
            "source": [options.examples, options.hierarchy],
            "source_sha256": [sha256(path), sha256(root / options.hierarchy)],
            "options": options.model_dump(),
            "seed": sampling.seed,
            "train_fraction": sampling.train_fraction,
            "merged_texts": merged,
        },
        texts=texts,
    )


def _read(path: Path, options: TableOptions) -> "pd.DataFrame":
    """The table, whose columns of labels, texts and parts are strings."""
    import pandas as pd  # here, since most who import this package read no table

    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected a CSV or Parquet table")
    readers = {".csv": pd.read_csv, ".parquet": pd.read_parquet}
    if path.suffix.lower() not in readers:
        raise TableError(f"{path}: found the ending {path.suffix!r}, expected .csv or .parquet")
    try:
        table = readers[path.suffix.lower()](path)
    except ValueError as error:
        raise TableError(
            f"{path}: {str(error).strip()}; expected a readable table: save it again"
        ) from None
    named = [c for c in (options.labels, options.text, options.split) if c is not None]
    for column in [*named, *(options.features or [])]:
        if column not in table.columns:
            raise unknown_name("column", column, map(str, table.columns), str(path))
    if path.suffix.lower() == ".csv":
        # Once more as they stand: a label "NA" is no missing value, and "01" is no number.
        table[named] = pd.read_csv(path, usecols=named, dtype=str, keep_default_na=False)[named]
    table[named] = table[named].fillna("").astype(str)
    return table


def _labels(
    path: Path, table: "pd.DataFrame", options: TableOptions, hierarchy: Hierarchy
) -> list[list[str]]:
    labels = []
    for row, cell in enumerate(table[options.labels], start=1):
        names = [name.strip() for name in cell.split(options.separator) if name.strip()]
        if not names:
            raise TableError(
                f"{path}, row {row}: no label in column {options.labels!r}, expected at least one: "
                f"leave the row out, or give it the root {hierarchy.roots[0]!r}"
            )
        for name in names:
            if name not in hierarchy.index:
                where = f"{path}, row {row}, column {options.labels!r}"
                raise TableError(str(unknown_name("node", name, hierarchy.nodes[:1000], where)))
        labels.append(names)
    return labels


def _parts(path: Path, table: "pd.DataFrame", options: TableOptions) -> list[str] | None:
    if options.split is None:
        return None
    parts = table[options.split].str.strip().tolist()
    for row, part in enumerate(parts, start=1):
        if part not in SPLITS:
            raise TableError(
                f"{path}, row {row}, column {options.split!r}: found {part!r}, "
                f"expected one of {', '.join(SPLITS)}"
            )
    for part in SPLITS:
        if part not in parts:
            raise TableError(
                f"{path}: no row has {part!r} in column {options.split!r}, expected at least one: "
                "add some, or leave out the option split for a random split"
            )
    return parts


def _merged_parts(
    path: Path, parts: Sequence[str] | None, group: Sequence[int | None]
) -> list[str] | None:
    """Part of every merged text; a text must not be in two parts."""
    if parts is None:
        return None
    first: dict[int, int] = {}
    for row, example in enumerate(group):
        if example is None:
            continue
        earlier = first.setdefault(example, row)
        if parts[earlier] != parts[row]:
            raise TableError(
                f"{path}, rows {earlier + 1} and {row + 1}: the same words are in {parts[earlier]!r} "
                f"and in {parts[row]!r}, expected one part: move or remove one of the two"
            )
    return [parts[row] for row in first.values()]


def _rows(parts: Sequence[str]) -> dict[str, np.ndarray]:
    return {part: np.flatnonzero(np.array(parts) == part) for part in SPLITS}


def _columns(path: Path, table: "pd.DataFrame", options: TableOptions) -> np.ndarray:
    import pandas as pd

    not_features = {options.labels, options.split}
    names = options.features or [c for c in table.columns if c not in not_features]
    if not names:
        raise TableError(
            f"{path}: no column is left for features; expected at least one, or the option text"
        )
    values, levels = [], []
    for name in names:
        column = table[name]
        if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
            values.append(_numbers(path, column))
            levels.append(None)
        else:
            positions, categories = pd.factorize(column, sort=True)
            _check_few(path, name, len(categories))
            values.append(np.where(positions < 0, np.nan, positions))
            levels.append(tuple(map(str, categories)))
    return one_hot(np.column_stack(values).astype(np.float64), levels)


def _numbers(path: Path, column: "pd.Series") -> np.ndarray:
    numbers = column.to_numpy(dtype=np.float64, na_value=np.nan)
    if np.isinf(numbers).any():
        row = int(np.flatnonzero(np.isinf(numbers))[0]) + 1
        raise TableError(
            f"{path}, row {row}, column {column.name!r}: found {numbers[row - 1]}, expected a finite "
            "number: correct it, or leave the cell empty if it is missing"
        )
    return numbers


def _check_few(path: Path, name: str, categories: int) -> None:
    if categories > MOST_CATEGORIES:
        raise TableError(
            f"{path}, column {name!r}: found {categories} categories, expected numbers or at most "
            f"{MOST_CATEGORIES} categories: leave the column out of the option features"
        )
