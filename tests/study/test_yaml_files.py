"""YAML that people write, or that means harm: values, or one line that names file, key and line."""

import os
from pathlib import Path

import pytest
from fuzz_params import examine, mutations

from rarenodes.settings import SettingsError
from rarenodes.study.params import Study
from rarenodes.study.yaml_files import MOST_BYTES, MOST_LEVELS, MOST_VALUES, read_yaml

TINY = Path(__file__).parents[1] / "tiny" / "params.yaml"


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "params.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def fault(folder: Path, text: str | bytes) -> str:
    path = written(folder, text)
    with pytest.raises(SettingsError) as error:
        read_yaml(path)
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert len(message.splitlines()) == 1
    assert len(message) < len(str(path)) + 200
    return message.removeprefix(f"{path}: ")


def test_plain_values(tmp_path):
    text = "a: 1\nb: [1.5, yes, null, text, '1']\nc:\n  d: {e: 1.0e-3}\n"
    assert read_yaml(written(tmp_path, text)) == {
        "a": 1,
        "b": [1.5, True, None, "text", "1"],
        "c": {"d": {"e": 0.001}},
    }


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path):
    assert read_yaml(written(tmp_path, b"\xef\xbb\xbfseed: 1\n")) == {"seed": 1}


def test_small_aliases_and_merges_are_written_out(tmp_path):
    text = "a: &a {x: 1, y: 2}\nb: *a\nc:\n  <<: *a\n  x: 3\n"
    both = {"x": 1, "y": 2}
    assert read_yaml(written(tmp_path, text)) == {"a": both, "b": both, "c": {"x": 3, "y": 2}}


def alias_bomb(levels: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, levels)]
    return "\n".join(lines)


def test_an_alias_bomb(tmp_path):
    # Level i stands for 1 + 10 × the level before: 11, 111, 1,111 and 11,111 values at the fourth.
    assert fault(tmp_path, alias_bomb(30)) == (
        "a3: line 4: expected at most 10000 values, found 1.1e+04 when aliases are written out"
    )
    assert len(read_yaml(written(tmp_path, alias_bomb(3)))["a2"]) == 10


def test_as_many_values_without_an_alias(tmp_path):
    found = fault(tmp_path, "a:\n- 1\n" + "- 1\n" * MOST_VALUES)
    # The mapping, its key and the list are values too.
    assert found == "line 9999: expected at most 10000 values, found more"


@pytest.mark.parametrize("bracket", ["[", "{a: ", "- ", "? "])
def test_3000_nested_brackets(tmp_path, bracket):
    found = fault(tmp_path, f"a: \n {bracket * 3000}")
    assert found == f"line 2: expected at most {MOST_LEVELS} levels of nesting, found more"


def test_nesting_by_indentation(tmp_path):
    found = fault(tmp_path, "\n".join(f"{' ' * i}a:" for i in range(300)))
    assert found == f"line {MOST_LEVELS}: expected at most 32 levels of nesting, found more"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\n",
            "b: key 'c' stands in line 3 and again in line 5; remove one",
        ),
        ("a: 1\n\n'a': 2\n", "key 'a' stands in line 1 and again in line 3; remove one"),
        (
            "a:\n- x: 1\n- {y: 1,\n   y: 2}\n",
            "a.1: key 'y' stands in line 3 and again in line 4; remove one",
        ),
        (
            "a: !!python/object/apply:os.system [ls]\n",
            "a: line 1: unknown tag 'python/object/apply:os.system'; remove it",
        ),
        ("a: !mine 3\n", "a: line 1: unknown tag '!mine'; remove it"),
        ("a: !!set {x}\n", "a: line 1: unknown tag 'set'; remove it"),
        ("a: !!omap [x: 1]\n", "a: line 1: unknown tag 'omap'; remove it"),
        ("a: 2026-01-01\n", "a: line 1: '2026-01-01' is read as timestamp; put it in quotes"),
        ("a: 2026-99-99\n", "a: line 1: '2026-99-99' is read as timestamp; put it in quotes"),
        ("a: !!int x\n", "a: line 1: expected int, found 'x'"),
        ("a: !!bool x\n", "a: line 1: expected bool, found 'x'"),
        ("a: !!float _\n", "a: line 1: expected float, found '_'"),
        ("a: 0b_\n", "a: line 1: expected int, found '0b_'"),
        ('a: "x\\ud800"\n', "a: line 1: 'x\\ud800' holds half a character; correct it"),
        ('"\\udc00": 1\n', "line 1: '\\udc00' holds half a character; correct it"),
        (
            "a: 9223372036854775808\n",
            "a: line 1: expected an integer of at most 64 bits, found '9223372036854775808'",
        ),
        ("a:\n  on: 1\n", "a: line 2: expected a name as key, found 'on'; put it in quotes"),
        ("3: 1\n", "line 1: expected a name as key, found '3'; put it in quotes"),
        ("? [a]\n: 1\n", "line 1: expected a name as key, found a list"),
        ("? {a: 1}\n: 1\n", "line 1: expected a name as key, found a mapping"),
        ("a: &a [*a]\n", "a.0: line 1: an alias stands for something that contains it"),
        ("a: &a\n  <<: *a\n", "a: line 1: an alias stands for something that contains it"),
        ("a:\n  <<: 3\n", "a: line 2: `<<` takes mappings"),
        ("a: *b\n", "line 1: not valid YAML: found undefined alias 'b'"),
        ("a: 1\n---\nb: 1\n", "line 2: not valid YAML: but found another document"),
        ("a: [1\n", "line 2: not valid YAML: expected ',' or ']', but got '<stream end>'"),
        ("a:\n\t- 1", "line 2: not valid YAML: found character '\\t' that cannot start any token"),
        ("- a\n", "expected a mapping of settings, found a list"),
        ("hello", "expected a mapping of settings, found the text 'hello'"),
        ("", "expected a mapping of settings, found nothing"),
        (b"a: \xff\n", "not valid YAML: byte 4 is no UTF-8; save it as UTF-8"),
        ("\n".join(["a: 1"] * MOST_BYTES), "expected at most 262144 bytes of YAML, found 1310719"),
    ],
)
def test_one_line_names_key_and_line(tmp_path, text, message):
    assert fault(tmp_path, text) == message


