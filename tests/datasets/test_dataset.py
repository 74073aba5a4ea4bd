import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rarenodes.datasets import Dataset, dataset, load_dataset
from rarenodes.datasets.dataset import PreparedDataError


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
    with pytest.raises(
        FileNotFoundError,
        match=r"nothing holds no prepared data set: run `dvc repro prepare@nothing` or `python -m rare",
    ):
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
    with pytest.raises(ValueError, match="found 2 images, expected 300"):
        replace(made, images=np.zeros((2, 3, 3), dtype=np.uint8))


def test_texts_that_do_not_fit(made):
    with pytest.raises(ValueError, match="synthetic: found 2 texts, expected 300"):
        replace(made, texts=("a", "b"))


def test_parts_that_overlap(made):
    split = {**made.split, "valid": made.split["train"][:1]}
    with pytest.raises(ValueError, match="synthetic: the parts train, valid, test overlap or name"):
        replace(made, split=split)


def test_features_that_are_not_finite(made):
    features = made.features.copy()
    features[7, 3] = np.inf
    with pytest.raises(
        ValueError, match="synthetic: feature 3 of example 7 is inf, expected a finite"
    ):
        replace(made, features=features)


def test_saved_and_loaded_by_a_string(made, tmp_path):
    made.save(str(tmp_path / "made"))
    assert Dataset.load(str(tmp_path / "made")).checksum() == made.checksum()


MEND = "run `dvc repro prepare@made` or `python -m rarenodes prepare made`"


@pytest.fixture
def saved(made, tmp_path):
    texts = tuple(f"text {i}" for i in range(300))
    replace(made, texts=texts).save(tmp_path / "made")
    return tmp_path / "made"


def change(path, old, new):
    content = path.read_text()
    assert content.count(old) >= 1
    path.write_text(content.replace(old, new, 1))


def flip(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (
            lambda f: flip(f / "arrays.safetensors", -1),
            "arrays.safetensors: not what its checksum says",
        ),
        (lambda f: flip(f / "arrays.safetensors", 2), "arrays.safetensors: "),
        (lambda f: (f / "arrays.safetensors").write_bytes(b""), "arrays.safetensors: "),
        (lambda f: (f / "arrays.safetensors").unlink(), "arrays.safetensors: no such file"),
        (lambda f: (f / "dataset.json").write_text("{"), "dataset.json, line 1: Expecting"),
        (
            lambda f: (f / "dataset.json").write_text("[]"),
            "dataset.json: found list, expected an obj",
        ),
        (lambda f: (f / "dataset.json").write_text('{"edges": 1}'), "dataset.json: "),
        (
            lambda f: (f / "dataset.json").write_text("[" * 99_999),
            "dataset.json: nested too deeply",
        ),
        (
            lambda f: (f / "dataset.json").write_bytes(b"\xff"),
            "dataset.json, line 1: found the byte",
        ),
        (lambda f: change(f / "dataset.json", '"checksum"', '"check"'), "dataset.json: "),
        (lambda f: change(f / "dataset.json", '"n01"', '"n99"'), ""),
        (
            lambda f: change(f / "dataset.json", "none needed", "CC BY 4.0"),
            "dataset.json or texts.json: not what its checksum says",
        ),
        (
            lambda f: change(f / "texts.json", "text 17", "text 71"),
            "dataset.json or texts.json: not what its checksum says",
        ),
        (
            lambda f: (f / "texts.json").unlink(),
            "dataset.json or texts.json: not what its checksum",
        ),
        (lambda f: (f / "texts.json").write_text('{"a": 1}'), "texts.json: no list of texts"),
    ],
)
def test_damage_is_named_with_the_mend(saved, damage, expected):
    damage(saved)
    with pytest.raises(PreparedDataError) as caught:
        Dataset.load(saved)
    message = str(caught.value)
    assert message.startswith(f"{saved}/{expected}")
    assert message.endswith(
        f"; expected what `prepare` wrote, so it is damaged or of another version: {MEND}"
    )
    assert "\n" not in message


def test_arrays_of_another_data_set(saved, tmp_path):
    load_dataset("synthetic", seed=1, options={"multi_parent": 0.5}).save(tmp_path / "other")
    (saved / "arrays.safetensors").write_bytes(
        (tmp_path / "other" / "arrays.safetensors").read_bytes()
    )
    with pytest.raises(
        PreparedDataError, match=r"made/arrays\.safetensors: not what its checksum sa"
    ):
        Dataset.load(saved)


def test_arrays_of_another_program(saved):
    dataset.save_file({"weights": np.zeros(3)}, saved / "arrays.safetensors")
    with pytest.raises(
        PreparedDataError, match=r"other arrays \(evaluated, features, split_test, spl"
    ):
        Dataset.load(saved)


def test_cards_of_any_values_are_read_back(made, tmp_path):
    card = {"z": 1, "a": [1.5, None, {"c": True, "b": "é"}], "tuple": (1, 2)}
    replace(made, card=card).save(tmp_path / "made")
    assert Dataset.load(tmp_path / "made").card == json.loads(json.dumps(card))


def test_a_folder_that_cannot_be_written(made, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        OSError, match=r"file/made: the prepared data set could not be written \(Not a"
    ):
        made.save(tmp_path / "file" / "made")


def test_a_full_disk(made, tmp_path, monkeypatch):
    def fill(self, text):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", fill)
    with pytest.raises(
        OSError, match=r"made: the prepared data set could not be written \(No space "
    ):
        made.save(tmp_path / "made")
