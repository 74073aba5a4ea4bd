"""Variants: one entry of `params.yaml` each, and the loss and examples it stands for."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import AfterValidator, ConfigDict, Field, model_validator
from scipy import sparse
from torch import Tensor

from rarenodes.datasets.dataset import Dataset
from rarenodes.datasets.targets import still_open
from rarenodes.loss.coherent import Focal, RareNodeLoss, Reduction
from rarenodes.loss.conditional import (
    AT_REST,
    ConditionalLoss,
    conditional_frequency,
    conditional_prior,
)
from rarenodes.loss.elements import ELEMENT_LOSSES, bce, element_loss
from rarenodes.loss.hierarchy import Hierarchy
from rarenodes.loss.output import Output
from rarenodes.loss.schedules import KINDS, SPANS, Schedule
from rarenodes.loss.uncertainty import check_kind
from rarenodes.loss.weighting import (
    DistributionBalance,
    check_mode,
    logit_adjustment,
    released_counts,
    tolerant_shift,
    weights_by,
)
from rarenodes.scores.run_tables import ThresholdScope
from rarenodes.settings import Settings
from rarenodes.training.committee import CommitteeSettings
from rarenodes.training.forest import ForestSettings
from rarenodes.training.linear import LinearSettings
from rarenodes.training.neighbours import NeighbourSettings
from rarenodes.training.resampling import (
    COPIES,
    ORDERS,
    Added,
    hros_pd,
    hros_pd_released,
    lp_ros,
)


class ScheduleSettings(Settings):
    """How node weights change while training: see `rarenodes.loss.schedules.Schedule`.

    Attributes:
        kind: `linear`, `exponential` or `alternating`.
        reading: what the kind means. By the `paper` the weighted class alone changes, over the
            training, and an `exponential` keeps `(1 − t)^power` of it; in the `released` code both
            classes go to `end`, anew in each epoch, and it keeps `1 − t^power`.
        power: of `exponential`; by default 1 by the paper, 3 in the released code.
        over: what a schedule runs over, where that is not the reading's.
        end: the weight of every node in the end.

    """

    kind: Literal[KINDS]
    reading: Literal["paper", "released"] = "paper"
    power: float | None = Field(default=None, gt=0)
    over: Literal[SPANS] | None = None
    end: float = Field(default=0.25, ge=0)

    @property
    def schedule(self) -> Schedule:
        """What it stands for."""
        released = self.reading == "released"
        start = Schedule.released(self.kind) if released else Schedule(self.kind)
        given = {"power": self.power, "over": self.over, "end": self.end}
        return replace(start, **{k: value for k, value in given.items() if value is not None})


class NodeWeightSettings(Settings):
    """Node weights by rarity.

    Attributes:
        mode: the formula, a key of `rarenodes.loss.weighting.WEIGHTINGS`.
        orientation: the class of a node that is weighted: its positives, as the `paper` has it,
            its negatives, as the `released` code does, or `both`. Another class counts 1.
        floor: `ω`, the weight of the most frequent node; of modes `class-wise` and `binary`.
        beta: of mode `effective-number`.
        cap: the largest weight of mode `positive-ratio`.
        counts: positive examples of a node among all `examples`; those counted as the `released`
            code does; or `conditional`, among the examples that are positive in all its parents:
            `N / n_j` becomes `n_parent / n_j`.
        counts_from: the parts of the split they are counted in; by default those trained on.
        schedule: how the weights change while training, or not at all.

    Any other key is an option of the formula, too, if it has one of that name.

    """

    model_config = ConfigDict(extra="allow")

    mode: Annotated[str, AfterValidator(check_mode)]
    orientation: Literal["paper", "released", "both"] = "paper"
    floor: float | None = Field(default=None, gt=0)
    beta: float | None = Field(default=None, ge=0, lt=1)
    cap: float | None = Field(default=None, gt=0)
    counts: Literal["examples", "released", "conditional"] = "examples"
    counts_from: Literal["train", "train+valid"] | None = None
    schedule: ScheduleSettings | None = None

    @property
    def options(self) -> dict[str, Any]:
        """The options of the formula that are given."""
        given = {"floor": self.floor, "beta": self.beta, "cap": self.cap, **self.model_extra}
        return {name: value for name, value in given.items() if value is not None}

    @model_validator(mode="after")
    def _options_are_of_the_mode(self):
        weights_by(self.mode, torch.tensor([1, 2]), 2, **self.options)
        if self.mode == "effective-number" and self.counts == "conditional":
            raise ValueError(
                "mode effective-number counts positives alone, so that they are the same among a "
                "node's parents' examples: remove `counts: conditional`"
            )
        return self


class FocalSettings(Settings):
    """Focal weight `floor + u^power` from ensemble uncertainty `u`."""

    uncertainty: Annotated[str, AfterValidator(check_kind)]
    power: float = Field(default=1.0, gt=0)
    floor: float = Field(default=0.25, ge=0)


class ElementSettings(Settings):
    """What a logit costs given its target.

    Attributes:
        name: a key of `rarenodes.loss.elements.ELEMENT_LOSSES`.
        options: its options by name, where they differ from its defaults.

    """

    name: Literal[tuple(ELEMENT_LOSSES)]
    options: dict[str, float] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _options_are_of_the_loss(self):
        element_loss(self.name, **self.options)
        return self


class ShiftSettings(Settings):
    """A number added to each node's logit in the loss, by the node's rarity.

    Attributes:
        kind: `prior`, the log odds of the node's frequency (Menon et al. 2021); `tolerant`, the
            shift of the distribution-balanced loss (Wu et al. 2020); or `conditional-prior`, the
            log odds of the node's frequency where its parents hold, for logits that stand for that.
        strength: what it is multiplied by: `τ` of the first, `κ` of the second.

    """

    kind: Literal["prior", "tolerant", "conditional-prior"]
    strength: float = Field(gt=0)


class BalanceSettings(Settings):
    """Weights by how rare an example's other labels are: `rarenodes.loss.weighting.DistributionBalance`."""

    alpha: float = Field(default=0.1, ge=0)
    beta: float = Field(default=10.0, gt=0)
    mu: float = Field(default=0.2, ge=0)


