import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import sparse

from rarenodes.datasets import load_dataset
from rarenodes.datasets.dataset import Dataset
from rarenodes.loss.hierarchy import Hierarchy
from rarenodes.scores.metrics import average_precision
from rarenodes.training.neighbours import NeighbourSettings, fit_neighbours

# Order of nodes: r, a, b.
FORK = Hierarchy([("a", "r"), ("b", "r")])
LABELS = np.array([[1, 1, 0], [1, 0, 1], [1, 0, 0], [1, 1, 1]])
# Their cosine distances from (1, 0): 0, 0.4, 1, 2.
STORED = np.array([[2.0, 0.0], [3.0, 4.0], [0.0, 1.0], [-1.0, 0.0]])


def dataset_of(features, targets=LABELS, hierarchy=FORK, train=None):
    rows = np.arange(len(targets)) if train is None else np.asarray(train)
    nothing = np.array([], dtype=np.int64)
    return Dataset(
        name="by hand",
        features=np.asarray(features, dtype=np.float32),
        targets=sparse.csr_array(np.asarray(targets, dtype=np.uint8)),
        hierarchy=hierarchy,
        split={"train": rows, "valid": nothing, "test": nothing},
        evaluated=np.ones(len(hierarchy), dtype=bool),
        card={},
    )


def fitted(features=STORED, **settings):
    return fit_neighbours(dataset_of(features), NeighbourSettings(**settings), ["train"])


def test_cosine_by_hand():
    predicted = fitted(count=3, scale=0.5).predict(np.array([[5.0, 0.0]]))
    # Distances 0, 0.4 and 1, their mean 1.4 / 3; the fourth, opposite one is no neighbour.
    w = np.exp(-np.array([0, 0.4, 1]) / (0.5 * 1.4 / 3))
    w /= w.sum()
    np.testing.assert_allclose(predicted, [[1, w[0], w[1]]], rtol=1e-6)


def test_euclidean_by_hand():
    predicted = fitted(count=2, scale=1.0, metric="euclidean").predict(np.array([[0.0, 0.0]]))
    # The third and the fourth example, both at distance 1.
    np.testing.assert_allclose(predicted, [[1, 0.5, 0.5]], rtol=1e-6)


def test_near_duplicates_are_passed_over():
    neighbours = fitted(count=2, scale=1.0, exclude_within=0.4)
    rows, distances = next(neighbours.neighbours(np.array([[5.0, 0.0]])))
    assert rows.tolist() == [[2, 3]]
    np.testing.assert_allclose(distances, [[1, 2]])
    w = 1 / (1 + np.exp(-1 / 1.5))
    np.testing.assert_allclose(
        neighbours.predict(np.array([[5.0, 0.0]])), [[1, 1 - w, 1 - w]], rtol=1e-6
    )


def test_fewer_neighbours_than_asked_for_where_most_are_excluded():
    predicted = fitted(count=4, exclude_within=1.5).predict(np.array([[1.0, 0.0]]))
    np.testing.assert_allclose(predicted, [LABELS[3]])


def test_frequencies_where_all_are_excluded():
    predicted = fitted(count=2, exclude_within=2.0).predict(np.array([[1.0, 0.0]]))
    np.testing.assert_allclose(predicted, [[1, 0.5, 0.5]])


def test_duplicates_alone_count_alike():
    predicted = fitted(features=[[1, 1], [2, 2], [1, 0], [0, 1]], count=2).predict(np.ones((1, 2)))
    np.testing.assert_allclose(predicted, [[1, 0.5, 0.5]], rtol=1e-5)


def test_a_minute_scale_leaves_the_nearest():
    predicted = fitted(count=4, scale=1e-5).predict(np.array([[3.0, 3.9]]))
    np.testing.assert_allclose(predicted, [LABELS[1]])


def test_all_are_neighbours_where_there_are_few():
    rows, _ = next(fitted(count=30).neighbours(np.array([[1.0, 0.0]])))
    assert rows.tolist() == [[0, 1, 2, 3]]


def test_an_example_without_direction_is_far_from_all():
    _, distances = next(fitted(count=4).neighbours(np.zeros((1, 2))))
    np.testing.assert_array_equal(distances, [[1, 1, 1, 1]])


def test_no_example_to_predict():
    assert fitted().predict(np.empty((0, 2))).shape == (0, 3)


