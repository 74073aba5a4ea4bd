import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import sparse
from strategies import hierarchies

from rarenodes.loss.hierarchy import Hierarchy
from rarenodes.settings import SettingsError
from rarenodes.training.committee import (
    CommitteeSettings,
    choose_weights,
    combine,
    members_first,
    pairwise_diversity,
    traces_of,
    weights_without,
)

# Order of nodes: r, a, b.
CHAIN = Hierarchy([("a", "r"), ("b", "a")])
FORK = Hierarchy([("a", "r"), ("b", "r")])


# Settings


def committee(*members):
    return CommitteeSettings(members=list(members))


def test_defaults_are_the_geometric_mean_with_weights_from_validation():
    settings = committee("x", "y")
    assert (settings.mean, settings.weights) == ("geometric", "validation")


def test_a_member_given_twice():
    with pytest.raises(ValidationError, match="members: each once, found 'x' again"):
        committee("x", "y", "x")


@pytest.mark.parametrize(
    "values",
    [
        {"members": ["x"]},
        {"members": ["x", "y"], "mean": "harmonic"},
        {"members": ["x", "y"], "weights": "guessed"},
    ],
)
def test_settings_out_of_range(values):
    with pytest.raises(ValidationError, match=list(values)[-1]):
        CommitteeSettings(**values)


def test_committees_come_after_their_members():
    found = members_first(
        {"top": committee("low", "x"), "low": committee("x", "y")}, ["x", "y", "low", "top"], "file"
    )
    assert found == ["low", "top"]


def test_a_member_that_is_no_variant():
    with pytest.raises(
        SettingsError,
        match=r"^file: variants\.c\.committee\.members: unknown variant 'forst'; did you mean 'forest'\?$",
    ):
        members_first({"c": committee("forest", "forst")}, ["c", "forest", "mcm"], "file")


def test_committees_that_are_members_of_each_other():
    committees = {"c": committee("d", "x"), "d": committee("c", "x")}
    with pytest.raises(
        SettingsError, match=r"found ('c' → 'd' → 'c'|'d' → 'c' → 'd') .*remove one"
    ) as error:
        members_first(committees, ["c", "d", "x"], "file")
    assert "\n" not in str(error.value)


def test_a_committee_of_itself():
    with pytest.raises(SettingsError, match="'c' → 'c'"):
        members_first({"c": committee("c", "x")}, ["c", "x"], "file")


# Combining


def test_arithmetic_mean_by_hand():
    first, second = np.array([[1.0, 0.5, 0.25]]), np.array([[0.5, 0.5, 0.0]])
    found = combine([first, second], np.array([0.25, 0.75]), "arithmetic", CHAIN)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [[0.625, 0.5, 0.0625]])


def test_geometric_mean_by_hand():
    first, second = np.array([[1.0, 0.5, 0.25]]), np.array([[1.0, 0.125, 0.0]])
    traces = np.array([[0, 0, 0], [0.1, 0.125, 0.01]])
    found = combine([first, second], np.array([0.5, 0.5]), "geometric", CHAIN, traces=traces)
    # The root's √1.1 is held at 1.
    np.testing.assert_allclose(found, [[1, math.sqrt(0.5 * 0.25), 0.05]], rtol=1e-6)


def test_a_zero_without_trace_vetoes_and_a_member_without_weight_does_not():
    first, second = np.array([[1.0, 0.5, 0.5]]), np.array([[1.0, 0.5, 0.0]])
    equal = combine([first, second], np.array([0.5, 0.5]), "geometric", CHAIN)
    assert equal[0, 2] < 1e-5
    alone = combine([first, second], np.array([1.0, 0.0]), "geometric", CHAIN)
    np.testing.assert_allclose(alone, first, rtol=1e-6)


def test_traces_by_hand():
    found = traces_of(np.array([1.0, 0.1, 0.0]), [False, True])
    np.testing.assert_allclose(found, [[0, 0, 0], [0.0201, 0.0021, 0.0001]])


