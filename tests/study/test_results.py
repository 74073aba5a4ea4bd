"""Results are verified when they are read; what is damaged is named, with the stage to run."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from rarenodes.datasets import load_dataset
from rarenodes.folders import UnreadableFile
from rarenodes.study import results as module
from rarenodes.study.results import Results, name_rows_and_columns

FILES = (
    *("nodes.parquet", "seeds.csv", "history.csv"),
    *("probabilities.safetensors", "influences.safetensors"),
)


@pytest.fixture
def folder(tmp_path):
    table = pd.DataFrame({"seed": [0, 1], "score": [0.25, 0.1]})
    path = tmp_path / "toy" / "mcm"
    ones = np.ones((2, 3, 4), dtype=np.float32)
    moves = np.ones((2, 3, 5, 3), dtype=np.float32)
    Results(table, ones, nodes=table, seeds=table, influences=moves).save(path)
    return path


def test_what_was_saved_is_loaded(folder):
    found = Results.load(folder)
    assert found.nodes.equals(found.seeds)
    assert found.seeds["score"].tolist() == [0.25, 0.1]
    assert found.test.shape == (2, 3, 4)
    assert found.influences.shape == (2, 3, 5, 3)


def test_no_results_name_the_stage_to_run(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no results: run the stage train@toy-mcm first$"):
        Results.load(tmp_path / "toy" / "mcm")
    with pytest.raises(FileNotFoundError, match=r"no results: run the stage combine@toy first$"):
        Results.load(tmp_path / "combined" / "toy" / "all")


def test_results_of_other_data_are_not_taken_for_these(tmp_path):
    one, other = (load_dataset("synthetic", options={"examples": 60}, seed=s) for s in (1, 2))
    path = tmp_path / "toy" / "mcm"
    path.mkdir(parents=True)
    Results(pd.DataFrame({"seed": [0]}), np.ones((1, 3, 4), dtype=np.float32)).save(path)
    name_rows_and_columns(one, path)
    Results.load(path, one)
    fewer = replace(other, evaluated=other.evaluated & (np.arange(len(other.evaluated)) > 2))
    same_rows = replace(fewer, split=one.split)
    for data, name, what in (
        (fewer, "examples.csv", "examples"),
        (same_rows, "nodes.csv", "nodes"),
    ):
        with pytest.raises(UnreadableFile) as error:
            Results.load(path, data)
        assert str(error.value).startswith(
            f"{path / name}: of other {what} than the data set has now"
        )
        assert "run the stage train@toy-mcm again" in str(error.value)
    (path / "nodes.csv").write_bytes(b"\xff")
    with pytest.raises(UnreadableFile, match=r"nodes.csv: cannot be read: "):
        Results.load(path, one)


def fault(folder, name: str) -> str:
    with pytest.raises(UnreadableFile) as error:
        Results.load(folder)
    message = str(error.value)
    assert message.startswith(f"{folder / name}: cannot be read: ")
    assert "; run the stage train@toy-mcm again" in message
    assert len(message.splitlines()) == 1
    return message


@pytest.mark.parametrize("name", FILES)
def test_one_changed_byte(folder, name):
    content = bytearray((folder / name).read_bytes())
    content[-2] ^= 1
    (folder / name).write_bytes(content)
    assert "its SHA-256 is not the one it was stored with" in fault(folder, name)


@pytest.mark.parametrize("name", sorted(set(FILES) - {"history.csv"}))
def test_a_file_that_was_removed(folder, name):
    (folder / name).unlink()
    assert "No such file" in fault(folder, name)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("content", [b"", b"PAR1", b"\xff\xfe\x00", b'a,b\n"1,2\n3,4,5,6,7\n'])
def test_damage_that_no_checksum_tells(folder, name, content):
    (folder / "SHA256SUMS").unlink()
    (folder / name).write_bytes(content)
    fault(folder, name)


def test_results_that_were_being_replaced_are_found(folder):
    # As a process leaves them that is killed where two names cannot be exchanged in one step.
    folder.rename(folder.with_name(".mcm.replaced"))
    assert len(Results.load(folder).seeds) == 2


def test_a_full_disk_is_one_line(folder, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "save_file", full)
    with pytest.raises(OSError, match=r"mcm: cannot be written: No space left on device; make"):
        Results.load(folder).save(folder)
