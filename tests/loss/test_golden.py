"""What the released code computes, on small cases, from our definitions and declared switches."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from scipy import sparse

from rarenodes.datasets.dataset import Dataset
from rarenodes.loss.coherent import RareNodeLoss
from rarenodes.loss.hierarchy import Hierarchy
from rarenodes.loss.uncertainty import uncertainty
from rarenodes.loss.weighting import node_weights, released_counts
from rarenodes.training.variants import VariantSettings, build_loss

VARIANTS = Path(__file__).parents[2] / "variants.yaml"
CASES = json.loads((Path(__file__).parents[1] / "golden" / "released_code_cases.json").read_text())
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

    def dataset(self) -> Dataset:
        """The stored training targets, and as validation part the batch, which is not counted."""
        parts = {"train": self["train_targets"], "valid": self["targets"]}
        targets = torch.cat(list(parts.values())).numpy()
        rows = np.arange(len(targets))
        training = len(parts["train"])
        return Dataset(
            name=self.stored["name"],
            features=np.zeros((len(targets), 1), dtype=np.float32),
            targets=sparse.csr_array(targets.astype(np.uint8)),
            hierarchy=self.hierarchy,
            split={"train": rows[:training], "valid": rows[training:], "test": rows[:0]},
            evaluated=self["evaluated"].bool().numpy(),
            card={},
        )

    def variant(self, **changes) -> VariantSettings:
        """The replica's switches at the stored options."""
        weights = {
            "mode": self.stored["weighting"],
            "orientation": "released",
            "counts": "released",
            "counts_from": "train",
            "floor": self.stored["omega"],
        }
        focal = {
            "uncertainty": self.kind,
            "power": float(self.stored["power"]),
            "floor": self.stored["floor"],
        }
        return VariantSettings(
            about="the released code",
            weights={**weights, **changes} if self.stored["node_weights_used"] else None,
            focal=focal,
            reduction="released",
        )

    def loss(self, **changes) -> RareNodeLoss:
        return build_loss(self.variant(**changes), self.dataset(), ["train", "valid"])


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
    value = case.loss()(torch.logit(probabilities), case["targets"])
    (gradient,) = torch.autograd.grad(value, probabilities)
    torch.testing.assert_close(value.item(), case.stored["loss_sum"], **TOLERANCE)
    torch.testing.assert_close(gradient, case["grad_probs"], **TOLERANCE)


@pytest.mark.parametrize("name", ["classwise", "binary", "focal_bbma", "focal_gmu"])
def test_the_declared_replicas_have_these_switches(name):
    declared = yaml.safe_load(VARIANTS.read_text())["variants"][f"replica_{name}"]
    mode = "binary" if name == "binary" else "class-wise"
    kind = {"focal_bbma": "mean", "focal_gmu": "pcs"}.get(name)
    stored = {**CASES[0], "weighting": mode, "omega": 0.25, "power": 1, "floor": 0.25}
    ours = Case({**stored, "uncertainty": kind or "mean"}).variant()
    found = VariantSettings.model_validate(declared)
    # A floor that is not given is ω = 0.25.
    assert found.weights.model_copy(update={"floor": 0.25}) == ours.weights
    assert found.focal == (ours.focal if kind else None)
    others = {"about", "source", "training", "weights", "focal"}
    assert found.model_dump(exclude=others) == ours.model_dump(exclude=others)


@pytest.mark.parametrize(
    "switch",
    [{"orientation": "paper"}, {"counts": "examples"}, {"counts_from": None}],
    ids=["orientation", "counts", "counts_from"],
)
def test_every_switch_of_the_weights_is_needed(switch):
    logits_of = [(case, torch.logit(case["probs"])) for case in map(Case, CASES)]
    weighted = [(case, z) for case, z in logits_of if case.stored["node_weights_used"]]
    assert len(weighted) == 13
    for case, logits in weighted:
        value = case.loss(**switch)(logits, case["targets"]).item()
        assert value != pytest.approx(case.stored["loss_sum"], rel=1e-4), case.stored["name"]


def test_our_reduction_is_the_stored_sum_over_the_batch_size(case):
    variant = case.variant().model_copy(update={"reduction": "ours"})
    loss = build_loss(variant, case.dataset(), ["train", "valid"])
    found = loss(torch.logit(case["probs"]), case["targets"])
    expected = case.stored["loss_sum"] / len(case["targets"])
    torch.testing.assert_close(found.item(), expected, **TOLERANCE)
