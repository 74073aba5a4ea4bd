import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rarenodes.datasets import Dataset, load_dataset
from rarenodes.datasets.table_files import TableError
from rarenodes.settings import SettingsError

FILES = {"examples": "own.csv", "hierarchy": "own_edges.csv"}
SPLIT = ["train", "train", "valid", "test"]


@pytest.fixture
def own(tmp_path):
    """Writes own data, and loads them with options."""
    (tmp_path / "own_edges.csv").write_text("child,parent\nNA,all\neu,all\nfr,eu\n")

    def load(columns, **options):
        name = options.get("examples", "own.csv")
        table = pd.DataFrame(columns)
        if name.endswith(".parquet"):
            table.to_parquet(tmp_path / name)
        else:
            table.to_csv(tmp_path / name, index=False)
        return load_dataset("table", tmp_path, options={**FILES, **options})

    return load


def columns(**changes):
    return {
        "size": [1, 3, None, 5],
        "colour": ["red", "blue", "red", None],
        "labels": ["NA; fr", "eu", "NA", "fr"],
        "part": SPLIT,
        **changes,
    }


@pytest.mark.parametrize("examples", ["own.csv", "own.parquet"])
def test_features(own, examples):
    dataset = own(columns(), split="part", examples=examples)
    assert dataset.hierarchy.nodes == ("all", "NA", "eu", "fr")
    assert dataset.targets.toarray().tolist() == [
        [1, 1, 1, 1],
        [1, 0, 1, 0],
        [1, 1, 0, 0],
        [1, 0, 1, 1],
    ]
    assert dataset.evaluated.tolist() == [False, True, True, True]
    assert [dataset.split[p].tolist() for p in ("train", "valid", "test")] == [[0, 1], [2], [3]]
    # Means over train + valid: size 2, blue 1/3.
    size = np.array([-1, 1, 0, 3]) / np.sqrt(2 / 3)
    blue = np.array([-1 / 3, 2 / 3, -1 / 3, 0]) / np.sqrt(2 / 9)
    np.testing.assert_allclose(dataset.features, np.column_stack([size, blue, -blue]), atol=1e-6)


def test_chosen_features_and_a_random_split(own):
    many = {name: values * 5 for name, values in columns().items()}
    dataset = own(many, features=["size"])
    assert dataset.features.shape == (20, 1)
    assert sum(map(len, dataset.split.values())) == 20


@pytest.mark.parametrize("option", ["features", "categories"])
def test_a_part_of_the_labels_is_no_feature(own, option):
    labels = {"labels": [[1, 2], [1, 3], [2, 3], [1, 2]], "size": [1, 2, 3, 4]}
    with pytest.raises(TableError, match=r"'labels\[0\]' is a part of 'labels', .*remove it from"):
        own({**columns(), **labels}, examples="own.parquet", **{option: ["labels[0]"]})


def test_a_stratified_split_is_asked_for_and_told(own):
    many = {name: values * 5 for name, values in columns().items()}
    dataset = own(many, features=["size"], stratified=True)
    # Ten rows of fr and NA each, some of both: parts differ from their shares by one at most.
    for part, share in (("train", 0.6), ("test", 0.25), ("valid", 0.15)):
        assert abs(dataset.counts(part)[[1, 3]] - 10 * share).max() <= 1
    assert dataset.card["options"]["stratified"] is True
    assert "stratified" not in own(many, features=["size"]).card["options"]
    with pytest.raises(SettingsError, match="stratified: true, but the column 'part'"):
        own(many, split="part", stratified=True)


def test_texts_are_merged_and_embedded(own):
    texts = ["a red dog", "A red dog!", "a cat", "one cat", "a blue dog"]
    dataset = own(
        {"labels": ["NA", "fr", "eu", "fr", "NA"], "text": texts, "part": [*SPLIT, "train"]},
        text="text",
        split="part",
    )
    assert dataset.texts == ("a red dog", "a cat", "one cat", "a blue dog")
    assert dataset.targets.toarray()[0].tolist() == [1, 1, 1, 1]
    assert dataset.split["train"].tolist() == [0, 3]
    assert dataset.card["merged_texts"] == 1


