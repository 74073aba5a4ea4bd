"""The gallery's numbers by hand, what its text says of them, and its notebook."""

import json
import math
import re
import shutil
from pathlib import Path

import pytest
import torch

from rarenodes.loss.coherent import RareNodeLoss
from rarenodes.loss.hierarchy import Hierarchy
from rarenodes.loss.schedules import Moment, Schedule
from rarenodes.loss.uncertainty import KINDS
from rarenodes.loss.weighting import WEIGHTINGS
from rarenodes.settings import SettingsError
from rarenodes.stages.gallery import (
    balance_table,
    best_constants,
    constant_curves,
    constants_at,
    element_curves,
    gradient_destinations,
    grouped_constants,
    long_tail,
    losses_of,
    percent,
    response,
    scheduled_constants,
    shares,
    two_camps,
    uncertainty_maps,
    weight_curves,
)
from rarenodes.study.notebook import run_notebook

REPOSITORY = Path(__file__).parents[2]
NOTEBOOK = REPOSITORY / "notebooks" / "07_gallery.ipynb"
TINY = Path(__file__).parents[1] / "tiny" / "params.yaml"

DATA = long_tail()
NODES = {"common": "001", "rare": "100"}
COUNTS = {"rare": 4, "medium": 40, "common": 400}
EXAMPLES = 1000

PLAIN = {}
LIN = {"loss": {"name": "focal"}}
ASYMMETRIC = {"loss": {"name": "asymmetric"}}
TOLERANT = {"loss": {"name": "negative_tolerant"}}
ADJUSTED = {"shift": {"kind": "prior", "strength": 1.0}}
BBMA = {"focal": {"uncertainty": "bbma"}}


def weighted(mode: str, orientation: str = "paper", **more) -> dict:
    return {"weights": {"mode": mode, "orientation": orientation, **more}}


def loss_of(variant: dict) -> RareNodeLoss:
    return losses_of({"x": variant}, DATA)["x"]


def at(probability: float) -> torch.Tensor:
    return torch.tensor([probability], dtype=torch.float64).logit()


def cell(variant: dict, label: str, probability: float, column: str, node: str = "rare") -> float:
    """What a loss makes of a positive or a negative of a node at one probability."""
    curves = element_curves({"x": loss_of(variant)}, DATA, {node: NODES[node]}, at(probability))
    return curves.set_index("label").loc[label, column].item()


def constants(variant: dict) -> dict[str, float]:
    """Best constants for the three numbers of positives that are followed."""
    return constants_at(constant_curves({"x": loss_of(variant)}, DATA), COUNTS).loc["x"].to_dict()


# The made-up data


def test_long_tail_counts_and_labels():
    # 7 nodes below 8 positives: 8, 4, 2, 2, 1, 1, 1; 2 and 3 are below 1, 4 and 5 below 2, ...
    data = long_tail(num_nodes=7, num_examples=10, most=8)
    assert data.hierarchy.nodes == tuple(f"00{r}" for r in range(1, 8))
    assert data.counts("train").tolist() == [8, 4, 2, 2, 1, 1, 1]
    assert set(data.hierarchy.edges) == {
        ("002", "001"), ("003", "001"), ("004", "002"), ("005", "002"), ("006", "003"), ("007", "003"),
    }  # fmt: skip
    assert data.targets.toarray().T.tolist() == [
        [1, 1, 1, 1, 1, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 1, 1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0, 0, 0, 0],
        [0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 1, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 1, 0, 0, 0, 0],
    ]


