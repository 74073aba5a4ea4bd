"""The released code's training step, written anew from its definition, against ours.

The reference has none of the library's shortcuts: one network after the other, the constraint on
probabilities through a dense `[batch, nodes, nodes]` expansion in double precision, plain Adam.
"""

import os
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from strategies import descendants
from torch import Tensor

from rarenodes.datasets import load_dataset
from rarenodes.datasets.dataset import Dataset
from rarenodes.training.loop import Budget, Streams, _Run
from rarenodes.training.variants import VariantSettings, build_loss

REPOSITORY = Path(__file__).parents[2]
DATA = Path(os.environ.get("HMC_DATA_DIR", REPOSITORY.parent / "shared" / "hmc"))
ENTRIES = yaml.safe_load((REPOSITORY / "variants.yaml").read_text())["variants"]
REPLICAS = [name for name in ENTRIES if name.startswith("replica_")]
MEMBERS, LEARNING_RATE, WEIGHT_DECAY = 3, 1e-4, 1e-5
STREAMS = Streams(7, "a data set", "replica", 0)


# The reference


def node_weights(dataset: Dataset, mode: str) -> Tensor:
    """Class-wise or binary weights from the training part's doubly counted frequencies."""
    targets = dataset.targets[dataset.split["train"]].toarray().astype(float)
    counts = targets.sum(axis=0)
    for node, below in enumerate(descendants(dataset.hierarchy.nodes, dataset.hierarchy.edges)):
        counts[node] = counts[sorted(below)].sum()
    classes = len(counts) if mode == "class-wise" else 2
    raw = np.ones(len(counts))
    some = (counts > 0) & (counts != len(targets))
    raw[some] = len(targets) / (classes * counts[some])
    low, high = raw.min(), raw.max()
    return torch.from_numpy(0.25 + high * (raw - low) / (high - low))


def bbma(p: Tensor) -> Tensor:
    return 1 - (2 * p.mean(dim=0) - 1).abs()


def gmu(p: Tensor) -> Tensor:
    margin = (2 * p.mean(dim=0) - 1).abs()
    spread = sum((a - b) ** 2 for a, b in combinations(p, 2)) / len(p) / (len(p) - 1)
    return 1 - (1 - torch.exp(-margin / (2 * spread.sqrt()))) * margin


class Reference:
    """Networks, loss and optimiser of one run.

    Args:
        dataset: its hierarchy, training part and evaluated nodes are used.
        layers: of each member, weight and bias of every layer.
        entry: of the variant: the mode and the schedule of its node weights, its focal term, and
            the share of its weighted loss are used.

    """

    def __init__(
        self,
        dataset: Dataset,
        layers: Sequence[Sequence[tuple[Tensor, Tensor]]],
        entry: dict,
    ):
        nodes = len(dataset.hierarchy)
        below = descendants(dataset.hierarchy.nodes, dataset.hierarchy.edges)
        self.matrix = torch.zeros(nodes, nodes, dtype=torch.float64)
        for node, found in enumerate(below):
            self.matrix[node, sorted(found)] = 1
        self.evaluated = torch.from_numpy(dataset.evaluated)
        self.layers = [
            [(w.double().requires_grad_(), b.double().requires_grad_()) for w, b in member]
            for member in layers
        ]
        weights = entry.get("weights")
        # The rare-node weight falls on negatives.
        self.weights = None
        if weights is not None:
            negative = node_weights(dataset, weights["mode"])
            self.weights = torch.stack([negative, torch.ones_like(negative)])
        self.annealed = (weights or {}).get("schedule", {}).get("kind")
        self.uncertainty = {"bbma": bbma, "gmu": gmu}.get(entry.get("focal", {}).get("uncertainty"))
        self.mixture = entry.get("mixture", 1.0)
        self.adam = torch.optim.Adam(
            self.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, foreach=False
        )

    def parameters(self) -> list[Tensor]:
        """Weight and bias of each layer of each member."""
        return [tensor for member in self.layers for layer in member for tensor in layer]

    def weights_at(self, done: int, steps: int) -> Tensor:
        """Weights of negatives and of positives after so many of an epoch's steps."""
        t = done / (steps - 1) if steps > 1 else 0.0
        way = {
            None: 0.0,
            "linear": t,
            "exponential": t**3,
            "alternating": float(done % 2 == 1),
        }[self.annealed]
        return self.weights + (0.25 - self.weights) * way

    def loss(
        self, inputs: Tensor, targets: Tensor, masks: list[list[Tensor]], done: int, steps: int
    ) -> Tensor:
        """Over members, examples and evaluated nodes: the sum with a focal term, or else the mean."""
        p = torch.stack(
            [self.member(m, inputs, masks[m]) for m in range(len(self.layers))]
        )  # [members, batch, nodes]
        output = torch.stack([self.constrained(member, targets) for member in p])
        elements = -(targets * output.log() + (1 - targets) * (1 - output).log())
        weighted = elements
        if self.weights is not None:
            negative, positive = self.weights_at(done, steps)
            weighted = elements * torch.where(targets == 1, positive, negative)
        if self.uncertainty is not None:
            return (weighted * (0.25 + self.uncertainty(p.detach())))[..., self.evaluated].sum()
        means = [loss[..., self.evaluated].mean() for loss in (weighted, elements)]
        return self.mixture * means[0] + (1 - self.mixture) * means[1]

    def member(self, m: int, inputs: Tensor, masks: list[Tensor]) -> Tensor:
        """Probabilities `[batch, nodes]` of a network whose hidden units are masked."""
        hidden = inputs
        for (weight, bias), mask in zip(self.layers[m][:-1], masks, strict=True):
            hidden = torch.relu(hidden @ weight + bias) * mask
        weight, bias = self.layers[m][-1]
        return torch.sigmoid(hidden @ weight + bias)

    def constrained(self, p: Tensor, targets: Tensor) -> Tensor:
        """What the loss takes for each node's probability, `[batch, nodes]`."""
        expanded = self.matrix.expand(len(p), -1, -1)
        of_all = (expanded * p.unsqueeze(1)).amax(dim=2)
        of_positives = (expanded * (targets * p).unsqueeze(1)).amax(dim=2)
        return (1 - targets) * of_all + targets * of_positives

    def step(
        self, inputs: Tensor, targets: Tensor, masks: list[list[Tensor]], done: int, steps: int
    ) -> Tensor:
        """One step of Adam after so many of an epoch's; the loss before it."""
        loss = self.loss(inputs.double(), targets.double(), masks, done, steps)
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()
        return loss.detach()