def test_labels_that_stop_half_way_leave_open_what_is_below(own):
    table = columns(labels=["NA", "eu", "fr", "all"])
    options = {"split": "part", "features": ["size"]}
    assert own(table, **options).unknown is None
    assert "unknown_pairs" not in own(table, **options).card
    dataset = own(table, **options, unknown_below=True)
    assert dataset.hierarchy.nodes == ("all", "NA", "eu", "fr")
    expected = [[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0], [0, 1, 1, 1]]
    assert dataset.unknown.toarray().tolist() == expected
    assert dataset.card["unknown_pairs"] == 4
    # What is left of a node's subtree where too few have it is not what a label stops at.
    dataset = own(table, **options, unknown_below=True, min_count=2)
    assert dataset.hierarchy.nodes == ("all", "eu")
    assert dataset.unknown.toarray().tolist() == [[0, 0], [0, 0], [0, 0], [0, 1]]


def test_rare_nodes_are_dropped(own):
    dataset = own(columns(), split="part", features=["size"], min_count=3)
    assert dataset.hierarchy.nodes == ("all", "eu")


@pytest.mark.parametrize(
    ("changes", "options", "expected"),
    [
        (
            {"labels": ["NA", "frr", "eu", "eu"]},
            {},
            "own.csv, line 3, column 'labels': unknown node 'frr'; did you mean 'fr'?",
        ),
        (
            {"labels": ["NA", " ; ", "eu", "eu"]},
            {},
            "own.csv, line 3: no label in column 'labels', expected at least one: "
            "leave the row out, or give it the root 'all'",
        ),
        (
            {"part": ["train", "dev", "test", "test"]},
            {"split": "part"},
            "own.csv, line 3, column 'part': found 'dev', expected one of train, valid, test",
        ),
        (
            {"part": ["train", "train", "test", "test"]},
            {"split": "part"},
            "own.csv: no row has 'valid' in column 'part', expected at least one: "
            "add some, or leave out the option split for a random split",
        ),
        (
            {"text": ["a", "b", "B.", "c"]},
            {"split": "part", "text": "text"},
            "own.csv, line 4: the same words are in 'valid' here and in 'train' in line 3, "
            "expected one part: move or remove one of the two",
        ),
        (
            {"size": [1, np.inf, 2, 3]},
            {"split": "part"},
            "own.csv, line 3, column 'size': found inf, expected a finite number of at "
            "most 1e+30: correct it, or leave the cell empty if it is missing",
        ),
        (
            {"size": [1, -2e30, 2, 3]},
            {"split": "part"},
            "own.csv, line 3, column 'size': found -2e+30, expected a finite number of at most "
            "1e+30: correct it, or leave the cell empty if it is missing",
        ),
        (
            {"size": [1, 2, "3 cm", 3]},
            {"split": "part"},
            "own.csv, line 4, column 'size': found '3 cm', expected a number, as in 3 of 4 rows: "
            "correct it, leave the cell empty if it is missing, or name 'size' in the option "
            "categories if it holds no quantity",
        ),
        (
            {"size": ["1,5", "2,25", "-3,0", "1,0"]},
            {"split": "part"},
            "own.csv, line 2, column 'size': found '1,5', expected a number with a decimal point: "
            "write 1.5, or name 'size' in the option categories if it holds no quantity",
        ),
        (
            {
                "labels": [
                    "NA",
                    "what is this supposed to be, a label of forty characters?",
                    "eu",
                    "eu",
                ]
            },
            {},
            "own.csv, line 3, column 'labels': unknown node 'what is this supposed to be, a label of "
            "…', expected one of the 4 nodes of {folder}/own_edges.csv: correct it, set the option "
            "separator, or add the node there",
        ),
        (
            {"size": [None] * 4},
            {"split": "part", "features": ["size"], "categories": ["size"]},
            "own.csv: the columns of features hold no value, expected at least one: choose others in "
            "the option features",
        ),
        (
            {"text": ["…", "!", "", "?"]},
            {"split": "part", "text": "text"},
            "own.csv, column 'text': found no word, expected texts",
        ),
        (
            {"text": ["a", "b", "?", "c"]},
            {"split": "part", "text": "text"},
            "own.csv: no row has 'valid' in column 'part', expected at least one: "
            "add some, or leave out the option split for a random split",
        ),
    ],
)
def test_faults_are_named(own, tmp_path, changes, options, expected):
    with pytest.raises(TableError) as caught:
        own(columns(**changes), **options)
    assert str(caught.value) == f"{tmp_path}/{expected}".replace("{folder}", str(tmp_path))


