"""What the members of a committee predicted, as `combine` takes it."""

from collections.abc import Mapping

import numpy as np

from rarenodes.datasets.dataset import Dataset
from rarenodes.settings import SettingsError
from rarenodes.study.params import Study
from rarenodes.study.results import Results
from rarenodes.training.committee import traces_in


def results_of_member(
    study: Study, dataset: Dataset, name: str, member: str, made: Mapping[str, Results]
) -> Results:
    """Results of a trained variant, or of a committee that is made already.

    Raises:
        SettingsError: no probabilities were kept.

    """
    results = made[member] if member in made else Results.load(study.results(name, member), dataset)
    if results.test is None:
        raise SettingsError(
            f"{name} {member}: no probabilities were kept, and committees need them: set "
            "training.keep_probabilities to true"
        )
    return results


def of_seed(results: Results, seed: int) -> tuple[np.ndarray | None, np.ndarray]:
    """A member's validation and test probabilities at a seed of the committee."""
    seed = min(seed, len(results.test) - 1)
    return None if results.valid is None else results.valid[seed], results.test[seed]


def traces_of_members(
    study: Study, dataset: Dataset, members: list[str], mean: str
) -> np.ndarray | None:
    """What a mean adds to each member's probabilities, `[members, evaluated nodes]`; or None."""
    traces = traces_in(dataset, [study.variant(member).family for member in members], mean)
    return None if traces is None else traces[:, dataset.evaluated]
