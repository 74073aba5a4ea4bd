"""Node weights by hand, their range and order; shifts, balance, and the released code's counts."""

import math
import re
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rarenodes.loss.hierarchy import Hierarchy
from rarenodes.loss.weighting import (
    MODES,
    WEIGHTINGS,
    DistributionBalance,
    effective_number_weights,
    logit_adjustment,
    node_weights,
    positive_ratio_weights,
    released_counts,
    tolerant_shift,
    weights_by,
)


def weights(counts: list, num_examples: int, mode: str, floor: float = 0.25) -> list[float]:
    return node_weights(torch.tensor(counts), num_examples, mode, floor).tolist()


# By hand


def test_class_wise_by_hand():
    # N = 100, C = 4: w = 100 / (4 n) = 100/200 .. : n = 50 → .5, 25 → 1, 10 → 2.5, 5 → 5.
    # Rescaled: .25 + 5 (w − .5) / 4.5: 0 → .25; .5/4.5 → .25 + 5/9; 2/4.5 → .25 + 20/9; 1 → 5.25.
    found = weights([50, 25, 10, 5], 100, "class-wise")
    assert found == pytest.approx([0.25, 0.25 + 5 / 9, 0.25 + 20 / 9, 5.25])


def test_binary_by_hand():
    # N = 100, K = 2: n = 50 → 1, 25 → 2, 10 → 5, 5 → 10. Rescaled: .25 + 10 (w − 1) / 9.
    found = weights([50, 25, 10, 5], 100, "binary")
    assert found == pytest.approx([0.25, 0.25 + 10 / 9, 0.25 + 40 / 9, 10.25])


def test_class_wise_is_the_default_and_so_is_a_floor_of_a_quarter():
    counts = torch.tensor([50, 25, 10, 5])
    expected = node_weights(counts, 100, "class-wise", 0.25)
    assert node_weights(counts, 100).tolist() == expected.tolist()


def test_nodes_that_are_never_or_always_positive_weigh_1_before_rescaling():
    # N = 20, binary: n = 0 → 1, n = 20 → 1 (not 1/2), n = 4 → 2.5, n = 16 → .625.
    # Rescaled: .25 + 2.5 (w − .625) / 1.875; for w = 1: .25 + 2.5 · .2 = .75.
    assert weights([0, 20, 4, 16], 20, "binary") == pytest.approx([0.75, 0.75, 2.75, 0.25])
    # Class-wise, C = 4: n = 4 → 1.25, n = 16 → .3125; w = 1: .25 + 1.25 · .6875 / .9375.
    found = weights([0, 20, 4, 16], 20, "class-wise")
    middle = 0.25 + 1.25 * 0.6875 / 0.9375
    assert found == pytest.approx([middle, middle, 1.5, 0.25])


def test_a_node_without_positives_is_not_the_rarest():
    # Before rescaling it weighs 1, a node of one positive 50 and one of eighty .625.
    never, once, often = weights([0, 1, 80], 100, "binary")
    assert often < never < once


def test_floor_by_hand():
    assert weights([50, 5], 100, "binary", floor=1.0) == pytest.approx([1, 11])
    assert weights([50, 5], 100, "binary", floor=0.5) == pytest.approx([0.5, 10.5])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("counts", [[7, 7, 7], [0, 0], [9, 0, 9], [3]])
def test_equally_frequent_nodes_weigh_1(mode, counts):
    assert weights(counts, 9, mode) == [1.0] * len(counts)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        (torch.tensor([3, 1]), torch.float32),
        (torch.tensor([3, 1], dtype=torch.int32), torch.float32),
        (torch.tensor([3.0, 1.0]), torch.float32),
        (torch.tensor([3.0, 1.0], dtype=torch.float64), torch.float64),
    ],
)
def test_type(counts, expected):
    found = node_weights(counts, 10)
    assert found.dtype == expected
    torch.testing.assert_close(found.double(), node_weights(counts.double(), 10))


def test_counts_are_left_alone():
    counts = torch.tensor([0.0, 3, 10])
    node_weights(counts, 10)
    assert counts.tolist() == [0, 3, 10]


def test_counts_above_the_number_of_examples():
    # The released double counting gives them. N = 10, binary: n = 20 → .25, n = 1 → 5.
    assert weights([20.0, 1.0], 10, "binary") == pytest.approx([0.25, 5.25])


# In general


