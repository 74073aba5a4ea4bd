import os
from pathlib import Path

import numpy as np
import pytest
import torch

from rarenodes.datasets import benchmarks, load_dataset, options_of, raw_files
from rarenodes.datasets.benchmarks import PairOptions, UnverifiedOptions
from rarenodes.datasets.raw_files import ChecksumError, RawFile
from rarenodes.settings import SettingsError

REPOSITORY = Path(__file__).parents[2]
DATA = Path(os.environ.get("HMC_DATA_DIR", REPOSITORY.parent / "shared" / "hmc"))
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="needs the benchmark files")

HEADER = """@RELATION small
@ATTRIBUTE x numeric
@ATTRIBUTE colour {red,blue}
@ATTRIBUTE same numeric
@ATTRIBUTE class hierarchical root/GO0003674,GO0003674/A,GO0003674/B
@DATA
"""
PARTS = {
    "train": HEADER + "1,red,5,A\n3,red,5,B\n",
    "valid": HEADER + "5,blue,5,A\n?,?,5,GO0003674\n",
    "test": HEADER + "?,red,5,A\n100,?,6,B\n",
}


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Puts the files of a benchmark of two examples a part into the data folder."""
    monkeypatch.delenv("HMC_DATA_DIR", raising=False)

    def put(parts):
        folder = tmp_path / "raw"
        folder.mkdir(exist_ok=True)
        files = {}
        for part, content in parts.items():
            (folder / f"{part}.arff").write_text(content)
            checksum = raw_files.sha256(folder / f"{part}.arff")
            files[part] = RawFile(f"{part}.arff", "http://127.0.0.1:9", checksum)
        monkeypatch.setattr(benchmarks, "raw_files", lambda source: files)
        return tmp_path

    return put


def load_real(name, monkeypatch, **arguments):
    monkeypatch.setenv("HMC_DATA_DIR", str(DATA))
    return load_dataset(name, **arguments)


def test_missing_values_and_scale_come_from_train_and_valid(small):
    dataset = load_dataset("cellcycle_GO", small(PARTS))
    # x: 1, 3, 5 and their mean 3; blue: 0, 0, 1 and their mean 1/3.
    x = (np.array([1, 3, 5, 3, 3, 100]) - 3) / np.sqrt(2)
    blue = (np.array([0, 0, 1, 1 / 3, 0, 1 / 3]) - 1 / 3) / np.sqrt(1 / 6)
    expected = np.column_stack([x, -blue, blue, np.zeros(6)])
    np.testing.assert_allclose(dataset.features, expected, atol=1e-6)
    assert dataset.features.dtype == np.float32
    assert {part: rows.tolist() for part, rows in dataset.split.items()} == {
        "train": [0, 1],
        "valid": [2, 3],
        "test": [4, 5],
    }


def test_the_released_code_fills_the_test_part_with_its_own_means(small):
    test = HEADER + "?,red,?,A\n100,?,?,B\n40,blue,?,A\n"
    root = small({**PARTS, "test": test})
    ours = load_dataset("cellcycle_GO", root)
    released = load_dataset("cellcycle_GO", root, options={"imputation": "released"})
    np.testing.assert_array_equal(released.features[:4], ours.features[:4])
    # x: (100 + 40) / 2; blue: 0, its mean 1/2, 1; the last has no value in test and is constant.
    x = (np.array([70, 100, 40]) - 3) / np.sqrt(2)
    blue = (np.array([0, 1 / 2, 1]) - 1 / 3) / np.sqrt(1 / 6)
    expected = np.column_stack([x, -blue, blue, np.zeros(3)])
    np.testing.assert_allclose(released.features[4:], expected, rtol=1e-6, atol=1e-6)
    assert released.card["options"] == {"imputation": "released"}
    assert released.card["missing_values_in_test"] == 5


def test_a_column_unknown_in_the_whole_test_part_keeps_the_mean_of_train(small):
    root = small({**PARTS, "test": HEADER + "?,red,5,A\n?,blue,5,B\n"})
    dataset = load_dataset("cellcycle_GO", root, options={"imputation": "released"})
    # The mean of train + valid is 0 once standardised.
    np.testing.assert_allclose(dataset.features[4:, 0], 0, atol=1e-6)


def test_an_unknown_imputation(tmp_path):
    with pytest.raises(
        SettingsError,
        match=r"options of enron: imputation: expected 'train' or 'released', found 'test'",
    ):
        load_dataset("enron", tmp_path, options={"imputation": "test"})


def test_neither_root_nor_ontologies_are_evaluated(small):
    dataset = load_dataset("cellcycle_GO", small(PARTS))
    assert dataset.hierarchy.nodes == ("root", "GO0003674", "A", "B")
    assert dataset.evaluated.tolist() == [False, False, True, True]
    assert dataset.targets.toarray()[1].tolist() == [1, 1, 0, 1]


def test_limited_data_limit_what_the_features_are_fitted_on(small):
    root = small(PARTS)
    full = load_dataset("cellcycle_GO", root)
    limited = load_dataset("cellcycle_GO", root, train_fraction=0.5)
    assert len(limited.split["train"]) == 1
    np.testing.assert_array_equal(limited.split["test"], full.split["test"])
    assert (limited.features[:, 0] != full.features[:, 0]).any()


def test_a_pair_of_files_gets_its_valid_part_from_train(small):
    pair = {part: PARTS[part] for part in ("train", "test")}
    dataset = load_dataset("enron", small(pair), options={"valid_fraction": 0.5})
    assert {part: len(rows) for part, rows in dataset.split.items()} == {
        "train": 1,
        "valid": 1,
        "test": 2,
    }
    assert dataset.split["test"].tolist() == [2, 3]
    again = load_dataset("enron", small(pair), options={"valid_fraction": 0.5})
    assert again.checksum() == dataset.checksum()


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("x numeric", "y numeric", "attributes"),
        ("{red,blue}", "{red,blue,green}", "levels"),
        (",GO0003674/B\n", ",GO0003674/B,A/C\n", "edges"),
    ],
)
def test_parts_of_different_data_sets(small, old, new, what):
    root = small({**PARTS, "valid": PARTS["valid"].replace(old, new)})
    with pytest.raises(ValueError, match=rf"valid\.arff: the {what} differ from those of .*train"):
        load_dataset("cellcycle_GO", root)


def test_options_fit_the_files():
    assert options_of("enron") is PairOptions
    assert options_of("expr_GO") is UnverifiedOptions
    assert list(options_of("seq_FUN").model_fields) == ["imputation"]
    for name in benchmarks.names():
        assert options_of(name)().imputation == "train"


def test_every_other_file_has_a_known_checksum():
    unknown = {
        name
        for name in benchmarks.names()
        if not all(file.verifiable for file in benchmarks.raw_files(name).values())
    }
    assert unknown == {"expr_FUN", "expr_GO"}


@pytest.mark.parametrize("name", ["expr_FUN", "expr_GO"])
def test_training_files_of_expr_are_known_by_their_git_blob_alone(name):
    files = benchmarks.raw_files(name)
    assert [part for part, file in files.items() if file.verifiable] == ["train"]
    assert files["train"].sha256 is None


def test_a_training_file_of_expr_is_verified_though_its_test_file_is_accepted(
    tmp_path, monkeypatch
):
    monkeypatch.delenv("HMC_DATA_DIR", raising=False)
    for file in benchmarks.raw_files("expr_FUN").values():
        path = tmp_path / "raw" / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(PARTS["train"])
    with pytest.raises(
        ChecksumError,
        match=r"expr_FUN\.train\.arff: found git blob id [0-9a-f]{40}, expected ca9cf9c613b7b0c17",
    ):
        load_dataset("expr_FUN", tmp_path, options={"accept_unverified": True})


def test_files_without_known_checksum_are_refused(tmp_path):
    with pytest.raises(ChecksumError, match=r"expr_FUN\.valid\.arff: no checksum of this file is"):
        load_dataset("expr_FUN", tmp_path)
    assert not list(tmp_path.iterdir())


@needs_data
def test_cellcycle_fun(monkeypatch):
    dataset = load_real("cellcycle_FUN", monkeypatch)
    assert dataset.features.shape == (3757, 77)
    assert len(dataset.hierarchy) == 500
    assert dataset.evaluated.sum() == 499
    assert np.isfinite(dataset.features).all()
    learned_from = np.concatenate([dataset.split["train"], dataset.split["valid"]])
    np.testing.assert_allclose(dataset.features[learned_from].mean(axis=0), 0, atol=1e-5)


@needs_data
def test_cellcycle_go(monkeypatch):
    dataset = load_real("cellcycle_GO", monkeypatch)
    assert len(dataset.hierarchy) == 4126
    assert dataset.hierarchy.num_edges == 5827
    evaluated = dataset.evaluated
    assert evaluated.sum() == 4122
    assert (dataset.counts("test")[evaluated] == 0).sum() == 1284
    learned_from = dataset.counts("train") + dataset.counts("valid")
    assert (learned_from[evaluated] == 0).sum() == 431
    some = torch.tensor(dataset.targets[:100].toarray())
    assert dataset.hierarchy.is_coherent(some)


@needs_data
def test_categories_of_spo(monkeypatch):
    dataset = load_real("spo_FUN", monkeypatch)
    assert dataset.features.shape[1] == 77 + 5 + 2 + 2
    assert dataset.card["categorical_attributes"] == 3


@needs_data
def test_released_imputation_changes_missing_values_of_the_test_part_alone(monkeypatch):
    ours = load_real("cellcycle_FUN", monkeypatch)
    released = load_real("cellcycle_FUN", monkeypatch, options={"imputation": "released"})
    changed = ours.features != released.features
    assert changed.sum() == changed[ours.split["test"]].sum() == 5166
    assert ours.card["missing_values_in_test"] == 5166


@needs_data
def test_enron_is_a_pair(monkeypatch):
    dataset = load_real("enron", monkeypatch)
    assert [len(dataset.split[p]) for p in ("train", "valid", "test")] == [840, 148, 660]
    assert len(dataset.hierarchy) == 57
