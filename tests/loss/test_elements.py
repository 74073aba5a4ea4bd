"""Element losses by hand, against their definitions, and in one conformance suite."""

import math
import re
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rarenodes.loss.elements import (
    ELEMENT_LOSSES,
    asymmetric,
    bce,
    element_loss,
    focal,
    negative_tolerant,
)

# Name and options; the conformance suite runs for each.
CASES = [
    ("bce", {}),
    ("focal", {}),
    ("focal", {"gamma": 0.0, "alpha": 0.9}),
    ("focal", {"gamma": 0.5, "alpha": 0.25}),
    ("asymmetric", {}),
    ("asymmetric", {"positive_gamma": 1.0, "margin": 0.3}),
    ("asymmetric", {"positive_gamma": 0.1, "negative_gamma": 0.1, "margin": 0.0}),
    ("asymmetric", {"negative_gamma": 0.0, "margin": 1e-30}),
    ("negative_tolerant", {}),
    ("negative_tolerant", {"scale": 0.5}),
    ("negative_tolerant", {"scale": 2.0, "gamma": 2.0, "factor": 2.0}),
]
TARGETS = torch.tensor([[1, 0, 0, 1], [0, 1, 0, 1], [0, 0, 1, 1]])


def logit(p: float) -> Tensor:
    return torch.tensor([[[math.log(p / (1 - p))]]], dtype=torch.float64)


def random_logits(members: int = 2, size: float = 3.0) -> Tensor:
    torch.manual_seed(0)
    return size * torch.randn(members, *TARGETS.shape, dtype=torch.float64)


YES, NO = torch.tensor([[1]]), torch.tensor([[0]])


# By hand


def test_bce_by_hand():
    assert bce(logit(0.25), YES).item() == pytest.approx(math.log(4))
    assert bce(logit(0.25), NO).item() == pytest.approx(math.log(4 / 3))


def test_focal_by_hand():
    # A positive at 1/4 is missed by 3/4, a negative there by 1/4.
    assert focal(logit(0.25), YES).item() == pytest.approx(0.75**2 * math.log(4))
    assert focal(logit(0.25), NO).item() == pytest.approx(0.25**2 * math.log(4 / 3))
    assert focal(logit(0.25), YES, gamma=0.5).item() == pytest.approx(0.75**0.5 * math.log(4))
    weighted = [focal(logit(0.5), y, gamma=1.0, alpha=0.25).item() for y in (YES, NO)]
    assert weighted == pytest.approx([math.log(2) / 8, 3 * math.log(2) / 8])


def test_gradient_of_focal_is_the_papers():
    # For a positive (1 − q)^γ (γ q log q + q − 1), q = p; for a negative its mirror image.
    for target, q in [(YES, 0.3), (NO, 0.7)]:
        z = logit(0.3).requires_grad_()
        (found,) = torch.autograd.grad(focal(z, target, gamma=2.0).sum(), z)
        expected = (1 - q) ** 2 * (2 * q * math.log(q) + q - 1)
        assert found.item() == pytest.approx(expected if target is YES else -expected)


def test_asymmetric_by_hand():
    # By default a positive costs what it does in cross-entropy, and negatives are shifted by .05.
    assert asymmetric(logit(0.25), YES).item() == pytest.approx(math.log(4))
    assert asymmetric(logit(0.25), NO).item() == pytest.approx(0.2**4 * -math.log(0.8))
    options = {"positive_gamma": 1.0, "negative_gamma": 2.0, "margin": 0.15}
    assert asymmetric(logit(0.25), YES, **options).item() == pytest.approx(0.75 * math.log(4))
    assert asymmetric(logit(0.25), NO, **options).item() == pytest.approx(0.01 * -math.log(0.9))


@pytest.mark.parametrize("negative_gamma", [0.0, 0.5, 4.0])
def test_asymmetric_drops_negatives_within_the_margin(negative_gamma):
    for p in [1e-9, 0.01, 0.29]:
        z = logit(p).requires_grad_()
        loss = asymmetric(z, NO, negative_gamma=negative_gamma, margin=0.3)
        assert loss.item() == 0
        assert torch.autograd.grad(loss.sum(), z)[0].item() == 0
    assert asymmetric(logit(0.31), NO, negative_gamma=negative_gamma, margin=0.3).item() > 0


