"""LP-ROS and HROS-PD by hand on a tree and a DAG, the measures behind them, and what always holds."""

import re
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from strategies import hierarchies

from rarenodes.datasets.targets import closed_targets
from rarenodes.loss.hierarchy import Hierarchy
from rarenodes.training.resampling import (
    COPIES,
    Added,
    hros_pd,
    hros_pd_released,
    imbalance_ratios,
    label_sets,
    label_statistics,
    lp_ros,
    mean_imbalance_ratio,
    node_counts,
    path_counts,
)

# root → A → A1, A2; root → B. Order of nodes: root, A, B, A1, A2.
TREE = Hierarchy([("A", "root"), ("B", "root"), ("A1", "A"), ("A2", "A")])
# d lies below a and b, and e below b. Order of nodes: root, a, b, d, e.
DAG = Hierarchy([("a", "root"), ("b", "root"), ("d", "a"), ("d", "b"), ("e", "b")])


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def targets_of(hierarchy: Hierarchy, *examples: tuple[int, str]) -> sparse.csr_array:
    """Closed targets of (times, labels) such as `(6, "A1")`, `(1, "A1 B")`."""
    return closed_targets([text.split() for n, text in examples for _ in range(n)], hierarchy)


def resample(method: str, targets: sparse.csr_array, hierarchy: Hierarchy, seed: int, **options):
    function = lp_ros if method == "lp_ros" else hros_pd
    if method != "lp_ros":
        options["copies"] = method
    return function(targets, hierarchy, rng(seed), **options)


METHODS = ("lp_ros", *COPIES)


@st.composite
def labelled(draw) -> tuple[Hierarchy, sparse.csr_array]:
    """A tree or a DAG with targets of 1 to 30 examples, some alike and some without labels."""
    hierarchy = draw(hierarchies(8))
    some = st.sets(st.sampled_from(hierarchy.nodes), max_size=3).map(sorted)
    pool = draw(st.lists(some, min_size=1, max_size=6))
    labels = draw(st.lists(st.sampled_from(pool), min_size=1, max_size=30))
    return hierarchy, closed_targets(labels, hierarchy)


# Measures by hand


def test_imbalance_ratios_by_hand():
    # max 8: 8/8, 8/2, 8/1; a label without examples has none. Mean (1 + 4 + 8) / 3.
    counts = np.array([8, 2, 1, 0])
    np.testing.assert_array_equal(imbalance_ratios(counts), [1, 4, 8, np.nan])
    assert mean_imbalance_ratio(counts) == pytest.approx(13 / 3)


def test_no_label_has_examples():
    assert np.isnan(imbalance_ratios(np.array([0, 0]))).all()
    assert np.isnan(mean_imbalance_ratio(np.array([0, 0])))
    assert np.isnan(mean_imbalance_ratio(np.array([], dtype=int)))


def test_counts_on_a_tree():
    targets = targets_of(TREE, (2, "A1"), (1, "A"), (1, "A2 B"), (1, ""))
    # root 4, A 4, B 1, A1 2, A2 1. Paths end twice at A1, and once at A, A2 and B.
    assert node_counts(targets).tolist() == [4, 4, 1, 2, 1]
    assert path_counts(targets, TREE).tolist() == [0, 1, 1, 2, 1]


def test_counts_on_a_dag():
    targets = targets_of(DAG, (1, "d"), (1, "d e"), (1, "a"), (1, "a e"))
    # With d, both a and b are labels, but no path ends there; with a and e, one ends at a.
    assert node_counts(targets).tolist() == [4, 4, 3, 2, 2]
    assert path_counts(targets, DAG).tolist() == [0, 2, 0, 2, 2]


def test_label_sets_by_hand():
    targets = targets_of(TREE, (2, "B"), (1, ""), (1, "A1 B"), (1, "B"), (1, "A A1 B"))
    of_example, sizes = label_sets(targets)
    assert of_example.tolist() == [0, 0, 1, 2, 0, 2]
    assert sizes.tolist() == [3, 1, 2]


