"""Own data: a folder of images, a table of their labels, and a hierarchy."""

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
from jaxtyping import Int
from pydantic import Field, field_validator, model_validator

from rarenodes.datasets.dataset import Dataset
from rarenodes.datasets.encoders.options import EncoderOptions
from rarenodes.datasets.image_features import encoder_card, image_features
from rarenodes.datasets.image_files import ImageFault, ImageFiles, Seen, look_at
from rarenodes.datasets.raw_files import sha256
from rarenodes.datasets.sampling import Sampling
from rarenodes.datasets.table_files import Table, TableError, read_table
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
from rarenodes.settings import FileName

log = logging.getLogger(__name__)


class ImagesOptions(LabelOptions):
    """Where images lie, and what features are made of them; see `LabelOptions` for table and labels.

    Attributes:
        folder: folder of the images, relative to the data folder, and holding nothing but them.
        image: column of the images' paths in that folder.
        bad_images: what to do where an image is missing, damaged, too small, or in CMYK or 16 bits:
            `refuse` the data, with a line for each, or `skip` the images.
        smallest: least width and height of an image, in pixels.
        size: width and height of the grey images that are kept.
        encoder: what makes features of images; by default features are the grey images' pixels.

    """

    folder: FileName = Field(min_length=1)
    image: str = "image"
    bad_images: Literal["refuse", "skip"] = "refuse"
    smallest: int = Field(16, ge=1)
    size: int = Field(48, ge=8)
    encoder: EncoderOptions | None = None

    @field_validator("folder")
    @classmethod
    def _be_a_folder_of_its_own(cls, folder: str) -> str:
        # The pipeline depends on the folder as a whole, and prepared data must not lie in it.
        if PurePosixPath(folder) == PurePosixPath("."):
            raise ValueError(
                f"expected a folder of images alone, such as raw/photos, found {folder!r}"
            )
        return folder

    @model_validator(mode="after")
    def _give_every_column_one_meaning(self):
        columns = [c for c in (self.image, self.labels, self.split) if c is not None]
        if len(set(columns)) < len(columns):
            raise ValueError(
                f"image {self.image!r}, labels {self.labels!r} and split {self.split!r} name one column "
                "twice; each must name another"
            )
        return self


def load(
    source: str,
    root: Path,
    options: ImagesOptions,
    sampling: Sampling,
    cache: Path | None = None,
) -> Dataset:
    """A data set from a folder of images, a table that names and labels them, and a hierarchy.

    Every image is decoded once to see that it can be used; an encoder reads it again where the cache
    has it not. The whole image is brought to a square. Without a column of parts, files with the same
    content stay on one side of the split, and every node keeps a training image.

    Args:
        source: name of the data set.
        root: data folder, to which the files' paths are relative.
        options: files, columns and features.
        sampling: draws the split where no column gives it, and limits `train`.
        cache: folder of features that an encoder made before.

    Raises:
        OSError: a file is missing or cannot be read.
        EdgeListError: the hierarchy cannot be read.
        TableError: the table cannot be read, or does not fit the hierarchy; or images that cannot be
            used, a line each.
        SettingsError: a column that the table does not have.

    """
    table = read_table(root / options.examples)
    for column in (options.image, options.labels, options.split):
        if column is not None and not table.has(column):
            raise unknown_column(table, column)
    labels, named = read_labels(table, options, root)
    parts = parts_of(table, options)
    names = table.text(options.image)
    looked = list(look_at(image_paths(table, options, root), options.smallest, options.size))
    bad = bad_lines(table, options, looked)
    if bad and options.bad_images == "refuse":
        raise TableError("\n".join(bad))
    for line in bad:
        log.warning("%s", line)
    kept = usable_rows(table, looked)
    seen = [looked[row] for row in kept]
    labels = [labels[row] for row in kept]
    targets, hierarchy, unknown = kept_targets(
        labels, named.hierarchy, options.min_count, stops_leave_open=options.unknown_below
    )
    if parts is None:
        split = sampling.split_groups(same_content(seen), targets, options)
    else:
        parts = check_all_there(table, options, [parts[row] for row in kept])
        split = sampling.limit(rows_of_parts(parts))
    paths = image_paths(table, options, root)
    digests = [one.digest for one in seen]
    pictures = ImageFiles([paths[row] for row in kept], digests)
    images = np.stack([one.grey for one in seen])
    train = split["train"]
    return Dataset(
        name=source,
        features=image_features(pictures, images, train, options.encoder, sampling, cache),
        images=images,
        targets=targets,
        hierarchy=hierarchy,
        split=split,
        evaluated=~np.isin(hierarchy.nodes, hierarchy.roots),
        card={
            "source": [file.relative_to(root).as_posix() for file in raw_files(options, root)],
            "source_sha256": [
                *(sha256(file) for file in _tables(options, root)),
                hashlib.sha256(b"".join(digests)).hexdigest(),
            ],
            **encoder_card(options.encoder),
            "options": options.model_dump(),
            "seed": sampling.seed,
            "train_fraction": sampling.train_fraction,
            "rows": table.rows,
            "skipped_images": [names[row] for row in range(table.rows) if row not in set(kept)],
            "dropped_nodes": len(named.hierarchy) - len(hierarchy),
            **unknown_in_card(unknown),
        },
        unknown=unknown,
        titles=titles_of(hierarchy, named.names),
    )


def raw_files(options: ImagesOptions, root: Path) -> list[Path]:
    """What the data set is made of: the table, the hierarchy where given, and the folder of images."""
    return [*_tables(options, root), root / options.folder]


def image_paths(table: Table, options: ImagesOptions, root: Path) -> list[Path]:
    """Where the images of all rows lie, whether they are there or not."""
    return [root / options.folder / name.strip() for name in table.text(options.image)]


def bad_lines(
    table: Table, options: ImagesOptions, looked: Sequence[Seen | ImageFault]
) -> list[str]:
    """A line for each image that cannot be used: where it stands, what was found, and the mend."""
    names = table.text(options.image)
    either = "" if options.bad_images == "skip" else ", or set the option bad_images to skip"
    return [
        str(table.fault(row, options.image, f"{names[row].strip()!r}: {fault}{either}"))
        for row, fault in enumerate(looked)
        if isinstance(fault, ImageFault)
    ]


def usable_rows(table: Table, looked: Sequence[Seen | ImageFault]) -> list[int]:
    """Rows whose images can be used.

    Raises:
        TableError: there is none.

    """
    rows = [row for row, seen in enumerate(looked) if isinstance(seen, Seen)]
    if not rows:
        raise TableError(f"{table.path}: no image is left, expected at least one that can be used")
    return rows


def same_content(seen: Sequence[Seen]) -> Int[np.ndarray, " images"]:
    """A number for every image, from 0; images with the same content have the same."""
    number: dict[bytes, int] = {}
    return np.array([number.setdefault(one.digest, len(number)) for one in seen])


def _tables(options: ImagesOptions, root: Path) -> list[Path]:
    names = (options.examples, options.hierarchy)
    return [root / name for name in names if name is not None]
