"""Every declared variant: its loss by hand and by its settings alone, the suite, a tiny training."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conformance import (
    DAG,
    Case,
    Conformance,
    Definition,
    MaskedConformance,
    UncoupledConformance,
    balance_weights,
    random_logits,
    scheduled,
)
from scipy import sparse
from strategies import descendants

from rarenodes.datasets.dataset import Dataset
from rarenodes.loss.coherent import RareNodeLoss
from rarenodes.loss.hierarchy import Hierarchy
from rarenodes.loss.schedules import Moment
from rarenodes.stages.prepare import prepare
from rarenodes.stages.score import score_variant
from rarenodes.stages.train import train as train_stage
from rarenodes.study.params import Study
from rarenodes.study.results import Results
from rarenodes.training.committee import members_first
from rarenodes.training.ensemble import Ensemble
from rarenodes.training.loop import Budget, Streams, train_ensemble
from rarenodes.training.variants import VariantSettings, build_loss, resampled

REPOSITORY = Path(__file__).parents[2]
FILES = ("variants.yaml", "studies/audit/params.yaml")


def declared(file: str) -> dict[str, dict]:
    return yaml.safe_load((REPOSITORY / file).read_text())["variants"]


def with_parts(file: str) -> dict[str, dict]:
    """Its variants, each with the parts that the file has all of them trained on."""
    parts = yaml.safe_load((REPOSITORY / file).read_text()).get("training", {}).get("fit_on")
    entries = declared(file)
    if parts is None:
        return entries
    return {
        name: {**entry, "training": {"fit_on": parts, **entry.get("training", {})}}
        for name, entry in entries.items()
    }


ENTRIES = {name: entry for file in FILES for name, entry in with_parts(file).items()}
GIVEN_PARENTS = ("conditional", "unconditional")
FAMILIES = {"forest", "neighbours", "linear", "committee"}
LOSSES = {name: entry for name, entry in ENTRIES.items() if not FAMILIES & set(entry)}
# Committees train nothing: they combine others.
TRAINED = [name for name, entry in ENTRIES.items() if "committee" not in entry]


def fit_on(entry: dict) -> list[str]:
    return entry.get("training", {}).get("fit_on", ["train"])


# The files


@pytest.mark.parametrize(
    "study",
    [
        path.relative_to(REPOSITORY)
        for pattern in ("params.yaml", "studies/*/params.yaml")
        for path in sorted(REPOSITORY.glob(pattern))
    ],
    ids=str,
)
def test_every_variant_of_a_shipped_study_says_what_it_is_and_whose(study):
    table = Study(REPOSITORY / study).variant_table()
    for column in ("what it is", "source"):
        assert table[column].str.fullmatch(r".{4,100}").all(), table[["variant", column]]


def test_a_name_means_one_variant_in_all_files():
    count = Counter(name for file in FILES for name in declared(file))
    for name in (name for name, files in count.items() if files > 1):
        found = [entries[name] for entries in map(declared, FILES) if name in entries]
        assert all(entry == found[0] for entry in found), name


def test_no_two_variants_of_a_study_are_described_alike():
    for file in FILES:
        abouts = [entry["about"] for entry in declared(file).values()]
        assert len(set(abouts)) == len(abouts)


@pytest.mark.parametrize("name", sorted(set(ENTRIES) - set(LOSSES)))
def test_what_is_no_network_has_no_loss(name):
    (family,) = set(ENTRIES[name]) - {"about", "source", "budget_of"}
    assert VariantSettings.model_validate(ENTRIES[name]).family == family


@pytest.mark.parametrize("name", LOSSES)
def test_all_others_are_networks(name):
    assert VariantSettings.model_validate(ENTRIES[name]).family == "network"


@pytest.mark.parametrize(
    ("family", "called"),
    [
        ({"neighbours": {}}, "a lookup of neighbours"),
        ({"linear": {}}, "a linear model"),
        ({"committee": {"members": ["mcm", "forest"]}}, "a committee"),
    ],
)
@pytest.mark.parametrize(
    "more",
    [
        *({"constraint": "prediction"}, {"mixture": 0.5}, {"weights": {"mode": "binary"}}),
        {"hidden_neighbours": {}},
    ],
)
def test_what_is_no_network_is_given_no_loss(family, called, more):
    with pytest.raises(ValueError, match=f"{called} has no loss: remove {next(iter(more))}"):
        VariantSettings.model_validate({"about": "wrong", **family, **more})


def test_one_family_at_a_time():
    with pytest.raises(ValueError, match="a forest has no loss: remove linear"):
        VariantSettings.model_validate({"about": "wrong", "forest": {}, "linear": {}})


def test_a_committee_resamples_nothing():
    entry = {**ENTRIES["committee_equal"], "resampling": {"method": "lp-ros"}}
    with pytest.raises(ValueError, match="remove resampling"):
        VariantSettings.model_validate(entry)


def test_committees_of_all_files_have_known_members():
    committees = {
        name: VariantSettings.model_validate(entry).committee
        for name, entry in ENTRIES.items()
        if "committee" in entry
    }
    assert set(members_first(committees, ENTRIES, "variants.yaml")) == set(committees)


# The loss by a variant's settings, in plain Python


def count(examples: Sequence[set[str]], hierarchy: Hierarchy) -> list[int]:
    return [sum(node in example for example in examples) for node in hierarchy.nodes]


def double_count(counts: list[int], hierarchy: Hierarchy) -> list[int]:
    """Counts summed again over descendants, in place."""
    counts = list(counts)
    for j, below in enumerate(descendants(hierarchy.nodes, hierarchy.edges)):
        counts[j] = sum(counts[d] for d in below)
    return counts


def weights_of(counts: list[int], examples: int, mode: str, **options: float) -> list[float]:
    if mode == "effective-number":
        beta = options.get("beta", 0.999)
        inverse = [(1 - beta) / (1 - beta**n) if n else math.nan for n in counts]
        seen = [w for w in inverse if not math.isnan(w)]
        return [1.0 if math.isnan(w) else w / (sum(seen) / len(seen)) for w in inverse]
    if mode == "positive-ratio":
        cap = options.get("cap", 100)
        return [min((examples - n) / n, cap) if 0 < n < examples else 1.0 for n in counts]
    classes = {"class-wise": len(counts), "binary": 2}[mode]
    raw = [1.0 if n in (0, examples) else examples / (classes * n) for n in counts]
    low, high = min(raw), max(raw)
    return [options.get("floor", 0.25) + high * (w - low) / (high - low) for w in raw]


def count_of_parents(examples: Sequence[set[str]], hierarchy: Hierarchy) -> list[int]:
    """Examples that hold all of a node's parents."""
    above = [{k for child, k in hierarchy.edges if child == node} for node in hierarchy.nodes]
    return [sum(parents <= example for example in examples) for parents in above]