def test_more_positive_children_than_a_byte_counts():
    hierarchy = Hierarchy([(f"n{i:03}", "root") for i in range(256)])
    targets = sparse.csr_array(np.ones((1, 257), dtype=np.uint8))
    assert path_counts(targets, hierarchy).tolist() == [0] + [1] * 256


def test_how_targets_are_stored_does_not_matter():
    # Row 0: columns out of order and an explicit zero; row 1: the same labels, plainly.
    columns, starts = np.array([2, 1, 0, 0, 2]), np.array([0, 3, 5])
    messy = sparse.csr_array((np.array([1.0, 0, 1, 1, 1]), columns, starts), shape=(2, 5))
    assert label_sets(messy)[0].tolist() == [0, 0]
    assert node_counts(messy).tolist() == [2, 0, 2, 0, 0]
    assert path_counts(messy, TREE).tolist() == [0, 0, 2, 0, 0]
    assert messy.nnz == 5  # left as it was
    assert not messy.has_sorted_indices


# LP-ROS by hand

# Rows 0–5 A1, 6–7 B, 8 A2, 9 A1 and B: 10 examples of 4 label sets, 2.5 a set on average.
# Minority: B (2 examples, room ⌈0.5⌉ = 1), A2 and A1+B (1 each, room ⌈1.5⌉ = 2).
LP_CASE = targets_of(TREE, (6, "A1"), (2, "B"), (1, "A2"), (1, "A1 B"))


@pytest.mark.parametrize(
    ("budget", "of_b", "of_singles"),
    [
        # 1 copy: ⌊1/3⌋ = 0 for B, ⌊1/2⌋ = 0 for the next, 1 for the last; which single is chance.
        (0.1, 0, [0, 1]),
        # 3 copies: ⌊3/3⌋ = 1 for B, ⌊2/2⌋ = 1, 1.
        (0.3, 1, [1, 1]),
        # 4 copies: ⌊4/3⌋ = 1, ⌊3/2⌋ = 1, 2.
        (0.4, 1, [1, 2]),
        # 5 copies: ⌊5/3⌋ = 1, ⌊4/2⌋ = 2, 2: all are full.
        (0.5, 1, [2, 2]),
        # 8 copies: ⌊8/3⌋ = 2, but B has room for 1; ⌊7/2⌋ = 3, room 2; 2. Three stay unspent.
        (0.8, 1, [2, 2]),
        (1.0, 1, [2, 2]),
    ],
)
def test_lp_ros_on_a_tree(budget, of_b, of_singles):
    added = lp_ros(LP_CASE, TREE, rng(), budget)
    times = Counter(added.rows.tolist())
    assert times[6] + times[7] == of_b
    assert sorted([times[8], times[9]]) == of_singles
    assert set(times) <= {6, 7, 8, 9}
    np.testing.assert_array_equal(added.targets.toarray(), LP_CASE.toarray()[added.rows])


def test_lp_ros_ties_are_left_to_chance():
    chosen = {int(lp_ros(LP_CASE, TREE, rng(seed), 0.1).rows[0]) for seed in range(20)}
    assert chosen == {8, 9}


def test_lp_ros_on_a_dag():
    # Label sets: d (that is root a b d) 5, a and b without d 2, a 1, b 2: 10 in 4 sets, 2.5 each.
    # Minority: a+b and b (room 1), a (room 2). 4 copies: ⌊4/3⌋ = 1, ⌊3/2⌋ = 1, 2.
    targets = targets_of(DAG, (5, "d"), (2, "a b"), (1, "a"), (2, "b"))
    added = lp_ros(targets, DAG, rng(), 0.4)
    times = Counter(added.rows.tolist())
    assert [times[5] + times[6], times[7], times[8] + times[9]] == [1, 2, 1]


def test_lp_ros_gives_to_unique_label_sets_although_the_mean_is_below_2():
    # 6 examples of 5 sets, 1.2 each: the four unique ones lack 0.2, and take one copy each.
    targets = targets_of(TREE, (2, "A1"), (1, "A2"), (1, "B"), (1, "A"), (1, "A1 B"))
    assert sorted(lp_ros(targets, TREE, rng(), 1.0).rows) == [2, 3, 4, 5]


