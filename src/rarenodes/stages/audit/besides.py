"""What released code does besides its loss: how it fills gaps, and how it oversamples."""

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from rarenodes.datasets import load_dataset
from rarenodes.inference.difference import compare
from rarenodes.inference.significance import holm
from rarenodes.randomness import numpy_stream
from rarenodes.scores.run_tables import HALF
from rarenodes.settings import SettingsError
from rarenodes.stages.audit.effects import COMPARED
from rarenodes.stages.audit.switches import audit_settings
from rarenodes.stages.material import Material
from rarenodes.study.params import Study
from rarenodes.training.ensemble import Ensemble
from rarenodes.training.loop import Streams, prediction_dropout
from rarenodes.training.resampling import (
    hros_pd,
    hros_pd_released,
    label_statistics,
    lp_ros,
)

_IMPUTATION_COLUMNS = [
    "variant",
    "measure",
    "nodes",
    "at",
    "train_score",
    "own_score",
    "difference",
    "lower",
    "upper",
    "p",
    "holm_p",
    "largest_change",
    "features_changed",
]
_STATISTICS = ("mean_ir_nodes", "mean_ir_paths", "label_sets", "paths", "minority_paths")


def imputation_table(study: Study, material: Material) -> pd.DataFrame:
    """The same networks, shown test examples with gaps filled by means of the test part itself.

    Args:
        study: says for which variants, `audit.imputation`.
        material: of a data set whose source has an option `imputation`.

    Returns:
        A row per variant and score: `own_score` minus `train_score`, Holm's correction over all
        rows; `largest_change` of any probability, and the share of test features that differ.

    Raises:
        SettingsError: a variant's networks were not kept, or the source has no such option.

    """
    variants = audit_settings(study).imputation
    if not variants:
        return pd.DataFrame(columns=_IMPUTATION_COLUMNS)
    test = material.dataset.split["test"]
    features = {
        "train": material.dataset.features[test],
        "own": _released_features(study, material.name)[test],
    }
    tables = []
    for variant in variants:
        probabilities = {
            filling: _predicted(study, material, variant, torch.from_numpy(values))
            for filling, values in features.items()
        }
        change = np.abs(probabilities["own"] - probabilities["train"]).max()
        tables.append(
            _differences(material, variant, probabilities).assign(
                variant=variant,
                largest_change=float(change),
                features_changed=float(np.mean(features["own"] != features["train"])),
            )
        )
    table = pd.concat(tables, ignore_index=True).dropna(subset="difference")
    table["holm_p"] = holm(table["p"].to_numpy())
    return table[_IMPUTATION_COLUMNS]


def _released_features(study: Study, name: str) -> Float[np.ndarray, "examples features"]:
    settings = study.dataset(name)
    return load_dataset(
        settings.source,
        study.data_folder,
        seed=study.parameters.seed,
        train_fraction=settings.train_fraction,
        options={**settings.options, "imputation": "released"},
    ).features


def _differences(
    material: Material, variant: str, probabilities: dict[str, np.ndarray]
) -> pd.DataFrame:
    scores = {
        filling: material.half[variant]
        if np.array_equal(values, material.test[variant])
        else material.scores_of(values, HALF, ranking=True)
        for filling, values in probabilities.items()
    }
    keys = [key for key in COMPARED if key[2] != "tuned"]
    columns = [(measure, nodes) for measure, nodes, _ in keys]
    table = compare(scores, "train", columns, confidence=material.confidence)
    names = {"score": "own_score", "baseline_score": "train_score"}
    return table.rename(columns=names).assign(at=[at for _, _, at in keys])


def _predicted(
    study: Study, material: Material, variant: str, inputs: torch.Tensor
) -> Float[np.ndarray, "seeds examples nodes"]:
    """Coherent probabilities of every seed's kept networks for the evaluated nodes."""
    training, predictions = study.training(material.name, variant), []
    for seed in range(len(material.test[variant])):
        folder = study.results(material.name, variant) / f"ensemble-{seed}"
        if not folder.exists():
            raise SettingsError(
                f"{material.name} {variant}: no networks of seed {seed} were kept, and "
                f"audit.imputation needs them: set variants.{variant}.training.keep_ensembles to true"
            )
        streams = Streams(study.parameters.seed, material.name, variant, seed)
        predicted = Ensemble.load(folder).predict(
            inputs,
            material.dataset.hierarchy,
            dropout=prediction_dropout(training, streams, "test", "cpu"),
        )
        predictions.append(predicted.numpy()[:, material.dataset.evaluated])
    return np.stack(predictions)


def oversampling_table(study: Study, material: Material) -> pd.DataFrame:
    """What oversampling adds to the training part, and what that does to its imbalance.

    A row per method with its usual budget: `added` examples, and statistics of
    `resampling.label_statistics` before and after.
    """
    hierarchy = material.dataset.hierarchy
    targets = material.dataset.targets[material.dataset.split["train"]]
    methods = {
        "LP-ROS": lambda rng: lp_ros(targets, hierarchy, rng),
        "HROS-PD, whole copies": lambda rng: hros_pd(targets, hierarchy, rng),
        "HROS-PD, truncated copies": lambda rng: hros_pd(
            targets, hierarchy, rng, copies="truncated"
        ),
        "HROS-PD, released order": lambda rng: hros_pd_released(targets, hierarchy, rng),
    }
    rows = []
    for name, method in methods.items():
        rng = numpy_stream(study.parameters.seed, "oversampling", material.name, name)
        statistics = label_statistics(targets, hierarchy, method(rng))
        row = {
            "method": name,
            "examples": statistics.loc["before", "examples"],
            "added": statistics.loc["after", "added"],
        }
        for column in _STATISTICS:
            for moment in ("before", "after"):
                row[f"{column}_{moment}"] = statistics.loc[moment, column]
        rows.append(row)
    return pd.DataFrame(rows)
