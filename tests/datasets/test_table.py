import numpy as np
import pandas as pd
import pytest

from rarenodes.datasets import load_dataset
from rarenodes.datasets.table import TableError
from rarenodes.settings import SettingsError

FILES = {"examples": "own.csv", "hierarchy": "own_edges.csv"}
SPLIT = ["train", "train", "valid", "test"]


@pytest.fixture
def own(tmp_path):
    """Writes own data, and loads them with options."""
    (tmp_path / "own_edges.csv").write_text("child,parent\nNA,all\neu,all\nfr,eu\n")

    def load(columns, **options):
        name = options.get("examples", "own.csv")
        table = pd.DataFrame(columns)
        if name.endswith(".parquet"):
            table.to_parquet(tmp_path / name)
        else:
            table.to_csv(tmp_path / name, index=False)
        return load_dataset("table", tmp_path, options={**FILES, **options})

    return load


def columns(**changes):
    return {
        "size": [1, 3, None, 5],
        "colour": ["red", "blue", "red", None],
        "labels": ["NA; fr", "eu", "NA", "fr"],
        "part": SPLIT,
        **changes,
    }


@pytest.mark.parametrize("examples", ["own.csv", "own.parquet"])
def test_features(own, examples):
    dataset = own(columns(), split="part", examples=examples)
    assert dataset.hierarchy.nodes == ("all", "NA", "eu", "fr")
    assert dataset.targets.toarray().tolist() == [
        [1, 1, 1, 1],
        [1, 0, 1, 0],
        [1, 1, 0, 0],
        [1, 0, 1, 1],
    ]
    assert dataset.evaluated.tolist() == [False, True, True, True]
    assert [dataset.split[p].tolist() for p in ("train", "valid", "test")] == [[0, 1], [2], [3]]
    # Means over train + valid: size 2, blue 1/3.
    size = np.array([-1, 1, 0, 3]) / np.sqrt(2 / 3)
    blue = np.array([-1 / 3, 2 / 3, -1 / 3, 0]) / np.sqrt(2 / 9)
    np.testing.assert_allclose(dataset.features, np.column_stack([size, blue, -blue]), atol=1e-6)


def test_chosen_features_and_a_random_split(own):
    many = {name: values * 5 for name, values in columns().items()}
    dataset = own(many, features=["size"])
    assert dataset.features.shape == (20, 1)
    assert sum(map(len, dataset.split.values())) == 20


def test_texts_are_merged_and_embedded(own):
    texts = ["a red dog", "A red dog!", "a cat", "one cat", "a blue dog"]
    dataset = own(
        {"labels": ["NA", "fr", "eu", "fr", "NA"], "text": texts, "part": [*SPLIT, "train"]},
        text="text",
        split="part",
    )
    assert dataset.texts == ("a red dog", "a cat", "one cat", "a blue dog")
    assert dataset.targets.toarray()[0].tolist() == [1, 1, 1, 1]
    assert dataset.split["train"].tolist() == [0, 3]
    assert dataset.card["merged_texts"] == 1


def test_rare_nodes_are_dropped(own):
    dataset = own(columns(), split="part", features=["size"], min_count=3)
    assert dataset.hierarchy.nodes == ("all", "eu")


@pytest.mark.parametrize(
    ("changes", "options", "expected"),
    [
        (
            {"labels": ["NA", "frr", "eu", "eu"]},
            {},
            "own.csv, row 2, column 'labels': unknown node 'frr'; did you mean 'fr'?",
        ),
        (
            {"labels": ["NA", " ; ", "eu", "eu"]},
            {},
            "own.csv, row 2: no label in column 'labels', expected at least one: "
            "leave the row out, or give it the root 'all'",
        ),
        (
            {"part": ["train", "dev", "test", "test"]},
            {"split": "part"},
            "own.csv, row 2, column 'part': found 'dev', expected one of train, valid, test",
        ),
        (
            {"part": ["train", "train", "test", "test"]},
            {"split": "part"},
            "own.csv: no row has 'valid' in column 'part', expected at least one: "
            "add some, or leave out the option split for a random split",
        ),
        (
            {"text": ["a", "b", "B.", "c"]},
            {"split": "part", "text": "text"},
            "own.csv, rows 2 and 3: the same words are in 'train' and in 'valid', "
            "expected one part: move or remove one of the two",
        ),
        (
            {"size": [1, np.inf, 2, 3]},
            {"split": "part"},
            "own.csv, row 2, column 'size': found inf, expected a finite number: "
            "correct it, or leave the cell empty if it is missing",
        ),
    ],
)
def test_faults_are_named(own, tmp_path, changes, options, expected):
    with pytest.raises(TableError) as caught:
        own(columns(**changes), **options)
    assert str(caught.value) == f"{tmp_path}/{expected}"


def test_a_column_of_identifiers(own):
    many = {name: values * 100 for name, values in columns().items()}
    with pytest.raises(TableError, match="column 'id': found 400 categories, expected numbers or"):
        own({**many, "id": [f"x{i}" for i in range(400)]}, split="part")


def test_an_unknown_column(own):
    with pytest.raises(SettingsError, match="unknown column 'label'; did you mean 'labels'"):
        own(columns(), labels="label")


def test_no_column_is_left(own):
    with pytest.raises(TableError, match=r"own\.csv: no column is left for features"):
        own({"labels": ["NA", "eu", "fr", "fr"], "part": SPLIT}, split="part")


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("own.csv", b"", r"own\.csv: No columns to parse"),
        ("own.csv", b"size,labels\n1,eu\n1,eu,3,4\n", r"own\.csv: .*line 3, saw 4"),
        ("own.csv", b"size,labels\n\xff,eu\n", r"own\.csv: 'utf-8' codec can't decode"),
        ("own.parquet", b"junk", r"own\.parquet: .*[Pp]arquet"),
        ("own.xls", b"", r"own\.xls: found the ending '\.xls', expected \.csv or \.parquet"),
    ],
)
def test_files_that_are_no_table(own, tmp_path, name, content, expected):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TableError, match=expected):
        load_dataset("table", tmp_path, options={**FILES, "examples": name})


def test_a_missing_table(tmp_path, own):
    with pytest.raises(FileNotFoundError, match=r"own\.csv: no such file; expected a CSV or Parq"):
        load_dataset("table", tmp_path, options=FILES)