def as_read(schedule: dict) -> dict:
    """What a schedule of the released code says more than its kind."""
    schedule = dict(schedule)
    if schedule.pop("reading", "paper") == "released":
        of_code = {"power": 3.0, "over": "epoch", "curve": "released", "classes": "both"}
        return {**of_code, **schedule}
    return schedule


def definition_of(
    entry: dict,
    hierarchy: Hierarchy,
    parts: dict[str, list[set[str]]],
    moment: tuple[int, int, int, int],
) -> Definition:
    """What an entry of a file says, for a data set of these label sets whose root does not count."""
    examples = [labels for part in fit_on(entry) for labels in parts[part]]
    counts = count(examples, hierarchy)
    arguments = {}
    if "weights" in entry:
        options = dict(entry["weights"])
        counted, given_parts = examples, options.pop("counts_from", None)
        if given_parts is not None:
            counted = [labels for part in given_parts.split("+") for labels in parts[part]]
        of_nodes = count(counted, hierarchy)
        among = options.pop("counts", "examples")
        if among == "released":
            of_nodes = double_count(of_nodes, hierarchy)
        if among == "conditional":
            of_parents = count_of_parents(counted, hierarchy)
            pairs = zip(of_nodes, of_parents, strict=True)
            of_nodes = [n * len(counted) / parents if n else 0 for n, parents in pairs]
        orientation, schedule = options.pop("orientation", "paper"), options.pop("schedule", None)
        weights = weights_of(of_nodes, len(counted), **options)
        other = None
        if schedule is not None:
            schedule = as_read(schedule)
            weights = [scheduled(w, moment, **schedule) for w in weights]
            if schedule.get("classes") == "both":
                other = [scheduled(1.0, moment, **schedule)] * len(weights)
        classes = {"paper": ["positive"], "released": ["negative"]}
        for name in classes.get(orientation, ["positive", "negative"]):
            arguments[name] = weights
        if other is not None:
            arguments = {"positive": other, "negative": other, **arguments}
    if "focal" in entry:
        focal = {"power": 1.0, "floor": 0.25, **entry["focal"]}
        arguments["focal"] = (focal["uncertainty"], focal["power"], focal["floor"])
    if "loss" in entry:
        arguments["element"] = entry["loss"]["name"]
        arguments["options"] = entry["loss"].get("options", {})
    if "shift" in entry:
        # The log odds of a node's frequency, for all kinds.
        inside = [min(max(n, 0.5), len(examples) - 0.5) for n in counts]
        odds = [math.log(n / (len(examples) - n)) for n in inside]
        if entry["shift"]["kind"] == "conditional-prior":
            pairs = zip(counts, count_of_parents(examples, hierarchy), strict=True)
            odds = [math.log((n + 0.5) / (parents - n + 0.5)) for n, parents in pairs]
        arguments["shift"] = [entry["shift"]["strength"] * value for value in odds]
    if "balance" in entry:
        balance = {"alpha": 0.1, "beta": 10.0, "mu": 0.2, **entry["balance"]}
        arguments["balance"] = lambda y: balance_weights(counts, y, **balance)
    reductions = {"ours": "per example", "released": "sum" if "focal" in entry else "mean"}
    constraint, (epoch, epochs, *_) = entry.get("constraint", "training"), moment
    if constraint == "unconditional" and epoch / epochs < entry.get("conditional_first", 0):
        constraint = "conditional"
    return Definition(
        hierarchy,
        evaluated=[node not in hierarchy.roots for node in hierarchy.nodes],
        coherent=constraint == "training",
        given_parents=constraint if constraint in GIVEN_PARENTS else None,
        mixture=entry.get("mixture", 1.0),
        reduction=reductions.get(entry.get("reduction", "ours"), entry.get("reduction")),
        **arguments,
    )


def dataset_of(hierarchy: Hierarchy, parts: dict[str, list[set[str]]]) -> Dataset:
    """A data set of these label sets, whose root does not count."""
    examples = [labels for part in ("train", "valid", "test") for labels in parts.get(part, [])]
    targets = [[node in labels for node in hierarchy.nodes] for labels in examples]
    bounds = np.cumsum([0, *(len(parts.get(part, [])) for part in ("train", "valid", "test"))])
    rows = np.arange(len(examples))
    return Dataset(
        name="by hand",
        features=np.arange(2.0 * len(rows), dtype=np.float32).reshape(-1, 2),
        targets=sparse.csr_array(np.array(targets, dtype=np.uint8)),
        hierarchy=hierarchy,
        split={
            part: rows[bounds[i] : bounds[i + 1]]
            for i, part in enumerate(("train", "valid", "test"))
        },
        evaluated=~np.isin(hierarchy.nodes, hierarchy.roots),
        card={},
    )


