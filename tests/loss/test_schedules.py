"""Schedules of node weights by hand, their ends, and what cannot be a schedule."""

import re
from itertools import chain, pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rarenodes.loss.schedules import CLASSES, CURVES, KINDS, SPANS, Moment, Schedule

EPOCHS, STEPS = 3, 4


def shares(schedule: Schedule, epochs: int = EPOCHS, steps: int = STEPS) -> list[list[float]]:
    """Shares of every step, by epoch."""
    return [
        [schedule.share(Moment(epoch, epochs, step, steps)) for step in range(steps)]
        for epoch in range(epochs)
    ]


def in_a_row(by_epoch: list[list[float]]) -> list[float]:
    return list(chain.from_iterable(by_epoch))


# By hand


def test_linear_over_the_training():
    # Twelve steps, eleven intervals.
    found = shares(Schedule("linear"))
    assert in_a_row(found) == pytest.approx([1 - i / 11 for i in range(12)])


def test_linear_over_each_epoch():
    found = shares(Schedule("linear", over="epoch"))
    assert found == [pytest.approx([1, 2 / 3, 1 / 3, 0])] * EPOCHS


def test_exponential_is_a_power_of_linear():
    found = shares(Schedule("exponential", power=2.0, over="epoch"))
    assert found == [pytest.approx([1, 4 / 9, 1 / 9, 0])] * EPOCHS
    found = in_a_row(shares(Schedule("exponential", power=3.0)))
    assert found == pytest.approx([(1 - i / 11) ** 3 for i in range(12)])


def test_alternating_over_the_training_takes_turns_by_epoch():
    found = shares(Schedule("alternating"))
    assert found == [[1, 1, 1, 1], [0, 0, 0, 0], [1, 1, 1, 1]]


def test_alternating_over_an_epoch_takes_turns_by_step():
    found = shares(Schedule("alternating", over="epoch"), steps=5)
    assert found == [[1, 0, 1, 0, 1]] * EPOCHS


# Five steps of each epoch, t = 0, 1/4, 1/2, 3/4, 1: what is left is 1 − t, and 1 − t³.
RELEASED = {
    "linear": [1, 3 / 4, 1 / 2, 1 / 4, 0],
    "exponential": [1, 63 / 64, 7 / 8, 37 / 64, 0],
    "alternating": [1, 0, 1, 0, 1],
}


@pytest.mark.parametrize("kind", KINDS)
def test_released_schedules_run_anew_in_each_epoch(kind):
    assert shares(Schedule.released(kind), steps=5) == [pytest.approx(RELEASED[kind])] * EPOCHS


def test_the_power_of_a_released_schedule():
    found = shares(Schedule.released("exponential", power=2.0), epochs=1, steps=5)
    assert found == [pytest.approx([1, 15 / 16, 3 / 4, 7 / 16, 0])]


@pytest.mark.parametrize("kind", KINDS)
def test_released_weights_by_hand(kind):
    # From 8.25, and from the 1 of the other class, to 0.25: 8 and 3/4 of the share.
    start = torch.tensor([8.25, 1.0], dtype=torch.float64)
    for step, share in enumerate(RELEASED[kind]):
        found = Schedule.released(kind).weights(start, Moment(2, 3, step, 5))
        assert found.tolist() == pytest.approx([0.25 + 8 * share, 0.25 + 0.75 * share])


def test_the_curves_bend_to_different_sides_of_the_straight_line():
    # Half-way, with a power of 3: 1/8 is left by the paper, 7/8 in the released code.
    found = [
        Schedule("exponential", 3.0, curve=curve).share(Moment(0, 1, 1, 3)) for curve in CURVES
    ]
    assert found == [1 / 8, 7 / 8]


def test_weights_by_hand():
    start = torch.tensor([0.25, 1.0, 8.25], dtype=torch.float64)
    moment = Moment(0, 1, 1, 5)  # t = 1/4
    found = Schedule("linear").weights(start, moment)
    assert found.tolist() == pytest.approx([0.25, 0.75 + 0.0625, 6.25])
    found = Schedule("linear", end=1.0).weights(start, moment)
    assert found.tolist() == pytest.approx([0.4375, 1.0, 6.4375])
    found = Schedule("exponential", power=2.0, end=0.0).weights(start, moment)
    assert found.tolist() == pytest.approx([0.25 * 9 / 16, 9 / 16, 8.25 * 9 / 16])