def test_weights_by_node_are_made_coherent_by_raising_parents():
    first, second = np.array([[1.0, 0.2, 0.1]]), np.array([[1.0, 0.8, 0.6]])
    weights = np.array([[0.5, 1.0, 0.0], [0.5, 0.0, 1.0]])
    # a takes 0.2 of the first, b 0.6 of the second, and a is raised to it.
    np.testing.assert_allclose(
        combine([first, second], weights, "arithmetic", CHAIN), [[1, 0.6, 0.6]]
    )


def test_columns_of_evaluated_nodes_alone():
    # Between the evaluated r and b lies a, which is not.
    first, second = np.array([[0.3, 0.1]]), np.array([[0.4, 0.9]])
    weights = np.array([[1.0, 0.0], [0.0, 1.0]])
    evaluated = np.array([True, False, True])
    found = combine([first, second], weights, "arithmetic", CHAIN, evaluated)
    np.testing.assert_allclose(found, [[0.9, 0.9]])


@given(
    hierarchies(),
    st.sampled_from(["geometric", "arithmetic"]),
    st.booleans(),
    st.integers(0, 20),
)
def test_means_of_coherent_members_are_the_formulas_and_coherent(hierarchy, how, by_node, seed):
    rng = np.random.default_rng(seed)
    raw = torch.from_numpy(rng.random((3, 4, len(hierarchy))))
    members = list(hierarchy.max_over_descendants(raw).numpy())
    frequency = members[0].mean(axis=0)
    traces = traces_of(frequency, [False, True, True])
    shape = (3, len(hierarchy)) if by_node else (3,)
    weights = rng.random(shape)
    weights /= weights.sum(axis=0)
    found = combine(members, weights, how, hierarchy, traces=traces)
    assert hierarchy.is_coherent(torch.from_numpy(found))
    by_member = np.broadcast_to(weights.reshape(3, 1, -1), (3, 1, len(hierarchy)))
    if how == "arithmetic":
        expected = (by_member * members).sum(axis=0)
    else:
        expected = np.minimum(((members + traces[:, None]) ** by_member).prod(axis=0), 1)
    if by_node:
        expected = np.stack(
            [expected[:, hierarchy.descendants(n)].max(axis=1) for n in range(len(hierarchy))], 1
        )
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_blocks_of_examples_change_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    members = [np.sort(rng.random((5, 3)), axis=1)[:, ::-1] for _ in range(2)]
    whole = combine(members, np.array([0.3, 0.7]), "geometric", CHAIN)
    monkeypatch.setattr("rarenodes.training.committee.BLOCK", 6)
    np.testing.assert_array_equal(combine(members, np.array([0.3, 0.7]), "geometric", CHAIN), whole)


ONE = np.zeros((2, 3))


@pytest.mark.parametrize(
    ("members", "weights", "how", "message"),
    [
        ([ONE, ONE[:1]], [0.5, 0.5], "geometric", "one shape for all"),
        ([ONE, ONE], [0.5, 0.6], "geometric", "sum to 1"),
        ([ONE, ONE], [1.5, -0.5], "geometric", "negative"),
        ([ONE, ONE], [1.0], "geometric", r"weights have shape \(1,\), expected \(2,\) or \(2, 3\)"),
        ([ONE, ONE], [0.5, 0.5], "harmonic", "unknown mean 'harmonic'"),
        ([ONE[:, :2]] * 2, [0.5, 0.5], "geometric", "2 nodes, expected the 3 evaluated of 3"),
    ],
)
def test_what_does_not_fit_is_refused(members, weights, how, message):
    with pytest.raises(ValueError, match=message):
        combine(members, np.array(weights), how, CHAIN)


# Weights


def made(examples=300, nodes=40, seed=0):
    """Targets of nodes of one to thirty positives, and their signal."""
    rng = np.random.default_rng(seed)
    targets = np.zeros((examples, nodes), dtype=np.uint8)
    for node in range(nodes):
        targets[rng.choice(examples, rng.integers(1, 30), replace=False), node] = 1
    return rng, targets


