import subprocess
import sys

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from rarenodes.datasets import load_dataset
from rarenodes.scores.metrics import micro_average_precision
from rarenodes.training.forest import ForestSettings, fit_forest, grow

SMALL = ForestSettings(trees=10, min_leaf=2, max_features=0.5)


@pytest.fixture(scope="module", params=[0.0, 0.5], ids=["tree", "dag"])
def dataset(request):
    options = {"signal": 1.0, "multi_parent": request.param}
    return load_dataset("synthetic", options=options)


def test_predictions_are_coherent_probabilities_of_all_nodes(dataset):
    predicted = fit_forest(dataset, SMALL, ["train"], 0).predict(dataset.features)
    assert predicted.shape == dataset.targets.shape
    assert predicted.dtype == np.float32
    assert predicted.min() >= 0
    assert predicted.max() <= 1
    assert dataset.hierarchy.is_coherent(torch.from_numpy(predicted))


def grown(dataset, settings):
    rows = dataset.split["train"]
    return grow(dataset.features[rows], dataset.targets[rows].astype(float), settings, 0)


def test_leaves_are_those_of_scikit_learn_and_predict_alike(dataset):
    forest, theirs = fit_forest(dataset, SMALL, ["train"], 0), grown(dataset, SMALL)
    first = np.cumsum([0, *(tree.tree_.node_count for tree in theirs.estimators_)])[:-1]
    leaves = theirs.apply(dataset.features) + first
    np.testing.assert_array_equal(forest.trees.leaves(dataset.features), leaves)
    expected = theirs.predict(dataset.features)
    np.testing.assert_allclose(forest.predict(dataset.features), expected, atol=1e-6)
    assert forest.trees.leaves(dataset.features[:0]).shape == (0, 10)


def test_projected_targets_find_splits_and_leaves_still_predict_all_nodes(dataset):
    projected = ForestSettings(trees=10, min_leaf=2, max_features=0.5, components=8)
    assert grown(dataset, projected).n_outputs_ == 8
    forest = fit_forest(dataset, projected, ["train"], 0)
    predicted = forest.predict(dataset.features)
    assert predicted.shape == dataset.targets.shape
    assert dataset.hierarchy.is_coherent(torch.from_numpy(predicted))
    rows = dataset.split["test"]
    of_all = fit_forest(dataset, SMALL, ["train"], 0).predict(dataset.features)
    targets = dataset.targets[rows]
    assert micro_average_precision(predicted[rows], targets) == pytest.approx(
        micro_average_precision(of_all[rows], targets), abs=0.05
    )


def test_a_forest_ranks_better_than_frequencies(dataset):
    rows = dataset.split["test"]
    targets = dataset.targets[rows][:, dataset.evaluated]
    forest = fit_forest(dataset, SMALL, ["train", "valid"], 0)
    predicted = forest.predict(dataset.features[rows])[:, dataset.evaluated]
    frequencies = np.broadcast_to(dataset.counts("train")[dataset.evaluated] / 180, targets.shape)
    of_frequencies = micro_average_precision(frequencies, targets)
    assert micro_average_precision(predicted, targets) > 1.2 * of_frequencies


def test_a_tree_of_one_leaf_predicts_the_shares_of_its_sample(dataset):
    one_leaf = ForestSettings(trees=1, min_leaf=10_000)
    predicted = fit_forest(dataset, one_leaf, ["train"], 0).predict(dataset.features[:3])
    assert (predicted == predicted[0]).all()
    # The mean of a bootstrap sample of the training examples, whose standard error is below 0.04.
    shares = dataset.counts("train") / len(dataset.split["train"])
    np.testing.assert_allclose(predicted[0], shares, atol=0.16)
    assert (predicted[0] != shares).any()


def test_only_the_parts_fitted_on_are_learned_from(dataset):
    forests = [
        fit_forest(dataset, SMALL, parts, 0).predict(dataset.features)
        for parts in (["train"], ["train"], ["train", "valid"])
    ]
    np.testing.assert_array_equal(forests[0], forests[1])
    assert (forests[0] != forests[2]).any()


def test_another_seed_grows_another_forest(dataset):
    first, second = (fit_forest(dataset, SMALL, ["train"], seed) for seed in (0, 2**32 - 1))
    assert (first.predict(dataset.features) != second.predict(dataset.features)).any()


@pytest.mark.parametrize(
    "values", [{"trees": 0}, {"min_leaf": 0}, {"max_features": 0.0}, {"max_features": 1.5}]
)
def test_settings_out_of_range(values):
    with pytest.raises(ValidationError, match=next(iter(values))):
        ForestSettings(**values)


def test_scikit_learn_is_imported_only_to_grow_a_forest():
    # A process starts for seconds: it looks after linear models too, which need none at all.
    code = (
        "import sys, rarenodes.training.linear, rarenodes.training.forest; "
        "sys.exit('sklearn' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