def loss_of(entry: dict, dataset: Dataset, moment: tuple[int, int, int, int]) -> RareNodeLoss:
    loss = build_loss(VariantSettings.model_validate(entry), dataset, fit_on(entry))
    loss.at(Moment(*moment))
    return loss


# Three nodes, by hand

CHAIN = Hierarchy([("child", "root"), ("grandchild", "child")])
ROOT, CHILD, GRANDCHILD = {"root"}, {"root", "child"}, {"root", "child", "grandchild"}
# Of 8 training examples 8, 4 and 1 are positive; of all 10, 10, 6 and 2.
CHAIN_PARTS = {
    "train": [*[ROOT] * 4, *[CHILD] * 3, GRANDCHILD],
    "valid": [CHILD, GRANDCHILD],
}
# One example of each kind. All logits are 0, so every coherent probability is 1/2.
CHAIN_TARGETS = torch.tensor([[1, 0, 0], [1, 1, 0], [1, 1, 1]])
# Epoch 2 of 4, step 2 of 5: 6 of 19 intervals of the training, 1 of 4 of the epoch.
CHAIN_MOMENT = (1, 4, 1, 5)
LN2 = math.log(2)


def both(child: float, grandchild: float) -> float:
    """Sum of the weights of all elements, if both classes are weighted."""
    return 3 * child + 3 * grandchild


def positives(child: float, grandchild: float) -> float:
    """Child is positive twice and grandchild once; the other three elements weigh 1."""
    return 2 * child + grandchild + 3


def negatives(child: float, grandchild: float) -> float:
    """Child is negative once and grandchild twice."""
    return child + 2 * grandchild + 3


# Class-wise, K = 3: 1 (the root is always positive), 8/12, 8/3, rescaled: 1/4, 1/4 + 8/3.
CLASS_WISE = (1 / 4, 1 / 4 + 8 / 3)
# Binary, K = 2: 1, 1, 4, rescaled: 1/4, 1/4 + 4.
BINARY = (1 / 4, 17 / 4)
# Counted as the released code does: 13, 5, 1. Class-wise: 8/39, 8/15, 8/3; binary: 4/13, 4/5, 4.
RELEASED_CLASS_WISE = (1 / 4 + 8 / 3 * (1 / 5 - 1 / 13) / (1 - 1 / 13), 1 / 4 + 8 / 3)
RELEASED_BINARY = (1 / 4 + 4 * (1 / 5 - 1 / 13) / (1 - 1 / 13), 17 / 4)
# In all 10, of which 10, 6 and 2 are positive. Class-wise: 1, 10/18, 10/6; binary: 1, 10/12, 5/2.
CLASS_WISE_OF_ALL = (1 / 4, 1 / 4 + 5 / 3)
BINARY_OF_ALL = (1 / 4, 1 / 4 + 5 / 2)
# Counted as the released code does: 18, 8, 2. Class-wise: 10/54, 10/24, 10/6; binary: 5/18, 5/8, 5/2.
RELEASED_BINARY_OF_ALL = (1 / 4 + 5 / 2 * (1 / 8 - 1 / 18) / (1 / 2 - 1 / 18), 1 / 4 + 5 / 2)
RELEASED_CLASS_WISE_OF_ALL = (1 / 4 + 5 / 3 * (1 / 8 - 1 / 18) / (1 / 2 - 1 / 18), 1 / 4 + 5 / 3)
# Effective numbers of 8, 4 and 1 examples.
EIGHT, FOUR = (1 - 0.999**8) / 0.001, (1 - 0.999**4) / 0.001
EFFECTIVE = [3 / n / (1 / EIGHT + 1 / FOUR + 1) for n in (FOUR, 1)]


def to_the_end(share: float, end: float = 0.25) -> tuple[float, float]:
    """Binary weights, of which a schedule has left this share."""
    child, grandchild = BINARY
    return end + share * (child - end), end + share * (grandchild - end)


def annealed(share: float, mode: tuple[float, float] = BINARY) -> float:
    """Negatives of which a released schedule has left this share, and the others, of 1."""
    child, grandchild, other = (0.25 + share * (w - 0.25) for w in (*mode, 1))
    return child + 2 * grandchild + 3 * other


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


# Log odds: of the child 0, of the grandchild −log 7. With κ = 0.05 it is negative at e^−s = 7^0.05,
# and twice that, with λ = 2, at 7^−0.1 against 1. P_I, in eighths: root 1, child 2, grandchild 8.
# All are multiplied by 2 (1 − q)²; at 0 that is 1/2.
DISTRIBUTION_BALANCED = sum(
    (0.1 + sigmoid(10 * (ratio - 0.2))) * 2 * (1 - q) ** 2 * cost
    for ratio, q, cost in [
        (2 / 1, 1 / 2, math.log(2) / 2),
        (8 / 1, 1 / (1 + 7**-0.1), math.log(1 + 7**-0.1) / 2),
        (2 / 3, 1 / 2, math.log(2)),
        (8 / 3, 1 / (1 + 7**-0.1), math.log(1 + 7**-0.1) / 2),
        (2 / 11, 1 / 2, math.log(2)),
        (8 / 11, 1 / (1 + 7**0.05), math.log(1 + 7**0.05)),
    ]
)

