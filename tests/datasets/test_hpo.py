import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from rarenodes.datasets import load_dataset
from rarenodes.datasets.hpo import _branches, _read_obo, _Term
from rarenodes.datasets.text import same_word_groups, words
from rarenodes.settings import SettingsError

SMALL = {"branches": ["Abnormality of the voice"], "min_count": 1, "components": 8}
DAG = {"branches": ["Abnormality of the ear"], "components": 8}

OBO = r"""format-version: 1.2
data-version: hp/releases/2000-01-01

[Term]
id: HP:1
name: All

[Term]
id: HP:2
name: Bony fusion
def: "Fusions are \"bony\";\nsee there." [https://example.org "x"]
synonym: "Synostosis" EXACT layperson []
synonym: "Fusion" BROAD []
is_a: HP:1 ! All

[Term]
id: HP:3
name: Old fusion
is_a: HP:2 ! Bony fusion
is_obsolete: true

[Term]
id: HP:4
name: Fusion of toes
is_a: HP:2 {source="y"} ! Bony fusion
is_a: HP:1 ! All

[Typedef]
id: part_of
name: part of
is_a: HP:2
"""


@pytest.fixture(scope="module")
def voice():
    return load_dataset("hpo", options=SMALL)


@pytest.fixture(scope="module")
def ear():
    return load_dataset("hpo", options=DAG)


def test_terms_are_read_with_their_quotes_and_without_obsolete_ones(tmp_path):
    (tmp_path / "hp.obo").write_text(OBO)
    release, terms = _read_obo(tmp_path / "hp.obo")
    assert release == "hp/releases/2000-01-01"
    assert terms == {
        "HP:1": _Term("All", (), None, ()),
        "HP:2": _Term(
            "Bony fusion",
            ("HP:1",),
            'Fusions are "bony";\nsee there.',
            (("Synostosis", "EXACT"), ("Fusion", "BROAD")),
        ),
        "HP:4": _Term("Fusion of toes", ("HP:2", "HP:1"), None, ()),
    }
    assert list(terms["HP:2"].texts(["EXACT"])) == [
        "Bony fusion",
        "Synostosis",
        'Fusions are "bony";\nsee there.',
    ]
    assert "Fusion" in list(terms["HP:2"].texts(["BROAD"]))


def test_a_branch_inside_another_hangs_where_it_did_and_outer_parents_are_cut():
    above = {"a": (), "b": ("a",), "c": ("b",), "d": ("c", "x"), "x": ("a",)}
    terms = {key: _Term(key.upper(), parents, None, ()) for key, parents in above.items()}
    chosen, edges = _branches(terms, ["B", "c"])
    assert chosen == ["b", "c", "d"]
    assert edges == [("b", "HPO"), ("c", "b"), ("d", "c")]
    assert _branches(terms, ["c", "X"])[1] == [("c", "HPO"), ("d", "c"), ("d", "x"), ("x", "HPO")]


def test_names_synonyms_and_definitions_belong_to_the_term_and_all_above(voice):
    for text in (
        "Vocal cord paresis",
        "Weakness of the vocal cords",
        "Decreased strength of the vocal folds.",
    ):
        labels = voice.targets[[voice.texts.index(text)]].indices
        assert [voice.titles[label] for label in labels] == [
            "HPO",
            "Abnormality of the voice",
            "Vocal cord dysfunction",
            "Vocal cord paralysis",
            "Vocal cord paresis",
        ]
    assert len(voice.hierarchy) == 29
    assert voice.card["source"].startswith("Human Phenotype Ontology, hp/releases/2025-01-16")


def test_neither_the_root_nor_a_branch_of_all_texts_is_evaluated(voice):
    assert [t for t, e in zip(voice.titles, voice.evaluated, strict=True) if not e] == [
        "HPO",
        "Abnormality of the voice",
    ]


def test_a_term_keeps_several_parents_and_every_node_has_enough_texts(ear):
    assert not ear.hierarchy.is_tree
    assert ear.hierarchy.is_coherent(torch.tensor(ear.targets.toarray()))
    assert ear.targets.sum(axis=0, dtype=int).min() >= 5
    assert ear.card["dropped_nodes"] == 308 - len(ear.hierarchy)


def test_every_node_has_a_training_text_and_no_word_set_is_on_two_sides(ear):
    assert ear.counts("train").min() >= 1
    keys = [tuple(words(text)) for text in ear.texts]
    assert len(set(keys)) == len(keys) == ear.card["texts"] - ear.card["merged_texts"]
    groups = same_word_groups(ear.texts)
    sides = [set(groups[rows]) for rows in ear.split.values()]
    assert sum(map(len, sides)) == len(set(groups)) < len(keys)


def test_broad_synonyms_only_where_asked_for(voice):
    every = load_dataset(
        "hpo", options={**SMALL, "scopes": ["EXACT", "NARROW", "BROAD", "RELATED"]}
    )
    assert set(voice.texts) < set(every.texts)


def test_limited_data_keep_nodes_and_test_texts(ear):
    limited = load_dataset("hpo", train_fraction=0.2, options=DAG)
    assert limited.hierarchy.nodes == ear.hierarchy.nodes
    np.testing.assert_array_equal(limited.split["test"], ear.split["test"])
    assert len(limited.split["train"]) == round(0.2 * len(ear.split["train"]))


def test_another_process_with_other_hashes_gives_the_same_bits(ear):
    code = (
        "from rarenodes.datasets import load_dataset;"
        f"print(load_dataset('hpo', options={DAG!r}).checksum())"
    )
    other = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert other.stdout.strip() == ear.checksum()


def test_an_unknown_branch():
    with pytest.raises(
        SettingsError,
        match="hpo: branches: unknown branch 'abnormality of the eer'; did you mean 'abnormality",
    ):
        load_dataset("hpo", options={"branches": ["abnormality of the eer"]})


def test_a_threshold_that_leaves_no_node():
    with pytest.raises(ValueError, match="min_count is 99999, but no node below a root has more"):
        load_dataset("hpo", options={**SMALL, "min_count": 99999})
