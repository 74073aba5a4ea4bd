"""What every loss refuses of its batch, in the same words on every path."""

import inspect
import re

import pytest
import torch
from conformance import DAG, TARGETS, random_logits
from hypothesis import given
from strategies import batches, descendants

from rarenodes.loss.coherent import Focal, RareNodeLoss, coherent_bce
from rarenodes.loss.elements import ELEMENT_LOSSES, element_loss
from rarenodes.loss.targets import _first_fault_by_tensors, check_batch, check_targets

LOSSES = {
    "coherent_bce": lambda logits, targets: coherent_bce(logits, targets, DAG),
    "compiled": RareNodeLoss(DAG),
    "compiled, plain": RareNodeLoss(DAG, coherent=False),
    "compiled, masked": RareNodeLoss(DAG, evaluated=torch.arange(7) == 0, focal=Focal()),
    "by tensors": RareNodeLoss(DAG, element=element_loss("focal")),
    "reference": RareNodeLoss(DAG).reference,
    "elements": RareNodeLoss(DAG).elements,
}
NOT_0_OR_1 = "targets must be 0 or 1, found {} at example 2, node 'C'"
NOT_CLOSED = (
    "targets must be ancestor-closed, but example 1 has node 'D' without its parent 'B': "
    "hierarchy.close(targets) adds it"
)


def with_value(example: int, node: str, value: float, dtype=torch.float32) -> torch.Tensor:
    targets = TARGETS.to(dtype).clone()
    targets[example, DAG.index[node]] = value
    return targets


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
def test_all_refuse_the_same_in_the_same_words(loss, dtype):
    logits = random_logits(dtype=dtype)
    for value, said in [
        (0.9, 0.9),
        (torch.nan, "nan"),
        (-1.0, -1.0),
        (2.0, 2.0),
        (torch.inf, "inf"),
    ]:
        targets = with_value(2, "C", value, torch.float64)
        with pytest.raises(ValueError, match=f"^{re.escape(NOT_0_OR_1.format(said))}$"):
            loss(logits, targets)
    for as_type in (torch.bool, torch.uint8, torch.int64, torch.float32, torch.float64):
        with pytest.raises(ValueError, match=f"^{re.escape(NOT_CLOSED)}$"):
            loss(logits, with_value(1, "B", 0, as_type))
        assert loss(logits, TARGETS.to(as_type)).isfinite().all()


@pytest.mark.parametrize(
    ("dtype", "value"),
    [(torch.uint8, 2), (torch.int64, 2**32 + 1), (torch.int64, -1), (torch.bfloat16, 0.5)],
)
def test_other_values_of_any_type_are_found(dtype, value):
    with pytest.raises(ValueError, match=r"^targets must be 0 or 1, found .* at example 2, node"):
        check_targets(with_value(2, "C", value, dtype), DAG)


@given(batches())
def test_both_checks_find_the_first_example_that_is_not_closed(batch):
    hierarchy, _, targets = batch
    check_targets(targets, hierarchy)
    assert _first_fault_by_tensors(targets, hierarchy) == -1
    # Any node alone, that has a parent, is not closed.
    below = descendants(hierarchy.nodes, hierarchy.edges)
    alone = next(j for j, name in enumerate(hierarchy.nodes) if name not in hierarchy.roots)
    above = [j for j, d in enumerate(below) if alone in d and j != alone]
    wrong = targets.clone()
    wrong[-1, alone], wrong[-1, above] = 1, 0
    with pytest.raises(ValueError, match=f"but example {len(targets) - 1} has node .* without its"):
        check_targets(wrong, hierarchy)
    assert _first_fault_by_tensors(wrong, hierarchy) == len(targets) - 1


@pytest.mark.parametrize("name", ELEMENT_LOSSES)
def test_element_losses_refuse_what_is_not_0_or_1(name):
    for value, said in [(0.9, "0.9"), (torch.nan, "nan")]:
        targets = with_value(2, "C", value, torch.float64)
        with pytest.raises(ValueError, match=f"^targets must be 0 or 1, found {said}$"):
            element_loss(name)(random_logits(), targets)


# Shapes


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
@pytest.mark.parametrize("shape", [(4, 6), (1, 7), (3, 7), (7,), (3, 4, 7)], ids=str)
def test_targets_that_do_not_fit(loss, shape):
    message = (
        "logits [members, batch, nodes] and targets [batch, nodes] must fit each other and the 7 "
        f"nodes of the hierarchy, found (3, 4, 7) and {shape}"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        loss(random_logits(), torch.zeros(shape))


@pytest.mark.parametrize("method", ["forward", "reference", "elements", None])
def test_logits_without_members_get_a_hint(method):
    # Without the tests' type checker, which would speak first.
    if method is None:
        call, start = inspect.unwrap(coherent_bce), ()
    else:
        call, start = inspect.unwrap(getattr(RareNodeLoss, method)), (RareNodeLoss(DAG),)
    end = (DAG,) if method is None else ()
    message = r"found \(4, 7\) and \(4, 7\); logits\.unsqueeze\(0\) are those of one member$"
    with pytest.raises(ValueError, match=message):
        call(*start, random_logits()[0], TARGETS, *end)


def test_an_empty_batch_and_a_wrong_number_of_nodes():
    with pytest.raises(ValueError, match=r"must fit .*found \(3, 0, 7\) and \(0, 7\)$"):
        check_batch(torch.zeros(3, 0, 7), torch.zeros(0, 7), DAG)
    with pytest.raises(ValueError, match=r"the 7 nodes .*found \(3, 4, 8\) and \(4, 8\)$"):
        check_batch(torch.zeros(3, 4, 8), torch.zeros(4, 8), DAG)
    with pytest.raises(
        ValueError, match=r"^targets must be \[batch, 7 nodes\], found shape \(7,\)$"
    ):
        check_targets(torch.zeros(7), DAG)


def test_while_a_loss_is_traced_the_same_is_refused(monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    check_targets(TARGETS, DAG)
    with pytest.raises(ValueError, match=f"^{re.escape(NOT_CLOSED)}$"):
        check_targets(with_value(1, "B", 0), DAG)