# Row by row, the child and then the grandchild; before them the root, which holds in all three: it is
# not evaluated, but all below it are products with it. Its prior odds are (8 + ½) / ½.
ROOT_PRIOR = -3 * math.log2(17 / 18)
CONDITIONAL_PRIOR = ROOT_PRIOR + 3 - math.log2(7 / 10) - math.log2(3 / 10)
QUARTER, EIGHTH = (2, -math.log2(3 / 4)), (3, -math.log2(7 / 8))
UNCONDITIONAL = 3 + QUARTER[1] + EIGHTH[1] + QUARTER[0] + EIGHTH[1] + QUARTER[0] + EIGHTH[0]
# Members agree, so their gate is open only to the margin: all of 1/2 and of 3/4 is certain.
UNCONDITIONAL_FOCAL = (
    3 * (1 / 4 + 1)
    + (1 / 4 + 1 / 2) * (QUARTER[1] + 2 * QUARTER[0])
    + (1 / 4 + 1 / 4) * (2 * EIGHTH[1] + EIGHTH[0])
)
HALF_OF, TENTHS_OF = 17 / 18 / 2, 17 / 18 / 2 * 3 / 10
UNCONDITIONAL_PRIOR = ROOT_PRIOR - sum(
    math.log2(p) for p in (1 - HALF_OF, 1 - TENTHS_OF, HALF_OF, 1 - TENTHS_OF, HALF_OF, TENTHS_OF)
)

# The sum of weighted elements of one member, in units of ln 2. By default two members' are summed
# and divided by the three examples.
BY_HAND = {
    # Six elements of ln 2. What else these do is not done in the loss.
    **dict.fromkeys(["bce_posthoc", "mcm", "mcm_4", "lp_ros", "hros_pd", "hros_pd_truncated"], 6),
    **dict.fromkeys(["hros_pd_released", "replica_lp_ros", "replica_hros_pd"], 6),
    **dict.fromkeys(["ensemble_1", "ensemble_2", "ensemble_5", "ensemble_10", "ensemble_20"], 6),
    **dict.fromkeys(["mc_dropout", "threshold_dataset", "threshold_depth", "threshold_node"], 6),
    **dict.fromkeys(
        ["baseline", "authors_baseline", "ensemble", "summed_ensemble", "per_example"], 6
    ),
    "weighted_classwise": positives(*CLASS_WISE),
    "weighted_binary": positives(*BINARY),
    "released": negatives(*CLASS_WISE),
    "weighted_binary_negatives": negatives(*BINARY),
    "weighted_classwise_both": both(*CLASS_WISE),
    "weighted_binary_both": both(*BINARY),
    "class_balanced": both(*EFFECTIVE),
    "positive_ratio": positives(1, 7),
    # The grandchild counts where the child is positive: not in the first example. The constant is of
    # predictions. In its second epoch of four, the one that is conditional first still is.
    **dict.fromkeys(
        [
            *("conditional", "conditional_ensemble_10", "conditional_unseen_constant"),
            *("conditional_unseen_constant_4", "conditional_unseen_constant_10"),
            "neighbours_hidden",
        ],
        3 + 5,
    ),
    **dict.fromkeys(["conditional_mc_dropout", "conditional_then_unconditional"], 3 + 5),
    **dict.fromkeys(["conditional_sparse", "conditional_sparse_moving"], 3 + 5),
    **dict.fromkeys(["mcm_unseen_constant", "mcm_with_constant", "bce_posthoc_unseen_constant"], 6),
    # The child is positive in 4 of 8, with odds of (4 + ½) / (4 + ½); the grandchild in 1 of 4, with
    # odds of (1 + ½) / (3 + ½): 3/10 are positive.
    **dict.fromkeys(["conditional_prior", "conditional_prior_unseen_constant"], CONDITIONAL_PRIOR),
    **dict.fromkeys(
        ["conditional_sparse_prior", "conditional_sparse_prior_unseen_constant"], CONDITIONAL_PRIOR
    ),
    # Probabilities are 1/4 and 1/8.
    "unconditional": UNCONDITIONAL,
    "unconditional_focal_gmu": UNCONDITIONAL_FOCAL,
    # The root has odds of (8 + ½) / ½: 17/18, and 1/2 and 1/2 · 3/10 of that.
    "unconditional_prior": UNCONDITIONAL_PRIOR,
    # Binary, root and child 1, the grandchild 4/2; rescaled: 1/4, 1/4, 1/4 + 2. The root is positive in
    # three, the child in two, the grandchild in one.
    "conditional_weighted_binary": 3 / 4 + 2 * (1 / 4) + 9 / 4 + 2,
    "conditional_weighted_binary_global": 3 / 4 + 2 * BINARY[0] + BINARY[1] + 2,
    **dict.fromkeys(
        [
            "conditional_weighted_binary_focal_gmu",
            "conditional_sparse_weighted_binary_focal_gmu",
        ],
        1.25 * (3 / 4 + 2 * (1 / 4) + 9 / 4 + 2),
    ),
    # As many negatives as positives, and 3 a positive.
    "conditional_positive_ratio": 3 + 2 + 3 + 2,
    "conditional_focal_gmu": 1.25 * (3 + 5),
    "conditional_focal_lin": (3 + 5) / 4,
    # Members agree on 1/2: they are as unsure as can be, and do not differ.
    **dict.fromkeys(["focal_bbma", "focal_gmu", "focal_entropy", "focal_aleatoric"], 6 * 1.25),
    **dict.fromkeys(["focal_gmu_squared", "mc_dropout_focal_gmu"], 6 * 1.25),
    **dict.fromkeys(["focal_jsd", "focal_kl", "focal_mutual_information"], 6 * 0.25),
    "focal_bbma_no_floor": 6,
    "released_focal_bbma": 1.25 * negatives(*CLASS_WISE),
    "weighted_binary_focal_gmu": 1.25 * positives(*BINARY),
    "weighted_binary_focal_bbma": 1.25 * positives(*BINARY),
    "mc_dropout_weighted_binary_focal_gmu": 1.25 * positives(*BINARY),
    "weighted_classwise_focal_bbma": 1.25 * positives(*CLASS_WISE),
    "weighted_classwise_focal_gmu": 1.25 * positives(*CLASS_WISE),
    "schedule_linear": positives(*to_the_end(13 / 19)),
    "schedule_exponential": positives(*to_the_end((13 / 19) ** 2)),
    "schedule_alternating": positives(*to_the_end(0)),
    "schedule_linear_epoch": annealed(3 / 4),
    "schedule_exponential_epoch": annealed(63 / 64),
    # All six at a quarter.
    **dict.fromkeys(["schedule_alternating_epoch", "replica_schedule_alternating"], 6 / 4),
    "schedule_linear_to_plain": positives(*to_the_end(13 / 19, end=1)),
    "mixed": (positives(*BINARY) + 6) / 2,
    # (1/2)² before each.
    "focal_lin": 6 / 4,
    # A negative costs p⁴ · −log(1 − p) at 0.45.
    "asymmetric": 3 - 3 * 0.45**4 * math.log(0.55) / LN2,
    "distribution_balanced": DISTRIBUTION_BALANCED / LN2,
    # The grandchild, twice negative and once positive, at −log 7: p = 1/8.
    "logit_adjusted": 3 + (2 * math.log(8 / 7) + math.log(8)) / LN2,
    # Averaged over members, examples and nodes; summed over them.
    "replica_plain": 6,
    "replica_classwise": negatives(*RELEASED_CLASS_WISE),
    "replica_binary": negatives(*RELEASED_BINARY),
    **dict.fromkeys(
        ["replica_focal_bbma", "replica_focal_gmu"], 1.25 * negatives(*RELEASED_CLASS_WISE)
    ),
    **dict.fromkeys(
        ["replica_binary_focal_bbma", "replica_binary_focal_gmu"],
        1.25 * negatives(*RELEASED_BINARY),
    ),
    "replica_schedule_linear": annealed(3 / 4, RELEASED_CLASS_WISE),
    "replica_schedule_exponential": annealed(63 / 64, RELEASED_CLASS_WISE),
    "replica_mixed": (negatives(*RELEASED_CLASS_WISE) + 6) / 2,
    # The audit: there, with binary weights, and back. Of all ten examples, or
    # of those to train on.
    "weights": positives(*CLASS_WISE_OF_ALL),
    "orientation": negatives(*CLASS_WISE_OF_ALL),
    "counts": negatives(*RELEASED_CLASS_WISE_OF_ALL),
    "counts_from": negatives(*RELEASED_CLASS_WISE),
    **dict.fromkeys(["focal", "summed", "replica"], 1.25 * negatives(*RELEASED_CLASS_WISE)),
    "binary_weights": positives(*BINARY_OF_ALL),
    "binary_orientation": negatives(*BINARY_OF_ALL),
    "binary_counts": negatives(*RELEASED_BINARY_OF_ALL),
    "binary_counts_from": negatives(*RELEASED_BINARY),
    **dict.fromkeys(
        ["binary_focal", "binary_summed", "binary_replica"], 1.25 * negatives(*RELEASED_BINARY)
    ),
    "back_weights": 1.25 * 6,
    "back_orientation": 1.25 * positives(*RELEASED_CLASS_WISE),
}
# Over members, examples and nodes: the sum with a focal term, the mean without one.
SUMMED = (
    *("replica_focal_bbma", "replica_focal_gmu"),
    *("replica_binary_focal_bbma", "replica_binary_focal_gmu"),
    *("summed", "replica", "binary_summed", "binary_replica", "summed_ensemble"),
    *("back_weights", "back_orientation"),
)
AVERAGED = (
    *("replica_plain", "replica_classwise", "replica_binary", "replica_mixed"),
    *("replica_schedule_linear", "replica_schedule_exponential", "replica_schedule_alternating"),
    *("replica_lp_ros", "replica_hros_pd"),
    *("schedule_linear_epoch", "schedule_exponential_epoch", "schedule_alternating_epoch"),
    *(
        "baseline",
        "authors_baseline",
        "ensemble",
        "weights",
        "orientation",
        "counts",
        "counts_from",
        "focal",
    ),
    *("binary_weights", "binary_orientation", "binary_counts", "binary_counts_from"),
    "binary_focal",
)


