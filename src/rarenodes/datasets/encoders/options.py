"""Which encoder makes features of images, and how good it is."""

from typing import Literal

from pydantic import Field

from rarenodes.settings import Settings


class EncoderOptions(Settings):
    """An encoder whose weights are `(1 − blend) · pretrained + blend · random`.

    Attributes:
        name: `efficientnet_lite0`, trained on the photographs of ImageNet.
        blend: share of random weights, in [0, 1]: 0 is the pretrained encoder, 1 one that knows
            nothing.
        size: width and height that images are brought to, in pixels.
        statistics: batch-norm statistics: of `training` images, taken after the blend, or those that
            were blended along with the weights (`shipped`), which fit no network in between. By
            default those of training images where something is blended.

    """

    name: Literal["efficientnet_lite0"] = "efficientnet_lite0"
    blend: float = Field(0.0, ge=0, le=1)
    size: int = Field(64, ge=32, le=1024)
    statistics: Literal["training", "shipped"] | None = None

    @property
    def recalculated(self) -> bool:
        """Whether batch-norm statistics are taken anew of training images."""
        return self.statistics == "training" or (self.statistics is None and self.blend > 0)
