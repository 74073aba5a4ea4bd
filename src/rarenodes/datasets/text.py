"""Short texts as vectors: TF-IDF of words and bigrams, reduced by a truncated SVD."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from pydantic import Field

from rarenodes.settings import Settings

_WORD = re.compile(r"\w+")


class TextOptions(Settings):
    """How texts become vectors."""

    components: int = Field(256, ge=1)
    max_features: int = Field(50_000, ge=1)


@dataclass(frozen=True)
class MergedTexts:
    """Texts of which no two have the same words in the same order.

    Attributes:
        texts: the first spelling of each.
        labels: union of the labels of all its spellings.
        group: for every text given, the example it became part of; None where it holds no word.
        merged: how many texts were merged into an earlier one.

    """

    texts: tuple[str, ...]
    labels: tuple[frozenset[str], ...]
    group: tuple[int | None, ...]
    merged: int


def words(text: str) -> list[str]:
    """Words of a text, lower case.

    Single characters count: they tell "type 1" from "type 2", which scikit-learn's own pattern
    would not.
    """
    return _WORD.findall(text.lower())


def merge_duplicates(texts: Sequence[str], labels: Sequence[Collection[str]]) -> MergedTexts:
    """One example for all texts with the same words, so that none is on both sides of a split.

    Texts without a word are dropped.
    """
    example_of: dict[tuple[str, ...], int] = {}
    spelling: list[str] = []
    union: list[set[str]] = []
    group: list[int | None] = []
    for text, names in zip(texts, labels, strict=True):
        key = tuple(words(text))
        if not key:
            group.append(None)
            continue
        if key not in example_of:
            example_of[key] = len(spelling)
            spelling.append(text)
            union.append(set())
        union[example_of[key]].update(names)
        group.append(example_of[key])
    return MergedTexts(
        texts=tuple(spelling),
        labels=tuple(map(frozenset, union)),
        group=tuple(group),
        merged=sum(example is not None for example in group) - len(spelling),
    )


def same_word_groups(texts: Sequence[str]) -> Int[np.ndarray, " texts"]:
    """A number for every text, from 0, which texts with the same set of words share.

    "Cyst of the kidney" and "kidney, cyst of the" say the same to a bag of words: whoever splits
    texts at random keeps them on one side.
    """
    number_of: dict[frozenset[str], int] = {}
    return np.array(
        [number_of.setdefault(frozenset(words(text)), len(number_of)) for text in texts],
        dtype=np.int64,
    )


def embed(
    texts: Sequence[str], train: Int[np.ndarray, " train"], options: TextOptions, seed: int
) -> Float[np.ndarray, "texts components"]:
    """Vectors of texts, everything fitted on the training texts alone.

    The reduced vectors share one scale, under which the training vectors have mean square 1: a
    network's usual initial weights suit them, and the leading components stay larger than the
    trailing ones, which carry mostly noise.

    Args:
        texts: all texts.
        train: rows of the training texts.
        options: how many n-grams and how many components at most; fewer where the training
            texts have fewer.
        seed: for the randomised SVD.

    Returns:
        `[texts, components]`, float32.

    """
    # Imported here: it takes two seconds, which who only reads a prepared data set should not pay.
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from threadpoolctl import threadpool_limits

    vectoriser = TfidfVectorizer(
        tokenizer=words,
        token_pattern=None,
        lowercase=False,
        ngram_range=(1, 2),
        sublinear_tf=True,
        max_features=options.max_features,
    )
    fitted = vectoriser.fit_transform([texts[row] for row in train])
    svd = TruncatedSVD(min(options.components, *fitted.shape), random_state=seed)
    # The number of threads decides the last digits, and with them the data set's checksum.
    with threadpool_limits(1):
        scale = np.sqrt(np.mean(svd.fit_transform(fitted) ** 2))
        return (svd.transform(vectoriser.transform(texts)) / scale).astype(np.float32)
