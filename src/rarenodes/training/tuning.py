"""The search for a budget: the same grid, seed and scores for every variant of a family.

Networks are searched one setting after the other: all learning rates with the least weight decay,
then all decays with the rate that was best by each of the scores that decide; epochs are scored on
the way. Points that are best at the last of the epochs are then trained for longer. The grids of
other families are small, and all combinations are tried. Every point is trained to the end; no run is
cut short, so that a variant which learns slowly is not judged by its first epochs.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Annotated, Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from pydantic import Field, field_validator, model_validator
from scipy import sparse

from rarenodes.datasets.dataset import Dataset
from rarenodes.scores.catalogue import RARE_BINS
from rarenodes.scores.metrics import (
    RARITY_BINS,
    average_precision,
    micro_average_precision,
    rarity_bin,
)
from rarenodes.scores.unknown import silenced, unknown_in
from rarenodes.settings import Settings, read_settings
from rarenodes.training.encoders import network_inputs
from rarenodes.training.ensemble import Ensemble
from rarenodes.training.forest import fit_forest
from rarenodes.training.hidden_neighbours import fit_hidden_neighbours
from rarenodes.training.linear import fit_linear
from rarenodes.training.loop import (
    Budget,
    Streams,
    TrainingError,
    prediction_dropout,
    train_ensemble,
)
from rarenodes.training.neighbours import fit_neighbours
from rarenodes.training.variants import VariantSettings, build_loss, resampled

log = logging.getLogger(__name__)

# Budgets are chosen for what validation data say; they are never trained on in a search.
FIT_ON = ("train",)
Point = Mapping[str, float | int]
Positive, Count = Annotated[float, Field(gt=0)], Annotated[int, Field(gt=0)]


class _Grid(Settings):
    """Values to try of each setting, smallest first."""

    @field_validator("*")
    @classmethod
    def _in_order(cls, values: list[float] | list[int]) -> list[float] | list[int]:
        if sorted(set(values)) != values:
            raise ValueError("expected different values, smallest first")
        return values


class NetworkGrid(_Grid):
    """What is tried of networks.

    Attributes:
        learning_rate: of Adam.
        weight_decay: of Adam (L2); 0 is none.
        epochs: a network is trained to the largest number and scored at each.

    """

    learning_rate: list[Positive] = Field(min_length=1)
    weight_decay: list[Annotated[float, Field(ge=0)]] = Field(min_length=1)
    epochs: list[Count] = Field(min_length=1)


class NeighbourGrid(_Grid):
    """What is tried of nearest neighbours: see `NeighbourSettings`."""

    count: list[Count] = Field(min_length=1)
    scale: list[Positive] = Field(min_length=1)


class LinearGrid(_Grid):
    """What is tried of logistic regressions: see `LinearSettings`."""

    penalty: list[Positive] = Field(min_length=1)


class ForestGrid(_Grid):
    """What is tried of forests: see `ForestSettings`."""

    min_leaf: list[Count] = Field(min_length=1)


class Search(Settings):
    """What is tried, by family, and in which run.

    Attributes:
        run: number of the run whose random streams the search uses: one that no study reports, so
            that no reported run chose its own budget.
        network: grid of networks, whatever their loss.
        more_epochs: further numbers of epochs, for points that are best at the last of the grid's.
        neighbours: grid of nearest neighbours.
        linear: grid of linear models.
        forest: grid of forests.

    """

    run: int = Field(default=1000, ge=0)
    network: NetworkGrid
    more_epochs: list[int] = Field(default_factory=list)
    neighbours: NeighbourGrid
    linear: LinearGrid
    forest: ForestGrid

    @model_validator(mode="after")
    def _more_epochs_are_more(self):
        epochs = [self.network.epochs[-1], *self.more_epochs]
        if sorted(set(epochs)) != epochs:
            raise ValueError(
                f"more_epochs: expected different numbers above {epochs[0]}, smallest first, found "
                f"{self.more_epochs}"
            )
        return self

    def grid(self, family: str) -> dict[str, list[float] | list[int]]:
        """Values by setting of a family; a committee has none.

        Raises:
            ValueError: a family that has no settings to search for.

        """
        if family not in FAMILIES:
            raise ValueError(f"a {family} has no budget of its own: tune its members")
        values = getattr(self, family).model_dump()
        if family == "network":
            values["epochs"] = [*values["epochs"], *self.more_epochs]
        return values

    def first_points(self, family: str) -> list[dict[str, float | int]]:
        """What is trained at first: all combinations; of networks all rates with the least decay.

        Epochs are no part of a point; they are scored on the way.
        """
        grid = self.grid(family)
        if family == "network":
            return [
                {"learning_rate": rate, "weight_decay": grid["weight_decay"][0]}
                for rate in grid["learning_rate"]
            ]
        return [dict(zip(grid, chosen, strict=True)) for chosen in product(*grid.values())]

    def further_points(self, family: str, searched: pd.DataFrame) -> list[dict[str, float | int]]:
        """What is trained then: networks with all other decays, at the best rates so far.

        Args:
            family: of the variant.
            searched: rows of `search_point` for the first points.

        """
        if family != "network":
            return []
        rates = [float(choose(searched, by)["learning_rate"]) for by in DECISIVE]
        return [
            {"learning_rate": rate, "weight_decay": decay}
            for rate in dict.fromkeys(rates)
            for decay in self.network.weight_decay[1:]
        ]

    def longer_points(self, family: str, searched: pd.DataFrame) -> list[dict[str, float | int]]:
        """What is trained for more epochs at last: networks that are best at the last number so far.

        Args:
            family: of the variant.
            searched: rows of `search_point` for the first and the further points.

        """
        if family != "network" or not self.more_epochs:
            return []
        best = [choose(searched, by) for by in DECISIVE]
        points = [
            {name: float(row[name]) for name in ("learning_rate", "weight_decay")}
            for row in best
            if row["epochs"] == self.network.epochs[-1]
        ]
        return [point for place, point in enumerate(points) if point not in points[:place]]


# Grids by family; a budget has the settings of its family's, and no others.
FAMILIES: Mapping[str, type[_Grid]] = {
    "network": NetworkGrid,
    "neighbours": NeighbourGrid,
    "linear": LinearGrid,
    "forest": ForestGrid,
}
SETTINGS = tuple(name for grid in FAMILIES.values() for name in grid.model_fields)
# Budgets are chosen by the first; the second is what is usual.
DECISIVE = ("macro_ap", "micro_ap")
SCORES = ("macro_ap", "rare_ap", "micro_ap", *(f"ap_{name}" for name in RARITY_BINS))


@dataclass(frozen=True)
class Validation:
    """Validation data of a data set, to score predictions on.

    Attributes:
        targets: `[validation examples, evaluated nodes]`.
        evaluated: `[nodes]`.
        rarity: rarity bin of every evaluated node.
        unknown: `[validation examples, evaluated nodes]`, sparse 0/1, which scores leave out; or None.

    """

    targets: sparse.csr_array
    evaluated: Bool[np.ndarray, " nodes"]
    rarity: np.ndarray
    unknown: sparse.csr_array | None = None

    @classmethod
    def of(cls, dataset: Dataset, counted_in: Sequence[str] = FIT_ON) -> "Validation":
        """The validation part.

        Args:
            dataset: the examples and their split.
            counted_in: parts of the split in which positives are counted to call a node rare.

        Raises:
            ValueError: no validation part, or none of its examples is positive in a node.

        """
        evaluated = dataset.evaluated
        targets = dataset.targets[dataset.split["valid"]][:, evaluated].tocsr()
        if targets.sum() == 0:
            raise ValueError(
                f"{dataset.name}: its validation part has no positive example, and budgets are "
                "chosen on it; hold out some, as with valid_fraction"
            )
        counts = sum(dataset.counts(part) for part in counted_in)[evaluated]
        rarity = np.asarray(rarity_bin(counts))
        return cls(targets, evaluated, rarity, unknown_in(dataset, "valid"))

    def scores(self, probabilities: Float[np.ndarray, "examples nodes"]) -> dict[str, float]:
        """Average precision of predictions for all nodes of the hierarchy.

        Returns:
            `macro_ap`: the mean over evaluated nodes with validation positives; `rare_ap`: over
            those with 1 to 10 training positives; `ap_<bin>`: over those of a rarity bin;
            `micro_ap`: over all pairs of example and evaluated node at once. NaN where there is no
            such node.

        """
        scores = np.ascontiguousarray(probabilities[:, self.evaluated])
        scores = silenced(scores, self.unknown)
        of_node = average_precision(scores, self.targets)
        bins = {f"ap_{name}": _mean(of_node[self.rarity == name]) for name in RARITY_BINS}
        return {
            "macro_ap": _mean(of_node),
            "rare_ap": _mean(of_node[np.isin(self.rarity, RARE_BINS)]),
            "micro_ap": micro_average_precision(scores, self.targets),
            **bins,
        }


def search_point(
    variant: VariantSettings,
    dataset: Dataset,
    budget: Budget,
    point: Point,
    epochs: Sequence[int],
    streams: Streams,
    validation: Validation,
) -> list[dict[str, float | int]]:
    """Train one point of a variant's grid on the training part, and score it.

    Where a loss does not know how long the training is, a short training is the beginning of a long
    one, and one run serves all numbers of epochs. Where it does (a schedule over the training),
    each number is trained anew.

    Args:
        variant: what is trained.
        dataset: features, targets and split.
        budget: everything of the training that is not searched.
        point: the settings that are tried.
        epochs: after which a network is scored, smallest first; of no meaning for others.
        streams: the run's random streams.
        validation: scores predictions.

    Returns:
        A row for each number of epochs, or one where there are no epochs: the settings and
        `SCORES`. Scores of a training that breaks off, as its loss is no longer finite, are NaN
        from there on.

    """
    examples = resampled(variant, dataset, FIT_ON, streams.resampling())
    if variant.family != "network":
        predicted = _predict_simply(with_budget(variant, point), examples, dataset, streams)
        return [{**point, **validation.scores(predicted)}]
    rows = []
    for scored_at in [[length] for length in epochs] if knows_its_end(variant) else [epochs]:
        given = {**budget.model_dump(), **point, "epochs": scored_at[-1], "fit_on": list(FIT_ON)}
        spent = read_settings(type(budget), given, str(streams))
        rows += _train_network(variant, examples, dataset, spent, streams, scored_at, validation)
    return [{**point, **row} for row in rows]


def _train_network(
    variant: VariantSettings,
    examples: Dataset,
    dataset: Dataset,
    budget: Budget,
    streams: Streams,
    scored_at: Sequence[int],
    validation: Validation,
) -> list[dict[str, float | int]]:
    found = {epochs: dict.fromkeys(SCORES, float("nan")) for epochs in scored_at}

    def predicted(ensemble: Ensemble) -> Float[np.ndarray, "examples nodes"]:
        device = str(ensemble.weights[0].device)
        features = network_inputs(dataset, budget.encoder, dataset.split["valid"]).to(device)
        if variant.hidden_neighbours is not None:
            given = (ensemble, dataset, variant.hidden_neighbours, FIT_ON, budget.encoder)
            return np.concatenate(list(fit_hidden_neighbours(*given).predictions(features)))
        dropout = prediction_dropout(budget, streams, "valid", device)
        return ensemble.predict(features, dataset.hierarchy, dropout=dropout).cpu().numpy()

    def score(epoch: int, ensemble: Ensemble) -> None:
        if epoch in found:
            found[epoch] = validation.scores(predicted(ensemble))

    try:
        loss = build_loss(variant, examples, FIT_ON)
        train_ensemble(examples, loss, budget, streams, watch=score)
    except TrainingError as error:
        log.warning("%s: this point of the grid is given up", error)
    return [{"epochs": epochs, **scores} for epochs, scores in found.items()]


def _predict_simply(
    variant: VariantSettings, examples: Dataset, dataset: Dataset, streams: Streams
) -> Float[np.ndarray, "examples nodes"]:
    if variant.family == "forest":
        model = fit_forest(examples, variant.forest, FIT_ON, streams.forest())
    elif variant.family == "neighbours":
        model = fit_neighbours(examples, variant.neighbours, FIT_ON)
    else:
        model = fit_linear(examples, variant.linear, FIT_ON)
    return model.predict(dataset.features[dataset.split["valid"]])


def knows_its_end(variant: VariantSettings) -> bool:
    """Whether a network's loss depends on how many epochs are still to come."""
    if variant.conditional_first > 0:
        return True
    if variant.weights is None or variant.weights.schedule is None:
        return False
    schedule = variant.weights.schedule.schedule
    return schedule.over == "training" and schedule.kind != "alternating"


