"""Streams by name: the same name always gives the same stream, another name another."""

from itertools import product

import numpy as np
import torch

from rarenodes.randomness import derived_seed, numpy_stream, torch_stream

NAMES = [
    (),
    ("a",),
    ("b",),
    ("a", "bc"),
    ("ab", "c"),
    ("abc",),
    ("a", "b", "c"),
    ("a\x1fbc",),
    ("a'\x1f'bc",),
    ("'a'",),
    ("a", ""),
    ("", "a"),
    ("member", 1),
    ("member", "1"),
    ("member1",),
    ("member", 11),
    ("member", 1, 1),
    (1,),
    ("1",),
]


def test_every_name_and_root_has_a_seed_of_its_own():
    seeds = {derived_seed(root, *name) for root, name in product([0, 1, 11], NAMES)}
    assert len(seeds) == 3 * len(NAMES)


def test_the_derivation_never_changes():
    # These numbers are part of every published result: a change here changes all of them.
    assert derived_seed(0) == 3456079177858693020
    assert derived_seed(0, "train", "icd10cm", "mcm", 0, "member", 3) == 3989117320542086991
    assert derived_seed(-1, "ünïcode", -7) == 5490632494771899521


def test_seeds_have_63_bits():
    seeds = [derived_seed(0, "any", i) for i in range(1000)]
    assert min(seeds) >= 0
    assert 2**62 < max(seeds) < 2**63
    # Each bit is set in about half of them: 500 ± 5 standard deviations of 15.8.
    for bit in range(63):
        assert 420 < sum(seed >> bit & 1 for seed in seeds) < 580


def test_numpy_stream_is_that_of_its_seed():
    found = numpy_stream(5, "split", "x").random(4)
    assert found.tolist() == np.random.default_rng(derived_seed(5, "split", "x")).random(4).tolist()
    assert found.tolist() == numpy_stream(5, "split", "x").random(4).tolist()
    assert found.tolist() != numpy_stream(5, "split", "y").random(4).tolist()
    assert found.tolist() != numpy_stream(6, "split", "x").random(4).tolist()


def test_torch_stream_is_that_of_its_seed():
    def draw(*name) -> list[float]:
        return torch.rand(4, generator=torch_stream(*name)).tolist()

    generator = torch.Generator().manual_seed(derived_seed(5, "dropout", 2))
    assert draw(5, "dropout", 2) == torch.rand(4, generator=generator).tolist()
    assert draw(5, "dropout", 2) == draw(5, "dropout", 2)
    assert draw(5, "dropout", 2) != draw(5, "dropout", 3)
    assert draw(5, "dropout", 2) != draw(6, "dropout", 2)
    assert torch_stream(0, "x", device="cpu").device.type == "cpu"


def test_other_streams_change_nothing():
    def draw() -> list[float]:
        ours = torch.rand(3, generator=torch_stream(0, "mine"))
        return [derived_seed(0, "mine"), *numpy_stream(0, "mine").random(3), *ours.tolist()]

    before = draw()
    for name in ["other", "more"]:
        derived_seed(0, name)
        numpy_stream(0, name).random(10)
        torch.rand(10, generator=torch_stream(0, name))
    torch.rand(10)
    assert draw() == before


def test_global_streams_are_left_alone():
    torch.manual_seed(0)
    expected = torch.rand(3).tolist()
    torch.manual_seed(0)
    torch_stream(0, "x")
    numpy_stream(0, "x")
    assert torch.rand(3).tolist() == expected
