"""Label trees and sparse training beside each other, on one chapter of ICD-10-CM."""

import numpy as np
import pytest
import torch
from scipy import sparse

from benches import napkinxc
from rarenodes.datasets import load_dataset


@pytest.fixture(scope="module")
def dataset():
    options = {"chapters": [7], "min_count": 1, "components": 32}
    return load_dataset("icd10cm", seed=1, options=options)


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_every_way_is_timed_and_finds_more_than_chance(dataset):
    table = napkinxc.measure(dataset, epochs=6, threads=1).set_index("way")
    assert {"conditional_sparse of components", "conditional_sparse of terms"} <= set(table.index)
    assert (table[["training_seconds", "prediction_seconds", "model_bytes"]] > 0).all(axis=None)
    assert (table["precision_at_1"] > 0.2).all()
    assert (table["precision_at_5"] > 0.1).all()
    assert table["average_precision"].between(0.01, 1).all()


def test_label_trees_are_trained_where_they_are_installed(dataset):
    pytest.importorskip("napkinxc")
    table = napkinxc.measure(dataset, epochs=1, threads=1).set_index("way")
    assert table.loc["napkinXC, PLT", "precision_at_1"] > 0.3


def test_what_is_not_listed_scores_zero_and_a_perfect_list_scores_one(dataset):
    rows = dataset.split["test"]
    perfect = sparse.csr_array(dataset.targets[rows], dtype=np.float32)
    scores = napkinxc.scores_of(dataset, perfect)
    assert scores["average_precision"] == 1
    assert scores["precision_at_1"] == 1
    none = napkinxc.scores_of(dataset, sparse.csr_array(perfect.shape, dtype=np.float32))
    assert none["average_precision"] < 0.1


def test_labels_of_an_example_are_its_nodes(dataset):
    lists = napkinxc._label_lists(dataset.targets[:3])
    expected = [np.flatnonzero(row).tolist() for row in dataset.targets[:3].toarray()]
    assert [sorted(labels) for labels in lists] == expected
