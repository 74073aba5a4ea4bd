import csv
import struct
import zlib

import numpy as np
import pytest
import torch
from photographs import edges, photograph, write_bad_images, write_folder, write_table
from PIL import Image

from rarenodes.datasets import Dataset, load_dataset, raw_files_of
from rarenodes.datasets.image_files import ImageFault, decoded_image
from rarenodes.datasets.image_findings import inspect_images
from rarenodes.datasets.images import ImagesOptions
from rarenodes.datasets.sampling import Sampling
from rarenodes.datasets.table_files import TableError
from rarenodes.settings import SettingsError

FILES = {"examples": "photos.csv", "folder": "photos", "hierarchy": "edges.csv"}


@pytest.fixture
def rows(tmp_path):
    return write_folder(tmp_path, 30)


@pytest.fixture
def load(tmp_path):
    return lambda **changes: load_dataset("images", tmp_path, options={**FILES, **changes})


@pytest.fixture
def with_bad_images(tmp_path, rows):
    """What is said of each, in the order of the rows, which follow the others."""
    said = write_bad_images(tmp_path / "photos")
    label = {"labels": "genus 000"}
    write_table(tmp_path, [*rows, *({"image": name, **label} for name in said)])
    return [
        f"{tmp_path / 'photos.csv'}, line {row}, column 'image': {text}"
        for row, text in enumerate(said.values(), start=len(rows) + 2)
    ]


def test_images_have_their_labels_and_all_above(load, rows):
    made = load()
    nodes = made.hierarchy.nodes
    assert made.hierarchy.is_coherent(torch.tensor(made.targets.toarray()))
    for row, given in enumerate(rows):
        positive = {nodes[i] for i in made.targets[[row]].indices}
        named = given["labels"].split(";")
        for name in named:
            digits = name.split()[1]
            ranks = ("group", "family", "genus", "species")[: len(digits)]
            expected = {f"{rank} {digits[: n + 1]}" for n, rank in enumerate(ranks)} | {"life"}
            assert expected <= positive
        if not any(name.startswith("species") for name in named):
            assert not any(node.startswith("species") for node in positive)
    assert made.evaluated.sum() == len(nodes) - 1
    assert made.images.shape == (30, 48, 48)
    assert made.features.shape == (30, 48 * 48)


def test_every_label_node_keeps_a_training_image_and_copies_stay_on_one_side(tmp_path, load, rows):
    for number in range(30, 60):
        name = f"{number}.png"
        original = (tmp_path / "photos" / rows[number - 30]["image"]).read_bytes()
        (tmp_path / "photos" / name).write_bytes(original)
        rows.append({"image": name, "labels": rows[number - 30]["labels"]})
    write_table(tmp_path, rows)
    made = load()
    side = np.empty(60, dtype="<U5")
    for part, members in made.split.items():
        side[members] = part
    assert (side[:30] == side[30:]).all()
    assert set(side) == {"train", "valid", "test"}
    assert made.counts("train").min() >= 1


def test_labels_may_be_paths_and_parts_a_column(tmp_path, load, rows):
    parent = dict(edges())
    for number, row in enumerate(rows):
        paths = []
        for name in row["labels"].split(";"):
            steps = [name]
            while steps[0] in parent:
                steps.insert(0, parent[steps[0]])
            paths.append(" > ".join(steps))
        row["labels"] = ";".join(paths)
        row["part"] = ("train", "train", "train", "valid", "test")[number % 5]
    write_table(tmp_path, rows)
    options = {"hierarchy": None, "path_separator": ">", "split": "part"}
    made = load(**options)
    assert len(made.hierarchy) > 20
    assert made.split["test"].tolist() == list(range(4, 30, 5))


def test_an_encoder_sees_them_in_colour(tmp_path, rows):
    encoder = {"size": 32}
    cache = tmp_path / "cache"
    options = {**FILES, "encoder": encoder}
    made = load_dataset("images", tmp_path, options=options, cache=cache)
    again = load_dataset("images", tmp_path, options=options, cache=cache)
    assert made.features.shape == (30, 1280)
    assert made.checksum() == again.checksum()
    made.save(tmp_path / "stored")
    assert Dataset.load(tmp_path / "stored").checksum() == made.checksum()
    # The other colour, the same grey.
    image = Image.open(tmp_path / "photos" / "deeper/1.png")
    red, green, blue = image.split()
    Image.merge("RGB", (blue, green, red)).save(tmp_path / "photos" / "deeper/1.png")
    changed = load_dataset("images", tmp_path, options=options, cache=cache)
    assert np.abs(changed.features[1] - made.features[1]).max() > 0.1