def test_asymmetric_negative_is_bounded_by_the_margin():
    # At p = 1: p_m = .8, so .8^4 · −log .2, and no gradient.
    z = torch.full((1, 1, 1), 200.0, dtype=torch.float64, requires_grad=True)
    loss = asymmetric(z, NO, margin=0.2)
    assert loss.item() == pytest.approx(0.8**4 * math.log(5))
    assert torch.autograd.grad(loss.sum(), z)[0].item() == pytest.approx(0, abs=1e-60)


def test_negative_tolerant_by_hand():
    # At z = log 3: a positive log(1 + 1/3), a negative log(1 + 9) / 2.
    assert negative_tolerant(logit(0.75), YES, scale=2.0).item() == pytest.approx(math.log(4 / 3))
    assert negative_tolerant(logit(0.75), NO, scale=2.0).item() == pytest.approx(math.log(10) / 2)


def test_negative_tolerant_with_a_focal_factor_by_hand():
    # At z = log 3, λ = 2, γ = 2 and f = 2. A positive has q = 3/4: 2 · (1/4)² · log(4/3). A negative
    # has q = 1/(1 + 9): 2 · (9/10)² · log(10) / 2.
    options = {"scale": 2.0, "gamma": 2.0, "factor": 2.0}
    positive = negative_tolerant(logit(0.75), YES, **options)
    assert positive.item() == pytest.approx(math.log(4 / 3) / 8)
    negative = negative_tolerant(logit(0.75), NO, **options)
    assert negative.item() == pytest.approx(0.81 * math.log(10))


def test_the_focal_factor_of_a_negative_tolerant_loss_of_scale_1_is_that_of_the_focal_loss():
    z = random_logits()
    found = negative_tolerant(z, TARGETS, scale=1.0, gamma=1.5, factor=3.0)
    torch.testing.assert_close(found, 3 * focal(z, TARGETS, gamma=1.5))


def test_defaults():
    z = random_logits()
    pairs = [
        (focal(z, TARGETS), focal(z, TARGETS, gamma=2.0, alpha=None)),
        (
            asymmetric(z, TARGETS),
            asymmetric(z, TARGETS, positive_gamma=0.0, negative_gamma=4.0, margin=0.05),
        ),
        (
            negative_tolerant(z, TARGETS),
            negative_tolerant(z, TARGETS, scale=5.0, gamma=0.0, factor=1.0),
        ),
    ]
    for found, expected in pairs:
        assert found.tolist() == expected.tolist()


# Against the definitions, from probabilities


def naive(name: str, z: float, y: int, **o: float) -> float:
    p = 1 / (1 + math.exp(-z))
    if name == "focal":
        q, a = (p, o["alpha"]) if y else (1 - p, 1 - o["alpha"])
        return -a * (1 - q) ** o["gamma"] * math.log(q)
    if name == "asymmetric":
        if y:
            return -((1 - p) ** o["positive_gamma"]) * math.log(p)
        shifted = max(p - o["margin"], 0)
        return -(shifted ** o["negative_gamma"]) * math.log(1 - shifted) if shifted else 0
    if name == "negative_tolerant":
        scale, q = o["scale"], p if y else 1 / (1 + math.exp(o["scale"] * z))
        loss = math.log(1 + math.exp(-z)) if y else math.log(1 + math.exp(scale * z)) / scale
        return o["factor"] * (1 - q) ** o["gamma"] * loss
    return -math.log(p if y else 1 - p)


OPTIONS = {
    "bce": st.just({}),
    "focal": st.fixed_dictionaries({"gamma": st.floats(0, 5), "alpha": st.floats(0.01, 0.99)}),
    "asymmetric": st.fixed_dictionaries(
        {
            "positive_gamma": st.floats(0, 5),
            "negative_gamma": st.floats(0, 5),
            "margin": st.floats(0, 0.9),
        }
    ),
    "negative_tolerant": st.fixed_dictionaries(
        {"scale": st.floats(0.1, 2), "gamma": st.floats(0, 5), "factor": st.floats(0.1, 3)}
    ),
}


