import hashlib

import pytest

from rarenodes.datasets import raw_files
from rarenodes.datasets.raw_files import ChecksumError, RawFile, find

CONTENT = b"content"
CHECKSUM = hashlib.sha256(CONTENT).hexdigest()
UNREACHABLE = "http://127.0.0.1:9/others/a.arff"  # the discard port: nobody listens


@pytest.fixture(autouse=True)
def no_named_folder(monkeypatch):
    monkeypatch.delenv("HMC_DATA_DIR", raising=False)


@pytest.fixture
def offline(monkeypatch):
    def fail(url, path):
        raise OSError("network is unreachable")

    monkeypatch.setattr(raw_files, "fetch", fail)


def wanted(url=UNREACHABLE, sha256=CHECKSUM):
    return RawFile("others/a.arff", url, sha256)


def put(folder, content=CONTENT):
    path = folder / "others" / "a.arff"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return path


def test_the_named_folder_comes_before_the_data_folder(tmp_path, monkeypatch):
    named, raw = put(tmp_path / "named"), put(tmp_path / "data" / "raw")
    assert find(wanted(), tmp_path / "data") == raw
    monkeypatch.setenv("HMC_DATA_DIR", str(tmp_path / "named"))
    assert find(wanted(), tmp_path / "data") == named


def test_the_data_folder_is_used_where_the_named_one_lacks_the_file(tmp_path, monkeypatch):
    (tmp_path / "named").mkdir()
    monkeypatch.setenv("HMC_DATA_DIR", str(tmp_path / "named"))
    raw = put(tmp_path / "data" / "raw")
    assert find(wanted(), tmp_path / "data") == raw


def test_a_download_is_verified_and_kept(tmp_path):
    origin = put(tmp_path / "origin")
    found = find(wanted(origin.as_uri()), tmp_path / "data")
    assert found == tmp_path / "data" / "raw" / "others" / "a.arff"
    assert found.read_bytes() == CONTENT
    assert [path.name for path in found.parent.iterdir()] == ["a.arff"]


def test_a_broken_download_leaves_nothing(tmp_path):
    origin = put(tmp_path / "origin", b"cont")
    with pytest.raises(ChecksumError, match=r"the download is incomplete or was altered"):
        find(wanted(origin.as_uri()), tmp_path / "data")
    assert not list((tmp_path / "data" / "raw" / "others").iterdir())


def test_a_damaged_file(tmp_path):
    path = put(tmp_path / "raw", b"cont")
    with pytest.raises(ChecksumError) as caught:
        find(wanted(), tmp_path)
    found = hashlib.sha256(b"cont").hexdigest()
    assert str(caught.value) == (
        f"{path}: found SHA-256 {found}, expected {CHECKSUM}: "
        "the file is damaged or another version; delete it to fetch it again"
    )


def test_a_named_folder_that_is_none(tmp_path, monkeypatch):
    monkeypatch.setenv("HMC_DATA_DIR", "no/such/folder")
    with pytest.raises(FileNotFoundError) as caught:
        find(wanted(), tmp_path)
    assert str(caught.value) == (
        "HMC_DATA_DIR: found 'no/such/folder', which is no folder; expected the folder with "
        "datasets_FUN, datasets_GO and others: correct or unset HMC_DATA_DIR"
    )


def test_no_network_names_all_three_places_and_the_mend(tmp_path, offline):
    with pytest.raises(FileNotFoundError) as caught:
        find(wanted(), tmp_path)
    target = tmp_path / "raw" / "others" / "a.arff"
    assert str(caught.value) == (
        "others/a.arff was found in none of three places: 1. HMC_DATA_DIR: not set; "
        f"2. {target} (no such file); 3. {UNREACHABLE} (network is unreachable). "
        f"Set HMC_DATA_DIR to a folder that holds it, or put it into {target}"
    )


def test_no_network_and_a_named_folder_without_the_file(tmp_path, offline, monkeypatch):
    monkeypatch.setenv("HMC_DATA_DIR", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"1\. HMC_DATA_DIR: .*a\.arff \(no such file\); 2"):
        find(wanted(), tmp_path / "data")


def test_an_address_that_does_not_answer(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"3\. http://127\.0\.0\.1:9/others/a\.arff \("):
        find(wanted(), tmp_path)


def test_a_file_without_known_checksum(tmp_path):
    path = put(tmp_path / "raw")
    with pytest.raises(
        ChecksumError, match=r"no checksum of this file is known.*accept_unverified"
    ):
        find(wanted(sha256=None), tmp_path)
    assert find(wanted(sha256=None), tmp_path, accept_unverified=True) == path


def test_a_git_blob_id_is_that_of_git(tmp_path):
    # `echo -n content | git hash-object --stdin`
    assert raw_files.git_blob(put(tmp_path)) == "6b584e8ece562ebffc15d38808cd6b98fc3d97ea"


def test_a_file_known_by_its_git_blob_id_is_verified(tmp_path):
    file = RawFile("others/a.arff", UNREACHABLE, None, "6b584e8ece562ebffc15d38808cd6b98fc3d97ea")
    path = put(tmp_path / "raw")
    assert find(file, tmp_path) == path
    path.write_bytes(b"cont")
    with pytest.raises(
        ChecksumError, match=r"a\.arff: found git blob id .*, expected 6b584e8ece562"
    ):
        find(file, tmp_path)


def test_a_file_that_cannot_be_read(tmp_path, monkeypatch):
    put(tmp_path / "raw")

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(raw_files, "sha256", refuse)
    with pytest.raises(
        OSError, match=r"a\.arff: cannot be read \(Permission denied\); expected a f"
    ):
        find(wanted(), tmp_path)


def test_a_data_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "raw").write_text("a file where a folder is to be")
    with pytest.raises(
        OSError, match=r"raw/others: cannot be made \(.*set HMC_DATA_DIR to a folder"
    ):
        find(wanted(), tmp_path)