def test_every_loss_has_a_value_by_hand():
    # A variant that is added needs a line above.
    assert set(BY_HAND) == set(LOSSES)


@pytest.mark.parametrize("name", LOSSES)
def test_value_of_three_nodes_by_hand(name):
    expected = BY_HAND[name] * LN2 * 2 / 3
    if name in SUMMED:
        expected = BY_HAND[name] * LN2 * 2
    if name in AVERAGED:
        expected = BY_HAND[name] * LN2 / 6
    loss = loss_of(LOSSES[name], dataset_of(CHAIN, CHAIN_PARTS), CHAIN_MOMENT)
    for dtype in (torch.float32, torch.float64):
        found = loss(torch.zeros(2, 3, 3, dtype=dtype), CHAIN_TARGETS)
        assert found.item() == pytest.approx(expected, rel=1e-6)
    definition = definition_of(LOSSES[name], CHAIN, CHAIN_PARTS, CHAIN_MOMENT)
    by_settings = definition.value(torch.zeros(2, 3, 3), CHAIN_TARGETS)
    assert by_settings == pytest.approx(expected, rel=1e-9)


# The suite, on a DAG of which A is always positive, C never, and the root not evaluated

DAG_PARTS = {
    part: [{"root", *labels} for labels in examples]
    for part, examples in {
        "train": ["A", "AB", "ABE", "ABD", "ABDEF", "A", "AB", "ABE"],
        "valid": ["A", "ABD", "ABE"],
    }.items()
}
DAG_MOMENT = (1, 4, 2, 5)


