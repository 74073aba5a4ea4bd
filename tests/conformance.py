"""What every loss must do, whatever it is made of: one suite, and the definition it is held to.

The definition is plain Python over lists: it shares no code with the library.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pytest
import torch
from strategies import descendants
from torch import Tensor
from uncertainty_oracle import NAIVE as UNCERTAINTIES

from rarenodes.loss import coherent
from rarenodes.loss.coherent import RareNodeLoss
from rarenodes.loss.hierarchy import Hierarchy

# root, A, B, C (of A), D (of A and B), E (of B), F (of D and E).
NODES = ("root", "A", "B", "C", "D", "E", "F")
DAG = Hierarchy(
    [
        ("A", "root"),
        ("B", "root"),
        ("C", "A"),
        ("D", "A"),
        ("D", "B"),
        ("E", "B"),
        ("F", "D"),
        ("F", "E"),
    ]
)
# The root is always positive, and C never is.
#                          root A  B  C  D  E  F
TARGETS = torch.tensor(
    [[1.0, 1, 0, 0, 0, 0, 0], [1, 1, 1, 0, 1, 1, 1], [1, 0, 1, 0, 0, 1, 0], [1, 0, 0, 0, 0, 0, 0]]
)


def random_logits(members: int = 3, dtype=torch.float64, seed: int = 0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(members, 4, 7, generator=rng, dtype=torch.float64).to(dtype)


def value_and_gradient(loss: Callable, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    logits = logits.detach().clone().requires_grad_()
    value = loss(logits, targets)
    return value.detach(), torch.autograd.grad(value, logits)[0]


# The definition


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z)) if z >= 0 else math.exp(z) / (1 + math.exp(z))


def cost(name: str, z: float, y: int, options: Mapping[str, float]) -> float:
    """What a logit costs given its target, from probabilities."""
    p = sigmoid(z)
    if name == "focal":
        q, a = (p, options.get("alpha")) if y else (1 - p, 1 - options.get("alpha", 0))
        return -(a or 1) * (1 - q) ** options.get("gamma", 2) * math.log(q)
    if name == "asymmetric":
        if y:
            return -((1 - p) ** options.get("positive_gamma", 0)) * math.log(p)
        p = max(p - options.get("margin", 0.05), 0)
        return -(p ** options.get("negative_gamma", 4)) * math.log(1 - p) if p else 0.0
    if name == "negative_tolerant":
        scale = 1 if y else options.get("scale", 5)
        against = scale * z * (-1 if y else 1)
        focal = options.get("factor", 1) * sigmoid(against) ** options.get("gamma", 0)
        return focal * math.log1p(math.exp(against)) / scale
    return -math.log(p if y else 1 - p)


def cost_of_certain_and_wrong(
    name: str, size: float, y: int, options: Mapping[str, float]
) -> float:
    """The limit of `cost` at logits of `−size` for a positive, `size` for a negative."""
    if name == "focal" and "alpha" in options:
        return size * (options["alpha"] if y else 1 - options["alpha"])
    if name == "negative_tolerant":
        return size * options.get("factor", 1)
    margin = options.get("margin", 0.05)
    if name == "asymmetric" and not y and margin > 0:
        return -((1 - margin) ** options.get("negative_gamma", 4)) * math.log(margin)
    return size


def scheduled(
    weight: float,
    moment: tuple[int, int, int, int],
    kind: str,
    power: float = 1.0,
    over: str = "training",
    end: float = 0.25,
    curve: str = "paper",
    classes: str = "weighted",
) -> float:
    """A weight at epoch e of E and step s of S, `moment` being (e, E, s, S).

    The weight of the other class, 1, goes the same way where `classes` are both.
    """
    epoch, epochs, step, steps = moment
    if kind == "alternating":
        return [weight, end][(epoch if over == "training" else step) % 2]
    done, last = step, steps - 1
    if over == "training":
        done, last = epoch * steps + step, epochs * steps - 1
    power = power if kind == "exponential" else 1
    share = 1 - (done / last) ** power if curve == "released" else (1 - done / last) ** power
    return end + share * (weight - end)


def balance_weights(
    counts: Sequence[float], y: Sequence[int], alpha: float, beta: float, mu: float
) -> list[float]:
    """Weights of the distribution-balanced loss for the nodes of one example."""
    together = sum(1 / n for n, positive in zip(counts, y, strict=True) if positive and n)
    weights = []
    for n in counts:
        ratio = 1 / n / together if n and together else math.inf
        weights.append(alpha + sigmoid(min(beta * (ratio - mu), 700)))
    return weights


@dataclass(frozen=True)
class Definition:
    """A loss over the nodes of a hierarchy; what is None has no part in it.

    Attributes:
        hierarchy: its nodes and edges alone are used.
        positive: weight of every node where the target is 1.
        negative: weight of every node where the target is 0.
        focal: uncertainty, power and floor.
        evaluated: whether a node counts.
        coherent: whether the maximum constraint is part of it.
        given_parents: None, or a logit stands for its node's probability given all its parents, and
            it is a loss of that (`conditional`) or of the product down the paths (`unconditional`).
        element: what a logit costs.
        options: of the element.
        shift: what is added to every node's logit.
        balance: weights of the nodes of an example, from its targets.
        mixture: share of the weighted loss.
        reduction: how it is reduced.

    """

    hierarchy: Hierarchy
    positive: Sequence[float] | None = None
    negative: Sequence[float] | None = None
    focal: tuple[str, float, float] | None = None
    evaluated: Sequence[bool] | None = None
    coherent: bool = True
    given_parents: str | None = None
    element: str = "bce"
    options: Mapping[str, float] = field(default_factory=dict)
    shift: Sequence[float] | None = None
    balance: Callable[[Sequence[int]], Sequence[float]] | None = None
    mixture: float = 1.0
    reduction: str = "per example"
    below: Sequence[set[int]] = field(init=False)
    above: Sequence[list[int]] = field(init=False)

    def __post_init__(self):
        below = descendants(self.hierarchy.nodes, self.hierarchy.edges)
        object.__setattr__(self, "below", below)
        index = {name: i for i, name in enumerate(self.hierarchy.nodes)}
        above = [
            [index[parent] for child, parent in self.hierarchy.edges if child == name]
            for name in self.hierarchy.nodes
        ]
        object.__setattr__(self, "above", above)

    @property
    def counted(self) -> list[int]:
        """The nodes that count: of products, also what they are made of."""
        nodes = range(len(self.hierarchy))
        if self.evaluated is None:
            return list(nodes)
        if self.given_parents is None:
            return [j for j in nodes if self.evaluated[j]]
        return [j for j in nodes if any(self.evaluated[k] for k in self.below[j])]

    @property
    def silent(self) -> list[int]:
        """The nodes that neither count nor have a node that does to pass a score to."""
        counted = set(self.counted)
        if self.coherent:
            counted = set().union(*(self.below[j] for j in counted))
        return [j for j in range(len(self.hierarchy)) if j not in counted]

    def value(self, logits: Tensor, targets: Tensor) -> float:
        """The loss of a batch."""
        weights = self.weights(logits, targets)
        total = sum(
            self.of_example(z, y, weight)
            for member in logits.tolist()
            for z, y, weight in zip(member, targets.int().tolist(), weights, strict=True)
        )
        return total / self.divisor(len(logits), len(targets))

    def of_example(self, z: Sequence[float], y: Sequence[int], weight: Sequence[float]) -> float:
        """One example's and one member's share of the loss, before it is reduced."""
        return sum(
            weight[j] * cost(self.element, self.score(z, y, j), y[j], self.options)
            for j in self.counted
            if self.asked(y, j)
        )

    def asked(self, y: Sequence[int], j: int) -> bool:
        """Whether a node has a loss in an example at all."""
        return self.given_parents != "conditional" or all(y[k] for k in self.above[j])

    def score(self, z: Sequence[float], y: Sequence[int], j: int) -> float:
        """The logit of a node that the loss sees."""
        score = z[j]
        if self.coherent:
            score = max(z[d] for d in self.below[j] if y[d] or not y[j])
        if self.shift is not None:
            score += self.shift[j]
        if self.given_parents == "unconditional" and self.above[j]:
            # The odds against a product: the one fails, the other does, or both do.
            least = min(self.score(z, y, k) for k in self.above[j])
            against, parent_against = math.exp(-score), math.exp(-least)
            score = -math.log(against + parent_against + against * parent_against)
        return score

    def weights(self, logits: Tensor, targets: Tensor) -> list[list[float]]:
        """What multiplies the loss of every example and node."""

        def unsure(b: int, j: int) -> float:
            kind, power, floor = self.focal
            members = [sigmoid(z) for z in logits[:, b, j].tolist()]
            if self.given_parents == "unconditional":
                unshifted = replace(self, shift=None)
                rows = logits[:, b].tolist()
                members = [sigmoid(unshifted.score(z, [0] * len(z), j)) for z in rows]
            return floor + max(UNCERTAINTIES[kind](members), 0) ** power

        return self._weights(targets, unsure)

    def weights_of_the_certain(self, targets: Tensor) -> list[list[float]]:
        """The same where all members agree and are certain."""
        return self._weights(targets, lambda b, j: self.focal[2])

    def divisor(self, members: int, batch: int) -> int:
        """What the sum over members, examples and nodes that count is divided by."""
        return {"per example": batch, "sum": 1, "mean": members * batch * len(self.counted)}[
            self.reduction
        ]

    def _weights(self, targets: Tensor, unsure: Callable[[int, int], float]) -> list[list[float]]:
        rows = []
        for b, y in enumerate(targets.int().tolist()):
            row = [1.0] * len(y) if self.balance is None else list(self.balance(y))
            for j in range(len(y)):
                of_class = self.positive if y[j] else self.negative
                row[j] *= 1 if of_class is None else of_class[j]
                row[j] *= 1 if self.focal is None else unsure(b, j)
            rows.append([self.mixture * weight + 1 - self.mixture for weight in row])
        return rows


@dataclass(frozen=True)
class Case:
    """A loss on `DAG`, and what it is by definition.

    Attributes:
        build: makes the loss.
        definition: what it should be.
        tolerance: relative, of values in double precision; what single precision inside it costs.

    """

    build: Callable[[], RareNodeLoss]
    definition: Definition
    tolerance: float = 1e-9


# The suite


class Conformance:
    """Inherit it, with a fixture `case`."""

    @pytest.fixture
    def loss(self, case) -> RareNodeLoss:
        return case.build()

    def test_value_is_the_definition(self, case, loss):
        for members in (1, 2, 3):
            logits = random_logits(members)
            expected = case.definition.value(logits, TARGETS)
            assert loss(logits, TARGETS).item() == pytest.approx(expected, rel=case.tolerance)
        assert expected > 0

    def test_value_where_all_targets_are_equal(self, case, loss):
        logits = random_logits()
        for targets in (torch.zeros(4, 7), torch.ones(4, 7)):
            expected = case.definition.value(logits, targets)
            assert loss(logits, targets).item() == pytest.approx(expected, rel=case.tolerance)

    def test_gradient_is_that_of_the_definition_with_fixed_weights(self, case, loss):
        # Central differences of the definition; the focal weight stays that of the centre, as it
        # has no gradient of its own.
        centre, step, definition = random_logits(2), 1e-5, case.definition
        weights = definition.weights(centre, TARGETS)
        expected = torch.zeros_like(centre)
        for m, b, j in torch.cartesian_prod(*map(torch.arange, centre.shape)).tolist():
            sides = []
            for z in (centre[m, b, j].item() + step, centre[m, b, j].item() - step):
                logits = [*centre[m, b, :j].tolist(), z, *centre[m, b, j + 1 :].tolist()]
                y = TARGETS[b].int().tolist()
                sides.append(definition.of_example(logits, y, weights[b]))
            expected[m, b, j] = (sides[0] - sides[1]) / (2 * step) / definition.divisor(2, 4)
        _, gradient = value_and_gradient(loss, centre, TARGETS)
        assert expected.abs().max() > 0.001
        rtol = max(1e-5, 10 * case.tolerance)
        torch.testing.assert_close(gradient, expected, rtol=rtol, atol=1e-8)

    def test_elements_are_summed_over_evaluated_nodes_and_reduced(self, case, loss):
        logits = random_logits()
        elements = loss.elements(logits, TARGETS)
        assert elements.shape == (3, 4, 7)
        total = sum(
            elements[m, b, j].item()
            for m in range(3)
            for b in range(4)
            for j in case.definition.counted
        )
        expected = total / case.definition.divisor(3, 4)
        assert loss(logits, TARGETS).item() == pytest.approx(expected, rel=1e-12)

    def test_loss_of_a_batch_is_the_mean_or_the_sum_over_its_examples(self, case, loss):
        logits = random_logits()
        value, gradient = value_and_gradient(loss, logits, TARGETS)
        alone = [value_and_gradient(loss, logits[:, [b]], TARGETS[[b]]) for b in range(4)]
        share = 1 if case.definition.reduction == "sum" else 1 / 4
        torch.testing.assert_close(value, share * torch.stack([v for v, _ in alone]).sum())
        torch.testing.assert_close(gradient, share * torch.cat([g for _, g in alone], dim=1))

    def test_order_of_the_batch_does_not_matter(self, loss):
        logits, order = random_logits(), [2, 0, 3, 1]
        value, gradient = value_and_gradient(loss, logits, TARGETS)
        other, permuted = value_and_gradient(loss, logits[:, order], TARGETS[order])
        torch.testing.assert_close(value, other)
        torch.testing.assert_close(gradient[:, order], permuted)

    def test_order_of_the_members_does_not_matter(self, loss):
        logits = random_logits()
        value, gradient = value_and_gradient(loss, logits, TARGETS)
        for order in ([1, 2, 0], [1, 0, 2]):  # all others are made of these
            other, permuted = value_and_gradient(loss, logits[order], TARGETS)
            torch.testing.assert_close(value, other)
            torch.testing.assert_close(gradient[order], permuted)

    def test_extreme_logits_are_finite_in_float32(self, loss):
        torch.manual_seed(0)
        for size in (1e4, 100.0, 0.0):
            for members in (1, 3):
                logits = size * torch.randint(-1, 2, (members, 4, 7)).float()
                logits[0, :, 0] = size  # not all members agree on the root
                value, gradient = value_and_gradient(loss, logits, TARGETS)
                assert value.isfinite()
                assert value >= 0
                assert gradient.isfinite().all()

    def test_certain_and_right_costs_nothing_and_certain_and_wrong_the_limit(self, case, loss):
        # Where all are wrong by 50, an element costs 50 times its weight, or what the element loss
        # has there; members that agree and are certain have no uncertainty, so the focal weight is
        # the floor.
        right = (2 * TARGETS.double() - 1).expand(2, 4, 7) * 50.0
        definition = case.definition
        assert loss(right, TARGETS) < 1e-12
        expected = 0.0
        for y, weight in zip(
            TARGETS.int().tolist(), definition.weights_of_the_certain(TARGETS), strict=True
        ):
            z = [-50.0 if positive else 50.0 for positive in y]
            for j in (j for j in definition.counted if definition.asked(y, j)):
                score = definition.score(z, y, j)
                wrong = -score if y[j] else score
                # A product with a parent that is denied is denied, rightly.
                if wrong > 0:
                    limit = cost_of_certain_and_wrong(
                        definition.element, wrong, y[j], definition.options
                    )
                    expected += 2 * weight[j] * limit
        expected /= definition.divisor(2, 4)
        assert loss(-right, TARGETS).item() == pytest.approx(expected, rel=1e-6)

    def test_float32_agrees_with_float64_and_stays_float32(self, loss):
        low, high = random_logits(dtype=torch.float32), random_logits(dtype=torch.float32).double()
        value, gradient = value_and_gradient(loss, low, TARGETS)
        exact, exact_gradient = value_and_gradient(loss, high, TARGETS)
        assert value.dtype == gradient.dtype == torch.float32
        assert exact.dtype == exact_gradient.dtype == torch.float64
        torch.testing.assert_close(value.double(), exact, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(gradient.double(), exact_gradient, rtol=1e-4, atol=1e-5)

    def test_compiled_kernel_computes_what_it_knows_and_agrees_with_tensor_operations(
        self, case, loss, monkeypatch
    ):
        used, kernel = [], coherent.fused_rare_node_loss

        def noted(*arguments, **named):
            used.append(kernel)
            return kernel(*arguments, **named)

        monkeypatch.setattr(coherent, "fused_rare_node_loss", noted)
        for members in (1, 3):
            logits = random_logits(members, torch.float32)
            value, gradient = value_and_gradient(loss, logits, TARGETS)
            expected, by_tensors = value_and_gradient(loss.reference, logits, TARGETS)
            torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(gradient, by_tensors, rtol=1e-4, atol=1e-6)
        definition = case.definition
        unknown = [definition.balance, definition.shift]
        if definition.given_parents == "unconditional":  # it is given what is shifted already
            unknown[1] = definition.shift and definition.focal
        known = unknown == [None, None] and definition.given_parents != "conditional"
        assert bool(used) == (definition.element == "bce" and known)

    def test_type_of_targets_does_not_matter(self, loss):
        logits = random_logits()
        expected, gradient = value_and_gradient(loss, logits, TARGETS)
        for dtype in (torch.bool, torch.uint8, torch.int64, torch.float64):
            value, other = value_and_gradient(loss, logits, TARGETS.to(dtype))
            assert value == expected
            assert other.tolist() == gradient.tolist()

    def test_arguments_and_buffers_are_left_alone(self, loss):
        logits, targets = random_logits(), TARGETS.clone()
        buffers = {name: value.clone() for name, value in loss.named_buffers()}
        value_and_gradient(loss, logits, targets)
        assert logits.tolist() == random_logits().tolist()
        assert targets.tolist() == TARGETS.tolist()
        for name, value in loss.named_buffers():
            assert value.tolist() == buffers[name].tolist()

    def test_what_is_given_per_node_is_saved_and_moved_with_the_module(self, case, loss):
        given = {
            "positive_weight": case.definition.positive,
            "negative_weight": case.definition.negative,
            "evaluated": case.definition.evaluated,
            "shift": case.definition.shift,
        }
        assert set(loss.state_dict()) == {n for n, value in given.items() if value is not None}
        assert not list(loss.parameters())


class MaskedConformance:
    """For losses that do not evaluate all nodes; with fixtures `case` and `loss`."""

    def test_nodes_that_are_not_evaluated_count_nothing_themselves(self, case, loss):
        silent = case.definition.silent
        assert silent
        logits = random_logits()
        value, gradient = value_and_gradient(loss, logits, TARGETS)
        assert not gradient[..., silent].any()
        # What they pass up stays the same, so nothing else changes either.
        others = logits.clone()
        others[..., silent] = random_logits(seed=1)[..., silent] - 9
        other, other_gradient = value_and_gradient(loss, others, TARGETS)
        assert other == value
        assert other_gradient.tolist() == gradient.tolist()

    def test_nodes_that_are_evaluated_count(self, case, loss):
        # An example for each, in which it alone is above the others, and wrong: it decides at least
        # its own element. Its ancestors are positive, as a node may count where they are alone.
        counted, below = case.definition.counted, case.definition.below
        logits = random_logits()[:, :1].repeat(1, len(counted), 1)
        logits[:, range(len(counted)), counted] = 8
        targets = torch.tensor([[float(j in d and d != below[j]) for d in below] for j in counted])
        weights = case.definition.weights(logits, targets)
        _, gradient = value_and_gradient(loss, logits, targets)
        for b, j in enumerate(counted):
            assert gradient[:, b, j].all() or weights[b][j] < 1e-9


class UncoupledConformance:
    """For losses in which members do not see one another; with fixtures `case` and `loss`."""

    def test_members_together_are_each_alone(self, case, loss):
        logits = random_logits(5)
        value, gradient = value_and_gradient(loss, logits, TARGETS)
        alone = [value_and_gradient(loss, logits[[m]], TARGETS) for m in range(5)]
        share = 1 / 5 if case.definition.reduction == "mean" else 1
        torch.testing.assert_close(value, share * torch.stack([v for v, _ in alone]).sum())
        expected = share * torch.cat([g for _, g in alone])
        torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=0)