@pytest.mark.parametrize("sizes", [(400, 1000, 400), (2, 2, 2), (30, 61, 60)])
def test_long_tail_is_coherent(sizes):
    data = long_tail(*sizes)
    targets = torch.from_numpy(data.targets.toarray())
    assert data.hierarchy.is_coherent(targets)
    counts = {int(name): n for name, n in zip(data.hierarchy.nodes, targets.sum(0), strict=True)}
    assert all(n == sizes[2] // r for r, n in counts.items())
    # Siblings share no example: every example is on one path.
    assert (targets.sum(1) <= data.hierarchy.depth.max() + 1).all()


@pytest.mark.parametrize("sizes", [(1, 10, 5), (6, 10, 5), (3, 4, 5)])
def test_message_of_sizes_that_do_not_fit(sizes):
    message = f"a long tail needs 2 ≤ num_nodes ≤ most ≤ num_examples, found {sizes[0]}, {sizes[2]} and {sizes[1]}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        long_tail(*sizes)


def test_message_of_a_wrong_setting_names_the_variant():
    with pytest.raises(SettingsError, match=r"^variants\.mine: weights: .*no option 'mod'"):
        losses_of({"mine": {"weights": {"mode": "binary", "mod": 1}}}, DATA)


# 1. Losses


def test_element_curves_by_hand():
    # Cross-entropy of a positive at 1/4: log 4, pushed with 3/4.
    assert cell(PLAIN, "positive", 0.25, "loss") == pytest.approx(math.log(4))
    assert cell(PLAIN, "positive", 0.25, "push") == pytest.approx(0.75)
    assert cell(PLAIN, "negative", 0.25, "push") == pytest.approx(0.25)
    assert cell(LIN, "positive", 0.25, "weight") == pytest.approx(0.75**2)
    assert cell(BBMA, "negative", 0.25, "weight") == pytest.approx(0.25 + 0.5)
    # The rare node's logit is shifted by log(4 / 996): odds of 1 become 1 / 249.
    assert cell(ADJUSTED, "negative", 0.5, "push") == pytest.approx(1 / 250, rel=1e-5)


def test_a_shift_gets_a_curve_for_each_node():
    losses = losses_of({"plain": PLAIN, "adjusted": ADJUSTED}, DATA)
    curves = element_curves(losses, DATA, NODES, at(0.5))
    names = ["plain", "adjusted, common node", "adjusted, rare node"]
    assert curves["name"].tolist() == [name for name in names for _ in range(2)]


def test_response_is_of_each_nodes_own_loss():
    logits = torch.linspace(-5, 5, 11, dtype=torch.float64)
    with_constraint = response(loss_of(weighted("binary", "both")), logits)
    without = response(loss_of({**weighted("binary", "both"), "constraint": "prediction"}), logits)
    for found, expected in zip(with_constraint, without, strict=True):
        assert found.shape == (11, 400)
        torch.testing.assert_close(found, expected)


def test_response_refuses_balance():
    with pytest.raises(ValueError, match="undefined for a loss with `balance`"):
        response(loss_of({"balance": {}}), at(0.5))


def test_what_is_said_of_easy_negatives():
    assert 996 * cell(PLAIN, "negative", 0.01, "push") == pytest.approx(10, abs=0.1)
    assert 4 * cell(PLAIN, "positive", 0.01, "push") == pytest.approx(4, abs=0.1)
    assert cell(LIN, "negative", 0.01, "push") == pytest.approx(3e-6, rel=0.01)
    assert 0 < cell(TOLERANT, "negative", 0.01, "push") < 1e-9
    assert cell(ASYMMETRIC, "negative", 0.0499, "push") == 0
    assert cell(ASYMMETRIC, "negative", 0.06, "push") > 0


def test_what_is_said_of_positives_and_mislabelled_negatives():
    for variant in (ASYMMETRIC, TOLERANT):
        for p in (0.01, 0.5, 0.99):
            expected = cell(PLAIN, "positive", p, "loss")
            assert cell(variant, "positive", p, "loss") == pytest.approx(expected)
    pushes = [cell(ASYMMETRIC, "negative", p, "push") for p in (0.5, 0.9, 0.999)]
    assert pushes[1] > pushes[0]
    assert pushes[1] > 5 * pushes[2]


def test_what_is_said_of_logit_adjustment():
    for node, moved in {"rare": 5.5, "common": 0.4}.items():
        shift = loss_of(ADJUSTED).shift[DATA.hierarchy.index[NODES[node]]].item()
        assert -shift == pytest.approx(moved, abs=0.05)
    assert cell(ADJUSTED, "positive", 0.99, "push") > 0.7


# 2. Node weights


def curves_of(mode: str, orientation: str):
    curves = weight_curves(DATA, [mode])
    return curves[curves["orientation"] == orientation].set_index("positives")


def test_binary_weights_by_hand():
    # 500 / n from 1.25 (n = 400) to 500 (n = 1): .25 + 500 (500/n − 1.25) / 498.75.
    curves = curves_of("binary", "paper")
    expected = {1: 500.25, 4: 0.25 + 500 * 123.75 / 498.75, 400: 0.25}
    assert curves.loc[list(expected), "weight"].tolist() == pytest.approx(list(expected.values()))
    assert curves.loc[4, "positives_total"] == pytest.approx(4 * expected[4])
    assert curves.loc[4, "negatives_total"] == 996
    released = curves_of("binary", "released")
    assert released["weight"].tolist() == curves["weight"].tolist()
    assert released.loc[4, "positives_total"] == 4
    assert released.loc[4, "negatives_total"] == pytest.approx(996 * expected[4])


def test_class_wise_weights_by_hand():
    # 2.5 / n from 1/160 to 2.5: .25 + 2.5 (2.5/n − 1/160) / (2.5 − 1/160).
    curves = curves_of("class-wise", "paper")
    expected = [0.25 + 2.5 * (2.5 / n - 1 / 160) / (2.5 - 1 / 160) for n in (1, 40, 400)]
    assert curves.loc[[1, 40, 400], "weight"].tolist() == pytest.approx(expected)


def test_every_formula_and_both_orientations_are_drawn():
    curves = weight_curves(DATA)
    counts = set(DATA.counts("train"))
    assert len(curves) == len(WEIGHTINGS) * 2 * len(counts)
    assert set(curves["mode"]) == set(WEIGHTINGS)


def test_what_is_said_of_weights():
    class_wise, binary = (curves_of(mode, "paper") for mode in ("class-wise", "binary"))
    heavier = class_wise.index[class_wise["weight"] > 1]
    assert heavier.tolist() == [1, 2, 3]
    assert class_wise.loc[400, "weight"] == 0.25
    assert class_wise["weight"].max() == pytest.approx(2.75)
    assert (DATA.counts("train") <= 3).mean() == 0.75
    slope = (binary["weight"] - 0.25) / (class_wise["weight"] - 0.25)
    assert slope[slope.index < 400].tolist() == pytest.approx([200] * (len(slope) - 1), rel=1e-4)
    ratio = binary["positives_total"] / binary["negatives_total"]
    assert ratio[ratio.index <= 100].between(0.44, 0.51).all()
    assert ratio[400] < 0.2
    effective = curves_of("effective-number", "paper")
    assert effective["positives_total"].between(1.5, 1.9).all()
    assert effective["negatives_total"].between(600, 999).all()
    ratio = curves_of("positive-ratio", "paper")
    equal = (ratio["positives_total"] - ratio["negatives_total"]).abs() < 1e-3
    assert equal[equal].index.min() == 10
    assert equal[equal.index >= 10].all()


# The best constant


@pytest.mark.parametrize("mode", WEIGHTINGS)
@pytest.mark.parametrize("orientation", ["paper", "released", "both"])
def test_best_constant_of_weights_is_the_formulas(mode, orientation):
    loss = loss_of(weighted(mode, orientation))
    n = torch.from_numpy(DATA.counts("train")).double()
    one = torch.ones_like(n)
    positive = one if loss.positive_weight is None else loss.positive_weight.double()
    negative = one if loss.negative_weight is None else loss.negative_weight.double()
    expected = positive * n / (positive * n + negative * (EXAMPLES - n))
    torch.testing.assert_close(best_constants(loss, DATA), expected, rtol=2e-3, atol=0)


def test_best_constant_of_negative_tolerant_by_hand():
    # The slope is 0 where 4 (1 − p) = 996 σ(5z).
    p = constants(TOLERANT)["rare"]
    z = math.log(p / (1 - p))
    assert 4 * (1 - p) == pytest.approx(996 / (1 + math.exp(-5 * z)), rel=1e-2)


def test_best_constant_costs_least():
    for variant in (LIN, ASYMMETRIC, TOLERANT, ADJUSTED, weighted("binary")):
        loss = loss_of(variant)
        rare = DATA.hierarchy.index["100"]
        best = best_constants(loss, DATA)[rare].logit()
        cost = response(loss, best + torch.tensor([0.0, -0.05, 0.05], dtype=torch.float64))
        total = (4 * cost.positive + 996 * cost.negative)[:, rare]
        assert total[0] < total[1:].min()


def test_what_is_said_of_the_best_constant():
    assert constants(PLAIN) == pytest.approx(
        {"rare": 0.004, "medium": 0.04, "common": 0.4}, rel=1e-3
    )
    on_positives, on_negatives = (
        constants(weighted("class-wise", orientation)) for orientation in ("paper", "released")
    )
    assert percent(on_positives["medium"]) == "1.3 %"
    assert percent(on_negatives["medium"]) == "12 %"
    lowered = curves_of("class-wise", "paper")["weight"] < 1
    assert lowered[lowered.index >= 4].all()
    binary = constants(weighted("binary"))
    assert [percent(p) for p in binary.values()] == ["33 %", "32 %", "14 %"]
    raised = [percent(constants(v)["rare"]) for v in (LIN, TOLERANT, ASYMMETRIC)]
    assert raised == ["11 %", "24 %", "27 %"]
    assert list(constants(ADJUSTED).values()) == pytest.approx([0.5] * 3, rel=1e-4)
    for mode in WEIGHTINGS:
        both = constants(weighted(mode, "both"))
        assert both == pytest.approx(constants(PLAIN), rel=1e-3)


def test_a_mixture_is_a_weight():
    mixed = loss_of({**weighted("binary"), "mixture": 0.3})
    found = response(mixed, at(0.2)).positive
    weight = mixed.positive_weight.double()
    torch.testing.assert_close(found[0], (0.3 * weight + 0.7) * math.log(5))


def test_best_constant_refuses_a_focal_term():
    with pytest.raises(ValueError, match="not where training with a focal term ends"):
        best_constants(loss_of(BBMA), DATA)


def test_grouped_and_scheduled_constants():
    groups = {"a": {"plain": PLAIN, "x": weighted("binary")}, "b": {"x": weighted("class-wise")}}
    table = constants_at(grouped_constants(groups, DATA), COUNTS, by=["group", "name"])
    assert list(table.index) == [("a", "plain"), ("a", "x"), ("b", "x")]
    assert list(table.columns) == list(COUNTS)
    assert table.loc[("b", "x"), "medium"] == constants(weighted("class-wise"))["medium"]


def test_what_is_said_of_where_schedules_end():
    losses = losses_of(
        {
            str(end): weighted("binary", schedule={"kind": "linear", "end": end})
            for end in (0.25, 1.0)
        },
        DATA,
    )
    moments = {"first": Moment(0, 4, 0, 6), "last": Moment(3, 4, 5, 6)}
    curves = scheduled_constants(losses, DATA, moments)
    table = constants_at(curves, COUNTS, by=["name", "moment"])
    for end in ("0.25", "1.0"):
        start = table.loc[(end, "first")].to_dict()
        assert start == pytest.approx(constants(weighted("binary")), rel=1e-6)
    last = table.loc[("0.25", "last")]
    odds = (last / (1 - last)).to_dict()
    assert odds == pytest.approx(
        {name: 0.25 * n / (1000 - n) for name, n in COUNTS.items()}, rel=2e-3
    )
    unweighted = table.loc[("1.0", "last")].to_dict()
    assert unweighted == pytest.approx(constants(PLAIN), rel=1e-3)


def test_balance_by_hand():
    # 1/n: .0025, .025, .25. Labels common and medium: r = 1/11, 10/11, 100/11.
    table = balance_table({"common": 400, "medium": 40, "rare": 4})
    expected = [0.1 + 1 / (1 + math.exp(-10 * (r - 0.2))) for r in (1 / 11, 10 / 11, 100 / 11)]
    assert table.loc["common, medium"].tolist() == pytest.approx(expected)
    assert table.loc["no label"].tolist() == pytest.approx([1.1] * 3)
    assert table.loc["common, medium, rare", "common"] / 1.1 == pytest.approx(1 / 5, abs=0.02)


# 3. Focal weights


def test_two_camps_by_hand():
    camps = two_camps(torch.tensor([[0.3]]), torch.tensor([[0.2]]), members=4)
    assert camps.flatten().tolist() == pytest.approx([0.1, 0.1, 0.5, 0.5])


def test_messages_of_two_camps():
    with pytest.raises(ValueError, match="two camps need an even number of members, found 3"):
        two_camps(torch.tensor([[0.3]]), torch.tensor([[0.2]]), members=3)
    with pytest.raises(ValueError, match="further apart than their mean allows"):
        two_camps(torch.tensor([[0.3]]), torch.tensor([[0.4]]))


def test_maps_hold_every_uncertainty_over_the_triangle():
    maps = uncertainty_maps(grid=21)
    assert set(maps.kinds) == set(KINDS)
    assert (maps.apart <= torch.minimum(maps.mean, 1 - maps.mean)).all()
    assert maps.apart.max() == 0.5
    assert all(u.shape == (21, 21) for u in maps.kinds.values())


def test_what_is_said_of_uncertainties():
    maps = uncertainty_maps(grid=21)
    kinds, agree, tip = maps.kinds, 0, (20, 10)
    for kind in ("bbma", "entropy"):
        torch.testing.assert_close(kinds[kind], kinds[kind][:1].expand(21, 21))
    inner = slice(1, -1)
    assert (kinds["aleatoric"].diff(dim=0)[:, inner] < 0).all()
    for kind in ("jsd", "kl", "mutual_information"):
        assert kinds[kind][agree].abs().max() < 1e-9
    assert kinds["kl"][tip].item() == pytest.approx(22, abs=0.5)
    torch.testing.assert_close(kinds["gmu"][agree], kinds["bbma"][agree])
    assert (kinds["gmu"].diff(dim=0) >= -1e-12).all()
    assert (kinds["gmu"][-1] > kinds["gmu"][0])[1:10].all()


def test_what_is_said_of_a_positive_that_all_members_miss():
    missed, sure = (cell(BBMA, "positive", p, "weight") for p in (0.01, 0.99))
    assert missed == pytest.approx(0.27)
    assert sure == pytest.approx(missed)
    assert cell(LIN, "positive", 0.01, "weight") == pytest.approx(0.98, abs=0.001)
    assert cell(LIN, "positive", 0.99, "weight") == pytest.approx(0.0001)
    for p in (0.01, 0.3, 0.9):
        assert cell(BBMA, "negative", p, "weight") == pytest.approx(
            cell(BBMA, "positive", p, "weight")
        )
        assert cell(LIN, "negative", p, "weight") == pytest.approx(
            cell(LIN, "positive", 1 - p, "weight")
        )


@pytest.mark.parametrize("kind", KINDS)
def test_the_label_of_a_line_holds_for_all_its_kinds(kind):
    drawn_as = {"gmu": "bbma", "aleatoric": "entropy", "kl": "jsd", "mutual_information": "jsd"}
    for p in (0.02, 0.4, 0.95):
        found = cell({"focal": {"uncertainty": kind}}, "positive", p, "weight")
        like = cell({"focal": {"uncertainty": drawn_as.get(kind, kind)}}, "positive", p, "weight")
        assert found == pytest.approx(like, abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_focal_weights_alone_move_no_threshold(kind):
    # At the frequency, the pushes of positives and negatives are in balance.
    found = response(loss_of({"focal": {"uncertainty": kind}}), at(0.004))
    rare = DATA.hierarchy.index["100"]
    up, down = found.positive_gradient[0, rare], found.negative_gradient[0, rare]
    assert 4 * up.item() == pytest.approx(-996 * down.item())


# 4. The maximum constraint


CHAIN = Hierarchy([("medium", "common"), ("rare", "medium")])


def destinations(probabilities: list[float], targets: list[int], **options) -> list[list[float]]:
    loss = RareNodeLoss(CHAIN, **options)
    logits = torch.tensor(probabilities, dtype=torch.float64).logit()
    return gradient_destinations(loss, logits, torch.tensor([targets]))[0].tolist()


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        ([0, 0, 0], [[0, 0, 0.8], [0, 0, 0.8], [0, 0, 0.8]]),
        ([1, 0, 0], [[-0.8, 0, 0], [0, 0, 0.8], [0, 0, 0.8]]),
        ([1, 1, 0], [[0, -0.5, 0], [0, -0.5, 0], [0, 0, 0.8]]),
        ([1, 1, 1], [[0, 0, -0.2], [0, 0, -0.2], [0, 0, -0.2]]),
    ],
)
def test_destinations_where_descendants_are_above_by_hand(targets, expected):
    found = destinations([0.2, 0.5, 0.8], targets)
    assert found == [pytest.approx(row) for row in expected]