def test_the_data_set_has_an_always_positive_node_and_one_without_positives():
    dataset = DAG_DATASET
    counts = [dict(zip(DAG.nodes, dataset.counts(part), strict=True)) for part in DAG_PARTS]
    assert [(c["A"], c["C"]) for c in counts] == [(8, 0), (3, 0)]
    assert list(counts[0].values()) == count(DAG_PARTS["train"], DAG)
    assert [node for node in DAG.nodes if not dataset.evaluated[DAG.index[node]]] == ["root"]


DAG_DATASET = dataset_of(DAG, DAG_PARTS)


@cache
def case_of(name: str) -> Case:
    return Case(
        lambda: loss_of(LOSSES[name], DAG_DATASET, DAG_MOMENT),
        definition_of(LOSSES[name], DAG, DAG_PARTS, DAG_MOMENT),
        tolerance=2e-6,  # node weights are held in single precision
    )


def each_once(names: Iterable[str]) -> list[str]:
    """The first of all variants whose loss and whose parts to train on are the same.

    What else a variant says is none of the loss, which `test_value_of_three_nodes_by_hand` looks at
    for each.
    """
    others = {"about", "source", "training", "threshold", "resampling", "unseen"}
    found = {}
    for name in names:
        entry = LOSSES[name]
        key = {setting: value for setting, value in entry.items() if setting not in others}
        found.setdefault(repr((sorted(key.items()), fit_on(entry))), name)
    return list(found.values())


DISTINCT = each_once(LOSSES)


class TestVariants(Conformance):
    @pytest.fixture(params=DISTINCT)
    def case(self, request) -> Case:
        return case_of(request.param)


class TestMaskedVariants(MaskedConformance):
    loss = Conformance.loss

    # The product passes the root's score to all nodes: `tests/loss/test_conditional.py` masks others.
    @pytest.fixture(params=[n for n in DISTINCT if case_of(n).definition.silent])
    def case(self, request) -> Case:
        return case_of(request.param)


def test_only_products_have_no_silent_node():
    without = {name for name in LOSSES if not case_of(name).definition.silent}
    products = {n for n, entry in LOSSES.items() if entry.get("constraint") in GIVEN_PARENTS}
    assert without == products


class TestUncoupledVariants(UncoupledConformance):
    loss = Conformance.loss

    @pytest.fixture(params=[name for name in DISTINCT if "focal" not in LOSSES[name]])
    def case(self, request) -> Case:
        return case_of(request.param)


# How a variant predicts


@pytest.mark.parametrize("name", LOSSES)
def test_a_variant_predicts_by_what_its_logits_stand_for(name):
    entry, logits = LOSSES[name], random_logits()
    found = loss_of(entry, DAG_DATASET, DAG_MOMENT).output.probabilities(logits, DAG)
    # C, which is below A alone, has no positives: (0 + ½) / (8 + 1).
    definition = Definition(DAG, given_parents="unconditional", coherent=False)
    unseen = DAG.index["C"] if entry.get("unseen") == "constant" else None
    for z, p in zip(logits.flatten(0, 1).tolist(), found.flatten(0, 1).tolist(), strict=True):
        if entry.get("constraint") in GIVEN_PARENTS:
            if unseen is not None:
                z[unseen] = math.log(1 / 17)
            expected = [sigmoid(definition.score(z, [0] * 7, j)) for j in range(7)]
        else:
            below = [definition.below[j] - {unseen} for j in range(7)]
            expected = [max((sigmoid(z[d]) for d in found), default=0) for found in below]
            if unseen is not None:
                expected[unseen] = expected[DAG.index["A"]] / 18
        assert p == pytest.approx(expected, rel=1e-6)


def test_the_network_of_a_variant_predicts_as_its_loss_says():
    entry = {"about": "x", "constraint": "conditional", "unseen": "constant"}
    loss = loss_of(entry, DAG_DATASET, DAG_MOMENT)
    budget = Budget(
        **{"epochs": 2, "batch_size": 4, "learning_rate": 0.01, "hidden": 5, "members": 2}
    )
    ensemble = train_ensemble(DAG_DATASET, loss, budget, Streams(1, "dag", "x", 0)).ensemble
    inputs = torch.from_numpy(DAG_DATASET.features)
    found = ensemble.predict(inputs, DAG)
    expected = loss.output.probabilities(ensemble(inputs), DAG).mean(dim=0)
    torch.testing.assert_close(found, expected.detach())
    assert DAG.is_coherent(found)
    # C takes its parent's ranking.
    c, a = DAG.indices(["C", "A"])
    torch.testing.assert_close(found[:, c], found[:, a] / 18)