class ResamplingSettings(Settings):
    """Duplicates of training examples: see `rarenodes.training.resampling`.

    Attributes:
        method: by rare label sets (`lp-ros`) or along rare label paths (`hros-pd`).
        budget: most examples to add, as a share of the training examples.
        order: in which paths `hros-pd` makes copies of, and how many: as `published`, or as in the
            `released` code (`rarenodes.training.resampling.hros_pd_released`).
        copies: what `hros-pd` copies: all labels of an example, or the rare path alone; by default
            that of the order, `whole` as published and `truncated` in the released code.

    """

    method: Literal["lp-ros", "hros-pd"]
    budget: float = Field(default=0.1, gt=0, le=1)
    order: Literal[ORDERS] = "published"
    copies: Literal[COPIES] | None = None

    @model_validator(mode="after")
    def _only_paths_can_be_truncated(self):
        if self.method == "lp-ros" and self.copies == "truncated":
            raise ValueError("lp-ros makes whole copies; `copies: truncated` is of hros-pd")
        if self.method == "lp-ros" and self.order == "released":
            raise ValueError("lp-ros has one order; `order: released` is of hros-pd")
        return self

    def added(
        self, targets: sparse.csr_array, hierarchy: Hierarchy, rng: np.random.Generator
    ) -> Added:
        """What to append to the examples of these targets."""
        if self.method == "lp-ros":
            return lp_ros(targets, hierarchy, rng, self.budget)
        method = hros_pd if self.order == "published" else hros_pd_released
        given = {} if self.copies is None else {"copies": self.copies}
        return method(targets, hierarchy, rng, self.budget, **given)


# Families as a message calls them.
_A = {
    "forest": "a forest",
    "neighbours": "a lookup of neighbours",
    "linear": "a linear model",
    "committee": "a committee",
}