def noisy(rng, targets, strength):
    return 1 / (1 + np.exp(2 - strength * targets - rng.normal(size=targets.shape)))


COMMON = np.full(40, 20)


def test_equal_weights_need_no_targets_to_decide():
    found = choose_weights([ONE] * 4, np.zeros((2, 3)), "equal", "geometric", np.ones(3, int))
    assert found.tolist() == [0.25] * 4


@pytest.mark.parametrize("how", ["geometric", "arithmetic"])
@pytest.mark.parametrize("weighting", ["validation", "rarity"])
@pytest.mark.parametrize("seed", range(3))
def test_a_member_without_signal_gets_no_weight(how, weighting, seed):
    rng, targets = made(seed=seed)
    members = [noisy(rng, targets, 2.0), noisy(rng, targets, 0.0), noisy(rng, targets, 2.0)]
    weights = choose_weights(members, targets, weighting, how, COMMON)
    assert (weights[1] == 0).all()
    assert (weights[[0, 2]] > 0.2).all()
    np.testing.assert_allclose(weights.sum(axis=0), 1)


def test_the_order_of_members_does_not_matter():
    rng, targets = made()
    members = [noisy(rng, targets, strength) for strength in (1.0, 2.0, 1.5)]
    found = choose_weights(members, targets, "validation", "geometric", COMMON)
    turned = choose_weights(members[::-1], targets, "validation", "geometric", COMMON)
    np.testing.assert_allclose(turned, found[::-1])


def test_weights_stay_equal_where_nothing_speaks_for_others():
    rng, targets = made()
    member = noisy(rng, targets, 2.0)
    weights = choose_weights([member, member], targets, "validation", "geometric", COMMON)
    assert weights.tolist() == [0.5, 0.5]


def test_a_better_member_gets_more_seats():
    rng, targets = made(examples=600, nodes=60)
    members = [noisy(rng, targets, 3.0), noisy(rng, targets, 2.2)]
    weights = choose_weights(members, targets, "validation", "geometric", np.full(60, 20))
    assert 0.55 < weights[0] < 1
    assert weights[1] > 0


def test_a_perfect_member_decides_alone_beside_noise():
    rng, targets = made()
    members = [noisy(rng, targets, 0.0), 0.1 + 0.8 * targets, noisy(rng, targets, 0.0)]
    weights = choose_weights(members, targets, "validation", "geometric", COMMON)
    assert weights.tolist() == [0, 1, 0]


def test_sparse_targets():
    rng, targets = made()
    members = [noisy(rng, targets, 2.0), noisy(rng, targets, 1.0)]
    dense = choose_weights(members, targets, "validation", "arithmetic", COMMON)
    found = choose_weights(members, sparse.csr_array(targets), "validation", "arithmetic", COMMON)
    np.testing.assert_array_equal(found, dense)


def test_each_bin_takes_the_member_that_knows_its_nodes():
    rng, targets = made(nodes=60)
    rare = np.arange(60) < 30
    signal, nothing = noisy(rng, targets, 5.0), noisy(rng, targets, 0.0)
    first, second = np.where(rare, signal, nothing), np.where(rare, nothing, signal)
    counts = np.where(rare, 3, 20)
    of_all = choose_weights([first, second], targets, "validation", "arithmetic", counts)
    weights = choose_weights([first, second], targets, "rarity", "arithmetic", counts)
    # Alone, each bin would give all to its own member; s / (s + 100) of that counts.
    for nodes, own in ((rare, [1, 0]), (~rare, [0, 1])):
        positives = targets[:, nodes].sum()
        share = positives / (positives + 100)
        expected = share * np.array(own) + (1 - share) * of_all
        np.testing.assert_allclose(weights[:, nodes], np.repeat(expected[:, None], nodes.sum(), 1))