@given(
    st.lists(st.integers(0, 60), min_size=1, max_size=8),
    st.integers(1, 40),
    st.sampled_from(MODES),
    st.floats(0.01, 2),
)
def test_agrees_with_the_formula(counts, num_examples, mode, floor):
    classes = {"class-wise": len(counts), "binary": 2}[mode]
    raw = [1 if n in (0, num_examples) else num_examples / (classes * n) for n in counts]
    low, high = min(raw), max(raw)
    expected = [floor + high * (w - low) / (high - low) if high > low else 1 for w in raw]
    found = node_weights(torch.tensor(counts, dtype=torch.float64), num_examples, mode, floor)
    assert found.tolist() == pytest.approx(expected, rel=1e-9)


@given(
    st.lists(st.integers(1, 99), min_size=2, max_size=8, unique=True),
    st.sampled_from(MODES),
    st.floats(0.01, 2),
)
def test_rarer_nodes_weigh_more_and_the_range_is_used(counts, mode, floor):
    found = weights(sorted(counts), 100, mode, floor)
    assert all(rarer > commoner for rarer, commoner in pairwise(found))
    classes = len(counts) if mode == "class-wise" else 2
    assert found[-1] == pytest.approx(floor, rel=1e-5)
    assert found[0] == pytest.approx(floor + 100 / (classes * min(counts)), rel=1e-5)


# Effective numbers