# Settings that do not go together


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"conditional_first": 0.5},
            "conditional_first is of `constraint: unconditional`, found `constraint: training`",
        ),
        (
            {"constraint": "conditional", "conditional_first": 0.5},
            "conditional_first is of `constraint: unconditional`, found `constraint: conditional`",
        ),
        (
            {"constraint": "conditional", "shift": {"kind": "prior", "strength": 1.0}},
            "`constraint: conditional` needs a shift of kind conditional-prior, found prior",
        ),
        (
            {"shift": {"kind": "conditional-prior", "strength": 1.0}},
            "`constraint: training` needs a shift of kind prior or tolerant, found conditional-prior",
        ),
        (
            {"constraint": "unconditional", "sparse": "still"},
            "sparse is of `constraint: conditional`, whose loss is 0 but at some nodes, found `constra",
        ),
        (
            {"constraint": "conditional", "sparse": "still", "loss": {"name": "focal"}},
            "sparse training is of binary cross-entropy, per example: remove loss or sparse",
        ),
        (
            {"weights": {"mode": "binary", "counts": "conditional"}},
            "`counts: conditional` is of losses on the parents' examples, found `constraint: training`",
        ),
        (
            {"constraint": "unconditional", "weights": {"mode": "binary", "counts": "conditional"}},
            "`counts: conditional` is of losses on the parents' examples, found `constraint: uncond",
        ),
        (
            {
                "constraint": "conditional",
                "weights": {"mode": "effective-number", "counts": "conditional"},
            },
            "mode effective-number counts positives alone",
        ),
        (
            {"weights": {"mode": "binary", "schedule": {"kind": "linear", "reading": "released"}}},
            "the released code has schedules only where there is no focal term, and averages there",
        ),
        (
            {
                "weights": {
                    "mode": "binary",
                    "schedule": {"kind": "linear", "reading": "released"},
                },
                "focal": {"uncertainty": "bbma"},
                "reduction": "released",
            },
            "the released code has schedules only where there is no focal term, and averages there",
        ),
        (
            {"mixture": 0.5, "focal": {"uncertainty": "bbma"}, "reduction": "released"},
            "the released code mixes losses only where there is no focal term",
        ),
        (
            {"resampling": {"method": "lp-ros", "order": "released"}},
            "lp-ros has one order; `order: released` is of hros-pd",
        ),
        (
            {"resampling": {"method": "lp-ros", "copies": "truncated"}},
            "lp-ros makes whole copies; `copies: truncated` is of hros-pd",
        ),
        ({"forest": {}, "unseen": "constant"}, "a forest has no loss: remove unseen"),
        (
            {"forest": {}, "constraint": "conditional"},
            "a forest has no loss: remove constraint",
        ),
    ],
)
def test_message_of_settings_that_do_not_go_together(settings, message):
    with pytest.raises(ValueError, match=message):
        VariantSettings.model_validate({"about": "x", **settings})


def test_conditional_counts_are_possible_before_the_unconditional_loss():
    entry = {"constraint": "unconditional", "conditional_first": 0.5}
    weights = {"mode": "binary", "counts": "conditional"}
    VariantSettings.model_validate({"about": "x", **entry, "weights": weights})


# A tiny training of each


def tiny(entry: dict) -> dict:
    """The entry at the size of a test: one epoch, two members, a forest of three trees."""
    training = {**entry.get("training", {}), "epochs": 1}
    training["members"] = min(training.get("members", 2), 2)
    if training.get("ensemble") == "dropout":
        training["keep_ensembles"] = True  # to look at
    forest = {"forest": {"trees": 3, "min_leaf": 2}} if "forest" in entry else {}
    return {**entry, **forest, "training": training}


