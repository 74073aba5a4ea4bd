"""The stage `combine`: committees, whose members are trained variants of any family."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from rarenodes.datasets.dataset import Dataset
from rarenodes.scores.metrics import rarity_bin
from rarenodes.scores.unknown import unknown_in
from rarenodes.settings import SettingsError
from rarenodes.study.params import Study
from rarenodes.study.results import Results
from rarenodes.training.committee import (
    check_held_out,
    traces_in,
    weights_on_validation,
    weights_without,
)
from rarenodes.training.committee import combine as mean_of


def trained_for(study: Study, variants: Sequence[str]) -> list[str]:
    """What is to be trained so that some variants can be scored, committees among them.

    The stage combines all committees of the study, so where one is wanted, the members of all.

    Args:
        study: names its committees.
        variants: trained ones of any name, and committees of the study.

    Raises:
        SettingsError: a committee that the study does not name, or no probabilities to combine.

    """
    wanted = [name for name in variants if study.variant(name).committee is not None]
    if not wanted:
        return list(variants)
    where, named = study.params_file, study.parameters.committees
    for name in wanted:
        if name not in named:
            raise SettingsError(
                f"{where}: committees: {name!r} is not named there: add it, or use `fit` alone"
            )
    if not study.parameters.training.keep_probabilities:
        raise SettingsError(
            f"{where}: training.keep_probabilities: committees need probabilities: set it to true"
        )
    members = [member for name in named for member in study.variant(name).committee.members]
    every = dict.fromkeys([*variants, *members])
    return [name for name in every if study.variant(name).committee is None]


def combine(study: Study, name: str, folder: Path) -> dict[str, Results]:
    """Combine the predictions of each committee's members; results go to `folder`, one folder each.

    Members are trained once, whatever number of committees they sit on. Seed s of a committee
    combines seed s of its members; a member that is not trained by chance has one, which sits in
    all. Weights are decided on the validation part, seed by seed, from members that were not
    trained on it.
    """
    dataset = Dataset.load(study.prepared(name))
    made: dict[str, Results] = {}
    for variant in study.parameters.committees:
        made[variant] = _combined(study, dataset, name, variant, made, folder / variant)
    return made


def _combined(
    study: Study, dataset: Dataset, name: str, variant: str, made: dict[str, Results], folder: Path
) -> Results:
    settings = study.variant(variant).committee
    members = [_results(study, dataset, name, member, made) for member in settings.members]
    held_out = all(member.valid is not None for member in members)
    check_held_out(f"{study.params_file}: committees: {variant!r}", settings, held_out)
    seeds = study.seeds(name, variant)
    positives = dataset.counts("train")[dataset.evaluated]
    traces = _traces(study, dataset, settings.members, settings.mean)
    unknown = {part: unknown_in(dataset, part) for part in ("valid", "test")}
    test, valid, rows = [], [], []
    for seed in range(seeds):
        of_seed = [_of_seed(member, seed) for member in members]
        decided_on = [v if held_out else t for v, t in of_seed]
        weights = weights_on_validation(f"{name} {variant}", dataset, settings, decided_on, traces)
        given = (weights, settings.mean, dataset.hierarchy, dataset.evaluated, traces)
        test.append(mean_of([t for _, t in of_seed], *given, unknown["test"]))
        if held_out:
            valid.append(mean_of([v for v, _ in of_seed], *given, unknown["valid"]))
        rows.append(_weight_table(settings.members, weights, positives).assign(seed=seed))
    history = pd.concat(rows, ignore_index=True)
    results = Results(history, np.stack(test), np.stack(valid) if held_out else None)
    results.save(folder)
    return results


def mean_without(
    study: Study, dataset: Dataset, name: str, variant: str, member: str
) -> Float[np.ndarray, "seeds examples nodes"]:
    """What a committee would predict on the test part without one of its members.

    The others keep the proportions of their weights; where they have none, they count alike.

    Args:
        study: whose committee has been combined.
        dataset: the prepared data set.
        name: of the data set.
        variant: the committee.
        member: who is left out.

    """
    settings = study.variant(variant).committee
    place = settings.members.index(member)
    kept = [other for other in settings.members if other != member]
    positives = dataset.counts("train")[dataset.evaluated]
    predictions = [_results(study, dataset, name, other, {}) for other in kept]
    traces = _traces(study, dataset, kept, settings.mean)
    test = []
    for seed, table in Results.load(study.results(name, variant)).history.groupby("seed"):
        weights = weights_without(_weights_of(table, settings.members, positives), place)
        members = [_of_seed(results, int(seed))[1] for results in predictions]
        given = (weights, settings.mean, dataset.hierarchy, dataset.evaluated, traces)
        test.append(mean_of(members, *given, unknown_in(dataset, "test")))
    return np.stack(test)


def _weights_of(table: pd.DataFrame, members: list[str], positives: np.ndarray) -> np.ndarray:
    """The weights that `_weight_table` wrote down."""
    weights = table.pivot(index="member", columns="rarity", values="weight").loc[members]
    if list(weights.columns) == ["all"]:
        return weights["all"].to_numpy()
    return weights[list(np.asarray(rarity_bin(positives), dtype=str))].to_numpy()


def _results(
    study: Study, dataset: Dataset, name: str, member: str, made: dict[str, Results]
) -> Results:
    results = made[member] if member in made else Results.load(study.results(name, member), dataset)
    if results.test is None:
        raise SettingsError(
            f"{name} {member}: no probabilities were kept, and committees need them: set "
            "training.keep_probabilities to true"
        )
    return results


def _of_seed(results: Results, seed: int) -> tuple[np.ndarray | None, np.ndarray]:
    """A member's validation and test probabilities at a seed of the committee."""
    seed = min(seed, len(results.test) - 1)
    return None if results.valid is None else results.valid[seed], results.test[seed]


def _traces(study: Study, dataset: Dataset, members: list[str], mean: str) -> np.ndarray | None:
    traces = traces_in(dataset, [study.variant(member).family for member in members], mean)
    return None if traces is None else traces[:, dataset.evaluated]


def _weight_table(members: list[str], weights: np.ndarray, positives: np.ndarray) -> pd.DataFrame:
    """A row per member, and per rarity bin where weights differ by it: what it counts."""
    if weights.ndim == 1:
        return pd.DataFrame({"member": members, "rarity": "all", "weight": weights})
    bins = np.asarray(rarity_bin(positives), dtype=str)
    rows = [
        {"member": member, "rarity": name, "weight": weights[position, bins == name][0]}
        for name in dict.fromkeys(bins)
        for position, member in enumerate(members)
    ]
    return pd.DataFrame(rows)