def test_a_column_of_identifiers(own):
    many = {name: values * 100 for name, values in columns().items()}
    with pytest.raises(TableError, match="column 'id': found 400 categories, expected numbers or"):
        own({**many, "id": [f"x{i}" for i in range(400)]}, split="part")


def test_an_unknown_column(own):
    with pytest.raises(SettingsError, match="unknown column 'label'; did you mean 'labels'"):
        own(columns(), labels="label")


def test_no_column_is_left(own):
    with pytest.raises(TableError, match=r"own\.csv: no column is left for features"):
        own({"labels": ["NA", "eu", "fr", "fr"], "part": SPLIT}, split="part")


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        (
            "own.csv",
            b"",
            r"own\.csv, line 1: found no column, expected a header and a row for each",
        ),
        ("own.csv", b"size,labels\n", r"own\.csv: found no row below the header, expected one for"),
        (
            "own.csv",
            b"size,labels\n1,eu\n1,eu,3,4\n",
            r"own\.csv, line 3: found 4 cells, expected 2, one for each column: quote cells that",
        ),
        ("own.csv", b"size,labels\n1,eu\n1\n", r"own\.csv, line 3: found 1 cells, expected 2, one"),
        (
            "own.csv",
            b"size,labels\n\xff,eu\n",
            r"own\.csv, line 2: found the byte 0xff, expected text in UTF-8: unpack the file if it",
        ),
        (
            "own.csv",
            "size,labels\n1,eu\n".encode("utf-16"),
            r"own\.csv, line 1: found the byte 0xff",
        ),
        (
            "own.csv",
            b"size,labels,size\n1,eu,2\n",
            r"own\.csv, line 1: found two columns 'size', expected names that differ: rename one",
        ),
        (
            "own.csv",
            b",size,labels\n0,1,eu\n",
            r"own\.csv, line 1: column 1 has no name, expected one for each: name it, or remove it",
        ),
        (
            "own.csv",
            b"size;labels\n1;eu\n",
            r"own\.csv, line 1: found the one column 'size;labels', expected names separated by comm",
        ),
        (
            "own.csv",
            b'size,labels\n"1,eu\n2,"eu\n',
            r"own\.csv, line 3: ',' expected after '\"'; expected CSV: close each quote, write",
        ),
        ("own.csv", b'size,labels\n1,"eu\n', r"own\.csv, line 2: unexpected end of data; expected"),
        (
            "own.parquet",
            b"junk",
            r"own\.parquet: .*[Pp]arquet.*; expected a readable Parquet table",
        ),
        ("own.xls", b"", r"own\.xls: found the ending '\.xls', expected \.csv or \.parquet"),
    ],
)
def test_files_that_are_no_table(own, tmp_path, name, content, expected):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TableError, match=expected) as caught:
        load_dataset("table", tmp_path, options={**FILES, "examples": name})
    assert "\n" not in str(caught.value)


def test_a_missing_table(tmp_path, own):
    with pytest.raises(FileNotFoundError, match=r"own\.csv: no such file; expected a CSV or Parq"):
        load_dataset("table", tmp_path, options=FILES)


