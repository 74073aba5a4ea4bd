import numpy as np
import pytest

from rarenodes.datasets.text import (
    TextOptions,
    fit_texts,
    merge_duplicates,
    same_word_groups,
    words,
)

TEXTS = [
    f"{colour} {animal} of kind {n}"
    for n in range(4)
    for colour in ("red", "blue")
    for animal in ("dog", "cat")
]
TRAIN = np.arange(10)


def embed(texts, train, options, seed):
    return fit_texts(texts, train, options, seed).apply(texts)


def test_words_keep_single_characters():
    assert words("Type 1 diabetes, E-coli") == ["type", "1", "diabetes", "e", "coli"]


def test_duplicates_are_merged_with_all_their_labels():
    merged = merge_duplicates(["A b", "c", "a, B!", "…", "b a"], [["x"], ["y"], ["z"], ["x"], []])
    assert merged.texts == ("A b", "c", "b a")
    assert merged.labels == ({"x", "z"}, {"y"}, set())
    assert merged.group == (0, 1, 0, None, 2)
    assert merged.merged == 1


def test_texts_with_the_same_words_share_a_group():
    texts = ["cyst of the kidney", "Kidney, the cyst of the!", "kidney cyst", "cyst kidney", "b"]
    assert same_word_groups(texts).tolist() == [0, 0, 1, 1, 2]


def test_a_test_text_changes_no_other_vector():
    before = embed(TEXTS, TRAIN, TextOptions(components=4), seed=0)
    after = embed(
        [*TEXTS[:-1], "an unheard of zebra zebra"], TRAIN, TextOptions(components=4), seed=0
    )
    np.testing.assert_array_equal(before[:-1], after[:-1])
    assert (before[-1] != after[-1]).any()


def test_vectors_are_the_same_each_time_and_have_mean_square_one_in_training():
    first, second = (embed(TEXTS, TRAIN, TextOptions(components=4), seed=5) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert first.dtype == np.float32
    assert np.mean(first[TRAIN].astype(float) ** 2) == pytest.approx(1, rel=1e-5)


def test_fewer_texts_than_components():
    assert embed(TEXTS, np.arange(3), TextOptions(components=256), seed=0).shape == (16, 3)