class VariantSettings(Settings):
    """One way to train: the loss and what is done about imbalance.

    Attributes:
        about: one line for readers.
        source: who proposed it, for readers.
        constraint: what a logit stands for, which says how outputs become probabilities. A node's
            probability, made coherent by the maximum over descendants, in `training` as well or in
            `prediction` only; or the node's probability given its parents, made coherent by the
            product down the paths, and learnt where the parents hold (`conditional`) or on all
            examples (`unconditional`).
        conditional_first: the share of epochs in which `constraint: unconditional` is trained as
            `conditional`, before.
        sparse: for `constraint: conditional`, a step trains of the last layer the rows of nodes that
            are active in its batch alone: what the other rows do, `still` or `moving`; see
            `rarenodes.training.sparse_layer`. All rows are trained if not given.
        unseen: what is predicted of nodes without training positives: what the `network` says, or a
            `constant` share of their parents' probability, `(n_j + ½) / (n_parent + 1)`; see
            `rarenodes.loss.output.Output`.
        loss: what a logit costs given its target; binary cross-entropy if not given.
        weights: node weights, or none.
        focal: the focal term from ensemble uncertainty, or none.
        shift: of logits in the loss, or none.
        balance: weights from an example's other labels, or none.
        mixture: `λ`, the share of the weighted loss; the rest is the loss without weights.
        reduction: `ours`, see `rarenodes.loss.coherent.RareNodeLoss`; the `sum` or the `mean` over
            members, examples and nodes; or as the `released` code does: the sum with a focal term,
            the mean without one, weighted or not.
        resampling: duplicates of training examples, or none.
        threshold: the scope of the thresholds tuned on validation data: one for the data set, for
            each depth, or for each node.
        forest: trained instead of networks; there is then no loss.
        neighbours: looked up instead of training anything; likewise.
        linear: logistic regressions instead of networks; likewise.
        committee: other variants' predictions, combined; nothing else is trained.
        hidden_neighbours: the networks' outputs are not what is predicted, but the labels of the
            nearest training examples in their last hidden layers.
        budget_of: the variant, of the same family, whose tuned budget it takes: for one that differs
            in what a search does not look at, such as the number of members.
        networks_of: the variant whose networks these are: both are trained alike, and differ in what
            is predicted with them. What one has trained the other need not train again.
        training: training settings that differ from the study's for this variant.

    """

    about: str
    source: str = ""
    constraint: Literal["training", "prediction", "conditional", "unconditional"] = "training"
    conditional_first: float = Field(default=0.0, ge=0, lt=1)
    sparse: Literal[AT_REST] | None = None
    unseen: Literal["network", "constant"] = "network"
    loss: ElementSettings | None = None
    weights: NodeWeightSettings | None = None
    focal: FocalSettings | None = None
    shift: ShiftSettings | None = None
    balance: BalanceSettings | None = None
    mixture: float = Field(default=1.0, ge=0, le=1)
    reduction: Literal["ours", "released", "sum", "mean"] = "ours"
    resampling: ResamplingSettings | None = None
    threshold: ThresholdScope = "dataset"
    forest: ForestSettings | None = None
    neighbours: NeighbourSettings | None = None
    linear: LinearSettings | None = None
    committee: CommitteeSettings | None = None
    hidden_neighbours: NeighbourSettings | None = None
    budget_of: str | None = None
    networks_of: str | None = None
    training: dict[str, Any] = Field(default_factory=dict)

    @property
    def family(self) -> str:
        """What is trained: `network`, or the setting that stands in its place."""
        families = ("forest", "neighbours", "linear", "committee")
        return next((name for name in families if getattr(self, name) is not None), "network")

    @property
    def deterministic(self) -> bool:
        """Whether training is no chance, so that one seed stands for all."""
        return self.family in ("neighbours", "linear") and self.resampling is None

    @model_validator(mode="after")
    def _only_networks_have_a_loss(self):
        if self.family == "network":
            return self
        parts = {"loss", "weights", "focal", "shift", "balance"}
        parts |= {"constraint", "conditional_first", "sparse", "unseen", "mixture", "reduction"}
        parts |= {"forest", "neighbours", "linear", "committee"} - {self.family}
        parts.add("hidden_neighbours")
        # A committee trains nothing: its members say what they learn from.
        parts |= {"resampling"} if self.family == "committee" else set()
        fields = type(self).model_fields
        given = sorted(
            name
            for name in parts
            if getattr(self, name) != fields[name].get_default(call_default_factory=True)
        )
        if given:
            raise ValueError(f"{_A[self.family]} has no loss: remove {', '.join(given)}")
        return self

    @model_validator(mode="after")
    def _released_path_without_focal_term(self):
        schedule = None if self.weights is None else self.weights.schedule
        released = schedule is not None and schedule.reading == "released"
        mean = self.focal is None and self.reduction in ("released", "mean")
        if released and not mean:
            raise ValueError(
                "the released code has schedules only where there is no focal term, and averages "
                "there: remove `focal` and set `reduction: released`, or take `reading: paper`"
            )
        if self.mixture < 1 and self.reduction == "released" and self.focal is not None:
            raise ValueError(
                "the released code mixes losses only where there is no focal term: remove `focal`, "
                "or give another reduction"
            )
        return self

    @model_validator(mode="after")
    def _settings_fit_what_logits_stand_for(self):
        of_parents = self.constraint in ("conditional", "unconditional")
        if self.conditional_first > 0 and self.constraint != "unconditional":
            raise ValueError(
                "conditional_first is of `constraint: unconditional`, found "
                f"`constraint: {self.constraint}`"
            )
        if self.shift is not None and of_parents != (self.shift.kind == "conditional-prior"):
            expected = "conditional-prior" if of_parents else "prior or tolerant"
            raise ValueError(
                f"`constraint: {self.constraint}` needs a shift of kind {expected}, found "
                f"{self.shift.kind}: logits stand for other probabilities"
            )
        if self.sparse is not None and self.constraint != "conditional":
            raise ValueError(
                "sparse is of `constraint: conditional`, whose loss is 0 but at some nodes, found "
                f"`constraint: {self.constraint}`"
            )
        if self.sparse is not None:
            settings = {
                "loss": self.loss is not None,
                "balance": self.balance is not None,
                "reduction": self.reduction != "ours",
            }
            given = [name for name, is_given in settings.items() if is_given]
            if given:
                raise ValueError(
                    "sparse training is of binary cross-entropy, per example: remove "
                    f"{', '.join(given)} or sparse"
                )
        if self.weights is not None and self.weights.counts == "conditional":
            alone = self.constraint == "unconditional" and self.conditional_first == 0
            if not of_parents or alone:
                raise ValueError(
                    "`counts: conditional` is of losses on the parents' examples, found "
                    f"`constraint: {self.constraint}`, whose loss is on all"
                )
        return self