def test_defaults_are_the_papers():
    of_paper = {"over": "training", "end": 0.25, "curve": "paper", "classes": "weighted"}
    assert Schedule("exponential") == Schedule("exponential", power=1.0, **of_paper)


def test_defaults_of_the_released_code():
    of_code = {"over": "epoch", "end": 0.25, "curve": "released", "classes": "both"}
    assert Schedule.released("exponential") == Schedule("exponential", power=3.0, **of_code)


@pytest.mark.parametrize("over", SPANS)
@pytest.mark.parametrize("curve", CURVES)
def test_power_1_is_linear(over, curve):
    found = shares(Schedule("exponential", over=over, curve=curve))
    assert found == shares(Schedule("linear", over=over))


# In general

schedules = st.builds(
    Schedule,
    kind=st.sampled_from(KINDS),
    power=st.floats(0.1, 5),
    over=st.sampled_from(SPANS),
    end=st.floats(0, 2),
    curve=st.sampled_from(CURVES),
    classes=st.sampled_from(CLASSES),
)


@given(schedules, st.integers(1, 5), st.integers(1, 5))
def test_shares_start_at_1_and_stay_in_range(schedule, epochs, steps):
    found = in_a_row(shares(schedule, epochs, steps))
    assert found[0] == 1
    assert all(0 <= share <= 1 for share in found)


@given(schedules, st.integers(1, 5), st.integers(2, 5))
def test_the_last_step_has_share_0_unless_they_alternate(schedule, epochs, steps):
    if schedule.kind != "alternating":
        assert shares(schedule, epochs, steps)[-1][-1] == 0


@given(schedules, st.integers(1, 5), st.integers(2, 5))
def test_shares_fall_within_their_span(schedule, epochs, steps):
    if schedule.kind == "alternating":
        return
    by_epoch = shares(schedule, epochs, steps)
    for span in by_epoch if schedule.over == "epoch" else [in_a_row(by_epoch)]:
        assert all(later < earlier for earlier, later in pairwise(span))


@given(schedules, st.integers(2, 5), st.integers(1, 5))
def test_over_an_epoch_every_epoch_is_the_same(schedule, epochs, steps):
    if schedule.over == "epoch":
        first, *others = shares(schedule, epochs, steps)
        assert others == [first] * (epochs - 1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_single_step_keeps_the_first_weights(kind):
    assert shares(Schedule(kind), epochs=1, steps=1) == [[1]]
    assert shares(Schedule(kind, over="epoch"), epochs=3, steps=1) == [[1]] * 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_are_exact_at_both_ends_and_leave_the_first_alone(dtype):
    start = torch.tensor([0.1, 1 / 3, 1e6], dtype=dtype)
    before = start.clone()
    schedule = Schedule("linear", end=0.3)
    first, last = (schedule.weights(start, Moment(0, 1, step, 7)) for step in (0, 6))
    assert first.dtype == last.dtype == dtype
    assert first.tolist() == before.tolist()
    assert last.tolist() == torch.full((3,), 0.3, dtype=dtype).tolist()
    assert start.tolist() == before.tolist()


# Messages


def test_message_of_an_unknown_kind():
    message = "unknown kind of schedule 'cosine': known are linear, exponential, alternating"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Schedule("cosine")


def test_message_of_an_unknown_span():
    message = "a schedule runs over one of training, epoch, found over='step'"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Schedule("linear", over="step")


def test_message_of_an_unknown_curve():
    message = "the curve of a schedule is one of paper, released, found 'cubic'"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Schedule("exponential", curve="cubic")


def test_message_of_unknown_classes():
    message = "the classes of a schedule are one of weighted, both, found 'none'"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Schedule("linear", classes="none")


@pytest.mark.parametrize("power", [0.0, -1.0, float("nan"), float("inf")])
def test_message_of_a_bad_power(power):
    message = f"the power of a schedule must be above 0, found {power}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Schedule("exponential", power=power)


@pytest.mark.parametrize("end", [-0.1, float("nan"), float("inf")])
def test_message_of_a_bad_end(end):
    message = f"the end of a schedule must be at least 0, found {end}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Schedule("linear", end=end)


@pytest.mark.parametrize("moment", [(3, 3, 0, 4), (0, 3, 4, 4), (-1, 3, 0, 4), (0, 3, -1, 4)])
def test_message_of_a_moment_that_cannot_be(moment):
    epoch, epochs, step, steps = moment
    message = (
        f"a moment counts epochs and steps from 0, found epoch {epoch} of {epochs} and step {step} "
        f"of {steps}"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Moment(*moment)