@given(
    st.integers(0, 100), st.integers(1, 12), st.sampled_from(["cosine", "euclidean"]), st.booleans()
)
def test_neighbours_are_those_of_all_distances(seed, count, metric, one_at_a_time):
    rng = np.random.default_rng(seed)
    stored, queries = rng.normal(size=(10, 3)), rng.normal(size=(4, 3))
    labels = np.column_stack([np.ones(10), rng.integers(0, 2, (10, 2))])
    data = dataset_of(stored, labels)
    with pytest.MonkeyPatch.context() as patch:
        if one_at_a_time:
            patch.setattr("rarenodes.training.neighbours.BLOCK", 1)
        settings = NeighbourSettings(count=count, metric=metric, scale=0.7)
        predicted = fit_neighbours(data, settings, ["train"]).predict(queries)
    stored = stored.astype(np.float32).astype(np.float64)
    for query, found in zip(queries, predicted, strict=True):
        if metric == "cosine":
            d = 1 - stored @ query / np.linalg.norm(stored, axis=1) / np.linalg.norm(query)
        else:
            d = np.linalg.norm(stored - query, axis=1)
        nearest = np.argsort(d)[:count]
        weights = np.exp(-d[nearest] / (0.7 * d[nearest].mean()))
        np.testing.assert_allclose(found, weights @ labels[nearest] / weights.sum(), rtol=1e-5)


@pytest.fixture(scope="module", params=[0.0, 0.5], ids=["tree", "dag"])
def synthetic(request):
    return load_dataset("synthetic", options={"signal": 1.0, "multi_parent": request.param})


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_predictions_are_coherent_probabilities_also_from_sparse_features(synthetic, metric):
    settings = NeighbourSettings(metric=metric)
    predicted = fit_neighbours(synthetic, settings, ["train"]).predict(synthetic.features)
    assert predicted.shape == synthetic.targets.shape
    assert predicted.dtype == np.float32
    assert predicted.min() >= 0
    assert predicted.max() <= 1
    assert synthetic.hierarchy.is_coherent(torch.from_numpy(predicted))
    by_row = sparse.csr_matrix(synthetic.features)
    again = fit_neighbours(synthetic, settings, ["train"], by_row).predict(by_row)
    np.testing.assert_allclose(again, predicted, atol=1e-5)


def test_ranks_better_than_chance(synthetic):
    rows = synthetic.split["test"]
    targets = synthetic.targets[rows][:, synthetic.evaluated]
    neighbours = fit_neighbours(synthetic, NeighbourSettings(), ["train"])
    found = average_precision(
        neighbours.predict(synthetic.features[rows])[:, synthetic.evaluated], targets
    )
    assert np.nanmean(found) > 1.3 * np.nanmean(np.where(found > 0, targets.mean(axis=0), np.nan))


def test_only_the_parts_fitted_on_are_looked_up(synthetic):
    of_train = fit_neighbours(synthetic, NeighbourSettings(), ["train"])
    of_both = fit_neighbours(synthetic, NeighbourSettings(), ["train", "valid"])
    assert of_train.features.shape[0] == len(synthetic.split["train"])
    assert of_both.features.shape[0] == sum(len(synthetic.split[p]) for p in ("train", "valid"))


def test_features_in_place_of_the_data_sets_own(synthetic):
    rng = np.random.default_rng(0)
    turned = synthetic.features @ rng.normal(size=(synthetic.features.shape[1], 3))
    own = fit_neighbours(synthetic, NeighbourSettings(), ["train"]).predict(synthetic.features)
    other = fit_neighbours(synthetic, NeighbourSettings(), ["train"], turned).predict(turned)
    assert (own != other).any()


def test_features_of_another_width_are_refused():
    with pytest.raises(ValueError, match="examples have 3 features, expected the 2"):
        fitted().predict(np.ones((1, 3)))


def test_features_of_other_examples_are_refused():
    with pytest.raises(ValueError, match="features have 3 rows, expected one for each of the 4"):
        fit_neighbours(dataset_of(STORED), NeighbourSettings(), ["train"], np.zeros((3, 2)))


@pytest.mark.parametrize(
    "values", [{"count": 0}, {"scale": 0.0}, {"metric": "taxicab"}, {"exclude_within": -0.1}]
)
def test_settings_out_of_range(values):
    with pytest.raises(ValidationError, match=next(iter(values))):
        NeighbourSettings(**values)
