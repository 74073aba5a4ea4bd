"""Every uncertainty against the definition in plain Python, hand values and limits."""

import math
import re
from itertools import permutations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from uncertainty_oracle import EPSILON, NAIVE, h2

from rarenodes.loss.uncertainty import KINDS, uncertainty

NAMES = ("bbma", "entropy", "aleatoric", "jsd", "kl", "gmu", "mutual_information")
DISAGREEMENT = ("jsd", "kl", "mutual_information")


def one_element(p: list[float], kind: str, dtype=torch.float64) -> float:
    return uncertainty(torch.tensor(p, dtype=dtype).view(-1, 1, 1), kind).item()


def grid(members: int, dtype=torch.float64) -> Tensor:
    """Random members, and next to them all combinations of 0, 1 and 1/2; `[members, 1, nodes]`."""
    torch.manual_seed(0)
    values = torch.tensor([0.0, 0.5, 1.0], dtype=dtype)
    corners = torch.cartesian_prod(*[values] * members).view(-1, members).T
    inner = torch.rand(members, 50, dtype=torch.float64).to(dtype)
    return torch.cat([corners, inner, inner**8, 1 - inner**8], dim=1).unsqueeze(1)


def test_every_kind_has_its_formula_here():
    # One that is added needs a line above.
    assert tuple(sorted(KINDS)) == tuple(sorted(NAMES))


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("members", [1, 2, 3, 5])
def test_agrees_with_the_formula(kind, members):
    probabilities = grid(members)
    found = uncertainty(probabilities, kind)[0]
    expected = [NAIVE[kind](p) for p in probabilities[:, 0].T.tolist()]
    torch.testing.assert_close(
        found, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("kind", NAMES)
@given(st.lists(st.one_of(st.floats(0, 1), st.sampled_from([0.0, 1.0])), min_size=1, max_size=6))
def test_agrees_with_the_formula_on_any_probabilities(kind, p):
    # The naive spread of equal values is exactly 0, torch's a rounding error away: both then gate
    # with exp(-margin / tiny), so only margins of that size differ.
    assert one_element(p, kind) == pytest.approx(NAIVE[kind](p), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("kind", NAMES)
def test_every_example_and_node_is_on_its_own(kind):
    torch.manual_seed(0)
    probabilities = torch.rand(4, 3, 5, dtype=torch.float64)
    found = uncertainty(probabilities, kind)
    assert found.shape == (3, 5)
    for b in range(3):
        for j in range(5):
            alone = NAIVE[kind](probabilities[:, b, j].tolist())
            assert found[b, j].item() == pytest.approx(alone, rel=1e-9)


# Members at 1/4 and 3/4: p̄ = 1/2. H₂(1/4) = 1/4 · 2 + 3/4 · (2 − log₂3) = 2 − 3/4 · log₂3 = .811278,
# so MI = 1 − .811278, and of a single pair JSD is the same. KL(1/4, 3/4) = 1/4 · log₂(1/3) + 3/4 ·
# log₂3 = 1/2 · log₂3 in both directions. The margin is 0, so gmu = 1.
QUARTER = 2 - 0.75 * math.log2(3)
# Members at 1/2 and 1: p̄ = 3/4, margin 1/2, s = √(2 · (1/4)²) = √2/4, gate exponent
# (1/2) / (√2/2) = 1/√2. KL(1/2, 1) = 1/2 · log₂(1/2) + 1/2 · log₂(1/2 / ε) = −1 + 1/2 · log₂(1/ε),
# KL(1, 1/2) = 1; their mean is 1/4 · log₂(1/ε).
HAND = [
    ("bbma", [0.25, 0.75], 1),
    ("entropy", [0.25, 0.75], 1),
    ("aleatoric", [0.25, 0.75], QUARTER),
    ("jsd", [0.25, 0.75], 1 - QUARTER),
    ("mutual_information", [0.25, 0.75], 1 - QUARTER),
    ("kl", [0.25, 0.75], math.log2(3) / 2),
    ("gmu", [0.25, 0.75], 1),
    ("bbma", [0.5, 1], 0.5),
    ("entropy", [0.5, 1], QUARTER),
    ("aleatoric", [0.5, 1], 0.5),
    ("jsd", [0.5, 1], QUARTER - 0.5),
    ("mutual_information", [0.5, 1], QUARTER - 0.5),
    ("kl", [0.5, 1], math.log2(1 / EPSILON) / 4),
    ("gmu", [0.5, 1], 1 - (1 - math.exp(-1 / math.sqrt(2))) / 2),
    # Three members 0, 0, 1: of the 6 ordered pairs 4 disagree wholly. p̄ = 1/3, H₂ = log₂3 − 2/3;
    # margin 1/3, s = √(1/3), gate exponent (1/3) / (2/√3) = √3/6.
    ("bbma", [0, 0, 1], 2 / 3),
    ("entropy", [0, 0, 1], math.log2(3) - 2 / 3),
    ("aleatoric", [0, 0, 1], 0),
    ("jsd", [0, 0, 1], 2 / 3),
    ("mutual_information", [0, 0, 1], math.log2(3) - 2 / 3),
    ("kl", [0, 0, 1], 2 / 3 * math.log2(1 / EPSILON)),
    ("gmu", [0, 0, 1], 1 - (1 - math.exp(-math.sqrt(3) / 6)) / 3),
]


@pytest.mark.parametrize(("kind", "p", "expected"), HAND)
def test_hand_values(kind, p, expected):
    assert one_element(p, kind) == pytest.approx(expected, abs=1e-8)
    assert one_element(p, kind, torch.float32) == pytest.approx(expected, abs=1e-5)


# Members that agree


@pytest.mark.parametrize("kind", DISAGREEMENT)
@pytest.mark.parametrize("members", [1, 2, 3, 20])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_agreeing_members_do_not_disagree(kind, members, dtype):
    p = torch.linspace(0, 1, 101, dtype=dtype).expand(members, 1, 101)
    found = uncertainty(p, kind)
    # Not even by rounding below 0, where a fractional power of it has no value.
    assert found.min() >= 0
    assert found.max() < (1e-5 if dtype == torch.float32 else 1e-12)


@pytest.mark.parametrize("members", [1, 2, 20])
def test_agreeing_members_are_as_unsure_as_one(members):
    p = torch.linspace(0, 1, 101, dtype=torch.float64)
    many = p.expand(members, 1, 101)
    h = torch.tensor([h2(x) for x in p.tolist()], dtype=torch.float64)
    bbma = 1 - (2 * p - 1).abs()
    for kind, expected in [("entropy", h), ("aleatoric", h), ("bbma", bbma), ("gmu", bbma)]:
        torch.testing.assert_close(uncertainty(many, kind)[0], expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("p", [0.0, 0.3, 0.5, 1.0])
def test_one_member(p):
    # What needs a pair is 0, and the gated margin is the margin: members that agree wholly.
    for kind in DISAGREEMENT:
        assert one_element([p], kind) == 0
    assert one_element([p], "bbma") == pytest.approx(1 - abs(2 * p - 1))
    assert one_element([p], "gmu") == pytest.approx(1 - abs(2 * p - 1))
    assert one_element([p], "entropy") == pytest.approx(h2(p), abs=1e-9)
    assert one_element([p], "aleatoric") == pytest.approx(h2(p), abs=1e-9)


# Ranges


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("members", [1, 2, 3, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_range(kind, members, dtype):
    found = uncertainty(grid(members, dtype), kind)
    assert found.dtype == dtype
    assert found.isfinite().all()
    assert found.min() >= 0
    highest = members / 2 * math.log2(1 / EPSILON) if kind == "kl" else 1
    assert found.max() <= highest + 1e-6


@pytest.mark.parametrize("kind", NAMES)
def test_both_ends_are_reached(kind):
    sure, unsure = one_element([0.0, 0.0], kind), one_element([0.0, 1.0], kind)
    if kind == "aleatoric":
        unsure = one_element([0.5, 0.5], kind)
    assert sure == pytest.approx(0, abs=1e-8)
    assert unsure == pytest.approx(math.log2(1 / EPSILON) if kind == "kl" else 1, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_total_is_aleatoric_plus_mutual_information(dtype):
    p = grid(3, dtype)
    parts = uncertainty(p, "aleatoric") + uncertainty(p, "mutual_information")
    torch.testing.assert_close(uncertainty(p, "entropy"), parts, rtol=0, atol=1e-6)


# Symmetries


@pytest.mark.parametrize("kind", NAMES)
def test_order_of_members_does_not_matter(kind):
    probabilities = grid(4)
    found = uncertainty(probabilities, kind)
    for order in permutations(range(4)):
        other = uncertainty(probabilities[[*order]], kind)
        torch.testing.assert_close(other, found, rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", NAMES)
def test_classes_are_treated_alike(kind):
    # 1 - p may round, and the divergence to a certain member is steep there.
    torch.manual_seed(0)
    probabilities = 0.01 + 0.98 * torch.rand(4, 2, 50, dtype=torch.float64)
    found, other = uncertainty(probabilities, kind), uncertainty(1 - probabilities, kind)
    torch.testing.assert_close(other, found, rtol=1e-9, atol=1e-9)


# Messages


def test_message_of_an_unknown_kind():
    message = "unknown uncertainty 'pcs': known are " + ", ".join(KINDS)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        uncertainty(torch.rand(2, 1, 1), "pcs")


@pytest.mark.parametrize("kind", NAMES)
def test_message_of_no_members(kind):
    with pytest.raises(ValueError, match=r"^uncertainty needs at least one member, found none$"):
        uncertainty(torch.rand(0, 2, 3), kind)
