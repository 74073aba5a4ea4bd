import os
import subprocess
import sys

import pytest
import torch

from rarenodes.datasets import load_dataset
from rarenodes.datasets.attack import _by_example, _numbers, cleaned
from rarenodes.datasets.text import words

SMALL = {"components": 4, "max_features": 200}


@pytest.fixture(scope="module")
def attack():
    return load_dataset("attack", options=SMALL)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "[QakBot](https://attack.mitre.org/software/S0650) can pack it.(Citation: A (2021))",
            ("can pack it.", False),
        ),
        (
            "[QakBot](https://attack.mitre.org/software/S0650)'s loader uses "
            "[Mimikatz](https://attack.mitre.org/software/S0002).",
            ("loader uses Mimikatz.", False),
        ),
        (
            "It hides <code>cmd.exe</code> by [PowerShell]"
            "(https://attack.mitre.org/techniques/T1059/001), see http://a.example/b",
            ("It hides cmd.exe by, see", False),
        ),
        # The cut fell into a citation: the sentence is whole.
        ("It runs as a service.(Citation: Mandiant Sus...", ("It runs as a service.", False)),
        ("It runs as a service.(Cit...", ("It runs as a service.", False)),
        # The cut fell into a word, and into a link.
        ("It collects system informa...", ("It collects system", True)),
        (
            "It has [Torisma](https://attack.mitre.org/soft...",
            ("It has Torisma", True),
        ),
        (
            "It has [QakBot](https://attack.mitre.org/software/S0650...",
            ("It has", True),
        ),
    ],
)
def test_what_gives_the_answer_away_is_removed(text, expected):
    assert cleaned(text, "S0650") == expected


def test_the_same_link_stays_where_it_is_not_the_source():
    text = "[Net](https://attack.mitre.org/software/S0039) stops it."
    assert cleaned(text, "S0650") == ("Net stops it.", False)
    assert cleaned(text) == ("Net stops it.", False)


def test_examples_take_their_first_source_and_descriptions_stay_alone():
    sources, described = _by_example([0, 1, 0, None, 2, 1], ["a", "b", "c", "d", None, None], 3)
    assert sources == ["a", "description 1", "description 2"]
    assert described.tolist() == [False, True, True]


def test_a_campaign_goes_with_its_group():
    relationships = [
        {"relationship_type": "attributed-to", "source_ref": "campaign", "target_ref": "group"},
        {"relationship_type": "uses", "source_ref": "group", "target_ref": "tool"},
    ]
    assert _numbers(["campaign", "tool", "group", "other"], relationships).tolist() == [0, 1, 0, 2]


def test_a_subtechnique_has_its_technique_and_all_of_that_techniques_tactics(attack):
    row = next(
        i
        for i, text in enumerate(attack.texts)
        if text.startswith("Adversaries may achieve persistence by adding a program to a startup")
    )
    labels = attack.targets[[row]].indices
    assert [(attack.hierarchy.nodes[i], attack.titles[i]) for i in labels] == [
        ("ATT&CK", "ATT&CK"),
        ("TA0003", "Persistence"),
        ("TA0004", "Privilege Escalation"),
        ("T1547", "Boot or Logon Autostart Execution"),
        (
            "T1547.001",
            "Boot or Logon Autostart Execution: Registry Run Keys / Startup Folder",
        ),
    ]
    assert not attack.hierarchy.is_tree
    assert attack.hierarchy.is_coherent(torch.tensor(attack.targets.toarray()))


def test_sizes_of_the_release(attack):
    card = attack.card
    assert card["texts"] == 16_017 + 691
    assert len(attack.texts) == card["texts"] - card["merged_texts"]
    assert card["sources"] == 1003
    # The root, 14 tactics, 216 techniques and 475 sub-techniques.
    assert len(attack.hierarchy) + card["dropped_nodes"] == 1 + 14 + 216 + 475
    assert attack.targets.sum(axis=0, dtype=int).min() >= 3
    assert [n for n, e in zip(attack.hierarchy.nodes, attack.evaluated, strict=True) if not e] == [
        "ATT&CK"
    ]


def test_no_text_is_there_twice_or_holds_markup(attack):
    keys = [tuple(words(text)) for text in attack.texts]
    assert len(set(keys)) == len(keys)
    assert not any(mark in t for t in attack.texts for mark in ("](", "(Citation", "attack.mitre"))


def test_every_node_has_a_training_text_and_descriptions_are_for_training(attack):
    assert attack.counts("train").min() >= 1
    held_out = [*attack.split["valid"], *attack.split["test"]]
    held_out_texts = [attack.texts[row] for row in held_out]
    assert not any(text.startswith("Adversaries may") for text in held_out_texts)


def test_without_descriptions(attack):
    alone = load_dataset("attack", options={**SMALL, "descriptions": False})
    assert alone.card["texts"] == 16_017
    assert len(alone.hierarchy) < len(attack.hierarchy)


def test_another_process_with_other_hashes_gives_the_same_bits(attack):
    code = (
        "from rarenodes.datasets import load_dataset;"
        f"print(load_dataset('attack', options={SMALL!r}).checksum())"
    )
    other = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert other.stdout.strip() == attack.checksum()


def test_a_threshold_that_leaves_no_node():
    with pytest.raises(ValueError, match="min_count is 99999, but no node below a root has more"):
        load_dataset("attack", options={**SMALL, "min_count": 99999})