# Ours


def budget(hidden: int, dropout: float) -> Budget:
    return Budget(
        epochs=1,
        batch_size=4,
        learning_rate=LEARNING_RATE,
        weight_decay=WEIGHT_DECAY,
        hidden=hidden,
        layers=2,
        dropout=dropout,
        members=MEMBERS,
        fit_on=["train", "valid"],
        device="cpu",
    )


def start(dataset: Dataset, name: str, budget: Budget, dtype=torch.float32) -> _Run:
    """The project's own training at its first step, of a declared variant."""
    loss = build_loss(VariantSettings.model_validate(ENTRIES[name]), dataset, budget.fit_on)
    run = _Run.start(dataset, loss, budget, STREAMS, torch.from_numpy(dataset.features).to(dtype))
    run.ensemble.to(dtype)
    return run


def reference_of(run: _Run, name: str) -> Reference:
    """The reference with the weights that the run starts from."""
    layers = [
        [
            (weight[m].detach().clone(), bias[m, 0].detach().clone())
            for weight, bias in zip(run.ensemble.weights, run.ensemble.biases, strict=True)
        ]
        for m in range(MEMBERS)
    ]
    return Reference(run.dataset, layers, ENTRIES[name])


def parameters(run: _Run) -> list[Tensor]:
    """In the reference's order."""
    return [
        tensor.detach()
        for m in range(MEMBERS)
        for weight, bias in zip(run.ensemble.weights, run.ensemble.biases, strict=True)
        for tensor in (weight[m], bias[m, 0])
    ]


def masks_of(budget: Budget, steps: int, dtype) -> list[list[list[Tensor]]]:
    """The dropout that the streams give, `[steps][members][layers]`, each `[batch, hidden]`."""
    streams, keep = STREAMS.dropout(MEMBERS, 0, "cpu"), 1 - budget.dropout
    like = torch.empty(budget.batch_size, budget.hidden, dtype=dtype)
    drawn = []
    for _ in range(steps):
        by_layer = [
            [like.bernoulli(keep, generator=stream) / keep for stream in streams]
            for _ in range(budget.layers)
        ]
        drawn.append([[layer[m].double() for layer in by_layer] for m in range(MEMBERS)])
    return drawn