def test_corrupt_parquet(own, tmp_path):
    own(columns(), split="part", examples="own.parquet")
    whole = (tmp_path / "own.parquet").read_bytes()
    for broken in (whole[:-20], whole[:8] + bytes(100) + whole[108:], whole[200:]):
        (tmp_path / "own.parquet").write_bytes(broken)
        with pytest.raises(
            TableError, match=r"own\.parquet: .*; expected a readable Parquet"
        ) as caught:
            load_dataset("table", tmp_path, options={**FILES, "examples": "own.parquet"})
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("size", [[1, 2], [3], [], None]),
        ("size", [["a"], ["b"], ["c"], ["d"]]),
        ("labels", [[0.5, 1.0], [0.5, 1.0], [0.5, 1.0], [0.5, 1.0]]),
        ("part", [[0.5], [0.5], [0.5], [0.5]]),
    ],
)
def test_lists_that_mean_nothing(own, column, values):
    with pytest.raises(
        TableError,
        match=rf"own\.parquet, column '{column}': found values of type .*list.*, expected numbers or "
        r"text \(features may be lists of numbers of one length, labels lists of names\)",
    ):
        own(columns(**{column: values}), split="part", examples="own.parquet")


def fixed_size(values):
    """A column of Parquet whose lists have a length by type."""
    return pd.Series(values, dtype=pd.ArrowDtype(pa.list_(pa.float32(), 2)))


@pytest.mark.parametrize("kind", [list, fixed_size])
def test_lists_of_numbers_are_features(own, kind):
    size = kind([[1.0, 10.0], [3.0, 10.0], [2.0, 40.0], [5.0, 0.0]])
    whole = own(columns(size=size), split="part", examples="own.parquet", features=["size"])
    assert whole.transformation.names == ("size[0]", "size[1]")
    # Over train + valid: means 2 and 20, deviations √(2/3) and √200.
    expected = [[-1, -10], [1, -10], [0, 20], [3, -20]] / np.sqrt([2 / 3, 200])
    np.testing.assert_allclose(whole.features, expected, atol=1e-6)
    guessed = own(columns(size=size), split="part", examples="own.parquet")
    np.testing.assert_array_equal(guessed.features[:, :2], whole.features)
    assert guessed.features.shape == (4, 4)  # and two colours


def test_missing_vectors_and_places_take_the_mean(own):
    size = [[1.0, 10.0], None, [3.0, None], [5.0, 0.0]]
    dataset = own(columns(size=size), split="part", examples="own.parquet", features=["size"])
    # The second row knows nothing; of its place the third does not.
    assert dataset.features[1].tolist() == [0, 0]
    assert dataset.features[2, 1] == 0
    assert dataset.features[2, 0] > 0


@pytest.mark.parametrize(
    "labels",
    [[["NA", " fr"], ["eu"], ["NA"], ["fr", None]], [["fr", "NA"], ["eu"], ["NA"], ["fr"]]],
)
def test_labels_are_lists(own, labels):
    dataset = own(columns(labels=labels), split="part", examples="own.parquet")
    text = own(columns(), split="part")
    assert dataset.targets.toarray().tolist() == text.targets.toarray().tolist()
    np.testing.assert_array_equal(dataset.features, text.features)


def test_labels_are_lists_of_codes(own, tmp_path):
    (tmp_path / "own_edges.csv").write_text("child,parent\n7,all\n9007199254740993,all\n")
    codes = [[7], [9007199254740993], [7], [7]]
    dataset = own(columns(labels=codes), split="part", examples="own.parquet")
    at = dataset.hierarchy.index
    assert all(dataset.targets[[row], [at[str(code)]]] == 1 for row, [code] in enumerate(codes))
    # They look like vectors, but features would give the answer away.
    assert dataset.transformation.names == ("size", "colour")