# HROS-PD by hand

# Rows 0–5 A1, 6–8 B, 9 A2 and B. Paths: A1 6, B 4, A2 1; ratios 1, 1.5, 6; mean 8.5/3 = 2.83.
# Minority: A2. Two examples: 6/2 = 3, still above the mean; three: 2. So two copies of row 9.
PATH_CASE = targets_of(TREE, (6, "A1"), (3, "B"), (1, "A2 B"))


@pytest.mark.parametrize(
    ("copies", "target"),
    [
        #                       root  A  B  A1 A2
        # Whole: B goes from 4 to 6, no more than A1, so the largest count stays 6.
        ("whole", [1, 1, 1, 0, 1]),
        ("truncated", [1, 1, 0, 0, 1]),
    ],
)
def test_hros_pd_on_a_tree(copies, target):
    added = hros_pd(PATH_CASE, TREE, rng(), 0.5, copies)
    assert added.rows.tolist() == [9, 9]
    assert added.targets.toarray().tolist() == [target, target]
    assert added.targets.dtype == PATH_CASE.dtype
    # The budget ends it earlier: ⌊0.1 · 10⌋ = 1.
    assert hros_pd(PATH_CASE, TREE, rng(), copies=copies).rows.tolist() == [9]


def test_copies_are_whole_unless_told():
    assert hros_pd(PATH_CASE, TREE, rng()).targets.toarray().tolist() == [[1, 1, 1, 0, 1]]


def test_hros_pd_a_whole_copy_spares_another_path_its_own():
    # Rows 0–7 A1, 8 A2 and B. Paths 8, 1, 1; ratios 1, 8, 8; mean 17/3 = 5.67; two examples give 4.
    targets = targets_of(TREE, (8, "A1"), (1, "A2 B"))
    assert hros_pd(targets, TREE, rng(), 1.0, "whole").rows.tolist() == [8]
    # Truncated, a copy lifts one path: one for A2 and one for B, in either order.
    added = hros_pd(targets, TREE, rng(), 1.0, "truncated")
    assert added.rows.tolist() == [8, 8]
    assert sorted(added.targets.toarray().tolist()) == [[1, 0, 1, 0, 0], [1, 1, 0, 0, 1]]


def test_hros_pd_serves_the_rarest_first():
    # Paths A1 50, A 17, B 2, A2 1; ratios 1, 2.9, 25, 50; mean 19.7; minority B and A2.
    # 70 examples; 1 copy goes to A2; with 3 copies: A2 (2: ratio 25), B (3: 16.7), A2 (3: 16.7).
    targets = targets_of(TREE, (50, "A1"), (17, "A"), (2, "B"), (1, "A2"))
    assert hros_pd(targets, TREE, rng(), 1 / 70).rows.tolist() == [69]
    rows = hros_pd(targets, TREE, rng(), 1.0).rows.tolist()
    assert rows[0] == 69
    assert rows[1] in (67, 68)
    assert rows[2:] == [69]


def test_hros_pd_of_a_path_that_ends_at_an_inner_node():
    # Paths A1 9 and A 1; ratios 1 and 9; mean 5; two examples give 4.5. A itself has 10 examples.
    targets = targets_of(TREE, (9, "A1"), (1, "A"))
    added = hros_pd(targets, TREE, rng(), 1.0, "truncated")
    assert added.rows.tolist() == [9]
    assert added.targets.toarray().tolist() == [[1, 1, 0, 0, 0]]


def test_hros_pd_on_a_dag_keeps_all_ways_to_the_rare_label():
    # Paths e 7 (6 and the one with d), a 3, d 1; ratios 1, 7/3, 7; mean 31/9 = 3.44. Minority: d.
    # Truncated: d 2 gives 3.5, d 3 gives 2.33: two copies of row 9. d lies below a and b: both stay
    # positive, while e, which is not above d, does not.
    targets = targets_of(DAG, (6, "e"), (3, "a"), (1, "d e"))
    added = hros_pd(targets, DAG, rng(), 1.0, "truncated")
    assert added.rows.tolist() == [9, 9]
    assert added.targets.toarray().tolist() == [[1, 1, 1, 1, 0]] * 2
    # Whole: e grows, too: 8/2 = 4, then 9/3 = 3. Two copies again.
    assert hros_pd(targets, DAG, rng(), 1.0, "whole").targets.toarray().tolist() == [[1] * 5] * 2