def test_a_bin_without_validation_positives_takes_the_weights_of_all():
    rng, targets = made()
    targets[:, 0] = 0
    counts = np.where(np.arange(40) == 0, 0, 20)
    members = [noisy(rng, targets, 2.0), noisy(rng, targets, 1.0)]
    of_all = choose_weights(members, targets, "validation", "arithmetic", counts)
    weights = choose_weights(members, targets, "rarity", "arithmetic", counts)
    np.testing.assert_array_equal(weights[:, 0], of_all)


def test_without_validation_positives_nothing_can_be_decided():
    with pytest.raises(ValueError, match="no node has a validation positive"):
        choose_weights([ONE, ONE], np.zeros((2, 3)), "validation", "geometric", np.ones(3, int))


def test_unknown_weights():
    with pytest.raises(ValueError, match="unknown weights 'guessed'"):
        choose_weights([ONE, ONE], np.zeros((2, 3)), "guessed", "geometric", np.ones(3, int))


# Why it works

TARGETS = np.array([[1, 1], [1, 0], [0, 0], [0, 0]])
FIRST = np.array([[0.9, 0.9], [0.8, 0.1], [0.2, 0.5], [0.1, 0.3]])
SECOND = np.array([[0.1, 0.9], [0.9, 0.9], [0.8, 0.2], [0.2, 0.1]])


def test_pairs_by_hand():
    table = pairwise_diversity({"first": FIRST, "second": SECOND}, TARGETS)
    (row,) = table.to_dict("records")
    assert (row["first"], row["second"], row["nodes"]) == ("first", "second", 2)
    # Node 0 has two positives: the first member's best two are both; the second's best two hold
    # one. Node 1 has one: the second member ties two examples for one place.
    assert [row[k] for k in ("both", "first_only", "second_only", "neither")] == [1, 2, 0, 0]
    # Spearman: node 0 ranks (4, 3, 2, 1) and (1, 4, 3, 2); node 1 (4, 1, 3, 2) and
    # (3.5, 3.5, 2, 1).
    node_0 = 1 - 6 * (9 + 1 + 1 + 1) / (4 * 15)
    node_1 = (1.5 * 1 + -1.5 * 1 + 0.5 * -0.5 + -0.5 * -1.5) / math.sqrt(5 * 4.5)
    assert row["rank_correlation"] == pytest.approx((node_0 + node_1) / 2)
    # Average precisions are 1 and 1 for the first member, which do not vary.
    assert math.isnan(row["precision_correlation"])


def test_pairs_on_some_nodes_and_a_member_that_tells_nothing():
    flat = np.full_like(FIRST, 0.5)
    table = pairwise_diversity({"first": FIRST, "flat": flat}, TARGETS, np.array([True, False]))
    (row,) = table.to_dict("records")
    assert (row["nodes"], row["both"], row["first_only"], row["neither"]) == (1, 0, 2, 0)
    assert row["rank_correlation"] == 0


def test_precisions_that_rise_and_fall_together():
    rng, targets = made()
    easy = np.arange(40) < 20
    members = {
        name: np.where(easy, noisy(rng, targets, 6.0), noisy(rng, targets, 0.0)) for name in "xy"
    }
    (row,) = pairwise_diversity(members, targets).to_dict("records")
    assert row["precision_correlation"] > 0.8
    assert len(pairwise_diversity({**members, "z": members["x"]}, targets)) == 3


def test_the_others_keep_their_proportions():
    np.testing.assert_allclose(weights_without(np.array([0.5, 0.3, 0.2]), 0), [0.6, 0.4])
    np.testing.assert_allclose(weights_without(np.array([0.5, 0.3, 0.2]), 2), [0.625, 0.375])
    # Without the only member that counts the others count alike: here at the second node alone.
    by_node = np.array([[0.5, 1.0], [0.5, 0.0], [0.0, 0.0]])
    np.testing.assert_allclose(weights_without(by_node, 0), [[1.0, 0.5], [0.0, 0.5]])
