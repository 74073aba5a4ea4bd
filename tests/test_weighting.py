"""Node weights by hand, their range and order, and the released code's double counting."""

import re
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rarenodes.hierarchy import Hierarchy
from rarenodes.weighting import MODES, node_weights, released_counts


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
