"""Own data: a table of features or texts with a column of labels, and a hierarchy."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float
from pydantic import Field, model_validator

from rarenodes.datasets.columns import (
    LARGEST,
    ColumnTransformation,
    Levels,
    fit_columns,
    number,
)
from rarenodes.datasets.dataset import Dataset
from rarenodes.datasets.files import short
from rarenodes.datasets.matrices import read_features
from rarenodes.datasets.raw_files import sha256
from rarenodes.datasets.sampling import Sampling, StratifiedOptions
from rarenodes.datasets.table_files import Table, TableError, read_table, vector_columns
from rarenodes.datasets.table_labels import (
    LabelOptions,
    check_all_there,
    parts_of,
    read_labels,
    rows_of_parts,
    titles_of,
    unknown_column,
)
from rarenodes.datasets.targets import kept_targets, unknown_in_card
from rarenodes.datasets.text import TextOptions, fit_texts, merge_duplicates
from rarenodes.settings import FileName

# What the columns of a matrix are called: matrix[0], matrix[1], and so on.
MATRIX = "matrix"

# A column with more is an identifier or a text, not a category.
MOST_CATEGORIES = 256

# What spreadsheets and pandas write where a value is missing.
MISSING = frozenset(
    ["", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "-nan", "null", "NULL", "None", "<NA>"]
)

_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+([eE][+-]?\d+)?")


class TableOptions(LabelOptions, StratifiedOptions, TextOptions):
    """Where the own data lie, and what their columns mean: see `LabelOptions`, and here for features.

    Without a column of parts the split is random, and `stratified` gives every node its share of each.

    Attributes:
        text: column of texts. If given, texts are the only features; those with the same words
            become one example.
        matrix: `.npy` file of features, `[rows, features]`, whose rows are those of `examples`; they
            are then the only features, and missing where NaN.
        features: columns of features; all others by default. A column of numbers is one feature,
            one of lists of numbers (Parquet) one for each place, one of text becomes one feature
            for each of its categories.
        categories: columns of features that are categories though they hold numbers, such as codes.

    """

    text: str | None = None
    matrix: FileName | None = None
    features: list[str] | None = Field(None, min_length=1)
    categories: list[str] = Field([])

    @model_validator(mode="after")
    def _split_in_one_way(self):
        if self.split is not None and self.stratified:
            raise ValueError(
                f"stratified: true, but the column {self.split!r} of the option split says which part "
                "an example is in: leave one of the two out"
            )
        return self

    @model_validator(mode="after")
    def _give_every_column_one_meaning(self):
        meanings = {"labels": self.labels, "split": self.split, "text": self.text}
        columns = [column for column in meanings.values() if column is not None]
        if len(set(columns)) < len(columns):
            raise ValueError(f"{meanings} name one column twice; each must name another")
        for key in ("features", "categories"):
            for column in getattr(self, key) or ():
                if column in columns:
                    meaning = next(m for m, name in meanings.items() if name == column)
                    raise ValueError(
                        f"the column {column!r} of the option {meaning} is among the {key}, where it "
                        f"would give the answer away: remove it from {key}"
                    )
        for only in ("text", "matrix"):
            others = [key for key in ("text", "matrix", "features", "categories") if key != only]
            if getattr(self, only) is not None and (
                also := [k for k in others if getattr(self, k)]
            ):
                what = "texts are" if only == "text" else "the matrix has"
                raise ValueError(
                    f"{only} and {also[0]} are both given, but {what} the only features: leave one out"
                )
        return self


def load(source: str, root: Path, options: TableOptions, sampling: Sampling) -> Dataset:
    """A data set from one's own files.

    Texts are embedded as in `text.fit_texts`, fitted on the training part. Other features are
    treated as in the benchmarks: categories become 0/1 columns, missing values take the column's
    mean, and columns are standardised, over train + valid. Roots are not evaluated. The card counts
    what did not become an example or a node of its own: texts merged or without a word, and nodes
    of too few examples.

    Args:
        source: name of the data set.
        root: data folder, to which the files' paths are relative.
        options: files and columns.
        sampling: draws the split where no column gives it, and limits `train`.

    Raises:
        FileNotFoundError: no such file.
        OSError: the system does not let a file be read.
        EdgeListError: the hierarchy cannot be read.
        TableError: the table cannot be read, or does not fit the hierarchy.
        SettingsError: a column that the table does not have.

    """
    files = raw_files(options, root)
    table = open_table(options, root)
    _check_columns(table, options)
    labels, named = read_labels(table, options, root)
    parts = parts_of(table, options)
    texts, merged, wordless = None, 0, 0
    if options.text is not None:
        combined = merge_duplicates(table.text(options.text), labels)
        wordless = combined.group.count(None)
        if wordless == table.rows:
            raise TableError(
                f"{table.path}, column {options.text!r}: found no word, expected texts"
            )
        parts = _merged_parts(table, options, parts, combined.group)
        texts, labels, merged = combined.texts, combined.labels, combined.merged
    targets, hierarchy, unknown = kept_targets(
        labels, named.hierarchy, options.min_count, stops_leave_open=options.unknown_below
    )
    split = (
        sampling.split_examples(targets, options)
        if parts is None
        else sampling.limit(rows_of_parts(parts))
    )
    if texts is not None:
        transformation = fit_texts(
            texts, split["train"], options, sampling.sklearn_seed("svd"), options.text
        )
        features = transformation.apply(texts)
    else:
        learned_from = np.concatenate([split["train"], split["valid"]])
        names, values, levels = _columns(table, options)
        transformation = fit_columns(names, values, levels, learned_from)
        features = transformation.apply(values)
    return Dataset(
        name=source,
        features=features,
        targets=targets,
        hierarchy=hierarchy,
        split=split,
        evaluated=~np.isin(hierarchy.nodes, hierarchy.roots),
        card={
            "source": [path.relative_to(root).as_posix() for path in files],
            "source_sha256": [sha256(path) for path in files],
            "options": options.model_dump(),
            "seed": sampling.seed,
            "train_fraction": sampling.train_fraction,
            "rows": table.rows,
            "merged_texts": merged,
            "texts_without_words": wordless,
            "dropped_nodes": len(named.hierarchy) - len(hierarchy),
            **unknown_in_card(unknown),
        },
        unknown=unknown,
        texts=texts,
        transformation=transformation,
        titles=titles_of(hierarchy, named.names),
    )


def raw_files(options: TableOptions, root: Path) -> list[Path]:
    """The files that the data set is made of: the table, and matrix and hierarchy where given."""
    names = (options.examples, options.matrix, options.hierarchy)
    return [root / name for name in names if name is not None]


def open_table(options: TableOptions, root: Path) -> Table:
    """The table, and, where one is given, the matrix beside it, as a column of lists of numbers.

    Raises:
        OSError: a file is missing or cannot be read.
        TableError: one holds something else, or the two do not belong together.

    """
    table = read_table(root / options.examples)
    if options.matrix is None:
        return table
    matrix = read_features(root / options.matrix, table.rows, table.path)
    parts = vector_columns(MATRIX, matrix)
    return replace(
        table,
        columns={**table.columns, **parts},
        vectors={**table.vectors, MATRIX: tuple(parts)},
    )


def _check_columns(table: Table, options: TableOptions) -> None:
    named = [options.labels, options.text, options.split]
    for column in [*named, *(options.features or []), *options.categories]:
        if column is not None:
            check_column(table, column, options)


def check_column(table: Table, column: str, options: TableOptions) -> None:
    """Refuse a column that an option names and that cannot be meant.

    Raises:
        SettingsError: the table does not have it.
        TableError: it is one place of the lists of labels.

    """
    if not table.has(column):
        raise unknown_column(table, column)
    if column in table.vectors.get(options.labels, ()):
        raise TableError(
            f"{table.path}: the column {short(column)} is a part of {short(options.labels)}, the "
            "option labels, and would give the answer away: remove it from features and categories"
        )


def _merged_parts(
    table: Table,
    options: TableOptions,
    parts: Sequence[str] | None,
    group: Sequence[int | None],
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
                f"{table.place(row)}: the same words are in {parts[row]!r} here and in "
                f"{parts[earlier]!r} in {table.place(earlier).rpartition(', ')[2]}, expected one "
                "part: move or remove one of the two"
            )
    # Texts without a word are gone, and may have been all of a part.
    return check_all_there(table, options, [parts[row] for row in first.values()])


def _columns(table: Table, options: TableOptions) -> tuple[list[str], np.ndarray, Levels]:
    """Names of the columns of features, `[rows, columns]` of what they hold, and their categories."""
    names = names_of_features(table, options)
    if not names:
        raise TableError(
            f"{table.path}: no column is left for features; expected at least one, or the option text"
        )
    columns = [column_of_features(table, name, options) for name in names]
    values, levels = [column for column, _ in columns], [some for _, some in columns]
    if all(some == () for some in levels):
        raise TableError(
            f"{table.path}: the columns of features hold no value, expected at least one: "
            "choose others in the option features"
        )
    return names, np.column_stack(values), levels


def names_of_features(table: Table, options: TableOptions) -> list[str]:
    """The columns of features: those that are named, or all that mean nothing else."""
    if options.matrix is not None:
        return list(table.vectors[MATRIX])
    if options.features is not None:
        return [part for name in options.features for part in table.vectors.get(name, [name])]
    not_features = {options.labels, options.split, *table.vectors.get(options.labels, ())}
    return [name for name in table.columns if name not in not_features]


def column_of_features(
    table: Table, name: str, options: TableOptions
) -> tuple[Float[np.ndarray, " rows"], tuple[str, ...] | None]:
    """What a column of features holds: numbers, or positions of categories; and these categories.

    Raises:
        TableError: it holds neither, or it is in doubt which.

    """
    cells = table.usable(name)
    if name in options.categories:
        return _categories(table, name, table.text(name))
    if isinstance(cells, np.ndarray):
        return _checked_numbers(table, name, cells.astype(np.float64)), None
    return _numbers_or_categories(table, name, cells)


def values_for(
    table: Table, transformation: ColumnTransformation
) -> tuple[np.ndarray, dict[str, int]]:
    """The columns of another table, as a transformation that was fitted earlier takes them.

    Args:
        table: has at least the transformation's columns.
        transformation: says which columns hold numbers and which categories.

    Returns:
        `[rows, columns]`: numbers, or positions of categories; NaN where a value is missing or a
        category was not there when the transformation was fitted. And how many of the latter there
        are, by column.

    Raises:
        TableError: a column is missing, or holds what is no number where numbers are expected.

    """
    values, unseen = [], {}
    for name, levels in zip(transformation.names, transformation.levels, strict=True):
        if name not in table.columns:
            raise TableError(str(unknown_column(table, name)))
        if levels is None:
            values.append(_numbers(table, name))
            continue
        position = {level: float(i) for i, level in enumerate(levels)}
        cells = [cell.strip() for cell in table.text(name)]
        values.append(np.array([position.get(cell, np.nan) for cell in cells]))
        new = sum(cell not in MISSING and cell not in position for cell in cells)
        if new:
            unseen[name] = new
    return np.column_stack(values), unseen


def _numbers(table: Table, name: str) -> np.ndarray:
    cells = table.usable(name)
    if isinstance(cells, np.ndarray):
        return _checked_numbers(table, name, cells.astype(np.float64))
    column = np.full(len(cells), np.nan)
    for row, cell in enumerate(cells):
        if cell is None or cell.strip() in MISSING:
            continue
        try:
            column[row] = number(cell.strip())
        except ValueError:
            raise table.fault(
                row,
                name,
                f"found {short(cell)}, expected a number, as when the model was fitted: correct it, "
                "or leave the cell empty if it is missing",
            ) from None
    return _checked_numbers(table, name, column)


def _numbers_or_categories(
    table: Table, name: str, cells: Sequence[str | None]
) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """What a column of text holds, where there can be no doubt.

    Few slips in a column of numbers must not turn it into hundreds of categories.
    """
    known = [
        (row, cell.strip())
        for row, cell in enumerate(cells)
        if cell is not None and cell.strip() not in MISSING
    ]
    if all(_is_number(cell) for _, cell in known) and table.lines is not None:
        column = np.full(len(cells), np.nan)
        for row, cell in known:
            column[row] = number(cell)
        return _checked_numbers(table, name, column), None
    like = [_is_number(cell) or bool(_DECIMAL_COMMA.fullmatch(cell)) for _, cell in known]
    if known and 2 * sum(like) >= len(like):
        _refuse(table, name, known, sum(like))
    return _categories(table, name, cells)


def _refuse(table: Table, name: str, known: Sequence[tuple[int, str]], numbers: int) -> None:
    row, cell = next((k for k in known if not _is_number(k[1])), known[0])
    mend = f"or name {short(name)} in the option categories if it holds no quantity"
    if _DECIMAL_COMMA.fullmatch(cell):
        raise table.fault(
            row,
            name,
            f"found {short(cell)}, expected a number with a decimal point: write "
            f"{cell.replace(',', '.')}, {mend}",
        )
    if _is_number(cell):
        raise TableError(
            f"{table.path}, column {short(name)}: found numbers stored as text, expected a column of "
            f"numbers: save it as such, {mend}"
        )
    raise table.fault(
        row,
        name,
        f"found {short(cell)}, expected a number, as in {numbers} of {len(known)} rows: "
        f"correct it, leave the cell empty if it is missing, {mend}",
    )


def _is_number(cell: str) -> bool:
    try:
        number(cell)
    except ValueError:
        return False
    return True


def _categories(
    table: Table, name: str, cells: Sequence[str | None]
) -> tuple[np.ndarray, tuple[str, ...]]:
    known = [None if cell is None or cell.strip() in MISSING else cell.strip() for cell in cells]
    levels = tuple(sorted({cell for cell in known if cell is not None}))
    if len(levels) > MOST_CATEGORIES:
        raise TableError(
            f"{table.path}, column {short(name)}: found {len(levels)} categories, expected numbers or at "
            f"most {MOST_CATEGORIES} categories: leave the column out of the option features"
        )
    position = {level: float(i) for i, level in enumerate(levels)}
    return np.array([np.nan if cell is None else position[cell] for cell in known]), levels


def _checked_numbers(table: Table, name: str, column: np.ndarray) -> np.ndarray:
    wrong = np.abs(column) > LARGEST
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise table.fault(
            row,
            name,
            f"found {column[row]:g}, expected a finite number of at most {LARGEST:g}: "
            "correct it, or leave the cell empty if it is missing",
        )
    return column
