"""What each member adds to a committee: its scores with the member and without it."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from rarenodes.datasets.dataset import Dataset
from rarenodes.inference.difference import compare
from rarenodes.scores.catalogue import family
from rarenodes.scores.metrics import rarity_bin
from rarenodes.scores.run_tables import HALF
from rarenodes.scores.unknown import unknown_in
from rarenodes.stages.material import Material
from rarenodes.stages.member_results import of_seed, results_of_member, traces_of_members
from rarenodes.study.params import Study
from rarenodes.study.results import Results
from rarenodes.training.committee import combine as mean_of
from rarenodes.training.committee import weights_without

COLUMNS = [
    "committee",
    "member",
    "weight",
    "measure",
    "nodes",
    "score",
    "without",
    "gain",
    "lower",
    "upper",
    "p",
]


def what_members_add(study: Study, material: Material) -> pd.DataFrame:
    """What average precision loses without each member of each committee of the study.

    The others keep the proportions of their weights; where they have none, they count alike. No
    weight is decided anew, so that what is measured is the member and not another decision.

    Args:
        study: names the committees.
        material: of one data set.

    Returns:
        A row per committee, member and score: the member's `weight` (mean over seeds and, where
        weights differ by rarity, bins), `score` with it, score `without` it, the `gain` (with minus
        without), its interval over test examples and seeds, and an uncorrected `p`.

    """
    tables = [
        _of_one(study, material, committee)
        for committee in study.parameters.committees
        if committee in material.test
    ]
    if not tables:
        return pd.DataFrame(columns=COLUMNS)
    return pd.concat(tables, ignore_index=True)[COLUMNS]


def _of_one(study: Study, material: Material, committee: str) -> pd.DataFrame:
    members = study.variant(committee).committee.members
    without = {
        f"without {member}": mean_without(study, material.dataset, material.name, committee, member)
        for member in members
    }
    scores = {committee: material.half[committee]} | material.scored_side_by_side(
        {name: (probabilities, HALF) for name, probabilities in without.items()}, ranking=True
    )
    table = compare(
        scores, committee, family("compared", "none"), confidence=material.confidence
    ).dropna(subset="difference")
    weights = _weights(study, material.name, committee, members)
    member = table["variant"].str.removeprefix("without ")
    return pd.DataFrame(
        {
            "committee": committee,
            "member": member,
            "weight": member.map(weights),
            "measure": table["measure"],
            "nodes": table["nodes"],
            "score": table["baseline_score"],
            "without": table["score"],
            "gain": -table["difference"],
            "lower": -table["upper"],
            "upper": -table["lower"],
            "p": table["p"],
        }
    )


def _weights(study: Study, name: str, committee: str, members: Sequence[str]) -> dict[str, float]:
    history = Results.load(study.results(name, committee)).history
    means = history.groupby("member")["weight"].mean()
    return {member: float(np.round(means[member], 6)) for member in members}


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
    predictions = [results_of_member(study, dataset, name, other, {}) for other in kept]
    traces = traces_of_members(study, dataset, kept, settings.mean)
    test = []
    for seed, table in Results.load(study.results(name, variant)).history.groupby("seed"):
        weights = weights_without(_weights_of(table, settings.members, positives), place)
        members = [of_seed(results, int(seed))[1] for results in predictions]
        given = (weights, settings.mean, dataset.hierarchy, dataset.evaluated, traces)
        test.append(mean_of(members, *given, unknown_in(dataset, "test")))
    return np.stack(test)


def _weights_of(table: pd.DataFrame, members: list[str], positives: np.ndarray) -> np.ndarray:
    """The weights that `_weight_table` wrote down."""
    weights = table.pivot(index="member", columns="rarity", values="weight").loc[members]
    if list(weights.columns) == ["all"]:
        return weights["all"].to_numpy()
    return weights[list(np.asarray(rarity_bin(positives), dtype=str))].to_numpy()
