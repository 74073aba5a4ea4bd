import numpy as np
import pytest
import torch
from torch import nn

from rarenodes.datasets.encoders import efficientnet, features
from rarenodes.datasets.encoders.blend import (
    blended_encoder,
    evenly,
    recalculate_statistics,
    sizes_by_blend,
)
from rarenodes.datasets.encoders.efficientnet import EfficientNetLite0, pretrained_weights
from rarenodes.datasets.encoders.features import encoded
from rarenodes.datasets.encoders.options import EncoderOptions
from rarenodes.datasets.encoders.pictures import GreyPictures
from rarenodes.datasets.raw_files import ChecksumError
from rarenodes.settings import SettingsError, read_settings

SMALL = EncoderOptions(size=32, blend=0.5)
TRAIN = np.arange(40)


def drawn(images: int, seed: int = 0) -> GreyPictures:
    """White bars on black, each somewhere else."""
    stream = np.random.default_rng(seed)
    grey = np.zeros((images, 16, 16), dtype=np.uint8)
    for image in grey:
        top, left = stream.integers(0, 12, 2)
        image[top : top + 4, left:] = stream.integers(100, 255)
    return GreyPictures(grey)


def test_weights_are_blended_linearly():
    names = ["network._conv_stem.weight", "network._blocks.3._bn1.running_var"]
    pretrained, chance = pretrained_weights(), EfficientNetLite0(32, seed=1).state_dict()
    for blend in (0.0, 0.25, 1.0):
        weights = blended_encoder(EncoderOptions(size=32, blend=blend), seed=1).state_dict()
        for name in names:
            expected = (1 - blend) * pretrained[name] + blend * chance[name]
            torch.testing.assert_close(weights[name], expected)
    assert not torch.equal(pretrained[names[0]], chance[names[0]])


def test_random_weights_are_the_seeds_and_leave_the_global_stream_alone():
    state = torch.get_rng_state()
    one, same, other = (EfficientNetLite0(32, seed=s).network._conv_head.weight for s in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_features_vanish_unless_statistics_are_recalculated():
    stream = torch.Generator().manual_seed(0)
    noise = torch.randint(256, (2, 32, 3, 64, 64), dtype=torch.uint8, generator=stream)
    sizes = list(sizes_by_blend((0.0, 0.5, 1.0), EncoderOptions(), 0, lambda: noise))
    assert [blend for blend, _, _ in sizes] == [0.0, 0.5, 1.0]
    pretrained = sizes[0][1]
    assert sizes[1][1] < 0.2 * pretrained
    assert sizes[2][1] < 1e-6 * pretrained
    for _, _, after in sizes:
        assert 0.3 * pretrained < after < 3 * pretrained


def test_statistics_are_the_mean_over_batches_and_nothing_else_trains():
    network = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.BatchNorm2d(1), nn.Dropout(0.5))
    nn.init.ones_(network[0].weight)
    batches = list(torch.arange(24.0).reshape(6, 1, 2, 2).split(3))
    recalculate_statistics(network, batches)
    norm = network[1]
    assert norm.running_mean.item() == pytest.approx((5.5 + 17.5) / 2)
    assert norm.running_var.item() == pytest.approx(np.arange(12).var(ddof=1))
    assert norm.momentum == 0.1
    assert not any(module.training for module in network.modules())


def test_batches_have_about_one_size():
    assert [len(batch) for batch in evenly(np.arange(65), 64)] == [33, 32]


