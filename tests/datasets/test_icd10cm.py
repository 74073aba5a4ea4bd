import numpy as np
import pytest
import torch

from rarenodes.datasets import load_dataset
from rarenodes.datasets.text import words
from rarenodes.settings import SettingsError

SMALL = {"chapters": [3], "components": 16}


@pytest.fixture(scope="module")
def blood():
    return load_dataset("icd10cm", options=SMALL)


def test_a_path_goes_from_chapter_over_block_and_category_to_subcategory(blood):
    nodes = blood.hierarchy.nodes
    row = blood.texts.index("Secondary polycythemia")
    assert [nodes[i] for i in blood.targets[[row]].indices] == [
        "ICD-10-CM",
        "chapter 3",
        "D70-D77",
        "D75",
        "D75.1",
    ]
    assert blood.hierarchy.is_tree
    assert blood.hierarchy.is_coherent(torch.tensor(blood.targets.toarray()))


def test_every_node_has_enough_texts(blood):
    assert blood.targets.sum(axis=0, dtype=int).min() >= 5
    assert blood.card["dropped_nodes"] > 0


def test_neither_the_root_nor_a_chapter_of_all_texts_is_evaluated(blood):
    assert [n for n, e in zip(blood.hierarchy.nodes, blood.evaluated, strict=True) if not e] == [
        "ICD-10-CM",
        "chapter 3",
    ]


def test_no_text_is_there_twice(blood):
    keys = [tuple(words(text)) for text in blood.texts]
    assert len(set(keys)) == len(keys)
    assert blood.card["texts"] == len(keys) + blood.card["merged_texts"]


def test_titles_do_not_give_codes_away(blood):
    assert "Nutritional anemias" in blood.texts
    assert not any("(D" in text for text in blood.texts)


def test_a_block_of_one_category_is_one_node():
    neoplasms = load_dataset("icd10cm", options={"chapters": ["Neoplasms"], "components": 2})
    parent = neoplasms.hierarchy.parents[neoplasms.hierarchy.index["C7A"]]
    assert [neoplasms.hierarchy.nodes[p] for p in parent] == ["chapter 2"]


def test_the_whole_list():
    """Every chapter and every node; components are few, because only sizes are looked at."""
    everything = load_dataset(
        "icd10cm",
        options={
            "chapters": list(range(1, 23)),
            "min_count": 1,
            "components": 2,
            "max_features": 9,
        },
    )
    assert len(everything.hierarchy) == 47_162
    assert everything.hierarchy.depth.max() == 7
    assert everything.hierarchy.is_tree
    assert everything.card["dropped_nodes"] == 0
    assert everything.card["texts"] == 60_798
    assert len(everything.texts) == 59_933
    assert everything.evaluated.sum() == 47_161
    # Sparse: of as many cells as a dense table of 2.8 GB would have, these are positive.
    assert everything.targets.nnz == 358_297


def test_loading_twice_gives_the_same_bits(blood):
    assert load_dataset("icd10cm", options=SMALL).checksum() == blood.checksum()


def test_another_seed_gives_another_split(blood):
    other = load_dataset("icd10cm", seed=1, options=SMALL)
    assert other.hierarchy.nodes == blood.hierarchy.nodes
    assert other.split["test"].tolist() != blood.split["test"].tolist()


def test_limited_data_keep_nodes_and_test_texts_and_refit_the_features(blood):
    limited = load_dataset("icd10cm", train_fraction=0.2, options=SMALL)
    assert limited.hierarchy.nodes == blood.hierarchy.nodes
    np.testing.assert_array_equal(limited.split["test"], blood.split["test"])
    np.testing.assert_array_equal(limited.split["valid"], blood.split["valid"])
    assert set(limited.split["train"]) < set(blood.split["train"])
    assert len(limited.split["train"]) == round(0.2 * len(blood.split["train"]))
    assert (limited.features != blood.features).any()
    assert limited.card["train_fraction"] == 0.2


def test_an_unknown_chapter():
    with pytest.raises(
        SettingsError,
        match="icd10cm: chapters: unknown chapter 'Neoplasm'; did you mean 'neoplasms'",
    ):
        load_dataset("icd10cm", options={"chapters": ["Neoplasm"]})


def test_a_threshold_that_leaves_no_node():
    with pytest.raises(ValueError, match="min_count is 99999, but no node below a root has more"):
        load_dataset("icd10cm", options={**SMALL, "min_count": 99999})