def build_loss(
    variant: VariantSettings, dataset: Dataset, fit_on: Sequence[str] = ("train",)
) -> RareNodeLoss:
    """The loss that a variant's settings stand for, and with it how its networks predict.

    Args:
        variant: the settings.
        dataset: gives the hierarchy, the evaluated nodes and the counts behind node weights.
        fit_on: the parts of the split that are trained on; node weights count their examples.

    """
    weights, positive, negative = variant.weights, None, None
    if weights is not None:
        weight = _node_weights(weights, dataset, fit_on)
        positive = weight if weights.orientation in ("paper", "both") else None
        negative = weight if weights.orientation in ("released", "both") else None
    counts, examples = _counts(dataset, fit_on)
    of_known = _as_of_all(counts, dataset, fit_on)
    arguments = {
        "focal": None if variant.focal is None else Focal(**variant.focal.model_dump()),
        "evaluated": torch.from_numpy(dataset.evaluated),
        "element": _element(variant.loss),
        "balance": _balance(variant.balance, counts),
        "mixture": variant.mixture,
        "schedule": _schedule(weights),
        "reduction": _reduction(variant),
    }
    if variant.constraint in ("conditional", "unconditional"):
        return ConditionalLoss(
            dataset.hierarchy,
            positive,
            negative,
            objective=variant.constraint,
            conditional_first=variant.conditional_first,
            shift=_conditional_shift(variant.shift, counts, dataset, fit_on),
            output=Output("product", _constant(variant, counts, dataset, fit_on)),
            sparse=variant.sparse,
            **arguments,
        )
    return RareNodeLoss(
        dataset.hierarchy,
        positive,
        negative,
        coherent=variant.constraint == "training",
        shift=_shift(variant.shift, of_known, examples),
        output=Output("maximum", _constant(variant, counts, dataset, fit_on)),
        **arguments,
    )


def resampled(
    variant: VariantSettings, dataset: Dataset, fit_on: Sequence[str], rng: np.random.Generator
) -> Dataset:
    """The data set with a variant's duplicates added to its training part.

    Args:
        variant: the settings.
        dataset: the examples.
        fit_on: the parts of the split that are trained on; they are resampled together.
        rng: the only source of randomness.

    """
    settings = variant.resampling
    if settings is None:
        return dataset
    rows = np.concatenate([dataset.split[part] for part in fit_on])
    added = settings.added(dataset.targets[rows], dataset.hierarchy, rng)
    copies = rows[added.rows]
    new = np.arange(len(dataset.features), len(dataset.features) + len(added))
    unknown = None
    if dataset.unknown is not None:
        # A copy that is given fewer labels than its example is known to be without the others.
        copied = dataset.unknown[copies]
        copied = still_open(copied, added.targets, dataset.hierarchy)
        unknown = sparse.vstack([dataset.unknown, copied], format="csr")
    return replace(
        dataset,
        features=np.concatenate([dataset.features, dataset.features[copies]]),
        targets=sparse.vstack([dataset.targets, added.targets], format="csr"),
        unknown=unknown,
        split={**dataset.split, fit_on[0]: np.concatenate([dataset.split[fit_on[0]], new])},
        texts=None,
        images=None
        if dataset.images is None
        else np.concatenate([dataset.images, dataset.images[copies]]),
    )


def _counts(dataset: Dataset, parts: Sequence[str]) -> tuple[Tensor, int]:
    """Positive examples of every node `[nodes]` in parts of the split, and all examples there."""
    counts = sum(dataset.counts(part) for part in parts)
    return torch.from_numpy(counts).double(), sum(len(dataset.split[part]) for part in parts)


