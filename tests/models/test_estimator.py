"""The classifier keeps scikit-learn's conventions, and its labels and probabilities mean nodes."""

import copy
import pickle
import re

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from rarenodes import Hierarchy, RareNodeClassifier

EDGES = [("cat", "mammal"), ("dog", "mammal"), ("mammal", "animal"), ("bird", "animal")]
NODES = ["animal", "bird", "mammal", "cat", "dog"]
QUICK = {"epochs": 60, "batch_size": 16, "learning_rate": 0.02, "hidden": 8, "members": 2}

ONE_COLUMN = "predictions have a column a node: of one label an example as well, so not [examples]"


SAYS_NONE = "a forest or a lookup says 0 of what it has not seen near by; more is expected"


def expected_to_fail(estimator):
    """Checks of single-label classifiers, whose `predict` returns one label an example."""
    fails = dict.fromkeys(["check_classifiers_train", "check_classifiers_one_label"], ONE_COLUMN)
    if {"forest", "neighbours", "hidden_neighbours"} & set(estimator.variant or {}):
        fails["check_classifiers_multilabel_output_format_predict_proba"] = SAYS_NONE
    return fails


@parametrize_with_checks(
    [
        RareNodeClassifier(),
        RareNodeClassifier(
            variant={"constraint": "conditional"}, epochs=2, hidden=4, members=2, device="cpu"
        ),
        RareNodeClassifier(variant={"forest": {"trees": 3}}),
        RareNodeClassifier(variant={"neighbours": {"count": 5}}),
        RareNodeClassifier(
            variant={"hidden_neighbours": {"count": 5}}, epochs=2, hidden=4, members=2, device="cpu"
        ),
    ],
    expected_failed_checks=expected_to_fail,
)
def test_checks_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def examples():
    """Three clusters: cats, dogs and birds."""
    rng = np.random.default_rng(3)
    leaves = rng.choice(["cat", "dog", "bird"], size=90)
    centre = {"cat": (3, 0), "dog": (0, 3), "bird": (-3, -3)}
    features = np.array([centre[leaf] for leaf in leaves]) + rng.normal(size=(90, 2)) * 0.5
    return features, leaves


@pytest.mark.parametrize("variant", [None, {}, {"constraint": "conditional"}])
def test_learns_clusters_with_their_ancestors(examples, variant):
    features, leaves = examples
    model = RareNodeClassifier(EDGES, variant=variant, device="cpu", **QUICK).fit(features, leaves)
    assert model.classes_.tolist() == NODES
    above = {"cat": "mammal", "dog": "mammal", "bird": "animal"}
    truth = [[n in {leaf, above[leaf], "animal"} for n in NODES] for leaf in leaves]
    np.testing.assert_array_equal(model.predict(features), np.array(truth, dtype=int))
    assert model.score(features, leaves) == 1.0
    probabilities = model.predict_proba(features)
    assert probabilities.min() >= 0
    assert probabilities.max() <= 1
    for child, parent in EDGES:
        assert (probabilities[:, NODES.index(child)] <= probabilities[:, NODES.index(parent)]).all()


def test_all_forms_of_labels_say_the_same(examples):
    features, leaves = examples
    expected = RareNodeClassifier(EDGES).fit(features, leaves).predict_proba(features)
    indicator = (leaves[:, None] == np.array(NODES)).astype(int)
    shuffled = ["dog", "animal", "cat", "bird", "mammal"]
    table = pd.DataFrame(indicator, columns=NODES)[shuffled]
    forms = {
        "lists": [[leaf] for leaf in leaves],
        "sets with an ancestor": [{leaf, "animal"} for leaf in leaves],
        "series": pd.Series(leaves),
        "column": leaves[:, None],
        "indicator": indicator,
        "bool": indicator.astype(bool),
        "rows": indicator.tolist(),
        "sparse": sparse.csr_matrix(indicator),
        "table in another order": table,
    }
    for name, labels in forms.items():
        found = RareNodeClassifier(EDGES).fit(features, labels).predict_proba(features)
        np.testing.assert_array_equal(found, expected, err_msg=name)
    same = RareNodeClassifier(Hierarchy(EDGES)).fit(features, leaves).predict_proba(features)
    np.testing.assert_array_equal(same, expected)


def test_labels_without_a_hierarchy_stand_side_by_side(examples):
    features, leaves = examples
    model = RareNodeClassifier().fit(features, leaves)
    assert model.classes_.tolist() == ["bird", "cat", "dog"]
    assert model.predict(features).tolist() == (leaves[:, None] == model.classes_).tolist()


def test_score_is_the_mean_average_precision_of_nodes_with_positives():
    # Logit rises with the one feature; cats rank 1, 3 of 4 (AP (1 + 2/3) / 2), mammals are all.
    model = RareNodeClassifier([("cat", "mammal"), ("fish", "mammal"), ("mammal", "animal")])
    model.fit([[0.0], [1.0]], [["fish"], ["cat"]])
    score = model.score([[4.0], [3.0], [2.0], [1.0]], ["cat", "mammal", "cat", "mammal"])
    assert score == pytest.approx(((1 + 2 / 3) / 2 + 1) / 2)


