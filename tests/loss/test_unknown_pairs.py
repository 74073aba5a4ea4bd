"""Losses where of some pairs of an example and a node it is unknown what is true."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from strategies import batches, tree_edges

from rarenodes.datasets.targets import closed_targets, unknown_below
from rarenodes.loss.active_nodes import active_nodes
from rarenodes.loss.coherent import Focal, RareNodeLoss
from rarenodes.loss.conditional import ConditionalLoss, active
from rarenodes.loss.hierarchy import Hierarchy


def known_of(targets, hierarchy):
    """`[batch, nodes]`: all but what labels that stop half-way leave open."""
    unknown = unknown_below(sparse.csr_array(targets.numpy().astype(np.uint8)), hierarchy)
    return torch.from_numpy(unknown.toarray() == 0)


def without(hierarchy, known):
    """The hierarchy of the nodes that one example knows, and their places; None if that is none."""
    names = {hierarchy.nodes[node] for node in known.nonzero().flatten().tolist()}
    edges = [edge for edge in hierarchy.edges if set(edge) <= names]
    if {name for edge in edges for name in edge} != names:
        return None
    try:
        left = Hierarchy(edges)
    except ValueError:  # what is left falls apart
        return None
    return left, hierarchy.indices(left.nodes)


@given(batches(), st.booleans())
def test_is_the_loss_of_the_known_nodes_alone(batch, coherent):
    hierarchy, logits, targets = batch
    known = known_of(targets, hierarchy)
    kind = RareNodeLoss if coherent else ConditionalLoss
    logits = logits.requires_grad_()
    for example in range(len(targets)):
        found = without(hierarchy, known[example])
        if found is None:
            continue
        left, places = found
        rows = slice(example, example + 1)
        loss = kind(hierarchy)(logits[:, rows], targets[rows], known[rows])
        alone = kind(left)(logits[:, rows][..., places], targets[rows][..., places])
        torch.testing.assert_close(loss, alone)
        slopes = [torch.autograd.grad(value, logits)[0] for value in (loss, alone)]
        torch.testing.assert_close(*slopes)
        assert not slopes[0][:, rows][..., ~known[example]].any()


@pytest.mark.parametrize("mixture", [1.0, 0.3, 0.0])
@pytest.mark.parametrize("reduction", ["per example", "sum", "mean"])
@given(batches())
def test_compiled_and_tensor_code_agree(mixture, reduction, batch):
    hierarchy, logits, targets = batch
    known = known_of(targets, hierarchy)
    weights = torch.linspace(0.5, 2, len(hierarchy))
    logits = logits.float().requires_grad_()
    options = {"mixture": mixture, "reduction": reduction}
    loss = RareNodeLoss(hierarchy, weights, focal=Focal("gmu"), **options)
    found, expected = (of(logits, targets, known) for of in (loss, loss.reference))
    torch.testing.assert_close(found, expected)
    slopes = [torch.autograd.grad(value, logits)[0] for value in (found, expected)]
    torch.testing.assert_close(*slopes)
    # And both are the sum of what is known.
    elements = loss.elements(logits, targets)
    by_hand = torch.where(known, elements, 0).sum()
    scale = {"per example": 1 / len(targets), "sum": 1, "mean": 1 / logits.numel()}[reduction]
    torch.testing.assert_close(expected, by_hand * scale)


@given(batches())
def test_no_less_where_everything_is_known(batch):
    hierarchy, logits, targets = batch
    for loss in (
        RareNodeLoss(hierarchy),
        ConditionalLoss(hierarchy),
        ConditionalLoss(hierarchy, objective="unconditional"),
    ):
        known = torch.ones(targets.shape, dtype=torch.bool)
        assert torch.equal(loss(logits, targets, known), loss(logits, targets))


@given(st.data(), tree_edges())
def test_the_unconditional_loss_leaves_out_elements(data, edges):
    hierarchy = Hierarchy(edges)
    name = data.draw(st.sampled_from(hierarchy.nodes))
    targets = torch.tensor(closed_targets([[name]], hierarchy).toarray()).float()
    known = known_of(targets, hierarchy)
    logits = torch.linspace(-2, 2, len(hierarchy))[None, None]
    loss = ConditionalLoss(hierarchy, objective="unconditional")
    expected = loss.elements(logits, targets)[..., known[0]].sum()
    torch.testing.assert_close(loss(logits, targets, known), expected)
    torch.testing.assert_close(loss.reference(logits, targets, known), expected)


@given(batches())
def test_sparse_active_nodes_leave_out_the_same(batch):
    hierarchy, _, targets = batch
    table = sparse.csr_array(targets.numpy().astype(np.uint8))
    found = active_nodes(table, hierarchy).without(unknown_below(table, hierarchy))
    expected = (active(targets, hierarchy) & known_of(targets, hierarchy)).nonzero()
    assert list(zip(found.examples().tolist(), found.nodes.tolist(), strict=True)) == [
        tuple(pair) for pair in expected.tolist()
    ]


HIERARCHY = Hierarchy([("b", "a"), ("c", "b")])


@pytest.mark.parametrize("kind", [RareNodeLoss, ConditionalLoss])
@pytest.mark.parametrize(
    ("known", "problem"),
    [
        (torch.tensor([[True, False, True]]), "found 1 at example 0, node 'b'"),
        (torch.tensor([[True, True]]), r"bool of shape \(1, 3\)"),
        (torch.ones(1, 3), "found torch.float32"),
    ],
)
def test_what_cannot_be_is_refused(kind, known, problem):
    logits, targets = torch.zeros(1, 1, 3), torch.tensor([[1.0, 1.0, 0.0]])
    with pytest.raises(ValueError, match=problem):
        kind(HIERARCHY)(logits, targets, known)