def _as_of_all(counts: Tensor, dataset: Dataset, parts: Sequence[str]) -> Float[Tensor, " nodes"]:
    """As many of all examples as make the same share of them as of those that a node is known of.

    What depends on shares alone then depends on those that the loss sees. Where everything is known
    these are the counts.
    """
    if dataset.unknown is None:
        return counts
    known = torch.from_numpy(sum(dataset.known_counts(part) for part in parts)).double()
    examples = sum(len(dataset.split[part]) for part in parts)
    return counts * examples / known.clamp(min=1)


def _parent_counts(dataset: Dataset, parts: Sequence[str]) -> Float[Tensor, " nodes"]:
    """`n_parent`: examples in parts of the split that are positive in all of a node's parents.

    What `rarenodes.loss.conditional.conditional_counts` finds, from sparse targets; without those
    of which the node itself is unknown.
    """
    rows = np.concatenate([dataset.split[part] for part in parts])
    of_node = _examples_of(dataset.targets[rows])
    unknown = None if dataset.unknown is None else _examples_of(dataset.unknown[rows])
    counts = np.full(len(dataset.hierarchy), len(rows))
    for node, parents in enumerate(dataset.hierarchy.parents):
        if parents:
            in_all = of_node[parents[0]]
            for parent in parents[1:]:
                in_all = np.intersect1d(in_all, of_node[parent], assume_unique=True)
            if unknown is not None:
                in_all = np.setdiff1d(in_all, unknown[node], assume_unique=True)
            counts[node] = len(in_all)
    return torch.from_numpy(counts).double()


def _examples_of(table: sparse.csr_array) -> list[Int[np.ndarray, " examples"]]:
    """The rows of a sparse table that are not 0 in each column."""
    by_node = sparse.csc_array(table != 0)
    by_node.sort_indices()
    ends = zip(by_node.indptr, by_node.indptr[1:], strict=False)
    return [by_node.indices[first:last] for first, last in ends]


def _constant(
    variant: VariantSettings, counts: Tensor, dataset: Dataset, fit_on: Sequence[str]
) -> Float[Tensor, " nodes"] | None:
    """What is predicted of nodes without training positives; NaN for the others."""
    if variant.unseen == "network":
        return None
    frequency = conditional_frequency(counts, _parent_counts(dataset, fit_on))
    return torch.where(counts == 0, frequency, torch.nan).float()


def _node_weights(
    settings: NodeWeightSettings, dataset: Dataset, fit_on: Sequence[str]
) -> Float[Tensor, " nodes"]:
    parts = fit_on if settings.counts_from is None else settings.counts_from.split("+")
    counts, examples = _counts(dataset, parts)
    if settings.counts == "released":
        rows = np.concatenate([dataset.split[part] for part in parts])
        targets = torch.from_numpy(dataset.targets[rows].toarray())
        counts = released_counts(targets, dataset.hierarchy)
    if settings.counts == "conditional":
        # As many of all examples as make the same share of them: formulas depend on that alone.
        of_parents = _parent_counts(dataset, parts)
        counts = counts * examples / of_parents.clamp(min=1)
    else:
        counts = _as_of_all(counts, dataset, parts)
    return weights_by(settings.mode, counts, examples, **settings.options).float()


def _element(settings: ElementSettings | None):
    if settings is None:
        return bce
    return element_loss(settings.name, **settings.options)


def _schedule(weights: NodeWeightSettings | None) -> Schedule | None:
    if weights is None or weights.schedule is None:
        return None
    return weights.schedule.schedule


def _shift(settings: ShiftSettings | None, counts: Tensor, examples: int) -> Tensor | None:
    if settings is None:
        return None
    of_kind = {"prior": logit_adjustment, "tolerant": tolerant_shift}[settings.kind]
    return of_kind(counts, examples, settings.strength).float()


def _conditional_shift(
    settings: ShiftSettings | None, counts: Tensor, dataset: Dataset, fit_on: Sequence[str]
) -> Tensor | None:
    if settings is None:
        return None
    return conditional_prior(counts, _parent_counts(dataset, fit_on), settings.strength).float()


def _balance(settings: BalanceSettings | None, counts: Tensor):
    if settings is None:
        return None
    return DistributionBalance(counts.float(), **settings.model_dump()).weight


def _reduction(variant: VariantSettings) -> Reduction:
    if variant.reduction == "released":
        return "mean" if variant.focal is None else "sum"
    return "per example" if variant.reduction == "ours" else variant.reduction