# HROS-PD of the released code by hand


# Rows 0–5 A1, 6–8 B, 9 A2 and B. Nodes root 10, A 7, B 4, A1 6, A2 1; ratios 1, 10/7, 2.5, 5/3, 10;
# mean 3.32. Minority: A2 alone. The mean size is 28/5, down 5: A2 lacks 4.
@pytest.mark.parametrize(
    ("budget", "copies"),
    [
        (0.01, 1),  # ⌈0.1⌉
        (0.1, 1),
        (0.21, 3),  # ⌈2.1⌉
        (0.4, 4),
        (0.5, 4),  # 5 would lift it above the mean
        (1.0, 4),
    ],
)
def test_released_hros_pd_takes_its_share_of_the_budget_rounded_up_and_no_more_than_it_lacks(
    budget, copies
):
    added = hros_pd_released(PATH_CASE, TREE, rng(), budget)
    assert added.rows.tolist() == [9] * copies
    #                                        root  A  B  A1 A2
    assert added.targets.toarray().tolist() == [[1, 1, 0, 0, 1]] * copies
    assert added.targets.dtype == PATH_CASE.dtype


def test_released_hros_pd_with_whole_copies():
    added = hros_pd_released(PATH_CASE, TREE, rng(), 0.1, "whole")
    assert added.targets.toarray().tolist() == [[1, 1, 1, 0, 1]]


# Rows 0–39 B, 40 A, 41 A1, 42 A2. Nodes root 43, A 3, B 40, A1 1, A2 1; ratios 1, 14.3, 1.1, 43, 43;
# mean 20.5. Minority: A1 and A2, but not A, which is as rare as it is only among whole examples.
# The mean size is 88/5, down 17.
DEEP_CASE = targets_of(TREE, (40, "B"), (1, "A"), (1, "A1"), (1, "A2"))


def test_released_hros_pd_counts_the_examples_of_descendants():
    # Paths that end at A: 1, as many as at A1 and A2. But A has three examples.
    assert path_counts(DEEP_CASE, TREE).tolist() == [0, 1, 40, 1, 1]
    added = hros_pd_released(DEEP_CASE, TREE, rng(), 0.1)
    # ⌈4.3 / 2⌉ = 3 each, the last node of the hierarchy's order first: 6 of a budget of 4.3.
    assert added.rows.tolist() == [42] * 3 + [41] * 3


def test_released_hros_pd_goes_from_the_deepest_up_and_counts_copies_at_once():
    # root → A → A1 → A2 in a row, and B. Nodes root 82, A 2, B 80, A1 1, A2 1; ratios 1, 41, 1.03,
    # 82, 82; mean 41.4: minority A1 and A2; mean size 166/5, down 33; ⌈0.5 · 82 / 2⌉ = 21 each.
    # A2 takes 21 and A1, which has them too, now has 22 and lacks 11.
    line = Hierarchy([("A", "root"), ("B", "root"), ("A1", "A"), ("A2", "A1")])
    targets = targets_of(line, (80, "B"), (1, "A"), (1, "A2"))
    added = hros_pd_released(targets, line, rng(), 0.5)
    labels = added.targets.toarray().tolist()
    #                 root A  B  A1 A2
    assert labels == [[1, 1, 0, 1, 1]] * 21 + [[1, 1, 0, 1, 0]] * 11
    # From the top down, A1 would have taken 21 and A2 21.


