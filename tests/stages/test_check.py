"""`check` fails on what `prepare` would refuse, data set by data set."""

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from rarenodes.__main__ import main
from rarenodes.datasets.images import ImagesOptions
from rarenodes.datasets.table_files import TableError
from rarenodes.stages import check

PARAMETERS = {
    "seed": 1,
    "data": ".",
    "training": {
        "seeds": 1, "members": 2, "epochs": 1, "batch_size": 4, "learning_rate": 0.01, "hidden": 4,
        "layers": 1,
    },
    "variants": {"mcm": {"about": "the baseline"}},
    "evaluation": {"baseline": "mcm"},
}  # fmt: skip
LABELS = ["a", "b", "a", "b", "a", "b"]
PARTS = ["train", "train", "valid", "valid", "test", "test"]
TEXTS = ["one two", "three", "four five", "six", "seven", "eight"]
SIZES = [1, 2, 3, 4, 5, 6]


def study(folder: Path, source: str, columns: dict, options: dict, examples: str) -> None:
    """A data set `own` that is at fault, and one after it that is not."""
    write(folder / examples, {"labels": LABELS, "part": PARTS, **columns})
    write(folder / "fine.csv", {"text": TEXTS, "labels": LABELS, "part": PARTS})
    (folder / "edges.csv").write_text("child,parent\na,top\nb,top\n")
    given = {"examples": examples, "hierarchy": "edges.csv", "split": "part"}
    fine = {**given, "examples": "fine.csv", "text": "text"}
    datasets = {
        "own": {"about": "at fault", "source": source, "options": {**given, **options}},
        "fine": {"about": "fine", "source": "table", "options": fine},
    }
    (folder / "params.yaml").write_text(yaml.safe_dump({**PARAMETERS, "datasets": datasets}))


def write(path: Path, columns: dict) -> None:
    table = pd.DataFrame(columns)
    if path.suffix == ".parquet":
        table.to_parquet(path, index=False)
    else:
        table.to_csv(path, index=False, quoting=csv.QUOTE_NONNUMERIC)


