"""The stage `combine`: committees, whose members are trained variants of any family."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pandas as pd

from rarenodes.datasets.dataset import Dataset
from rarenodes.scores.metrics import rarity_bin
from rarenodes.scores.run_tables import Predictions
from rarenodes.scores.stored import BlockedScores
from rarenodes.scores.unknown import silenced_in_blocks, unknown_in
from rarenodes.settings import SettingsError
from rarenodes.stages.member_results import of_seed, results_of_member, traces_of_members
from rarenodes.stages.train import predictions_again, scored_run, scores_of_runs
from rarenodes.study.params import Study
from rarenodes.study.results import Results
from rarenodes.training.combined_scores import CombinedScores
from rarenodes.training.committee import check_held_out, weights_on_validation
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
    members = [member for name in named for member in study.variant(name).committee.members]
    every = dict.fromkeys([*variants, *members])
    return [name for name in every if study.variant(name).committee is None]


def combine(study: Study, name: str, folder: Path) -> dict[str, Results]:
    """Combine the predictions of each committee's members; results go to `folder`, one folder each.

    Members are trained once, whatever number of committees they sit on. Seed s of a committee
    combines seed s of its members; a member that is not trained by chance has one, which sits in
    all. Weights are decided on the validation part, seed by seed, from members that were not
    trained on it. Where probabilities are not kept, members predict again, and the committee is scored
    some nodes at a time.
    """
    dataset = Dataset.load(study.prepared(name))
    made: dict[str, Results] = {}
    for variant in study.parameters.committees:
        if study.parameters.training.keep_probabilities:
            made[variant] = _combined(study, dataset, name, variant, made, folder / variant)
        else:
            made[variant] = _scored_in_blocks(study, dataset, name, variant, folder / variant)
    return made


def _combined(
    study: Study, dataset: Dataset, name: str, variant: str, made: dict[str, Results], folder: Path
) -> Results:
    settings = study.variant(variant).committee
    members = [results_of_member(study, dataset, name, member, made) for member in settings.members]
    held_out = all(member.valid is not None for member in members)
    check_held_out(f"{study.params_file}: committees: {variant!r}", settings, held_out)
    seeds = study.seeds(name, variant)
    positives = dataset.counts("train")[dataset.evaluated]
    traces = traces_of_members(study, dataset, settings.members, settings.mean)
    unknown = {part: unknown_in(dataset, part) for part in ("valid", "test")}
    test, valid, rows = [], [], []
    for seed in range(seeds):
        of_run = [of_seed(member, seed) for member in members]
        decided_on = [v if held_out else t for v, t in of_run]
        weights = weights_on_validation(f"{name} {variant}", dataset, settings, decided_on, traces)
        given = (weights, settings.mean, dataset.hierarchy, dataset.evaluated, traces)
        test.append(mean_of([t for _, t in of_run], *given, unknown["test"]))
        if held_out:
            valid.append(mean_of([v for v, _ in of_run], *given, unknown["valid"]))
        rows.append(_weight_table(settings.members, weights, positives).assign(seed=seed))
    history = pd.concat(rows, ignore_index=True)
    results = Results(history, np.stack(test), np.stack(valid) if held_out else None)
    results.save(folder)
    return results


def _scored_in_blocks(
    study: Study, dataset: Dataset, name: str, variant: str, folder: Path
) -> Results:
    members = study.variant(variant).committee.members
    positives = dataset.counts("train")[dataset.evaluated]
    runs, rows = [], []
    for seed in range(study.seeds(name, variant)):
        with ExitStack() as files:
            predictions, weights = _in_blocks(study, dataset, name, variant, seed, files)
            runs.append(scored_run(study, dataset, variant, predictions))
        rows.append(_weight_table(members, weights, positives).assign(seed=seed))
    results = Results(pd.concat(rows, ignore_index=True), **scores_of_runs(runs))
    results.save(folder)
    return results


def _in_blocks(
    study: Study, dataset: Dataset, name: str, variant: str, seed: int, files: ExitStack
) -> tuple[Predictions, np.ndarray]:
    """What a committee predicts, worked out when it is looked at, and the weights of its members."""
    settings = study.variant(variant).committee
    members = [
        _in_blocks(study, dataset, name, member, seed, files)[0]
        if study.variant(member).committee is not None
        else predictions_again(
            study, dataset, name, member, min(seed, study.seeds(name, member) - 1), files
        )
        for member in settings.members
    ]
    held_out = all(member.valid is not None for member in members)
    check_held_out(f"{study.params_file}: committees: {variant!r}", settings, held_out)
    decided_on = [member.valid if held_out else member.test for member in members]
    traces = traces_of_members(study, dataset, settings.members, settings.mean)
    weights = weights_on_validation(f"{name} {variant}", dataset, settings, decided_on, traces)

    def of_part(part: str) -> BlockedScores:
        scores = [getattr(member, part) for member in members]
        mean = CombinedScores(scores, weights, settings.mean, traces)
        return silenced_in_blocks(mean, unknown_in(dataset, part))

    return Predictions(of_part("valid") if held_out else None, of_part("test")), weights


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
