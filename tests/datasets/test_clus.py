"""Own CLUS files become data sets, as the benchmarks do."""

from pathlib import Path

import numpy as np
import pytest

from rarenodes.datasets import load_dataset
from rarenodes.datasets.arff import ArffError
from rarenodes.settings import SettingsError

EXAMPLES = Path(__file__).parents[2] / "data" / "examples"
HEADER = """@RELATION own
@ATTRIBUTE x numeric
@ATTRIBUTE colour {red,blue}
@ATTRIBUTE class hierarchical a/b,a/c
@DATA
"""
PARTS = {
    "train": HEADER + "1,red,a/b\n3,red,a/c\n",
    "valid": HEADER + "5,blue,a\n",
    "test": HEADER + "?,red,a/b\n9,?,a/b@a/c\n",
}


@pytest.fixture
def own(tmp_path):
    """Writes a file a part, and loads them."""

    def load(parts=PARTS, **options):
        for part, content in parts.items():
            (tmp_path / f"my_{part}.arff").write_text(content)
        files = {part: f"my_{part}.arff" for part in parts}
        return load_dataset("arff", tmp_path, options={**files, **options})

    return load


def test_three_files(own):
    dataset = own()
    assert dataset.hierarchy.nodes == ("root", "a", "a/b", "a/c")
    assert dataset.targets.toarray().tolist() == [
        [1, 1, 1, 0],
        [1, 1, 0, 1],
        [1, 1, 0, 0],
        [1, 1, 1, 0],
        [1, 1, 1, 1],
    ]
    split = {part: rows.tolist() for part, rows in dataset.split.items()}
    assert split == {"train": [0, 1], "valid": [2], "test": [3, 4]}
    assert dataset.evaluated.tolist() == [False, True, True, True]
    # Over train + valid: x has mean 3 and deviation √(8/3), red and blue 2/3, 1/3 and √(2/9).
    x = np.array([-2, 0, 2, 0, 6]) / np.sqrt(8 / 3)
    blue = np.array([-1 / 3, -1 / 3, 2 / 3, -1 / 3, 0]) / np.sqrt(2 / 9)
    np.testing.assert_allclose(dataset.features, np.column_stack([x, -blue, blue]), atol=1e-6)
    assert dataset.transformation.names == ("x", "colour")
    assert dataset.card["missing_values"] == 2
    assert dataset.card["source"] == {part: f"my_{part}.arff" for part in PARTS}


def test_without_a_file_of_validation_examples(own):
    many = HEADER + "1,red,a/b\n3,red,a/c\n" * 10
    dataset = own({"train": many, "test": PARTS["test"]}, valid_fraction=0.25)
    assert [len(dataset.split[part]) for part in ("train", "valid", "test")] == [15, 5, 2]
    assert dataset.split["test"].tolist() == [20, 21]
    again = own({"train": many, "test": PARTS["test"]}, valid_fraction=0.25)
    np.testing.assert_array_equal(dataset.split["valid"], again.split["valid"])


def test_the_examples():
    files = {"train": "animals_train.arff", "test": "animals_test.arff"}
    dataset = load_dataset("arff", EXAMPLES, options=files)
    assert len(dataset.features) == 28
    assert len(dataset.hierarchy) == 11
    assert dataset.features.shape[1] == 6  # two numbers and four covers


def test_labels_that_stop_half_way_leave_open_what_is_below(own):
    assert own().unknown is None
    dataset = own(unknown_below=True)
    unknown = [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert dataset.unknown.toarray().tolist() == unknown
    assert dataset.known_counts("valid").tolist() == [1, 1, 0, 0]
    assert dataset.card["unknown_pairs"] == 2


def test_nodes_that_are_not_evaluated(own):
    assert own(not_evaluated=["a"]).evaluated.tolist() == [False, False, True, True]
    with pytest.raises(
        SettingsError, match="not_evaluated: unknown node 'a/bb'; did you mean 'a/b'"
    ):
        own(not_evaluated=["a/bb"])


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("attributes", ("x num", "y num")),
        ("levels", ("red,b", "b,red,b")),
        ("edges", ("a/c", "a/d")),
    ],
)
def test_files_of_different_data_sets(own, what, change):
    other = HEADER.replace(*change).replace("b,red,blue", "green,red,blue") + "5,red,a\n"
    with pytest.raises(
        ArffError, match=rf"my_valid\.arff: the {what} differ from those of .*my_train"
    ):
        own({**PARTS, "valid": other})


def test_missing_and_single_files(own, tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"none\.arff: no such file; expected a hierarchical"
    ):
        own(valid="none.arff")
    with pytest.raises(SettingsError, match=r"found one file for two parts among my_train\.arff, "):
        own(test="./my_train.arff")
    with pytest.raises(SettingsError, match="options of arff: test: missing; it is required"):
        own({"train": PARTS["train"]})
    with pytest.raises(
        ArffError, match=r"my_train\.arff: found one example, expected at least two"
    ):
        own({"train": HEADER + "1,red,a/b\n", "test": PARTS["test"]})