def test_features_are_standardised_on_training_images():
    made = encoded(drawn(70), TRAIN, SMALL, seed=0)
    assert made.shape == (70, 1280)
    assert made.dtype == np.float32
    varies = made[TRAIN].std(axis=0) > 0
    assert varies.sum() > 600
    np.testing.assert_allclose(made[TRAIN].mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(made[TRAIN][:, varies].std(axis=0), 1, rtol=1e-3)
    assert not made[:, ~varies].any()


def test_features_have_the_same_bits_from_the_cache_and_in_other_company(tmp_path):
    few = GreyPictures(drawn(90).images[:50])
    encoded(few, TRAIN, SMALL, 0, tmp_path)
    (kept,) = tmp_path.glob("*/*.safetensors")
    partly = encoded(drawn(90), TRAIN, SMALL, 0, tmp_path)
    assert len(list(kept.parent.glob("*.safetensors"))) == 2
    fresh = encoded(drawn(90), TRAIN, SMALL, 0)
    assert partly.tobytes() == fresh.tobytes()
    torch.set_num_threads(2)
    try:
        assert encoded(drawn(90), TRAIN, SMALL, 0).tobytes() == fresh.tobytes()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_what_is_in_the_cache_is_not_encoded_again(tmp_path, monkeypatch):
    first = encoded(drawn(50), TRAIN, SMALL, 0, tmp_path)
    monkeypatch.setattr(features, "blended_encoder", None)
    assert encoded(drawn(50), TRAIN, SMALL, 0, tmp_path).tobytes() == first.tobytes()


def test_the_cache_knows_the_encoder_and_the_images_of_its_statistics(tmp_path):
    for options, train, seed in (
        (SMALL, TRAIN, 0),
        (SMALL.model_copy(update={"blend": 0.25}), TRAIN, 0),
        (SMALL, TRAIN[:20], 0),
        (SMALL, TRAIN, 1),
    ):
        before = len(list(tmp_path.iterdir()))
        encoded(drawn(40), train, options, seed, tmp_path)
        assert len(list(tmp_path.iterdir())) == before + 1


def test_shipped_statistics_are_shared_by_all_training_parts(tmp_path):
    shipped = SMALL.model_copy(update={"statistics": "shipped"})
    encoded(drawn(40), TRAIN, shipped, 0, tmp_path)
    encoded(drawn(40), TRAIN[:20], shipped, 0, tmp_path)
    assert len(list(tmp_path.glob("*/*.safetensors"))) == 1


def test_statistics_are_taken_anew_where_something_is_blended(tmp_path):
    assert [EncoderOptions(blend=blend).recalculated for blend in (0.0, 0.1, 1.0)] == [
        False, True, True,
    ]  # fmt: skip
    assert EncoderOptions(statistics="training").recalculated
    assert not EncoderOptions(blend=0.5, statistics="shipped").recalculated
    plain = EncoderOptions(size=32)
    as_it_is = encoded(drawn(40), TRAIN, plain, 0)
    anew = encoded(drawn(40), TRAIN, plain.model_copy(update={"statistics": "training"}), 0)
    assert np.abs(as_it_is - anew).max() > 0.01


def test_a_damaged_file_of_the_cache_is_made_again_with_a_line(tmp_path, caplog):
    first = encoded(drawn(40), TRAIN, SMALL, 0, tmp_path)
    (path,) = tmp_path.glob("*/*.safetensors")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert encoded(drawn(40), TRAIN, SMALL, 0, tmp_path).tobytes() == first.tobytes()
    (line,) = caplog.messages
    assert str(path) in line
    assert "its images are encoded again" in line


def test_images_that_are_there_twice_are_encoded_once(tmp_path):
    images = np.repeat(drawn(40).images, 2, axis=0)
    made = encoded(GreyPictures(images), np.arange(80), SMALL, 0, tmp_path)
    np.testing.assert_array_equal(made[::2], made[1::2])
    (folder,) = tmp_path.iterdir()
    assert sum(path.stat().st_size for path in folder.iterdir()) < 40 * 1300 * 4


def test_another_weights_file_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"other")
    monkeypatch.setattr(efficientnet, "installed_path", lambda package, name: path)
    with pytest.raises(ChecksumError, match=r"weights\.pth: its SHA-256 .*==0\.1\.0 again"):
        pretrained_weights()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"blend": 1.5}, "kanji: blend: expected less than or equal to 1, found 1.5"),
        ({"name": "resnet"}, "kanji: name: expected 'efficientnet_lite0', found 'resnet'"),
        ({"lambda": 0.5}, "kanji: unknown key 'lambda'"),
    ],
)
def test_options_that_cannot_be(values, message):
    with pytest.raises(SettingsError, match=message):
        read_settings(EncoderOptions, values, "kanji")