@pytest.mark.parametrize("targets", [[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]])
def test_destinations_of_coherent_predictions_are_their_own(targets):
    found = destinations([0.8, 0.5, 0.2], targets)
    assert found == destinations([0.8, 0.5, 0.2], targets, coherent=False)
    p = [0.8, 0.5, 0.2]
    own = [found[i][i] for i in range(3)]
    assert own == pytest.approx([q - y for q, y in zip(p, targets, strict=True)])


def test_destinations_of_several_examples_are_those_of_each():
    logits = torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64).logit()
    targets = torch.tensor([[0, 0, 0], [1, 1, 0]])
    found = gradient_destinations(RareNodeLoss(CHAIN), logits, targets)
    assert found.tolist() == [destinations([0.2, 0.5, 0.8], row) for row in targets.tolist()]


# 5. Schedules


def test_shares_by_hand():
    assert shares(Schedule("linear"), 2, 2) == pytest.approx([1, 2 / 3, 1 / 3, 0])
    assert shares(Schedule("exponential", 2.0, "epoch"), 2, 3) == pytest.approx([1, 0.25, 0] * 2)
    assert shares(Schedule("alternating"), 3, 2) == [1, 1, 0, 0, 1, 1]
    assert shares(Schedule("alternating", over="epoch"), 2, 3) == [1, 0, 1] * 2


def test_percent():
    assert [percent(p) for p in (0.4, 0.0126, 3.2e-5)] == ["40 %", "1.3 %", "0.0032 %"]


# The notebook


@pytest.mark.slow
def test_notebook_executes_in_any_study(tmp_path):
    shutil.copy(TINY, tmp_path / "params.yaml")
    executed = run_notebook(NOTEBOOK, {}, {"folder": Path("reports/gallery")}, tmp_path)
    cells = json.loads(executed.read_text())["cells"]
    shown = [output for c in cells if c["cell_type"] == "code" for output in c["outputs"]]
    assert not [output for output in shown if output["output_type"] == "stream"]
    figures = {path.stem for path in (executed.parent / "figures").glob("*.svg")}
    assert figures == {path.stem for path in (executed.parent / "figures").glob("*.png")}
    assert figures == {
        "element_losses", "weights_by_count", "best_constants", "uncertainties", "focal_weights",
        "destinations", "schedules",
    }  # fmt: skip
    tables = executed.parent / "tables"
    assert {path.stem for path in tables.iterdir()} == {"best_constants"}