def with_budget(variant: VariantSettings, budget: Point, where: str = "budget") -> VariantSettings:
    """A variant with the chosen settings of its family: those of networks are of their training.

    Args:
        variant: the settings.
        budget: chosen values by setting.
        where: file and key they came from, for the message.

    Raises:
        SettingsError: a setting that the family does not have, or out of its range.

    """
    if variant.family == "network" or not budget:
        return variant
    values: dict[str, Any] = variant.model_dump(exclude_unset=True)
    values[variant.family] = {**values[variant.family], **budget}
    return read_settings(VariantSettings, values, where)


def choose(searched: pd.DataFrame, by: str) -> pd.Series:
    """The best row of a variant's search; of equal ones that with the fewest epochs, then the first.

    Args:
        searched: rows of `search_point` for all points.
        by: the score that decides, one of `SCORES`.

    Raises:
        ValueError: no point has a score.

    """
    if searched[by].isna().all():
        raise ValueError(f"no point of the grid has a {by}: every training broke off")
    best = searched[searched[by] == searched[by].max()]
    if "epochs" in best:
        best = best.sort_values("epochs", kind="stable")
    return best.iloc[0]


def budget_of(row: pd.Series, family: str) -> dict[str, float | int]:
    """The settings in a row of a search, as they are written into `params.yaml`."""
    return {
        name: int(row[name]) if field.annotation == list[Count] else float(row[name])
        for name, field in FAMILIES[family].model_fields.items()
    }


def _mean(values: Float[np.ndarray, " nodes"]) -> float:
    """Over nodes that have a score; NaN where there are none."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float("nan")
