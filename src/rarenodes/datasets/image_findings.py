"""What is wrong or worth knowing about a folder of images and its table; see `table_findings`."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy import sparse

from rarenodes.datasets.edge_lists import read_named_hierarchy
from rarenodes.datasets.encoders.efficientnet import WIDTH
from rarenodes.datasets.files import counted, short
from rarenodes.datasets.image_features import pixels
from rarenodes.datasets.image_files import ImageFault, Seen, look_at
from rarenodes.datasets.images import (
    ImagesOptions,
    bad_lines,
    image_paths,
    same_content,
    usable_rows,
)
from rarenodes.datasets.label_findings import (
    TableReport,
    known_labels,
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
from rarenodes.datasets.table_files import Table, read_table
from rarenodes.datasets.table_labels import (
    check_all_there,
    check_names,
    labels_of,
    rows_of_parts,
    unknown_column,
)
from rarenodes.loss.hierarchy import Hierarchy


def inspect_images(options: ImagesOptions, root: Path, sampling: Sampling) -> TableReport:
    """Open the files of own images, every image among them, and report.

    Args:
        options: files and columns, as in `images.load`.
        root: data folder, to which the files' paths are relative.
        sampling: draws the split where no column gives it.

    """
    report = TableReport()
    report.features = options.size**2 if options.encoder is None else WIDTH
    examples = root / options.examples
    edges = examples if options.hierarchy is None else root / options.hierarchy
    named = labels = None
    if options.hierarchy is not None:
        named = reading_noted(report, read_named_hierarchy, edges)
    table = reading_noted(report, read_table, examples)
    if table is None:
        return report
    _columns(report, table, options)
    if table.has(options.labels):
        labels = reading_noted(report, labels_of, table, options)
    if options.hierarchy is None and labels is not None:
        paths = [name for names in labels for name in names]
        named = reading_noted(report, hierarchy_of_paths, examples, paths)
    if named is not None:
        note_shape(report, edges, named)
        reading_noted(report, check_names, table, options, named, edges)
    files = None
    if table.has(options.image):
        files = reading_noted(report, image_paths, table, options, root)
    if files is None:
        return report
    looked = list(look_at(files, options.smallest, options.size))
    level = "error" if options.bad_images == "refuse" else "warning"
    for line in bad_lines(table, options, looked):
        report.add(level, line)
    if labels is None or named is None:
        return report
    note_unlabelled(report, table, options, labels, named.hierarchy)
    note_steps(report, table, options, labels)
    known = known_labels(report, table, options, labels, named, edges)
    if options.hierarchy is not None:
        note_reversed(report, edges, known, named.hierarchy)
    note_half_way(report, table, options, known, named.hierarchy)
    parts = parts_noted(report, table, options)
    _same(report, table, looked, parts)
    kept = reading_noted(report, usable_rows, table, looked)
    if kept is None:
        return report
    known = [known[row] for row in kept]
    if parts is not None:
        left = [parts[row] for row in kept]
        if set(left) < set(parts):  # images that are skipped were all of a part
            left = reading_noted(report, check_all_there, table, options, left)
            if left is None:
                return report
        parts = left
    if any(known):
        seen = [looked[row] for row in kept]
        _counts(report, options, known, parts, named.hierarchy, sampling, seen)
    return report


def _counts(
    report: TableReport,
    options: ImagesOptions,
    labels: Sequence[Sequence[str]],
    parts: Sequence[str] | None,
    everything: Hierarchy,
    sampling: Sampling,
    seen: Sequence[Seen],
) -> None:
    def draw(targets: sparse.csr_array) -> Mapping[str, np.ndarray]:
        if parts is None:
            split = sampling.split_groups(same_content(seen), targets, options)
        else:
            split = sampling.limit(rows_of_parts(parts))
        if options.encoder is None and len(split["train"]):
            pixels(np.stack([one.grey for one in seen]), split["train"])
        return split

    kind = "random" if parts is None else None
    positives = note_counts(report, options, labels, everything, draw, kind)
    learnt_from = report.training_examples
    if learnt_from and not positives[report.hierarchy.depth.numpy() > 0].any():
        report.add(
            "error",
            f"no evaluated node is positive in the {counted(learnt_from, 'training image')}: "
            "use more data or a larger train_fraction",
        )


def _columns(report: TableReport, table: Table, options: ImagesOptions) -> None:
    wanted = {"image": options.image, "labels": options.labels, "split": options.split}
    meanings = [f"{meaning} {short(name)}" for meaning, name in wanted.items() if name is not None]
    for name in wanted.values():
        if name is not None and not table.has(name):
            report.add("error", str(unknown_column(table, name)))
    report.add(
        "note", f"{table.path}: {counted(table.rows, 'row')}; columns: {', '.join(meanings)}"
    )


def _same(
    report: TableReport,
    table: Table,
    looked: Sequence[Seen | ImageFault],
    parts: Sequence[str] | None,
) -> None:
    """Images with the content of an earlier one; in another part, they give the answer away."""
    first: dict[bytes, int] = {}
    across, within = [], 0
    for row, seen in enumerate(looked):
        if isinstance(seen, ImageFault):
            continue
        earlier = first.setdefault(seen.digest, row)
        if parts is not None and parts[earlier] != parts[row]:
            across.append((earlier, row))
        else:
            within += earlier != row
    if across:
        earlier, row = across[0]
        report.add(
            "warning",
            f"{table.place(row)}: the same image is in {parts[row]!r} here and in {parts[earlier]!r} in "
            f"{table.place(earlier).rpartition(', ')[2]}, so for {counted(len(across), 'row')}: move or remove one "
            "of the two",
        )
    if within:
        report.add(
            "warning",
            f"{table.path}: {counted(within, 'row has', 'rows have')} the image of an earlier row: list all labels of an image "
            "in one row",
        )