def test_each_bad_image_has_its_line(load, with_bad_images):
    with pytest.raises(TableError) as refused:
        load()
    lines = str(refused.value).splitlines()
    assert len(lines) == len(with_bad_images)
    for line, start in zip(lines, with_bad_images, strict=True):
        assert line.startswith(start)
        assert line.endswith(", or set the option bad_images to skip")


def test_bad_images_are_skipped_if_asked_to(tmp_path, load, with_bad_images, rows, caplog):
    made = load(bad_images="skip")
    assert len(made.features) == len(rows)
    assert len(caplog.messages) == len(with_bad_images)
    for line, start in zip(caplog.messages, with_bad_images, strict=True):
        assert line.startswith(start)
    assert made.card["skipped_images"] == [
        "print.jpg", "deep.png", "tiny.png", "cut.png", "text.jpg", "none.jpg",
    ]  # fmt: skip
    write_table(tmp_path, rows)
    assert load().checksum() == made.checksum()


def test_a_folder_or_a_name_that_no_file_can_have_is_no_image(tmp_path, load, rows):
    label = {"labels": "genus 000"}
    write_table(tmp_path, [*rows, {"image": "deeper", **label}, {"image": "a" * 300, **label}])
    with pytest.raises(TableError) as refused:
        load()
    folder, name = str(refused.value).splitlines()
    assert (
        "line 32, column 'image': 'deeper': found a folder, expected a file: an image, or" in folder
    )
    assert (
        f"'{'a' * 300}': cannot be read (File name too long); expected an image: check the" in name
    )


def test_an_image_of_too_many_pixels_is_not_decoded(tmp_path, load, rows, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 45 * 45)
    Image.new("L", (100, 100)).save(tmp_path / "photos" / "large.png")
    write_table(tmp_path, [{"image": "large.png", "labels": "genus 000"}])
    with pytest.raises(
        TableError, match=r"'large\.png': Image size \(10000 pixels\) exceeds limit"
    ) as e:
        load()
    assert str(e.value).endswith(": make it smaller, or set the option bad_images to skip")


def test_no_image_is_left(tmp_path, load, rows):
    write_table(tmp_path, [{"image": "none.jpg", "labels": "genus 000"}])
    with pytest.raises(TableError, match=r"photos\.csv: no image is left, expected at least one"):
        load(bad_images="skip")


