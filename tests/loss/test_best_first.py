"""What the search finds is what the full scores say."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import hierarchies, random_dag
from torch import Tensor

from rarenodes.loss.best_first import likeliest
from rarenodes.loss.hierarchy import Hierarchy
from rarenodes.loss.output import Output

WIDTH = 4
# root, A, B, C (of A and B), D (of C).
DIAMOND = Hierarchy([("A", "root"), ("B", "root"), ("C", "A"), ("C", "B"), ("D", "C")])


def of_biases(probabilities: list[float]) -> Tensor:
    """A layer of one member that gives every example these probabilities given the parents."""
    weight = torch.zeros(1, len(probabilities), WIDTH + 1)
    weight[0, :, -1] = torch.logit(torch.tensor(probabilities))
    return weight


def full_scores(hidden: Tensor, weight: Tensor, hierarchy: Hierarchy, constant=None) -> Tensor:
    """`[examples, nodes]` by the definition that predictions of all nodes have, in double precision."""
    logits = hidden.double() @ weight[..., :-1].double().mT + weight[..., -1].double().unsqueeze(1)
    return Output("product", constant).probabilities(logits, hierarchy).mean(dim=0)


def random_layer(hierarchy, members, examples, seed) -> tuple[Tensor, Tensor]:
    stream = torch.Generator().manual_seed(seed)
    hidden = torch.randn(members, examples, WIDTH, generator=stream)
    return hidden, torch.randn(members, len(hierarchy), WIDTH + 1, generator=stream)


def test_the_diamond_by_hand():
    # Given their parents: root .8, A .5, B .25, C .5, D .9.
    weight = of_biases([0.8, 0.5, 0.25, 0.5, 0.9])
    found = likeliest(torch.zeros(1, 1, WIDTH), weight, DIAMOND)
    # C is half of its least likely parent, B.
    assert found.nodes.tolist() == [0, 1, 2, 3, 4]
    assert found.probabilities == pytest.approx([0.8, 0.4, 0.2, 0.1, 0.09], rel=1e-6)
    best = likeliest(torch.zeros(1, 1, WIDTH), weight, DIAMOND, most=3, above=0.3)
    assert best.nodes.tolist() == [0, 1]


@settings(deadline=None)
@given(hierarchies(), st.integers(1, 3), st.integers(1, 14), st.integers(0, 1000))
def test_the_likeliest_are_those_of_the_full_scores(hierarchy, members, most, seed):
    hidden, weight = random_layer(hierarchy, members, 3, seed)
    found = likeliest(hidden, weight, hierarchy, most=most)
    scores = full_scores(hidden, weight, hierarchy)
    expected = scores.sort(dim=1, descending=True).values[:, :most].numpy()
    for b in range(3):
        nodes, probabilities = found.of(b)
        assert len(set(nodes.tolist())) == len(nodes) == min(most, len(hierarchy))
        np.testing.assert_allclose(probabilities, expected[b], rtol=1e-5)
        np.testing.assert_allclose(scores[b, nodes.astype(int)].numpy(), expected[b], rtol=1e-5)


@settings(deadline=None)
@given(hierarchies(), st.integers(1, 3), st.floats(0.01, 0.9), st.integers(0, 1000))
def test_all_above_a_probability_are_found(hierarchy, members, above, seed):
    hidden, weight = random_layer(hierarchy, members, 3, seed)
    found = likeliest(hidden, weight, hierarchy, above=above)
    scores = full_scores(hidden, weight, hierarchy)
    for b in range(3):
        nodes, probabilities = found.of(b)
        inside = set(nodes.tolist())
        # Rounding may decide what lies on the edge.
        assert inside >= set((scores[b] > above + 1e-5).nonzero().flatten().tolist())
        assert inside <= set((scores[b] > above - 1e-5).nonzero().flatten().tolist())
        assert (np.diff(probabilities) <= 0).all()


def test_constants_stand_in_for_the_layer_and_passed_nodes_are_not_found():
    constant = torch.tensor([torch.nan, torch.nan, torch.nan, 0.9, 0.01])
    hidden, weight = random_layer(DIAMOND, 2, 4, 5)
    counted = torch.tensor([False, True, True, True, True])
    found = likeliest(hidden, weight, DIAMOND, constant=constant, counted=counted)
    scores = full_scores(hidden, weight, DIAMOND, constant)
    for b in range(4):
        nodes, probabilities = found.of(b)
        assert sorted(nodes.tolist()) == [1, 2, 3, 4]
        np.testing.assert_allclose(probabilities, scores[b, nodes.astype(int)].numpy(), rtol=1e-5)
    best = likeliest(hidden, weight, DIAMOND, most=1, counted=counted)
    assert len(best.nodes) == 4
    assert 0 not in best.nodes


def test_threads_and_batches_change_nothing():
    hierarchy = Hierarchy(random_dag(300, 450, seed=1))
    hidden, weight = random_layer(hierarchy, 2, 7, 2)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        whole = likeliest(hidden, weight, hierarchy, most=100)
        torch.set_num_threads(2)
        parts = likeliest(hidden, weight, hierarchy, most=100)
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_array_equal(whole.nodes, parts.nodes)
    np.testing.assert_array_equal(whole.probabilities, parts.probabilities)
    for b in range(7):
        alone = likeliest(hidden[:, b : b + 1], weight, hierarchy, most=100)
        np.testing.assert_array_equal(alone.nodes, whole.of(b)[0])


def test_an_ancestor_comes_first_among_equally_likely_nodes():
    chain = Hierarchy([("A", "root"), ("B", "A")])
    weight = of_biases([0.5, 0.5, 0.5])
    weight[0, 1:, -1] = 1000.0  # certain, given the parent
    found = likeliest(torch.zeros(1, 1, WIDTH), weight, chain, most=2)
    assert found.nodes.tolist() == [0, 1]
    assert found.probabilities.tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"most": 0}, "most must be at least 1"),
        ({"above": 1.0}, "above must be at least 0 and below 1, found 1.0"),
        ({"constant": torch.ones(3)}, r"constant must have shape \(5,\), found \(3,\)"),
        ({"counted": torch.ones(3, dtype=torch.bool)}, r"counted must have shape \(5,\)"),
        ({"weight": torch.zeros(1, 4, WIDTH + 1)}, r"found \(1, 2, 4\).*and \(1, 4, 5\)"),
        ({"hidden": torch.zeros(1, 2, WIDTH).double()}, "torch.float64 and"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    given = {"hidden": torch.zeros(1, 2, WIDTH), "weight": torch.zeros(1, 5, WIDTH + 1)} | change
    with pytest.raises(ValueError, match=message):
        likeliest(given.pop("hidden"), given.pop("weight"), DIAMOND, **given)