def doubles(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_effective_number_by_hand():
    # β = 1/2: E = 2 (1 − 2^−n) = 1, 3/2, 7/4; 1/E = 1, 2/3, 4/7, of mean 47/63.
    found = effective_number_weights(doubles(1, 2, 3), beta=0.5)
    assert found.tolist() == pytest.approx([63 / 47, 42 / 47, 36 / 47])


def test_effective_number_of_nodes_without_examples():
    # They weigh 1 and do not count in the mean: 1/E = 1 and 2/3, of mean 5/6.
    found = effective_number_weights(doubles(0, 1, 0, 2), beta=0.5)
    assert found.tolist() == pytest.approx([1, 6 / 5, 1, 4 / 5])
    assert effective_number_weights(doubles(0, 0)).tolist() == [1, 1]


def test_effective_number_of_beta_0_weighs_all_alike():
    assert effective_number_weights(doubles(0, 1, 10, 1000), beta=0.0).tolist() == [1] * 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_effective_number_of_beta_near_1_is_the_inverse_of_the_count(dtype):
    counts = torch.tensor([1, 10, 1000, 25000], dtype=dtype)
    inverse = 1 / counts
    found = effective_number_weights(counts, beta=1 - 1e-12)
    torch.testing.assert_close(found, inverse / inverse.mean(), rtol=1e-4, atol=0)


def test_effective_number_hardly_tells_common_nodes_apart():
    # Of 1 the effective number is 1, of many 1 / (1 − β).
    once, often, oftener = effective_number_weights(doubles(1, 20_000, 40_000), 0.999).tolist()
    assert often == pytest.approx(oftener, rel=1e-6)
    assert once == pytest.approx(1000 * often, rel=1e-6)


@given(st.lists(st.integers(1, 999), min_size=2, max_size=8, unique=True), st.floats(0.01, 0.9999))
def test_effective_number_has_mean_1_and_rarer_nodes_weigh_no_less(counts, beta):
    found = effective_number_weights(doubles(*sorted(counts)), beta)
    assert found.mean().item() == pytest.approx(1)
    assert all(rarer >= commoner for rarer, commoner in pairwise(found.tolist()))


# Ratio of negatives to positives


def test_positive_ratio_by_hand():
    found = positive_ratio_weights(doubles(1, 10, 50, 80), 100)
    assert found.tolist() == pytest.approx([99, 9, 1, 0.25])


def test_positive_ratio_is_capped():
    assert positive_ratio_weights(doubles(1, 2, 10), 1000).tolist() == pytest.approx([100, 100, 99])
    found = positive_ratio_weights(doubles(1, 2, 10), 1000, cap=500.0)
    assert found.tolist() == pytest.approx([500, 499, 99])


def test_positive_ratio_of_nodes_that_are_never_or_always_positive_is_1():
    assert positive_ratio_weights(doubles(0, 20, 10), 20, cap=0.5).tolist() == [1, 1, 0.5]


@given(st.lists(st.integers(1, 59), min_size=1, max_size=8))
def test_positive_ratio_gives_both_classes_the_same_weight(counts):
    weight = positive_ratio_weights(doubles(*counts), 60)
    torch.testing.assert_close(weight * doubles(*counts), 60 - doubles(*counts))


# By name


def test_weights_by_name():
    counts = torch.tensor([50, 25, 0, 5])
    expected = {
        "class-wise": node_weights(counts, 100, "class-wise", 0.25),
        "binary": node_weights(counts, 100, "binary", 0.25),
        "effective-number": effective_number_weights(counts, 0.999),
        "positive-ratio": positive_ratio_weights(counts, 100, 100.0),
    }
    assert set(expected) == set(WEIGHTINGS)
    for mode, weight in expected.items():
        assert weights_by(mode, counts, 100).tolist() == weight.tolist()


@pytest.mark.parametrize(
    ("mode", "options", "expected"),
    [
        ("class-wise", {"floor": 1}, [1, 11]),
        ("binary", {"floor": 0.5}, [0.5, 10.5]),
        ("effective-number", {"beta": 0}, [1, 1]),
        ("positive-ratio", {"cap": 3}, [1, 3]),
    ],
)
def test_options_by_name(mode, options, expected):
    # With two nodes K is 2 in either mode: w = 1, 10, which rescales to a range of 10.
    found = weights_by(mode, torch.tensor([50, 5]), 100, **options)
    assert found.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("mode", WEIGHTINGS)
class TestEveryWeighting:
    def test_rarer_nodes_weigh_more_on_the_whole(self, mode):
        found = weights_by(mode, torch.tensor([90, 40, 10, 3, 1]), 100).tolist()
        assert all(commoner < rarer for commoner, rarer in pairwise(found))
        assert min(found) > 0

    def test_order_of_nodes_does_not_matter(self, mode):
        counts, order = torch.tensor([90, 0, 10, 100, 1]), [3, 1, 4, 0, 2]
        found = weights_by(mode, counts[order], 100)
        torch.testing.assert_close(found, weights_by(mode, counts, 100)[order])

    def test_types(self, mode):
        counts = torch.tensor([90, 0, 10, 100, 1])
        found = weights_by(mode, counts, 100)
        assert found.dtype == torch.float32
        wide = weights_by(mode, counts.double(), 100)
        assert wide.dtype == torch.float64
        torch.testing.assert_close(found.double(), wide, rtol=1e-5, atol=0)
        assert counts.tolist() == [90, 0, 10, 100, 1]

    def test_message_of_a_bad_count(self, mode):
        with pytest.raises(ValueError, match=r"^counts must be at least 0, found -2.0$"):
            weights_by(mode, doubles(1, -2), 10)

    def test_message_of_an_unknown_option(self, mode):
        with pytest.raises(ValueError, match=f"^weighting mode '{mode}' has no option 'power': "):
            weights_by(mode, torch.tensor([1]), 10, power=2.0)

    def test_message_of_an_option_that_is_no_number(self, mode):
        option = {"effective-number": "beta", "positive-ratio": "cap"}.get(mode, "floor")
        message = f"option '{option}' of weighting mode '{mode}' must be a number, found None"
        with pytest.raises(ValueError, match=f"^{message}$"):
            weights_by(mode, torch.tensor([1]), 10, **{option: None})


# Shifts of logits


def test_logit_adjustment_by_hand():
    found = logit_adjustment(doubles(1, 20, 50, 80), 100)
    assert found.tolist() == pytest.approx([-math.log(99), -math.log(4), 0, math.log(4)])
    assert logit_adjustment(doubles(20), 100, 0.5).tolist() == pytest.approx([-math.log(2)])
    assert logit_adjustment(doubles(0, 20), 100, 0.0).tolist() == [0, 0]


def test_logit_adjustment_of_nodes_that_are_never_or_always_positive():
    # As if half an example were: 1/2 of 10, and 19/2.
    found = logit_adjustment(doubles(0, 10), 10)
    assert found.tolist() == pytest.approx([-math.log(19), math.log(19)])
    assert logit_adjustment(doubles(0, 1), 1).tolist() == [0, 0]


def test_logit_adjustment_makes_the_best_constant_logit_0():
    # Cross-entropy at z + shift is least where sigmoid(z + shift) is the node's frequency: at z = 0.
    counts = doubles(3, 40, 95)
    z = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    p = torch.sigmoid(z + logit_adjustment(counts, 100))
    loss = -(counts * p.log() + (100 - counts) * (1 - p).log()).sum()
    (gradient,) = torch.autograd.grad(loss, z)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-10)


def test_tolerant_shift_by_hand():
    # ν = −κ b, b = −log(1/π − 1), and −ν is added. π = 1/100: b = −log 99; π = 4/5: b = log 4.
    found = tolerant_shift(doubles(1, 80), 100)
    assert found.tolist() == pytest.approx([-0.05 * math.log(99), 0.05 * math.log(4)])
    found = tolerant_shift(doubles(1), 100, kappa=0.2)
    assert found.tolist() == pytest.approx([-0.2 * math.log(99)])