def test_columns_of_the_names_of_places(own):
    with pytest.raises(
        TableError, match=r"found two columns 'size\[0\]', expected names that differ"
    ):
        own(
            columns(size=[[1.0]] * 4, **{"size[0]": [1, 2, 3, 4]}),
            split="part",
            examples="own.parquet",
        )


@pytest.fixture
def matrix(own, tmp_path):
    """Writes a matrix beside own data without features, and loads them."""

    def load(numbers, **options):
        np.save(tmp_path / "own.npy", numbers)
        labels = {name: columns()[name] for name in ("labels", "part")}
        return own(labels, matrix="own.npy", split="part", **options)

    return load


SIZES = np.array([[1, 10], [3, 10], [2, 40], [5, np.nan]])


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.float16])
def test_a_matrix_of_features(matrix, tmp_path, kind):
    dataset = matrix(SIZES.astype(kind))
    expected = [[-1, -10], [1, -10], [0, 20], [3, 0]] / np.sqrt([2 / 3, 200])
    np.testing.assert_allclose(dataset.features, expected, atol=1e-6)
    assert dataset.card["source"] == ["own.csv", "own.npy", "own_edges.csv"]
    again = dataset.transformation.apply(np.load(tmp_path / "own.npy").astype(np.float64))
    np.testing.assert_array_equal(again, dataset.features)


def test_other_columns_beside_a_matrix_are_not_used(own, tmp_path):
    np.save(tmp_path / "own.npy", SIZES)
    dataset = own(columns(), matrix="own.npy", split="part")
    assert dataset.features.shape == (4, 2)


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        (SIZES[:3], "own.npy: found 3 rows of 2 numbers, expected 4 of at least one, as "),
        (SIZES[:, :0], "own.npy: found 4 rows of 0 numbers, expected 4 of at least one"),
        (SIZES[0], "own.npy: found an array of shape (2,) and type float64, expected a matrix"),
        (SIZES.astype(str), "own.npy: found an array of shape (4, 2) and type <U32, expected a"),
        (SIZES.astype(object), "own.npy: Object arrays cannot be loaded when allow_pickle=False"),
        (
            SIZES * 1e30,
            "own.npy, row 1, column 2: found 1e+31, expected a finite number of at most",
        ),
    ],
)
def test_wrong_matrices(matrix, numbers, expected):
    with pytest.raises(TableError, match=re.escape(expected)) as caught:
        matrix(numbers)
    assert "\n" not in str(caught.value)


def test_a_missing_matrix(own):
    with pytest.raises(FileNotFoundError, match=r"own\.npy: no such file; expected a matrix"):
        own(columns(), matrix="own.npy")


PATHS = ["world > eu > fr ; world>NA", "world > eu", "world > NA", "world > eu > fr"]


def test_paths_are_the_hierarchy(own):
    dataset = own(columns(labels=PATHS), split="part", hierarchy=None, path_separator=">")
    assert dataset.hierarchy.edges == (
        ("world > NA", "world"), ("world > eu", "world"), ("world > eu > fr", "world > eu")
    )  # fmt: skip
    assert dataset.titles == ("world", "NA", "eu", "fr")
    expected = own(columns(), split="part").targets.toarray()
    np.testing.assert_array_equal(dataset.targets.toarray(), expected)
    assert dataset.card["source"] == ["own.csv"]


def test_paths_to_one_name_in_two_places(own):
    labels = ["fruit/apple", "brand/apple", "fruit/pear", "brand"]
    dataset = own(columns(labels=labels), split="part", hierarchy=None, path_separator="/")
    assert dataset.hierarchy.nodes == (
        "root", "brand", "fruit", "brand > apple", "fruit > apple", "fruit > pear"
    )  # fmt: skip
    assert dataset.titles == ("root", "brand", "fruit", "apple", "apple", "pear")