class TinyStudy:
    """All variants in one study of 120 made examples; each is trained when it is asked for."""

    def __init__(self, folder: Path):
        values = {
            "seed": 1,
            "datasets": {
                "toy": {
                    "about": "a small DAG",
                    "source": "synthetic",
                    "options": {"nodes": 15, "examples": 120, "multi_parent": 0.3},
                }
            },
            "training": {
                "seeds": 1,
                "members": 2,
                "epochs": 1,
                "batch_size": 16,
                "learning_rate": 0.01,
                "hidden": 8,
                "layers": 1,
                "threads": 1,
            },
            "variants": {name: tiny(ENTRIES[name]) for name in TRAINED},
            "evaluation": {"baseline": "mcm"},
        }
        for entry in values["variants"].values():
            if "networks_of" in entry:
                del entry["training"]  # it is the other's
        (folder / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
        self.study = Study(folder / "params.yaml")
        self.dataset = prepare(self.study, "toy", self.study.prepared("toy"))
        self.trained = cache(self.train)

    def train(self, name: str) -> Results:
        return train_stage(self.study, "toy", name, self.study.results("toy", name))

    def scored(self, name: str) -> tuple[pd.DataFrame, pd.DataFrame]:
        self.trained(name)
        return score_variant(self.study, self.dataset, "toy", name)


@pytest.fixture(scope="module")
def tiny_study(tmp_path_factory) -> TinyStudy:
    return TinyStudy(tmp_path_factory.mktemp("variants"))


def trains_as_mcm(entry: dict) -> bool:
    """Whether an entry differs from mcm in nothing that changes a tiny training and its predictions.

    The tiny study has no nodes without training positives.
    """
    training = tiny(entry)["training"]
    same = {"about", "source", "threshold", "training", "unseen", "budget_of", "networks_of"}
    return (
        set(entry) <= same
        and set(training) <= {"epochs", "members", "keep_ensembles"}
        and training["members"] == 2
    )


@pytest.mark.parametrize("name", TRAINED)
def test_a_tiny_training_gives_finite_coherent_probabilities(tiny_study, name):
    results, dataset = tiny_study.trained(name), tiny_study.dataset
    probabilities = results.test
    assert probabilities.shape == (1, len(dataset.split["test"]), dataset.evaluated.sum())
    assert np.isfinite(probabilities).all()
    assert probabilities.min() >= 0
    assert probabilities.max() <= 1
    whole = np.ones((len(dataset.split["test"]), len(dataset.hierarchy)), dtype=np.float32)
    whole[:, dataset.evaluated] = probabilities[0]
    assert dataset.hierarchy.is_coherent(torch.from_numpy(whole))
    _, seeds = tiny_study.scored(name)
    scores = seeds.filter(regex="average_precision|_half$")
    assert np.isfinite(scores).all(axis=None)
    tuned = seeds.filter(regex="_tuned$").drop(columns="threshold_tuned")
    held_out = fit_on(ENTRIES[name]) == ["train"]
    assert np.isfinite(tuned).all(axis=None) == held_out
    assert np.isfinite(results.history["train_loss"].astype(float)).all()
    assert len(results.history) == (name in LOSSES)


def test_the_tiny_study_has_no_node_without_training_positives(tiny_study):
    assert tiny_study.dataset.counts("train").all()


@pytest.mark.parametrize("name", TRAINED)
def test_a_variant_changes_the_training_if_it_says_so(tiny_study, name):
    found, plain = (tiny_study.trained(n).test for n in (name, "mcm"))
    assert np.array_equal(found, plain) == trains_as_mcm(ENTRIES[name])


def test_thresholds_have_the_scope_that_the_variant_says(tiny_study):
    depth = tiny_study.dataset.hierarchy.depth.numpy()[tiny_study.dataset.evaluated]
    distinct = {}
    for scope in ("dataset", "depth", "node"):
        thresholds = tiny_study.scored(f"threshold_{scope}")[0]["threshold_tuned"]
        distinct[scope] = thresholds.nunique()
        if scope == "depth":
            assert (thresholds.groupby(depth).nunique() == 1).all()
    assert distinct["dataset"] == 1
    assert distinct["depth"] <= len(set(depth))
    assert distinct["node"] > distinct["depth"]


def test_a_dropout_ensemble_predicts_with_dropout(tiny_study):
    study, dataset = tiny_study.study, tiny_study.dataset
    found = tiny_study.trained("mc_dropout").test[0]
    ensemble = Ensemble.load(study.results("toy", "mc_dropout") / "ensemble-0")
    streams = Streams(study.parameters.seed, "toy", "mc_dropout", 0).prediction(2, "test", "cpu")
    features = torch.from_numpy(dataset.features[dataset.split["test"]])
    expected = ensemble.predict(features, dataset.hierarchy, dropout=streams).numpy()
    np.testing.assert_array_equal(found, expected[:, dataset.evaluated])
    plain = ensemble.predict(features, dataset.hierarchy).numpy()
    assert not np.allclose(found, plain[:, dataset.evaluated], atol=1e-3)


def test_networks_are_kept_where_the_variant_says(tiny_study):
    for name in ("authors_baseline", "ensemble"):
        tiny_study.trained(name)
        folder = tiny_study.study.results("toy", name)
        assert (folder / "ensemble-0").exists() == (name == "authors_baseline")


# Resampling


def resampling(method: str, parts: Sequence[str] = ("train",), **options) -> tuple:
    """A data set of one rare path, and what a variant makes of it."""
    examples = [{"root", *"AB"}] * 16 + [{"root", "A"}] * 3 + [{"root", *"ABDEF"}]
    dataset = dataset_of(DAG, {"train": examples, "valid": [{"root", "B"}] * 2, "test": [{"root"}]})
    variant = VariantSettings.model_validate(
        {"about": "a test", "resampling": {"method": method, **options}}
    )
    return dataset, resampled(variant, dataset, parts, np.random.default_rng(0))


def test_without_resampling_the_data_set_is_the_very_same():
    rng = np.random.default_rng(0)
    assert resampled(VariantSettings(about="a test"), DAG_DATASET, ["train"], rng) is DAG_DATASET


@pytest.mark.parametrize("method", ["lp-ros", "hros-pd"])
@pytest.mark.parametrize("parts", [("train",), ("train", "valid")])
def test_duplicates_are_appended_to_the_first_part_trained_on(method, parts):
    dataset, found = resampling(method, parts, budget=0.2)
    before, added = len(dataset.features), len(found.features) - len(dataset.features)
    assert added > 0
    assert added <= 0.2 * sum(len(dataset.split[part]) for part in parts)
    np.testing.assert_array_equal(
        found.split["train"], [*dataset.split["train"], *range(before, before + added)]
    )
    for part in ("valid", "test"):
        np.testing.assert_array_equal(found.split[part], dataset.split[part])
    np.testing.assert_array_equal(found.features[:before], dataset.features)
    assert (found.targets[:before] != dataset.targets).nnz == 0
    # Whole copies: each duplicate is an example that is trained on, with its labels.
    trained_on = np.concatenate([dataset.split[part] for part in parts])
    for row in range(before, before + added):
        original = np.flatnonzero((dataset.features == found.features[row]).all(axis=1)).item()
        assert original in trained_on
        assert (found.targets[[row]] != dataset.targets[[original]]).nnz == 0
    assert found.hierarchy is dataset.hierarchy
    assert found.evaluated is dataset.evaluated


def test_truncated_copies_keep_the_rare_path_alone():
    dataset = dataset_of(
        DAG,
        {
            # C is the rare path; E comes with it.
            "train": [{"root", *"ABE"}] * 16 + [{"root", *"ABCE"}] * 2,
            "test": [{"root"}],
        },
    )

    def labels_of_copies(copies: str) -> set[tuple[str, ...]]:
        entry = {"about": "a test", "resampling": {"method": "hros-pd", "copies": copies}}
        variant = VariantSettings.model_validate(entry)
        found = resampled(variant, dataset, ["train"], np.random.default_rng(0))
        rows = found.targets[len(dataset.features) :].toarray()
        assert len(rows) > 0
        return {tuple(np.array(DAG.nodes)[row.astype(bool)]) for row in rows}

    assert labels_of_copies("whole") == {("root", "A", "B", "C", "E")}
    assert labels_of_copies("truncated") == {("root", "A", "C")}


def test_node_weights_count_the_duplicates_too():
    dataset, found = resampling("lp-ros", budget=0.2)
    weighted = VariantSettings.model_validate(
        {"about": "a test", "weights": {"mode": "positive-ratio"}}
    )
    before, after = (build_loss(weighted, d).positive_weight for d in (dataset, found))
    rarest = DAG.index["F"]
    assert before[rarest] == 19
    assert after[rarest] < before[rarest]