@pytest.mark.parametrize("shift", [logit_adjustment, tolerant_shift])
@pytest.mark.parametrize("dtype", [torch.int64, torch.float32, torch.float64])
def test_shifts_are_finite_rise_with_frequency_and_keep_the_type(shift, dtype):
    found = shift(torch.tensor([0, 1, 7, 59_999, 60_000]).to(dtype), 60_000)
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert found.isfinite().all()
    assert (found.diff() > 0).all()


# Distribution balance


def test_distribution_balance_by_hand():
    # 1/n = 1/8, 1/2, 1. Labels 0 and 1: P_I = 5/8, r = 1/5, 4/5, 8/5. Label 0 alone: r = 1, 4, 8.
    balance = DistributionBalance(doubles(8, 2, 1), alpha=0.3, beta=2.0, mu=0.5)
    ratios = doubles(0.2, 0.8, 1.6, 1, 4, 8).view(2, 3)
    found = balance.weight(torch.tensor([[1, 1, 0], [1, 0, 0]]))
    torch.testing.assert_close(found, 0.3 + 1 / (1 + torch.exp(-2 * (ratios - 0.5))))


def test_distribution_balance_defaults():
    found = DistributionBalance(doubles(4, 1)).weight(torch.tensor([[1, 1]]))
    # r = 1/5, which is μ, and 4/5.
    assert found.tolist()[0] == pytest.approx([0.6, 0.1 + 1 / (1 + math.exp(-6))])


def test_distribution_balance_without_a_positive_node_is_the_largest():
    found = DistributionBalance(doubles(8, 2, 1), alpha=0.5).weight(torch.zeros(2, 3))
    assert found.tolist() == [[1.5] * 3] * 2


def test_distribution_balance_of_nodes_without_examples_is_the_largest():
    balance = DistributionBalance(doubles(8, 0, 2), alpha=0.5)
    without = DistributionBalance(doubles(8, 2), alpha=0.5)
    # Also where such a node is positive, in examples that were not counted.
    for label in (0, 1):
        found = balance.weight(torch.tensor([[1, label, 0], [1, label, 1], [0, label, 0]]))
        assert found[:, 1].tolist() == [1.5] * 3
        expected = without.weight(torch.tensor([[1, 0], [1, 1], [0, 0]]))
        torch.testing.assert_close(found[:, [0, 2]], expected)


def test_distribution_balance_of_a_node_alone_in_its_examples():
    # r = 1 whatever its count.
    found = DistributionBalance(doubles(8, 2, 1)).weight(torch.eye(3))
    expected = torch.full((3,), 0.1 + 1 / (1 + math.exp(-8)), dtype=torch.float64)
    torch.testing.assert_close(found.diagonal(), expected)


@given(
    st.lists(st.integers(0, 50), min_size=4, max_size=4),
    st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=1, max_size=5),
)
def test_distribution_balance_is_in_range_and_of_each_example_alone(counts, targets):
    balance = DistributionBalance(doubles(*counts))
    targets = torch.tensor(targets)
    found = balance.weight(targets)
    assert ((found >= 0.1) & (found <= 1.1)).all()
    alone = torch.cat([balance.weight(row.view(1, -1)) for row in targets])
    torch.testing.assert_close(found, alone)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32])
def test_distribution_balance_of_any_type(dtype):
    targets = torch.tensor([[1, 1, 0], [1, 0, 0]])
    expected = DistributionBalance(doubles(8, 2, 0)).weight(targets)
    found = DistributionBalance(torch.tensor([8, 2, 0])).weight(targets.to(dtype))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected)


# The released code's counts


def test_released_counts_of_a_tree():
    # root → A → C, root → B. The order root, A, B, C puts every node before those below it, so each
    # sum is over counts as they were.
    hierarchy = Hierarchy([("A", "root"), ("B", "root"), ("C", "A")])
    targets = torch.tensor([[1, 1, 0, 1], [1, 1, 1, 0], [1, 0, 1, 0], [1, 1, 0, 1], [1, 0, 0, 0]])
    # Counts: root 5, A 3, B 2, C 2. root 5 + 3 + 2 + 2 = 12; A 3 + 2 = 5; B 2; C 2.
    found = released_counts(targets, hierarchy)
    assert found.dtype == torch.float64
    assert found.tolist() == [12, 5, 2, 2]