def test_paths_in_lists(own):
    labels = [["a/b", "a/c"], ["a/b"], ["a/c"], ["a"]]
    dataset = own(
        columns(labels=labels),
        split="part",
        examples="own.parquet",
        hierarchy=None,
        path_separator="/",
    )
    assert dataset.targets.toarray().tolist() == [[1, 1, 1], [1, 1, 0], [1, 0, 1], [1, 0, 0]]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (
            ["a > b", "a > > b", "a", "a"],
            "own.csv, line 3, column 'labels': found an empty step in 'a > > b', expected a path such "
            "as 'a > b': remove what stands too much",
        ),
        (
            ["a > b", "a > b" * 100_000, "a", "a"],
            "own.csv, line 3, column 'labels': found 100001 steps, more than 200, in 'a > ba > ba",
        ),
        (["a", "a", "a", "a"], "own.csv: empty hierarchy"),
        (["a > b", "root > b", "a", "a"], "the name 'root' is taken"),
        (
            ["a > b", None, "a", "a"],
            "own.csv, line 3: no label in column 'labels', expected at least",
        ),
    ],
)
def test_wrong_paths(own, labels, expected):
    with pytest.raises(ValueError, match=re.escape(expected)) as caught:
        own(columns(labels=labels), split="part", hierarchy=None, path_separator=">")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"path_separator": ">"}, "hierarchy and path_separator are both given"),
        (
            {"hierarchy": None},
            "options of table: hierarchy: missing; it is required, unless labels",
        ),
        (
            {"hierarchy": None, "path_separator": ";"},
            "separator and path_separator are both ';', expected one between",
        ),
    ],
)
def test_one_source_of_the_hierarchy(own, options, expected):
    with pytest.raises(SettingsError, match=expected):
        own(columns(), **options)


def test_a_column_of_lists_that_is_not_used(own):
    dataset = own(
        columns(other=[[1], [2], [3], [4]]),
        split="part",
        features=["size"],
        examples="own.parquet",
    )
    assert dataset.features.shape == (4, 1)


@pytest.mark.parametrize("lists", [False, True])
def test_text_in_parquet_that_is_no_utf8(own, tmp_path, lists):
    """Half of a surrogate pair, as JSON can write one."""
    half = b"\xed\xa0\x80"
    starts = pa.array([0, *[len(half)] * 4], pa.int32()).buffers()[1]
    texts = pa.StringArray.from_buffers(4, starts, pa.py_buffer(half))
    if lists:
        texts = pa.ListArray.from_arrays(pa.array(range(5), pa.int32()), texts)
    table = pa.table({"size": [1, 2, 3, 4], "labels": texts, "part": SPLIT})
    pq.write_table(table, tmp_path / "own.parquet")
    with pytest.raises(TableError, match=r"own\.parquet: .*Invalid UTF8.*; expected a readable"):
        load_dataset("table", tmp_path, options={**FILES, "examples": "own.parquet"})


def test_numbers_stored_as_text_in_parquet(own):
    with pytest.raises(
        TableError, match=r"column 'size': found numbers stored as text, expected a"
    ):
        own(columns(size=["1", "2", "3", "4"]), split="part", examples="own.parquet")


@pytest.mark.parametrize("labels", [[7, 8, 7, 9007199254740993], [7.0, 8, 7, 8]])
def test_labels_that_are_numbers_in_parquet(own, tmp_path, labels):
    (tmp_path / "own_edges.csv").write_text("child,parent\n7,all\n8,all\n9007199254740993,all\n")
    dataset = own(columns(labels=labels), split="part", examples="own.parquet")
    at = dataset.hierarchy.index
    assert all(dataset.targets[[row], [at[str(int(n))]]] == 1 for row, n in enumerate(labels))


def test_row_labels_of_pandas_are_no_feature(own, tmp_path):
    table = pd.DataFrame(columns(), index=pd.Index([4, 3, 9, 1], name="id"))
    table.to_parquet(tmp_path / "own.parquet")
    dataset = load_dataset(
        "table", tmp_path, options={**FILES, "examples": "own.parquet", "split": "part"}
    )
    assert dataset.features.shape == (4, 3)


