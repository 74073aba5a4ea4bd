"""How logits become probabilities: by hand, coherent, and the cross-entropy of what is predicted."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import batches, descendants

from rarenodes.loss.coherent import coherent_bce
from rarenodes.loss.conditional import conditional_log_probabilities
from rarenodes.loss.hierarchy import Hierarchy
from rarenodes.loss.output import Output

# root, A, B, C (of A and B), D (of C).
DIAMOND = Hierarchy([("A", "root"), ("B", "root"), ("C", "A"), ("C", "B"), ("D", "C")])
# C and D have no training positives.
CONSTANT = torch.tensor([math.nan, math.nan, math.nan, 1 / 10, 1 / 2])


def logit(*p: float) -> torch.Tensor:
    return torch.logit(torch.tensor([[p]], dtype=torch.float64))


def test_maximum_by_hand():
    found = Output().probabilities(logit(0.3, 0.2, 0.4, 0.1, 0.6), DIAMOND)
    assert found.flatten().tolist() == pytest.approx([0.6, 0.6, 0.6, 0.6, 0.6])


def test_product_by_hand():
    found = Output("product").probabilities(logit(0.9, 0.5, 0.4, 0.5, 0.5), DIAMOND)
    assert found.flatten().tolist() == pytest.approx([0.9, 0.45, 0.36, 0.18, 0.09])


def test_constants_by_hand():
    # What the network says of C and D, which is much, counts for nothing.
    logits = logit(0.3, 0.2, 0.4, 0.8, 0.9)
    found = Output("maximum", CONSTANT).probabilities(logits, DIAMOND)
    assert found.flatten().tolist() == pytest.approx([0.4, 0.2, 0.4, 0.02, 0.01])
    found = Output("product", CONSTANT).probabilities(logits, DIAMOND)
    assert found.flatten().tolist() == pytest.approx([0.3, 0.06, 0.12, 0.006, 0.003])


def test_a_root_without_positives_has_its_constant():
    two_roots = Hierarchy([("child", "seen"), ("child", "unseen")])
    assert two_roots.nodes == ("seen", "unseen", "child")
    constant = torch.tensor([math.nan, 0.25, 0.5])
    for rule in ("maximum", "product"):
        found = Output(rule, constant).probabilities(logit(0.6, 0.9, 0.9), two_roots)
        assert found.flatten().tolist() == pytest.approx([0.6, 0.25, 0.125])


@st.composite
def outputs(draw):
    hierarchy, logits, targets = draw(batches())
    constant = torch.full((len(hierarchy),), math.nan, dtype=torch.float64)
    below = descendants(hierarchy.nodes, hierarchy.edges)
    for node in draw(st.sets(st.integers(0, len(hierarchy) - 1), max_size=2)):
        for d in below[node]:
            constant[d] = draw(st.floats(0.01, 0.99))
    rule = draw(st.sampled_from(["maximum", "product"]))
    return Output(rule, draw(st.sampled_from([None, constant]))), hierarchy, logits, targets


@given(outputs())
def test_probabilities_are_coherent_and_members_their_own(drawn):
    output, hierarchy, logits, _ = drawn
    for z in (logits, logits.float(), (logits * 1e4).float()):
        found = output.probabilities(z, hierarchy)
        assert found.isfinite().all()
        assert hierarchy.is_coherent(found)
        assert hierarchy.is_coherent(found.mean(dim=0))
        for member in range(len(z)):
            alone = output.probabilities(z[[member]], hierarchy)
            torch.testing.assert_close(found[[member]], alone)


@given(outputs())
def test_cross_entropy_is_that_of_the_probabilities(drawn):
    output, hierarchy, logits, targets = drawn
    found = output.bce(logits.clamp(-12, 12), targets, hierarchy)
    p = output.probabilities(logits.clamp(-12, 12), hierarchy)
    positive = targets.bool().expand_as(p)
    expected = -torch.where(positive, p, 1 - p).log()
    # The maximum over all descendants, which may be negative, is not what a positive is charged.
    compared = ~positive if output.rule == "maximum" else torch.ones_like(positive)
    if output.rule == "maximum" and output.constant is not None:
        compared = compared & (hierarchy.close(targets) == 0)
    torch.testing.assert_close(found[compared], expected[compared], rtol=1e-6, atol=1e-9)
    if output.rule == "maximum" and output.constant is None:
        whole = coherent_bce(logits.clamp(-12, 12), targets, hierarchy)
        torch.testing.assert_close(found, whole)
    assert (output.bce((logits * 1e4).float(), targets, hierarchy) >= 0).all()


def test_cross_entropy_with_constants_by_hand():
    logits = logit(0.3, 0.2, 0.4, 0.8, 0.9)
    targets = torch.tensor([[1, 1, 1, 1, 0]])
    found = Output("maximum", CONSTANT).bce(logits, targets, DIAMOND)
    # The root leans on B, the largest of its positive descendants that are looked at.
    expected = [-math.log(p) for p in (0.4, 0.2, 0.4, 0.02, 1 - 0.01)]
    assert found.flatten().tolist() == pytest.approx(expected)
    found = Output("product", CONSTANT).bce(logits, targets, DIAMOND)
    expected = [-math.log(p) for p in (0.3, 0.06, 0.12, 0.006, 1 - 0.003)]
    assert found.flatten().tolist() == pytest.approx(expected)


def test_the_product_is_the_exponential_of_the_log_probabilities():
    logits = 3 * torch.randn(3, 20, 5, generator=torch.Generator().manual_seed(0)).double()
    found = Output("product").probabilities(logits, DIAMOND)
    torch.testing.assert_close(found.log(), conditional_log_probabilities(logits, DIAMOND))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Output("mean"), "unknown output rule 'mean': known are maximum, product"),
        (
            lambda: Output("product", torch.tensor([math.nan, 0.0])),
            "constants of nodes must be above 0 and below 1, found 0",
        ),
        (
            lambda: Output("product", torch.tensor([math.nan, 0.5])).probabilities(
                logit(0.5, 0.5, 0.5, 0.5, 0.5), DIAMOND
            ),
            r"constants must have shape \(5,\), found \(2,\)",
        ),
        (
            lambda: Output("maximum", torch.tensor([math.nan, 0.5, math.nan, 0.5, math.nan])).bce(
                logit(0.5, 0.5, 0.5, 0.5, 0.5), torch.zeros(1, 5), DIAMOND
            ),
            "node 'D' has no constant though its parent 'C' has one",
        ),
    ],
)
def test_messages(make, message):
    with pytest.raises(ValueError, match=message):
        make()