def train_both(
    dataset: Dataset,
    name: str,
    steps: int,
    *,
    dtype=torch.float32,
    hidden: int = 20,
    dropout: float = 0.7,
    against: str | None = None,
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """First parameters, ours after some steps, and the reference's after the same steps.

    Args:
        dataset: the examples.
        name: the variant.
        steps: batches.
        dtype: in which ours are trained.
        hidden: units.
        dropout: share of them that is dropped.
        against: the variant that the reference is of; the same if None.

    """
    of_run = budget(hidden, dropout)
    run = start(dataset, name, of_run, dtype)
    reference = reference_of(run, against or name)
    first = [tensor.clone() for tensor in parameters(run)]
    rows = np.concatenate([dataset.split["train"], dataset.split["valid"]])
    order = STREAMS.order(rows, 0)[: of_run.batch_size * steps]
    losses = run.train_epoch(0, order)
    masks = masks_of(of_run, steps, dtype)
    for step, batch in enumerate(order.reshape(steps, of_run.batch_size)):
        inputs = torch.from_numpy(dataset.features[batch])
        targets = torch.from_numpy(dataset.targets[batch].toarray())
        loss = reference.step(inputs, targets, masks[step], step, steps)
        # Node weights are held in single precision in either case.
        tolerance = 1e-7 if dtype == torch.float64 else 1e-5
        assert losses[step].item() == pytest.approx(loss.item(), rel=tolerance)
    return first, parameters(run), [tensor.detach() for tensor in reference.parameters()]


def assert_same_steps(first: list[Tensor], ours: list[Tensor], theirs: list[Tensor], steps: int):
    """In single precision: Adam turns the rounding of a gradient near 0 into a step of any size.

    So a few parameters may differ by up to the length of the steps, and all others agree closely.
    """
    moved = torch.cat([(b - a).double().flatten() for a, b in zip(first, theirs, strict=True)])
    apart = torch.cat([(b - a).double().flatten() for a, b in zip(ours, theirs, strict=True)])
    assert moved.abs().max() > 0.5 * LEARNING_RATE
    assert apart.norm() < 2e-4 * moved.norm()
    assert (apart.abs() > 1e-2 * LEARNING_RATE * steps).double().mean() < 1e-4


@pytest.fixture(scope="module")
def synthetic() -> Dataset:
    """A DAG, whose double counting depends on the order of nodes."""
    options = {"nodes": 25, "examples": 100, "multi_parent": 0.4}
    return load_dataset("synthetic", seed=5, options=options)


@pytest.mark.parametrize("name", REPLICAS)
@pytest.mark.parametrize(("steps", "dropout"), [(1, 0.0), (1, 0.7), (10, 0.7)])
def test_steps_are_those_of_the_reference_in_double_precision(synthetic, name, dropout, steps):
    _, ours, theirs = train_both(synthetic, name, steps, dtype=torch.float64, dropout=dropout)
    # Node weights are held in single precision: where terms of a gradient cancel to what Adam takes
    # for 0, 1e-8, their rounding is part of the step. Means are closer to that than sums.
    apart = torch.cat([(b - a).abs().flatten() for a, b in zip(ours, theirs, strict=True)])
    assert apart.max() < 1e-2 * LEARNING_RATE
    assert (apart > 1e-4 * LEARNING_RATE).double().mean() < 1e-3


@pytest.mark.parametrize("name", REPLICAS)
@pytest.mark.parametrize("steps", [1, 10])
def test_steps_are_those_of_the_reference_in_the_precision_of_a_study(synthetic, name, steps):
    assert_same_steps(*train_both(synthetic, name, steps), steps)


@pytest.fixture(scope="module")
def cellcycle() -> Dataset:
    """Yeast genes, 500 nodes: real data, where they are at hand."""
    if not DATA.is_dir():
        pytest.skip("HMC_DATA_DIR names no folder of benchmark data")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("HMC_DATA_DIR", str(DATA))
        return load_dataset("cellcycle_FUN")


@pytest.mark.parametrize("name", ["replica_plain", "replica_focal_bbma", "replica_focal_gmu"])
def test_steps_are_those_of_the_reference_on_real_data(cellcycle, name):
    assert_same_steps(*train_both(cellcycle, name, 5, hidden=100), 5)


def test_the_budget_here_is_what_the_replicas_declare():
    for name in REPLICAS:
        assert ENTRIES[name]["training"] == {
            "batch_size": 4,
            "learning_rate": LEARNING_RATE,
            "fit_on": ["train", "valid"],
        }
    assert Budget.model_fields["weight_decay"].default == WEIGHT_DECAY
    assert Budget.model_fields["dropout"].default == 0.7
    assert Budget.model_fields["layers"].default == 2


@pytest.mark.parametrize(
    ("name", "against"),
    [
        ("replica_classwise", "replica_binary"),
        ("replica_classwise", "replica_focal_bbma"),
        ("replica_focal_bbma", "replica_focal_gmu"),
        ("replica_plain", "replica_classwise"),
        ("replica_classwise", "replica_mixed"),
        ("replica_classwise", "replica_schedule_linear"),
        ("replica_schedule_linear", "replica_schedule_exponential"),
        ("replica_schedule_alternating", "replica_classwise"),
    ],
)
def test_the_comparison_tells_variants_apart(synthetic, name, against):
    with pytest.raises(AssertionError):
        train_both(synthetic, name, 3, dtype=torch.float64, against=against)


def test_the_released_order_of_oversampling_is_what_the_replica_has():
    variant = VariantSettings.model_validate(ENTRIES["replica_hros_pd"])
    assert (variant.resampling.order, variant.resampling.copies) == ("released", None)
