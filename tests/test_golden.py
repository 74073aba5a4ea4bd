"""What the released code computes, on small cases, from our definitions and the replica's switches."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from rarenodes.hierarchy import Hierarchy
from rarenodes.losses import Focal, RareNodeLoss
from rarenodes.uncertainty import uncertainty
from rarenodes.weighting import node_weights, released_counts

CASES = json.loads((Path(__file__).parent / "golden" / "released_code_cases.json").read_text())
OUR_NAME = {
    "mean": "bbma",
    "predictive": "entropy",
    "aleatoric": "aleatoric",
    "epistemic": "jsd",
    "epistemic_kl": "kl",
    "pcs": "gmu",
}
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


class Case:
    """A stored case, with its nodes brought into our order."""

    def __init__(self, stored: dict):
        self.stored = stored
        self.hierarchy = Hierarchy(stored["edges"])
        position = {name: i for i, name in enumerate(stored["nodes"])}
        self.order = [position[name] for name in self.hierarchy.nodes]

    def __getitem__(self, key: str) -> torch.Tensor:
        values = np.array(self.stored[key])
        return torch.tensor(values[..., self.order])

    @property
    def kind(self) -> str:
        return OUR_NAME[self.stored["uncertainty"]]

    def weights(self) -> torch.Tensor:
        counts = released_counts(self["train_targets"], self.hierarchy)
        examples = len(self.stored["train_targets"])
        return node_weights(counts, examples, self.stored["weighting"], self.stored["omega"])

    def loss(self) -> RareNodeLoss:
        focal = Focal(self.kind, float(self.stored["power"]), self.stored["floor"])
        # The released orientation: rare-node weights fall on negatives.
        weights = self.weights() if self.stored["node_weights_used"] else None
        return RareNodeLoss(
            self.hierarchy,
            negative_weight=weights,
            focal=focal,
            evaluated=self["evaluated"].bool(),
        )


@pytest.fixture(params=CASES, ids=lambda case: case["name"])
def case(request) -> Case:
    return Case(request.param)


def test_there_are_fourteen_cases():
    assert len(CASES) == 14


def test_constrained_probabilities(case):
    constrained = case.hierarchy.max_over_descendants(case["probs"])
    torch.testing.assert_close(constrained, case["constrained"], **TOLERANCE)
    torch.testing.assert_close(constrained.mean(dim=0), case["mean_constrained"], **TOLERANCE)


def test_uncertainty(case):
    found = uncertainty(case["probs"], case.kind)
    torch.testing.assert_close(found, case["uncertainty_values"], **TOLERANCE)


def test_counts(case):
    targets = case["train_targets"]
    torch.testing.assert_close(targets.sum(dim=0), case["counts_examples"])
    torch.testing.assert_close(released_counts(targets, case.hierarchy), case["counts_released"])


def test_node_weights(case):
    torch.testing.assert_close(case.weights(), case["weights_row0"], **TOLERANCE)


def test_loss_and_gradient(case):
    probabilities = case["probs"].requires_grad_()
    loss = case.loss()
    elements = loss.elements(torch.logit(probabilities), case["targets"])
    # The released reduction is a sum; ours averages over the batch.
    total = elements[..., loss.evaluated].sum()
    (gradient,) = torch.autograd.grad(total, probabilities)
    torch.testing.assert_close(total.item(), case.stored["loss_sum"], **TOLERANCE)
    torch.testing.assert_close(gradient, case["grad_probs"], **TOLERANCE)


def test_reduction_is_the_stored_sum_over_the_batch_size(case):
    logits = torch.logit(case["probs"])
    found = case.loss()(logits, case["targets"])
    expected = case.stored["loss_sum"] / len(case["targets"])
    torch.testing.assert_close(found.item(), expected, **TOLERANCE)
