import numpy as np
import pytest

from rarenodes.datasets.kanji_strokes import HandSettings, draw, read_character

DOWN = "M50,20L50,90"
ACROSS = "M20,50L90,50"

FILE = """<?xml version="1.0" encoding="UTF-8"?>
<svg xmlns="http://www.w3.org/2000/svg" xmlns:kvg="https://kanjivg.tagaini.net/" width="109">
<g id="kvg:StrokePaths_0884c">
<g kvg:element="行">
  <g kvg:element="彳"><path d="M1,1"/></g>
  <g kvg:element="亍" kvg:part="1"><path d="M2,2"/></g>
  <g><g kvg:element="干"><g kvg:element="十"><path d="M3,3"/></g><path d="M4,4"/></g></g>
  <g kvg:element="亍" kvg:part="2"><path d="M5,5"/><g kvg:element="亍"><path d="M6,6"/></g></g>
  <g kvg:element="十"><path d="M7,7"/></g>
</g>
</g>
<g id="kvg:StrokeNumbers_0884c"><text>1</text></g>
</svg>
"""


def test_a_file_becomes_strokes_components_and_what_is_nested_in_what(tmp_path):
    path = tmp_path / "0884c.svg"
    path.write_text(FILE, encoding="utf-8")
    character = read_character(path)
    assert character.name == "行"
    assert character.strokes == tuple(f"M{n},{n}" for n in range(1, 8))
    assert character.components == {
        "行": set(range(7)),
        "彳": {0},
        "亍": {1, 4, 5},
        "干": {2, 3},
        "十": {2, 6},
    }
    assert character.nested == {
        ("彳", "行"),
        ("亍", "行"),
        ("干", "行"),
        ("十", "干"),
        ("十", "行"),
    }
    # 亍 is one drawing in two parts, and the 亍 in its second part is the same.
    assert character.times == {"行": 1, "彳": 1, "亍": 1, "干": 1, "十": 2}


def test_strokes_are_white_where_they_run():
    image = draw([DOWN], 109)
    assert image.shape == (109, 109)
    assert image.dtype == np.uint8
    # Three wide about x = 50: the columns 49 and 50 wholly, 48 and 51 half.
    assert image[60, 49:51].tolist() == [255, 255]
    assert image[60, 48] == image[60, 51] == pytest.approx(128, abs=3)
    assert image[60, :48].max() == image[60, 52:].max() == 0
    assert image[:18].max() == image[92:].max() == 0


def test_the_same_draws_give_the_same_picture_and_others_another():
    first, again, other = (
        draw([DOWN, ACROSS], 48, HandSettings(), np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_a_hand_that_does_not_differ_draws_the_same():
    still = HandSettings(shift=0, turn=0, width=0, slant=0)
    np.testing.assert_array_equal(
        draw([DOWN, ACROSS], 48, still, np.random.default_rng(0)), draw([DOWN, ACROSS], 48)
    )


class Draws(np.random.Generator):
    """A generator whose normal draws are one standard deviation each."""

    def __init__(self):
        super().__init__(np.random.PCG64())

    def normal(self, mean, deviation, count=None):
        return mean + deviation if count is None else np.full(count, mean + deviation)


def still(**changes):
    return HandSettings(**{"shift": 0.0, "turn": 0.0, "width": 0.0, "slant": 0.0, **changes})


@pytest.mark.parametrize(
    ("hand", "row", "middle"),
    [
        # All are moved by ten to the right.
        (still(shift=10.0), 60, 60),
        # A turn by 45 degrees about the start (50, 20): 20 below it, the stroke is 20 to the left.
        (still(turn=45.0), 40, 30),
        # A slant by 20 degrees leaves the middle, 54.5, and moves what is 25.5 below by 9.3.
        (still(slant=20.0), 80, 59.3),
    ],
)
def test_a_hand_shifts_turns_and_slants(hand, row, middle):
    ink = draw([DOWN], 109, hand, Draws())[row].astype(float)
    # A pixel's centre is half a pixel from its edge.
    assert (ink * (np.arange(109) + 0.5)).sum() / ink.sum() == pytest.approx(middle, abs=0.7)


def test_a_hand_has_a_thicker_pen():
    ink = draw([DOWN], 109, still(width=float(np.log(2))), Draws())[60] / 255
    assert ink.sum() == pytest.approx(2 * 3, abs=0.05)
