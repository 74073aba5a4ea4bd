from dataclasses import replace

import numpy as np
import pytest

from rarenodes.datasets import Dataset, load_dataset


@pytest.fixture(scope="module")
def made():
    return load_dataset("synthetic", options={"multi_parent": 0.5})


def test_saved_and_loaded_is_the_same(made, tmp_path):
    made.save(tmp_path / "made")
    loaded = Dataset.load(tmp_path / "made")
    assert loaded.checksum() == made.checksum()
    assert loaded.card == made.card
    assert loaded.hierarchy.edges == made.hierarchy.edges
    np.testing.assert_array_equal(loaded.targets.toarray(), made.targets.toarray())
    assert loaded.texts is None


def test_texts_are_saved_with_their_letters(made, tmp_path):
    texts = tuple(f"Ménière {i}" for i in range(300))
    replace(made, texts=texts).save(tmp_path)
    assert Dataset.load(tmp_path).texts == texts


def test_titles_are_saved(made, tmp_path):
    titles = tuple(f"node {i}" for i in range(len(made.hierarchy)))
    replace(made, titles=titles).save(tmp_path)
    assert Dataset.load(tmp_path).titles == titles


def test_saving_twice_writes_the_same_bytes(made, tmp_path):
    for folder in ("a", "b"):
        made.save(tmp_path / folder)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_nothing_prepared(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no prepared data set: run the stage prep"):
        Dataset.load(tmp_path / "nothing")


def test_a_training_part_where_only_the_root_is_positive(made):
    targets = made.targets.tolil()
    targets[made.split["train"], 1:] = 0
    with pytest.raises(ValueError, match="synthetic: no evaluated node is positive in the trainin"):
        replace(made, targets=targets.tocsr())


def test_shapes_that_do_not_fit(made):
    with pytest.raises(ValueError, match="targets are 300 × 30, but there are 299 rows of featur"):
        replace(made, features=made.features[1:])


def test_images_are_saved_and_part_of_the_checksum(made, tmp_path):
    images = np.arange(300 * 6, dtype=np.int64).astype(np.uint8).reshape(300, 2, 3)
    pictured = replace(made, images=images)
    assert pictured.checksum() != made.checksum()
    pictured.save(tmp_path)
    np.testing.assert_array_equal(Dataset.load(tmp_path).images, images)


def test_images_that_do_not_fit(made):
    with pytest.raises(ValueError, match="there are 2 images, but 300 rows of targets"):
        replace(made, images=np.zeros((2, 3, 3), dtype=np.uint8))