def test_released_hros_pd_copies_examples_of_descendants_too():
    # root 50, A 2 (one of them by A1), B 48, A1 1: ratios 1, 25, 1.04, 50; mean 19.3: minority A and
    # A1, ⌈0.6 · 50 / 2⌉ = 15 each; mean size 101/4, down 25. A1 takes 15; A has 17 and takes 8.
    tree = Hierarchy([("A", "root"), ("B", "root"), ("A1", "A")])
    targets = targets_of(tree, (48, "B"), (1, "A"), (1, "A1"))
    added = hros_pd_released(targets, tree, rng(), 0.6)
    assert added.rows[:15].tolist() == [49] * 15
    assert len(added) == 23
    assert set(added.rows[15:].tolist()) == {48, 49}
    assert added.targets[15:].toarray().tolist() == [[1, 1, 0, 0]] * 8


def test_released_hros_pd_on_a_dag_keeps_all_ways_to_the_rare_label():
    # Nodes root 10, a 4, b 7, d 1, e 7; ratios 1, 2.5, 1.43, 10, 1.43; mean 3.27: minority d, mean
    # size 29/5, down 5.
    targets = targets_of(DAG, (6, "e"), (3, "a"), (1, "d e"))
    added = hros_pd_released(targets, DAG, rng(), 1.0)
    assert added.rows.tolist() == [9] * 4
    assert added.targets.toarray().tolist() == [[1, 1, 1, 1, 0]] * 4


@pytest.mark.parametrize("copies", COPIES)
@given(labelled(), st.floats(0.01, 1), st.integers(0, 9))
def test_released_hros_pd_keeps_to_its_definition(copies, case, budget, seed):
    hierarchy, targets = case
    before = targets.copy()
    added = hros_pd_released(targets, hierarchy, rng(seed), budget, copies)
    again = hros_pd_released(targets, hierarchy, rng(seed), budget, copies)
    np.testing.assert_array_equal(added.rows, again.rows)
    np.testing.assert_array_equal(targets.toarray(), before.toarray())
    dense = targets.toarray().astype(int)
    counts = dense.sum(axis=0)
    some = [n for n in counts if n]
    ratios = [max(counts) / n if n else np.nan for n in counts]
    mean = np.nanmean(ratios) if some else np.nan
    minority = [j for j in range(len(hierarchy)) if ratios[j] > mean]
    assert len(added) <= np.ceil(budget * len(dense)) + len(minority)
    rest = list(zip(added.rows.tolist(), added.targets.toarray().astype(int).tolist(), strict=True))
    for node in reversed(minority):
        share = int(np.ceil(budget * len(dense) / len(minority) - 1e-9))
        for _ in range(max(min(share, int(sum(some) / len(some)) - counts[node]), 0)):
            row, labels = rest.pop(0)
            assert dense[row, node] == 1
            if copies == "whole":
                assert labels == dense[row].tolist()
            else:
                path = closed_targets([[hierarchy.nodes[node]]], hierarchy).toarray()[0]
                assert labels == path.astype(int).tolist()
            counts = counts + np.array(labels)
    assert not rest


@pytest.mark.parametrize("budget", [0.0, 1.1, float("nan")])
def test_message_of_a_released_budget(budget):
    with pytest.raises(ValueError, match="the budget must be a share of the examples above 0"):
        hros_pd_released(PATH_CASE, TREE, rng(), budget)


def test_messages_of_released_hros_pd():
    with pytest.raises(ValueError, match=r"^unknown copies 'part': known are whole, truncated$"):
        hros_pd_released(PATH_CASE, TREE, rng(), copies="part")
    with pytest.raises(ValueError, match=r"^targets have 4 nodes, but the hierarchy has 5$"):
        hros_pd_released(PATH_CASE[:, :4], TREE, rng())


def test_released_hros_pd_has_nothing_to_add_where_all_are_alike():
    for targets in (targets_of(TREE, (3, "")), targets_of(TREE, (3, "A1"))):
        assert len(hros_pd_released(targets, TREE, rng())) == 0


# Statistics by hand


