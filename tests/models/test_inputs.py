"""What is given to a model is taken as meant, or refused with a line."""

import logging

import numpy as np
import pandas as pd
import pytest

from rarenodes.datasets.columns import PlainFeatures, fit_columns
from rarenodes.datasets.text import TextTransformation
from rarenodes.models.inputs import inputs_of, read_inputs

TEXT = TextTransformation(("a",), np.ones(1), np.ones((1, 1)), 1.0, "words")
VALUES = np.array([[1.0, 0.0], [3.0, 1.0], [np.nan, np.nan]])
MIXED = fit_columns(["size", "colour"], VALUES, [None, ("blue", "red")], np.arange(2))
NUMBERS = fit_columns(["x", "y"], VALUES, [None, None], np.arange(2))
PLAIN = PlainFeatures(2)


@pytest.fixture
def file(tmp_path):
    def write(name, content):
        path = tmp_path / name
        if isinstance(content, np.ndarray):
            np.save(path, content)
        elif isinstance(content, pd.DataFrame):
            content.to_parquet(path)
        else:
            path.write_text(content)
        return path

    return write


def test_a_text_a_line(file):
    assert read_inputs(file("new.txt", "one\n\ntwo words\n"), TEXT) == ["one", "", "two words"]
    assert read_inputs(file("new.txt", "one\r\ntwo"), TEXT) == ["one", "two"]


def test_the_column_of_texts(file):
    path = file("new.csv", "id,words,other\n1,hello,you\n")
    assert read_inputs(path, TEXT) == ["hello"]
    assert read_inputs(path, TEXT, "other") == ["you"]


@pytest.mark.parametrize("name", ["new.csv", "new.parquet"])
def test_columns_by_name_in_any_order(file, name, caplog):
    table = pd.DataFrame({"colour": ["red", None, "green"], "other": 1, "size": [2, 5, None]})
    content = table if name.endswith(".parquet") else table.to_csv(index=False)
    with caplog.at_level(logging.WARNING):
        found = read_inputs(file(name, content), MIXED)
    np.testing.assert_array_equal(found, [[2, 1], [5, np.nan], [np.nan, np.nan]])
    assert "'colour': 1 values are none of the categories" in caplog.text


ARFF = """@RELATION new
@ATTRIBUTE colour {red,green}
@ATTRIBUTE class hierarchical a/b,a/c
@ATTRIBUTE size numeric
@DATA
red,?,2
green,a/b,?
"""


def test_attributes_by_name_whatever_the_class_is(file, caplog):
    with caplog.at_level(logging.WARNING):
        found = read_inputs(file("new.arff", ARFF), MIXED)
    np.testing.assert_array_equal(found, [[2, 1], [np.nan, np.nan]])
    assert "'colour': 1 values are none of the categories" in caplog.text


def test_arff_for_other_models(file):
    path = file("new.arff", ARFF)
    with pytest.raises(
        ValueError, match=r"new\.arff: found numbers and categories, .* takes texts"
    ):
        read_inputs(path, TEXT)
    with pytest.raises(ValueError, match=r"new\.arff: .*unknown column 'x'|unknown column 'x'"):
        read_inputs(path, NUMBERS)
    with pytest.raises(ValueError, match=r"new\.arff, column 'colour': expected numbers alone"):
        read_inputs(path, PLAIN)


def test_tables_in_memory():
    table = pd.DataFrame({"size": [2, None], "colour": ["blue", None]})
    np.testing.assert_array_equal(inputs_of(table, MIXED), [[2, 0], [np.nan, np.nan]])
    given = np.array([[2, "blue"], [None, None]], dtype=object)
    np.testing.assert_array_equal(inputs_of(given, MIXED), [[2, 0], [np.nan, np.nan]])
    assert inputs_of(pd.Series(["a", "b"]), TEXT) == ["a", "b"]
    assert inputs_of(pd.DataFrame({"words": ["a"]}), TEXT) == ["a"]


def test_matrices(file):
    matrix = np.array([[1.0, 2.0], [3.0, np.nan]])
    np.testing.assert_array_equal(read_inputs(file("x.npy", matrix), NUMBERS), matrix)
    np.testing.assert_array_equal(inputs_of([[1, 2]], PLAIN), [[1, 2]])
    found = read_inputs(file("x.csv", "p,q\n1,2\n"), PLAIN)
    np.testing.assert_array_equal(found, [[1, 2]])


@pytest.mark.parametrize(
    ("given", "transformation", "message"),
    [
        ("one text", TEXT, "found one text, expected a list of texts"),
        (["one", 2], TEXT, "row 1: found int, expected a text"),
        (np.ones((2, 3)), NUMBERS, "found 3 columns, but the model takes the columns 'x', 'y'"),
        (np.ones((2, 3)), PLAIN, "found 3 columns, but the model takes a matrix of 2 features"),
        (np.ones((2, 2)), MIXED, "the column 'colour' holds categories"),
        (np.ones(2), NUMBERS, "expected a matrix of numbers"),
        (["a", "b"], NUMBERS, "expected a matrix of numbers"),
        (np.array([[1, np.inf]]), NUMBERS, "row 0, column 'y': found inf"),
        (np.array([[1, np.nan]]), PLAIN, "row 0, column 1: found nan, expected a finite number"),
        (pd.DataFrame({"size": [1]}), MIXED, "unknown column 'colour'"),
        (
            pd.DataFrame({"size": ["big"], "colour": ["red"]}),
            MIXED,
            "found 'big', expected a number",
        ),
    ],
)
def test_what_cannot_be_taken(given, transformation, message):
    with pytest.raises(ValueError, match=message):
        inputs_of(given, transformation)


@pytest.mark.parametrize(
    ("name", "content", "transformation", "message"),
    [
        ("new.txt", "a\n", NUMBERS, "found texts, but the model takes the columns 'x', 'y'"),
        ("new.txt", "", TEXT, "found no line"),
        ("new.npy", np.ones((1, 1)), TEXT, r"found a matrix, but the model takes texts"),
        ("new.npy", np.ones(3), NUMBERS, "found an array of shape"),
        ("new.npy", np.array([[{}]], dtype=object), NUMBERS, "expected a matrix of numbers"),
        ("new.csv", "wrods\na\n", TEXT, "unknown column 'words'; did you mean 'wrods'"),
        ("new.csv", "p,q\n1,two\n", PLAIN, "column 'q': expected numbers alone"),
        ("new.xlsx", "a", TEXT, "found the ending '.xlsx'"),
    ],
)
def test_files_that_cannot_be_taken(file, name, content, transformation, message):
    path = file(name, content)
    with pytest.raises(ValueError, match=message) as fault:
        read_inputs(path, transformation)
    assert str(path) in str(fault.value)


def test_a_named_column_is_of_texts(file):
    with pytest.raises(ValueError, match="a column of texts was named"):
        read_inputs(file("new.csv", "x,y\n1,2\n"), NUMBERS, "x")