def refusal(capsys, folder: Path) -> str:
    """What `check` finds wrong, which is one line and what `prepare` says, too."""
    call = [f"--params={folder / 'params.yaml'}"]
    assert main([*call, "check"]) == 1
    output, error = capsys.readouterr()
    assert error == "error: 1 to mend, see the lines that begin with error\n"
    (line,) = [line for line in output.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: own: ")
    assert "note: fine: 6 examples: 2 train, 2 valid, 2 test" in output
    assert main([*call, "prepare", "own"]) == 1
    capsys.readouterr()
    return line


EMPTY = [""] * 6


@pytest.mark.parametrize(
    ("columns", "options", "examples", "message"),
    [
        (
            {"size": EMPTY}, {"features": ["size"]}, "own.parquet",
            "own.parquet: the columns of features hold no value, expected at least one",
        ),
        (
            {"size": EMPTY}, {"features": ["size"], "categories": ["size"]},
            "own.csv", "own.csv: the columns of features hold no value, expected at least one",
        ),
        (
            {"text": [*TEXTS[:2], "…", "?", *TEXTS[4:]]}, {"text": "text"}, "own.csv",
            "own.csv: no row has 'valid' in column 'part', expected at least one",
        ),
        (
            {"text": ["…", "?", *TEXTS[2:]]}, {"text": "text"}, "own.csv",
            "own.csv: no row has 'train' in column 'part', expected at least one",
        ),
        (
            {"size": SIZES, "labels": ["top", "top", *LABELS[2:]]}, {}, "own.csv",
            "table: no evaluated node is positive in the training split of 2 examples",
        ),
        (
            {"size": [0, 1e-12, 0, 0, 0, 1e30]}, {}, "own.csv",
            "expected a finite number: it lies too far from the training values of its column",
        ),
        (
            {"text": [[1.0, 2.0]] * 6}, {"text": "text"}, "own.parquet",
            "own.parquet, column 'text': found values of type lists of numbers, expected",
        ),
        (
            {"text": [["one", "two"]] * 6}, {"text": "text"}, "own.parquet",
            "own.parquet, column 'text': found values of type list<",
        ),
        (
            {"size": SIZES, "part": [[1.0, 2.0]] * 6}, {}, "own.parquet",
            "own.parquet, column 'part': found values of type lists of numbers, expected",
        ),
    ],
)  # fmt: skip
def test_what_prepare_refuses_of_a_table(tmp_path, capsys, columns, options, examples, message):
    study(tmp_path, "table", columns, options, examples)
    assert message in refusal(capsys, tmp_path)


def test_a_fault_that_was_not_foreseen_leaves_the_other_data_sets(tmp_path, capsys, monkeypatch):
    def inspect(options, *_):
        raise TableError(f"{options.examples}: found\nwhat is no table")

    study(tmp_path, "images", {"image": IMAGES}, {"folder": "photos"}, "own.csv")
    monkeypatch.setitem(check._INSPECTIONS, ImagesOptions, inspect)
    assert refusal(capsys, tmp_path) == "error: own: own.csv: found what is no table"


IMAGES = [f"{row}.png" for row in range(6)]
GONE = ["none.png"] * 2


@pytest.mark.parametrize("encoder", [None, {"size": 32}])
@pytest.mark.parametrize(
    ("columns", "examples", "message"),
    [
        ({"image": GONE * 3}, "own.csv", "own.csv: no image is left, expected at least one"),
        ({"image": [*IMAGES[:4], *GONE]}, "own.csv", "own.csv: no row has 'test' in column 'part'"),
        ({"image": [*GONE, *IMAGES[2:]]}, "own.csv", "own.csv: no row has 'train' in column"),
        (
            {"image": IMAGES, "labels": ["top", "top", *LABELS[2:]]}, "own.csv",
            "no evaluated node is positive in the 2 training images: use more data or",
        ),
        ({"image": [["a", "b"]] * 6}, "own.parquet", "column 'image': found values of type list<"),
        ({"image": [[1, 2]] * 6}, "own.parquet", "column 'image': found values of type lists of"),
    ],
)  # fmt: skip
def test_what_prepare_refuses_of_images(
    tmp_path, capsys, monkeypatch, columns, examples, message, encoder
):
    options = {"folder": "photos", "bad_images": "skip", "encoder": encoder}
    write_images(tmp_path / "photos", np.arange(6))
    study(tmp_path, "images", columns, options, examples)
    monkeypatch.setattr("rarenodes.datasets.image_features.encoded", lambda *_: np.zeros((6, 1)))
    assert message in refusal(capsys, tmp_path)


def write_images(folder: Path, greys: np.ndarray) -> None:
    folder.mkdir()
    for row, grey in enumerate(greys):
        Image.fromarray(np.full((20, 20), 9 * grey, dtype=np.uint8)).save(folder / f"{row}.png")


def test_training_images_that_are_all_alike_tell_nothing(tmp_path, capsys):
    write_images(tmp_path / "photos", np.array([1, 1, 2, 3, 4, 5]))
    study(tmp_path, "images", {"image": IMAGES}, {"folder": "photos"}, "own.csv")
    message = "the pixels of all 2 training images are the same, expected some that differ"
    assert message in refusal(capsys, tmp_path)


def test_check_encodes_no_image(tmp_path, capsys, monkeypatch):
    def refuse(*_):
        raise AssertionError("encoded")

    monkeypatch.setattr("rarenodes.datasets.image_features.encoded", refuse)
    write_images(tmp_path / "photos", np.arange(6))
    options = {"folder": "photos", "encoder": {"size": 32}}
    study(tmp_path, "images", {"image": IMAGES}, options, "own.csv")
    assert main([f"--params={tmp_path / 'params.yaml'}", "check"]) == 0