def test_label_statistics_by_hand():
    added = hros_pd(PATH_CASE, TREE, rng(), 0.5, "truncated")
    table = label_statistics(PATH_CASE, TREE, added)
    before, after = table.loc["before"], table.loc["after"]
    # Nodes root 10, A 7, B 4, A1 6, A2 1 become 12, 9, 4, 6, 3.
    assert before["mean_ir_nodes"] == pytest.approx((1 + 10 / 7 + 10 / 4 + 10 / 6 + 10) / 5)
    assert after["mean_ir_nodes"] == pytest.approx((1 + 12 / 9 + 12 / 4 + 12 / 6 + 12 / 3) / 5)
    # Paths A1 6, B 4, A2 1 become 6, 4, 3: ratios 1, 1.5, 2; mean 1.5, above it A2.
    assert before["mean_ir_paths"] == pytest.approx(8.5 / 3)
    assert after["mean_ir_paths"] == pytest.approx(1.5)
    assert before[["examples", "added", "paths", "minority_paths"]].tolist() == [10, 0, 3, 1]
    assert after[["examples", "added", "paths", "minority_paths"]].tolist() == [12, 2, 3, 1]
    # Label sets 6, 3, 1 of mean 3.33 become 6, 3, 1 and 2 copies without B, of mean 3.
    assert before[["label_sets", "minority_label_sets"]].tolist() == [3, 2]
    assert after[["label_sets", "minority_label_sets"]].tolist() == [4, 2]


# In general


@pytest.mark.parametrize("method", METHODS)
@given(labelled(), st.floats(0.01, 1), st.integers(0, 9))
def test_added_rows_fit_the_budget_and_are_closed(method, case, budget, seed):
    hierarchy, targets = case
    added = resample(method, targets, hierarchy, seed, budget=budget)
    assert len(added) <= budget * targets.shape[0] + 1e-6
    assert added.targets.shape == (len(added), len(hierarchy))
    assert added.targets.dtype == targets.dtype
    dense, originals = added.targets.toarray(), targets.toarray()[added.rows]
    assert hierarchy.is_coherent(torch.from_numpy(dense))
    if method == "truncated":
        assert (dense <= originals).all()
        assert path_counts(added.targets, hierarchy).sum() == len(added)
    else:
        np.testing.assert_array_equal(dense, originals)


@pytest.mark.parametrize("method", METHODS)
@given(labelled(), st.integers(0, 9))
def test_the_generator_decides(method, case, seed):
    hierarchy, targets = case
    before = targets.copy()
    one = resample(method, targets, hierarchy, seed, budget=0.5)
    two = resample(method, targets, hierarchy, seed, budget=0.5)
    np.testing.assert_array_equal(one.rows, two.rows)
    np.testing.assert_array_equal(one.targets.toarray(), two.targets.toarray())
    np.testing.assert_array_equal(targets.toarray(), before.toarray())


@given(labelled(), st.floats(0.01, 1))
def test_lp_ros_makes_no_label_set_rarer(case, budget):
    hierarchy, targets = case
    added = lp_ros(targets, hierarchy, rng(), budget)
    _, before = label_sets(targets)
    _, after = label_sets(sparse.vstack([targets, added.targets], format="csr"))
    assert len(after) == len(before)
    assert (imbalance_ratios(after) <= imbalance_ratios(before)).all()
    # The minority sets together hold at least their share of all examples.
    rare = before < before.mean()
    assert after[rare].sum() / after.sum() >= before[rare].sum() / before.sum()
    # Only they grow, and none past the first whole number from the mean.
    assert (after[~rare] == before[~rare]).all()
    assert (after[rare] <= np.ceil(before.mean())).all()


@given(labelled(), st.floats(0.01, 1))
def test_truncated_hros_pd_makes_no_path_rarer(case, budget):
    hierarchy, targets = case
    added = hros_pd(targets, hierarchy, rng(), budget, "truncated")
    before = path_counts(targets, hierarchy)
    after = before + path_counts(added.targets, hierarchy)
    some = before > 0
    assert (imbalance_ratios(after)[some] <= imbalance_ratios(before)[some]).all()
    rare = imbalance_ratios(before) > mean_imbalance_ratio(before)
    assert (after[~rare] == before[~rare]).all()