@pytest.mark.parametrize("name", ELEMENT_LOSSES)
@given(data=st.data())
def test_agrees_with_the_definition(name, data):
    options = data.draw(OPTIONS[name])
    z, y = data.draw(st.floats(-15, 15)), data.draw(st.integers(0, 1))
    logits = torch.tensor([[[z]]], dtype=torch.float64)
    found = element_loss(name, **options)(logits, torch.tensor([[y]])).item()
    assert found == pytest.approx(naive(name, z, y, **options), rel=1e-6, abs=1e-9)


# Limits


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("focal", {"gamma": 0}),
        ("asymmetric", {"positive_gamma": 0, "negative_gamma": 0, "margin": 0}),
        ("negative_tolerant", {"scale": 1}),
    ],
)
@pytest.mark.parametrize("size", [3.0, 1e4])
def test_is_binary_cross_entropy(name, options, size):
    z = random_logits(size=size).requires_grad_()
    losses = [element_loss(name, **options)(z, TARGETS), bce(z, TARGETS)]
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(*(torch.autograd.grad(loss.sum(), z)[0] for loss in losses))


def test_asymmetric_without_asymmetry_is_focal():
    z = random_logits()
    found = asymmetric(z, TARGETS, positive_gamma=1.5, negative_gamma=1.5, margin=0.0)
    torch.testing.assert_close(found, focal(z, TARGETS, gamma=1.5))


def test_alpha_of_one_half_halves():
    z = random_logits()
    torch.testing.assert_close(2 * focal(z, TARGETS, alpha=0.5), focal(z, TARGETS))


def test_negative_tolerant_of_a_large_scale_is_a_hinge_for_negatives():
    z = random_logits()
    found = negative_tolerant(z, TARGETS, scale=1e6)
    expected = torch.where(TARGETS.bool(), bce(z, TARGETS), z.clamp(min=0))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_negative_tolerant_leaves_positives_alone():
    z, ones = random_logits(), torch.ones_like(TARGETS)
    torch.testing.assert_close(negative_tolerant(z, ones, scale=7.0), bce(z, ones))


# What holds for every loss


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
class TestEveryLoss:
    @pytest.fixture
    def loss(self, name, options) -> Callable[[Tensor, Tensor], Tensor]:
        return element_loss(name, **options)

    def test_one_value_an_element_at_least_0(self, loss):
        z = random_logits(size=10)
        found = loss(z, TARGETS)
        assert found.shape == z.shape
        assert (found >= 0).all()
        assert found.isfinite().all()

    def test_gradcheck(self, loss):
        assert torch.autograd.gradcheck(
            lambda z: loss(z, TARGETS), random_logits(size=2).requires_grad_()
        )

    @pytest.mark.parametrize("size", [1e4, 100.0, 20.0, 0.0])
    def test_extreme_logits_in_float32(self, loss, size):
        z = torch.tensor([[[size, -size]] * 2]).requires_grad_()
        found = loss(z, torch.tensor([[0, 0], [1, 1]]))
        (gradient,) = torch.autograd.grad(found.sum(), z)
        assert found.isfinite().all()
        assert (found >= 0).all()
        assert gradient.isfinite().all()

    def test_certain_and_right_costs_nothing(self, loss):
        z = torch.where(TARGETS.bool(), 1e4, -1e4).unsqueeze(0).requires_grad_()
        found = loss(z, TARGETS)
        assert found.abs().max() == 0
        assert torch.autograd.grad(found.sum(), z)[0].abs().max() == 0

    def test_falls_with_the_logit_of_a_positive_and_rises_with_that_of_a_negative(self, loss):
        z = torch.linspace(-30, 30, 601, dtype=torch.float64).view(1, 1, -1)
        positive, negative = (loss(z, torch.full((1, 601), y)).flatten() for y in (1, 0))
        assert (positive.diff() <= 0).all()
        assert (negative.diff() >= -1e-12).all()
        assert positive[0] > positive[300] > positive[-1]
        assert negative[-1] > negative[300] > negative[0]

    def test_order_of_the_batch_does_not_matter(self, loss):
        z, order = random_logits(), [2, 0, 1]
        found = loss(z, TARGETS)[:, order]
        torch.testing.assert_close(found, loss(z[:, order], TARGETS[order]), rtol=1e-12, atol=0)

    def test_elements_do_not_see_one_another(self, loss):
        z = random_logits(3)
        found = loss(z, TARGETS)
        for m, b, j in [(0, 0, 0), (2, 1, 3), (1, 2, 2)]:
            alone = loss(z[m, b, j].view(1, 1, 1), TARGETS[b, j].view(1, 1))
            assert found[m, b, j].item() == pytest.approx(alone.item(), rel=1e-12)

    @pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float32, torch.float64])
    def test_type_of_targets_does_not_matter(self, loss, dtype):
        z = random_logits()
        assert loss(z, TARGETS.to(dtype)).tolist() == loss(z, TARGETS).tolist()

    def test_float32_stays_float32(self, loss):
        z = random_logits()
        found = loss(z.float(), TARGETS)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), loss(z, TARGETS), rtol=1e-4, atol=1e-6)

    def test_arguments_are_left_alone(self, loss):
        z, targets = random_logits(), TARGETS.clone()
        before = z.clone()
        loss(z, targets)
        assert z.tolist() == before.tolist()
        assert targets.tolist() == TARGETS.tolist()