def test_released_counts_of_a_dag_where_a_descendant_comes_first():
    # x and, below it, y; x lies under the root and under b: the order root, a, x, b, y puts x
    # before its ancestor b.
    edges = [("a", "root"), ("x", "root"), ("b", "a"), ("x", "b"), ("y", "x")]
    hierarchy = Hierarchy(edges)
    assert hierarchy.nodes == ("root", "a", "x", "b", "y")
    #                        root  a  x  b  y
    targets = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 1, 0], [1, 1, 0, 1, 0], [1, 1, 0, 0, 0]])
    # Counts: root 4, a 4, x 2, b 3, y 1. In order, each sum in place:
    #   root = 4 + 4 + 2 + 3 + 1 = 14;  a = a + x + b + y = 4 + 2 + 3 + 1 = 10
    #   x = x + y = 2 + 1 = 3;  b = b + x + y = 3 + 3 + 1 = 7, with the new x;  y = 1
    assert released_counts(targets, hierarchy).tolist() == [14, 10, 3, 7, 1]


def test_released_counts_count_a_shared_descendant_once():
    # D lies below A and B, and once, not twice, below the root.
    edges = [("A", "root"), ("B", "root"), ("D", "A"), ("D", "B")]
    targets = torch.tensor([[1, 1, 1, 1]])
    assert released_counts(targets, Hierarchy(edges)).tolist() == [4, 2, 2, 1]


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32])
def test_released_counts_of_any_type(dtype):
    hierarchy = Hierarchy([("A", "root")])
    # 300 examples: more than a byte can count.
    targets = torch.ones(300, 2).to(dtype)
    assert released_counts(targets, hierarchy).tolist() == [600, 300]
    assert targets.sum() == 600


# Messages


def test_message_of_an_unknown_mode():
    message = "unknown weighting mode 'classwise': known are class-wise, binary"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        node_weights(torch.tensor([1]), 10, "classwise")


@pytest.mark.parametrize("num_examples", [0, -3])
def test_message_of_no_examples(num_examples):
    message = f"node weights need at least one training example, found {num_examples}"
    with pytest.raises(ValueError, match=f"^{message}$"):
        node_weights(torch.tensor([1]), num_examples)


def test_message_of_a_negative_count():
    with pytest.raises(ValueError, match=r"^counts must be at least 0, found -2$"):
        node_weights(torch.tensor([1, -2, 3]), 10)


def test_message_of_an_unknown_mode_by_name():
    message = f"unknown weighting mode 'inverse': known are {', '.join(WEIGHTINGS)}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        weights_by("inverse", torch.tensor([1]), 10)


def test_message_of_an_option_of_another_mode():
    message = "weighting mode 'binary' has no option 'beta': it has floor=0.25"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        weights_by("binary", torch.tensor([1]), 10, beta=0.9)


@pytest.mark.parametrize("beta", [-0.1, 1.0, math.nan])
def test_message_of_a_bad_beta(beta):
    message = f"beta must be at least 0 and below 1, found {beta}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        effective_number_weights(torch.tensor([1]), beta)


@pytest.mark.parametrize("cap", [0.0, -1.0, math.nan])
def test_message_of_a_bad_cap(cap):
    message = f"the cap of weights must be above 0, found {cap}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        positive_ratio_weights(torch.tensor([1]), 10, cap)


@pytest.mark.parametrize("function", [positive_ratio_weights, logit_adjustment, tolerant_shift])
def test_messages_of_impossible_counts(function):
    with pytest.raises(ValueError, match=r"^counts must be at most the 10 examples, found 11$"):
        function(torch.tensor([1, 11]), 10)
    with pytest.raises(ValueError, match=r"^counts must be at least 0, found none$"):
        function(torch.tensor([]), 10)
    with pytest.raises(ValueError, match=r"^counts must be at least 0, found nan$"):
        function(torch.tensor([1, math.nan]), 10)
    with pytest.raises(ValueError, match=r"at least one training example, found 0$"):
        function(torch.tensor([0]), 0)


@pytest.mark.parametrize(
    ("alpha", "beta", "mu"), [(-0.1, 10.0, 0.2), (0.1, 0.0, 0.2), (0.1, 10.0, math.nan)]
)
def test_message_of_a_bad_distribution_balance(alpha, beta, mu):
    message = (
        "distribution balance needs alpha of at least 0, beta above 0 and a finite mu, found "
        f"{alpha}, {beta} and {mu}"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        DistributionBalance(doubles(1, 2), alpha, beta, mu)


def test_message_of_counts_that_cannot_be_balanced():
    with pytest.raises(ValueError, match=r"^counts must be at least 0, found -1.0$"):
        DistributionBalance(doubles(1, -1))