@pytest.mark.parametrize("copies", COPIES)
@given(labelled(), st.floats(0.01, 1))
def test_every_copy_of_hros_pd_has_a_minority_path(copies, case, budget):
    hierarchy, targets = case
    added = hros_pd(targets, hierarchy, rng(), budget, copies)
    counts = path_counts(targets, hierarchy)
    rare = imbalance_ratios(counts) > mean_imbalance_ratio(counts)
    for row in range(len(added)):
        assert path_counts(added.targets[[row]], hierarchy)[rare].any()


@given(labelled())
def test_path_counts_agree_with_the_edges(case):
    hierarchy, targets = case
    dense = targets.toarray()
    expected = [
        sum(1 for y in dense if y[j] and not any(y[c] for c in hierarchy.children[j]))
        for j in range(len(hierarchy))
    ]
    assert path_counts(targets, hierarchy).tolist() == expected


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "targets",
    [
        targets_of(TREE, (3, "A1")),  # one label set, one path
        targets_of(TREE, (5, "A1"), (5, "A2"), (5, "B")),  # balanced
        targets_of(TREE, (3, "")),  # no labels
        targets_of(TREE, (4, "A1"), (1, "B")),  # ⌊0.1 · 5⌋ = 0
    ],
)
def test_nothing_to_add(method, targets):
    added = resample(method, targets, TREE, 0)
    assert len(added) == 0
    assert added.targets.shape == (0, 5)
    table = label_statistics(targets, TREE, added)
    np.testing.assert_array_equal(table.loc["before"], table.loc["after"])


@pytest.mark.parametrize(("budget", "examples"), [(0.1, 30), (0.29, 100), (0.7, 10)])
def test_the_budget_is_not_short_by_rounding(budget, examples):
    # 0.29 · 100 is 28.999… in floating point. All label sets but one are unique, so there is room
    # for the whole budget.
    hierarchy = Hierarchy([(f"n{i:03}", "root") for i in range(examples)])
    unique = examples - 2
    labels = [["n000"]] * 2 + [[f"n{i:03}"] for i in range(1, unique + 1)]
    added = lp_ros(closed_targets(labels, hierarchy), hierarchy, rng(), budget)
    assert len(added) == round(budget * examples)


# Messages


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("budget", [0.0, -0.1, 1.1, float("nan")])
def test_message_of_a_budget(method, budget):
    message = f"the budget must be a share of the examples above 0 and at most 1, found {budget}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        resample(method, LP_CASE, TREE, 0, budget=budget)


@pytest.mark.parametrize("method", METHODS)
def test_message_of_no_examples(method):
    with pytest.raises(ValueError, match=r"^resampling needs at least one training example, found"):
        resample(method, LP_CASE[:0], TREE, 0)


@pytest.mark.parametrize("method", METHODS)
def test_message_of_another_hierarchy(method):
    with pytest.raises(ValueError, match=r"^targets have 4 nodes, but the hierarchy has 5$"):
        resample(method, LP_CASE[:, :4], TREE, 0)


@pytest.mark.parametrize("method", METHODS)
def test_message_of_targets_that_are_not_closed(method):
    # Row 1: A2 without A (and root). Row 2: nothing wrong.
    rows = np.array([[1, 1, 0, 0, 1], [1, 0, 0, 0, 1], [1, 0, 1, 0, 0]])
    message = (
        "targets are not ancestor-closed: in row 1 node 'A2' is positive and its parent 'A' is "
        "not; close them with Hierarchy.close"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        resample(method, sparse.csr_array(rows), TREE, 0)


def test_statistics_check_the_targets():
    nothing = Added(np.empty(0, dtype=np.int64), LP_CASE[:0])
    with pytest.raises(ValueError, match="not ancestor-closed"):
        label_statistics(sparse.csr_array(np.array([[0, 0, 0, 0, 1]])), TREE, nothing)


def test_message_of_unknown_copies():
    with pytest.raises(ValueError, match=r"^unknown copies 'part': known are whole, truncated$"):
        hros_pd(PATH_CASE, TREE, rng(), copies="part")