def deep_colour(width: int) -> bytes:
    """A PNG of 16 bits a channel in red, green and blue, of which Pillow makes 8 in silence."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, width, 16, 2, 0, 0, 0)
    pixels = zlib.compress((b"\0" + bytes(6 * width)) * width)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


def test_sixteen_bits_in_colour_are_found():
    with pytest.raises(ImageFault, match=r"found 16 bits or more a channel \(mode RGB\)"):
        decoded_image(deep_colour(20))


def test_a_photograph_is_turned_as_the_camera_was_held(tmp_path):
    image = photograph([0, 1, 0, 1], np.random.default_rng(0))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    image.save(tmp_path / "turned.png", exif=exif)
    turned = decoded_image((tmp_path / "turned.png").read_bytes())
    assert turned.size == image.size[::-1]
    np.testing.assert_array_equal(np.asarray(turned), np.rot90(np.asarray(image), -1))


def test_check_finds_every_bad_image_and_what_else_is_wrong(tmp_path, with_bad_images, rows):
    table = list(csv.DictReader((tmp_path / "photos.csv").open()))
    table[3]["labels"] = "genus 0O0"
    copy = {"image": rows[0]["image"], "labels": rows[0]["labels"]}
    write_table(tmp_path, [*table, copy])
    options = ImagesOptions(**FILES)
    report = inspect_images(options, tmp_path, Sampling("images"))
    errors = [finding.text for finding in report.findings if finding.level == "error"]
    assert [e.startswith(s) for e, s in zip(errors, with_bad_images, strict=False)] == [True] * 6
    assert "unknown node 'genus 0O0'" in errors[6]
    assert len(errors) == 7
    warnings = [finding.text for finding in report.findings if finding.level == "warning"]
    assert any("1 row has the image of an earlier row" in text for text in warnings)
    assert report.features == 48 * 48
    skipped = inspect_images(
        options.model_copy(update={"bad_images": "skip"}), tmp_path, Sampling("images")
    )
    assert sum(finding.level == "error" for finding in skipped.findings) == 1


def test_check_names_the_columns_and_one_that_is_not_there(tmp_path, rows):
    def found(**changes):
        options = ImagesOptions(**{**FILES, **changes})
        report = inspect_images(options, tmp_path, Sampling("images"))
        return [(f.level, f.text.replace(f"{tmp_path}/", "")) for f in report.findings]

    assert found()[0] == ("note", "photos.csv: 30 rows; columns: image 'image', labels 'labels'")
    assert found(image="picture")[:2] == [
        ("error", "photos.csv: unknown column 'picture'; known: 'image', 'labels'"),
        ("note", "photos.csv: 30 rows; columns: image 'picture', labels 'labels'"),
    ]


def test_check_finds_one_image_in_two_parts(tmp_path, rows):
    for number, row in enumerate(rows):
        row["part"] = ("train", "train", "train", "valid", "test")[number % 5]
    write_table(tmp_path, [*rows, {**rows[0], "part": "test"}, {**rows[1], "part": "valid"}])
    options = ImagesOptions(**FILES, split="part")
    report = inspect_images(options, tmp_path, Sampling("images"))
    (finding,) = [finding for finding in report.findings if "the same image" in finding.text]
    assert finding.level == "warning"
    assert finding.text == (
        f"{tmp_path / 'photos.csv'}, line 32: the same image is in 'test' here and in 'train' in line "
        "2, so for 2 rows: move or remove one of the two"
    )


def test_check_counts_as_loading_does(tmp_path, load, rows):
    report = inspect_images(ImagesOptions(**FILES), tmp_path, Sampling("images"))
    made = load()
    assert report.training_examples == len(made.split["train"])
    assert report.hierarchy.nodes == made.hierarchy.nodes


def test_check_says_where_labels_stop_half_way(tmp_path, rows):
    """A fifth of the 30 images is labelled at the genus, above its species."""
    report = inspect_images(ImagesOptions(**FILES), tmp_path, Sampling("images"))
    (text,) = [f.text for f in report.findings if "stop above the bottom" in f.text]
    # A family named beside its own species or genus is no end.
    assert text.startswith(f"{tmp_path / 'photos.csv'}, column 'labels': 6 labels stop above")
    assert "genus" in text


def test_labels_that_stop_half_way_leave_open_what_is_below(load, rows):
    assert load().unknown is None
    made = load(unknown_below=True)
    unknown = made.unknown.toarray()
    child, parent = made.hierarchy.edge_index.numpy().T
    targets = made.targets.toarray()
    stops = targets.copy()
    for node, above in zip(child, parent, strict=True):
        stops[:, above] &= 1 - targets[:, node]
    inner = np.isin(np.arange(len(made.hierarchy)), parent)
    open_rows = (stops[:, inner] == 1).any(axis=1)
    np.testing.assert_array_equal(unknown.any(axis=1), open_rows)
    assert 0 < open_rows.sum() < len(rows)
    assert made.card["unknown_pairs"] == unknown.sum()


def test_the_pipeline_depends_on_table_hierarchy_and_folder(tmp_path):
    files = raw_files_of("images", FILES, tmp_path)
    assert [path.name for path in files] == ["photos.csv", "edges.csv", "photos"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"folder": "."}, "folder: expected a folder of images alone, such as raw/photos"),
        ({"image": "labels"}, "name one column twice"),
        ({"bad_images": "ignore"}, "bad_images: expected 'refuse' or 'skip', found 'ignore'"),
        ({"image": "picture"}, r"photos\.csv: unknown column 'picture'"),
    ],
)
def test_options_that_cannot_be(load, rows, changes, message):
    with pytest.raises(SettingsError, match=message):
        load(**changes)
