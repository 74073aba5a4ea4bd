"""The stage `combine`: committees, whose members are trained variants of any family."""

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
from rarenodes.training.committee import choose_weights, traces_of, weights_without
from rarenodes.training.committee import combine as mean_of

# Families that say 0 of a node which they have not seen near by.
_CAN_BE_ZERO = ("forest", "neighbours")


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
    if settings.weights != "equal" and not held_out:
        raise SettingsError(
            f"{study.params_file}: committees: {variant!r} decides weights on validation data, but a "
            "member is trained on them: leave `valid` out of fit_on, or set weights to equal"
        )
    seeds = study.seeds(name, variant)
    positives = dataset.counts("train")[dataset.evaluated]
    targets = dataset.targets[dataset.split["valid"]][:, dataset.evaluated]
    traces = _traces(study, dataset, settings.members) if settings.mean == "geometric" else None
    unknown = {part: unknown_in(dataset, part) for part in ("valid", "test")}
    test, valid, rows = [], [], []
    for seed in range(seeds):
        of_seed = [_of_seed(member, seed) for member in members]
        weights = choose_weights(
            [v for v, _ in of_seed] if held_out else [t for _, t in of_seed],
            targets,
            settings.weights,
            settings.mean,
            positives,
            traces,
            unknown["valid"],
        )
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
    traces = _traces(study, dataset, kept) if settings.mean == "geometric" else None
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


def _traces(study: Study, dataset: Dataset, members: list[str]) -> np.ndarray:
    frequency = dataset.counts("train")[dataset.evaluated] / len(dataset.split["train"])
    families = [study.variant(member).family for member in members]
    return traces_of(frequency, [family in _CAN_BE_ZERO for family in families])


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
