"""Short texts as vectors: TF-IDF of words and bigrams, reduced by a truncated SVD."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from jaxtyping import Float, Int
from pydantic import Field
from scipy import sparse

from rarenodes.settings import Settings

if TYPE_CHECKING:
    from sklearn.feature_extraction.text import TfidfVectorizer

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


@dataclass(frozen=True)
class TextTransformation:
    """What was learned from training texts: how any text becomes a vector.

    A text's vector depends on the text alone, and is the same, bit by bit, as when the data set was
    made.

    Attributes:
        vocabulary: words and bigrams, in the order of the columns of `idf` and `components`.
        idf: `[terms]`, inverse document frequencies.
        components: `[components, terms]`, of the truncated SVD.
        scale: what reduced vectors are divided by.
        column: the column of texts in a table.

    """

    kind: ClassVar[str] = "text"

    vocabulary: tuple[str, ...] = field(repr=False)
    idf: Float[np.ndarray, " terms"] = field(repr=False)
    components: Float[np.ndarray, "components terms"] = field(repr=False)
    scale: float
    column: str = "text"

    @property
    def width(self) -> int:
        """Number of features."""
        return len(self.components)

    def apply(self, texts: Sequence[str]) -> Float[np.ndarray, "texts components"]:
        """Vectors of texts, float32; terms that are not in the vocabulary count nothing."""
        from threadpoolctl import threadpool_limits

        if not len(texts):
            return np.empty((0, self.width), dtype=np.float32)
        # The number of threads decides the last digits, and with them the data set's checksum.
        with threadpool_limits(1):
            weighted = self.terms(texts)
            return ((weighted @ self.components.T) / self.scale).astype(np.float32)

    def terms(self, texts: Sequence[str]) -> sparse.csr_array:
        """TF-IDF of texts before they are reduced: `[texts, terms]`, sparse, rows of length 1."""
        return sparse.csr_array(self._vectoriser.transform(texts))

    @cached_property
    def _vectoriser(self) -> "TfidfVectorizer":
        positions = {term: position for position, term in enumerate(self.vocabulary)}
        vectoriser = _vectoriser(vocabulary=positions)
        vectoriser.idf_ = self.idf
        return vectoriser

    def description(self) -> dict[str, Any]:
        """All but the arrays, as JSON can hold it."""
        return {"column": self.column, "vocabulary": list(self.vocabulary)}

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays, by name."""
        scale = np.array([self.scale], dtype=np.float64)
        return {"idf": self.idf, "components": self.components, "scale": scale}

    @classmethod
    def restored(
        cls, description: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
    ) -> "TextTransformation":
        """What `description` and `arrays` are of.

        Raises:
            ValueError: the two do not fit each other.

        """
        terms = tuple(description["vocabulary"])
        idf, components = arrays["idf"], arrays["components"]
        if len(terms) != len(idf) or components.shape[1:] != idf.shape:
            raise ValueError(
                f"found {len(terms)} terms, {len(idf)} weights and components of shape "
                f"{components.shape}, expected the same number of terms in all"
            )
        return cls(terms, idf, components, float(arrays["scale"][0]), description["column"])


def fit_texts(
    texts: Sequence[str],
    train: Int[np.ndarray, " train"],
    options: TextOptions,
    seed: int,
    column: str = "text",
) -> TextTransformation:
    """Learn from training texts how texts become vectors.

    The reduced vectors share one scale, under which the training vectors have mean square 1: a
    network's usual initial weights suit them, and the leading components stay larger than the
    trailing ones, which carry mostly noise.

    Args:
        texts: all texts.
        train: rows of the training texts.
        options: how many n-grams and how many components at most; fewer where the training
            texts have fewer.
        seed: for the randomised SVD.
        column: the column of texts in a table.

    """
    # Imported here: it takes two seconds, which who only reads a prepared data set should not pay.
    from sklearn.decomposition import TruncatedSVD
    from threadpoolctl import threadpool_limits

    vectoriser = _vectoriser(max_features=options.max_features)
    fitted = vectoriser.fit_transform([texts[row] for row in train])
    svd = TruncatedSVD(min(options.components, *fitted.shape), random_state=seed)
    with threadpool_limits(1):
        scale = float(np.sqrt(np.mean(svd.fit_transform(fitted) ** 2)))
    terms = tuple(map(str, vectoriser.get_feature_names_out()))
    return TextTransformation(terms, vectoriser.idf_, svd.components_, scale, column)


def _vectoriser(**options: Any) -> "TfidfVectorizer":
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(
        tokenizer=words,
        token_pattern=None,
        lowercase=False,
        ngram_range=(1, 2),
        sublinear_tf=True,
        **options,
    )