def test_zero_bytes(tmp_path):
    assert "not valid YAML: unacceptable character #x0000" in fault(tmp_path, "a: \0")


def test_what_is_no_regular_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # reading it would wait for a writer for ever
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        with pytest.raises(SettingsError, match=r"expected a YAML file, found no regular file$"):
            read_yaml(path)
    with pytest.raises(SettingsError, match="no name of a file: "):
        read_yaml(Path("a\0b"))
    with pytest.raises(SettingsError, match="cannot be read: File name too long"):
        read_yaml(tmp_path / ("x" * 300))


def test_a_hostile_catalogue_is_named_with_the_file_that_names_it(tmp_path):
    params = written(tmp_path, TINY.read_text() + "catalogue: [more.yaml]\n")
    (tmp_path / "more.yaml").write_text(alias_bomb(9))
    with pytest.raises(SettingsError) as error:
        Study(params)
    assert str(error.value).startswith(f"{params}: catalogue: {tmp_path / 'more.yaml'}: a3: line 4")


@pytest.mark.parametrize("setting", ["catalogue: [{}]", "data: {}", "budgets: {}"])
def test_a_name_that_no_file_can_have(tmp_path, setting):
    kept = "".join(
        line
        for line in TINY.read_text().splitlines(keepends=True)
        if not line.startswith(setting[:5])
    )
    for name in ('"a\\nb"', '"a\\0"', "x" * 256, "ä" * 128, "x/" * 600):
        params = written(tmp_path, kept + setting.format(name) + "\n")
        with pytest.raises(SettingsError) as error:
            Study(params)
        (line,) = str(error.value).splitlines()
        assert line.startswith(f"{params}: {setting.split(':')[0]}")
        assert "expected the name of a file, o" in line
        assert len(line) < 400


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("hidden: 1e12", "training.hidden: expected a valid integer, found '1e12', a text: write"),
        ("hidden: 1000000000000", "training.hidden: expected less than or equal to 1000000, found"),
        ("members: 1000000000", "training.members: expected less than or equal to 100000, found"),
        ("layers: 1000000000", "training.layers: expected less than or equal to 1000, found"),
        ("seeds: 1000000000", "training.seeds: expected less than or equal to 10000, found"),
        ("threads: 1000000000", "training.threads: expected less than or equal to 1024, found"),
        ("epochs: 1000000000", "training.epochs: expected less than or equal to 1000000, found"),
        (
            "fit_on: [train, valid, train]",
            "training.fit_on: expected each part once, found train twice",
        ),
    ],
)
def test_absurd_sizes_and_parts_name_file_and_key(tmp_path, setting, message):
    key = setting.split(":")[0]
    kept = [line for line in TINY.read_text().splitlines() if not line.startswith(f"  {key}:")]
    at = kept.index("training:") + 1
    params = written(tmp_path, "\n".join([*kept[:at], f"  {setting}", *kept[at:]]))
    with pytest.raises(SettingsError) as error:
        Study(params)
    assert str(error.value).startswith(f"{params}: {message}")
    assert len(str(error.value).splitlines()) == 1


def test_mutated_parameters_give_a_study_or_lines_that_name_the_file(tmp_path):
    # `python tests/fuzz_params.py` tries more.
    found = [examine(text, tmp_path) for text in mutations(100, seed=1)]
    assert not [problem for problem in found if problem is not None]