def test_labels_that_stop_half_way_can_leave_open_what_is_below(examples):
    features, leaves = examples
    coarse = leaves.astype(object)
    coarse[:30] = np.where(leaves[:30] == "bird", "bird", "mammal")
    closed, opened = (
        RareNodeClassifier(EDGES, unknown_below=unknown).fit(features, coarse)
        for unknown in (False, True)
    )
    below = [NODES.index("cat"), NODES.index("dog")]
    mammals = leaves[:30] != "bird"
    either = [
        m.predict_proba(features[:30])[mammals][:, below].sum(axis=1) for m in (closed, opened)
    ]
    # Fitted to no mammal that is said to be neither, and to a sixth of all that are.
    assert (either[0] < either[1]).all()
    # Given that an animal is a mammal, cat and dog are learnt from those that say which.
    alone = RareNodeClassifier(EDGES).fit(features[30:], coarse[30:])
    given_mammal = [
        (chances := model.predict_proba(features))[:, below] / chances[:, [NODES.index("mammal")]]
        for model in (opened, alone)
    ]
    np.testing.assert_allclose(*given_mammal, rtol=1e-3)


def test_threshold_is_what_a_probability_has_to_exceed(examples):
    features, leaves = examples
    strong = {"linear": {"kind": "flat", "penalty": 100.0}}
    model = RareNodeClassifier(EDGES, variant=strong).fit(features, leaves)
    probabilities = model.predict_proba(features)
    model.set_params(threshold=0.9)
    np.testing.assert_array_equal(model.predict(features), probabilities > 0.9)
    assert (probabilities > 0.9).sum() < (probabilities > 0.5).sum()


def test_seed_alone_decides_a_network(examples):
    features, leaves = examples
    networks = {"variant": {}, "device": "cpu", **QUICK, "epochs": 2}
    first, again, other = (
        RareNodeClassifier(EDGES, random_state=seed, **networks)
        .fit(features, leaves)
        .predict_proba(features)
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    "changes",
    [
        {"variant": {"constraint": "conditional", "unseen": "constant"}},
        {"variant": {"training": {"ensemble": "dropout", "members": 3}}},
    ],
)
def test_copies_predict_the_same_bits(examples, changes):
    features, leaves = examples
    edges = [*EDGES, ("fish", "animal")]  # a node without examples
    model = RareNodeClassifier(edges, device="cpu", **{**QUICK, "epochs": 2}, **changes)
    expected = model.fit(features, leaves).predict_proba(features)
    for copied in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        np.testing.assert_array_equal(copied.predict_proba(features), expected)


def test_searched_in_a_pipeline(examples):
    features, leaves = examples
    pipeline = make_pipeline(
        StandardScaler(), RareNodeClassifier(EDGES, variant={}, device="cpu", **QUICK)
    )
    # NumPy's numbers, as a search over np.arange hands them over.
    grid = {"rarenodeclassifier__epochs": np.array([1, 40])}
    search = GridSearchCV(pipeline, grid, cv=3).fit(features, leaves)
    assert search.best_params_ == {"rarenodeclassifier__epochs": 40}
    assert search.best_score_ > 0.95


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["cat", "dgo"], "y, row 1: unknown node 'dgo'; did you mean 'dog'?"),
        ([["cat"], ["dog", None]], "y, row 1: found a label that is missing: leave it out"),
        (["cat"], "y: found labels of 1 examples, expected 2"),
        ("cat", "y: found str, expected labels for every example"),
        (np.array([[0, 1], [1, 0]]), "2 columns, expected 5, one for each node in classes_"),
        (np.array([[0, 2], [1, 0]]), "other values than 0 and 1, expected an indicator matrix"),
        (np.zeros((2, 2, 2)), "found an array of shape (2, 2, 2), expected labels"),
        ([[], []], "no evaluated node is positive"),
    ],
)
def test_wrong_labels(labels, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        RareNodeClassifier(EDGES).fit([[0.0], [1.0]], labels)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"epochs": 0}, "training: epochs: expected greater than 0, found 0"),
        ({"threshold": 1.5}, "threshold: expected a number from 0 to 1, found 1.5"),
        ({"variant": {"constrain": "training"}}, "variant: unknown key 'constrain'; did you mean"),
        (
            {"variant": {"committee": {"members": ["mcm", "forest"]}}},
            "a committee's members are variants that a study or a catalogue defines",
        ),
        ({"hierarchy": [("a", "b"), ("b", "a")]}, "cycle"),
    ],
)
def test_wrong_settings(given, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        RareNodeClassifier(**{"hierarchy": EDGES, **given}).fit([[0.0], [1.0]], ["cat", "dog"])
    assert "\n" not in str(error.value)


def test_label_of_the_name_that_is_put_above_all():
    with pytest.raises(ValueError, match="found the label 'root', expected labels of other names"):
        RareNodeClassifier().fit([[0.0], [1.0]], ["root", "leaf"])