def test_every_loss_is_in_the_suite():
    assert {name for name, _ in CASES} == set(ELEMENT_LOSSES)


# By name


def test_by_name():
    z = random_logits()
    found = element_loss("focal", gamma=1, alpha=None)(z, TARGETS)
    assert found.tolist() == focal(z, TARGETS, gamma=1.0).tolist()


@pytest.mark.parametrize("name", ELEMENT_LOSSES)
def test_without_options_it_is_the_very_function(name):
    assert element_loss(name) is ELEMENT_LOSSES[name]


def test_registry_is_read_only():
    with pytest.raises(TypeError):
        ELEMENT_LOSSES["hinge"] = bce


# Messages


def test_message_of_an_unknown_name():
    message = f"unknown element loss 'hinge': known are {', '.join(ELEMENT_LOSSES)}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        element_loss("hinge")


@pytest.mark.parametrize(
    ("name", "option", "has"),
    [
        ("bce", "gamma", "none"),
        ("focal", "margin", "gamma=2.0, alpha=None"),
        ("asymmetric", "gamma", "positive_gamma=0.0, negative_gamma=4.0, margin=0.05"),
        ("negative_tolerant", "logits", "scale=5.0, gamma=0.0, factor=1.0"),
    ],
)
def test_message_of_an_unknown_option(name, option, has):
    message = f"element loss {name!r} has no option {option!r}: its options are {has}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        element_loss(name, **{option: 1.0})


@pytest.mark.parametrize(
    ("name", "option", "value", "words"),
    [
        ("focal", "gamma", -0.1, "at least 0"),
        ("focal", "gamma", math.nan, "at least 0"),
        ("focal", "gamma", math.inf, "at least 0"),
        ("focal", "gamma", None, "at least 0"),
        ("focal", "gamma", True, "at least 0"),
        ("focal", "alpha", 0, "above 0 and below 1, or none"),
        ("focal", "alpha", 1.0, "above 0 and below 1, or none"),
        ("asymmetric", "positive_gamma", -1, "at least 0"),
        ("asymmetric", "negative_gamma", -1, "at least 0"),
        ("asymmetric", "margin", -0.01, "at least 0 and below 1"),
        ("asymmetric", "margin", 1.0, "at least 0 and below 1"),
        ("negative_tolerant", "scale", 0.0, "above 0"),
        ("negative_tolerant", "gamma", -0.1, "at least 0"),
        ("negative_tolerant", "factor", 0.0, "above 0"),
    ],
)
def test_message_of_a_value_out_of_range(name, option, value, words):
    message = f"option {option!r} of element loss {name!r} must be {words}, found {value!r}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        element_loss(name, **{option: value})


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("focal", {"gamma": 0, "alpha": 0.001}),
        ("asymmetric", {"positive_gamma": 0, "negative_gamma": 0, "margin": 0}),
        ("asymmetric", {"margin": 0.999}),
        ("negative_tolerant", {"scale": 1e-3}),
    ],
)
def test_ends_of_the_ranges_are_taken(name, options):
    assert element_loss(name, **options)(random_logits(), TARGETS).isfinite().all()