def test_codes_are_categories_where_the_option_says_so(own):
    dataset = own(columns(code=[1, 2, 1, 2]), split="part", features=["code"], categories=["code"])
    # Means over train + valid: 2/3 and 1/3.
    expected = np.array([1 / 3, -2 / 3, 1 / 3, -2 / 3]) / np.sqrt(2 / 9)
    np.testing.assert_allclose(dataset.features, np.column_stack([expected, -expected]), atol=1e-6)


def test_few_numbers_among_categories_are_categories(own):
    dataset = own(columns(size=["a", "b", "c", "4"]), split="part", features=["size"])
    assert dataset.features.shape == (4, 4)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {"features": ["size", "labels"]},
            "the column 'labels' of the option labels is among the features, where it would give the "
            "answer away: remove it from features",
        ),
        (
            {"categories": ["part"], "split": "part"},
            "the column 'part' of the option split is among",
        ),
        ({"split": "labels"}, "name one column twice; each must name another"),
        (
            {"text": "colour", "features": ["size"]},
            "text and features are both given, but texts are",
        ),
        (
            {"matrix": "own.npy", "features": ["size"]},
            "matrix and features are both given, but the matrix has the only features",
        ),
        ({"matrix": "own.npy", "text": "colour"}, "text and matrix are both given"),
    ],
)
def test_columns_of_two_meanings(own, options, expected):
    with pytest.raises(SettingsError, match=expected):
        own(columns(), **options)


def test_what_became_no_example_or_node_is_counted(own):
    texts = ["a red dog", "…", "a cat", "one cat", "A red, dog"]
    dataset = own(
        {"labels": ["NA", "fr", "eu", "eu", "NA"], "text": texts, "part": [*SPLIT, "train"]},
        text="text",
        split="part",
    )
    card = dataset.card
    assert (card["rows"], card["merged_texts"], card["texts_without_words"]) == (5, 1, 1)
    assert len(dataset.texts) == 3
    assert dataset.hierarchy.nodes == ("all", "NA", "eu")
    assert card["dropped_nodes"] == 1


def test_names_of_an_obo_file_are_kept_for_display(own, tmp_path):
    (tmp_path / "h.obo").write_text(
        "[Term]\nid: all\nname: everything\n[Term]\nid: NA\nis_a: all\n"
        "[Term]\nid: eu\nname: Europe\nis_a: all\n[Term]\nid: fr\nname: France\nis_a: eu\n"
    )
    dataset = own(columns(), split="part", hierarchy="h.obo")
    assert dataset.titles == ("everything", "NA", "Europe", "France")
    dataset.save(tmp_path / "saved")
    assert Dataset.load(tmp_path / "saved").names == {
        "all": "everything",
        "NA": "NA",
        "eu": "Europe",
        "fr": "France",
    }


def test_a_test_value_too_far_from_training(own):
    with pytest.raises(
        ValueError, match=r"table: feature 0 of example 3 is inf, expected a finite"
    ):
        own(columns(size=[0, 1e-30, 0, 1e20]), split="part", features=["size"])


def test_a_cell_longer_than_the_limit_of_csv(own):
    dataset = own(columns(text=["a" * 200_000, "b", "c", "d"]), split="part", text="text")
    assert len(dataset.texts[0]) == 200_000


def test_a_table_that_cannot_be_read(own, tmp_path):
    (tmp_path / "own.csv").mkdir()
    with pytest.raises(
        OSError, match=r"own\.csv: found a folder, expected a file: a CSV or Parquet"
    ):
        load_dataset("table", tmp_path, options=FILES)


def test_endless_names_make_no_endless_message(own):
    with pytest.raises(SettingsError) as caught:
        own(columns(**{"x" * 100_000: [1, 2, 3, 4]}), split="portion")
    assert len(str(caught.value)) < 400
