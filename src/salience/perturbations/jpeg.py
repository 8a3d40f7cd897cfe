"""JPEG compression."""

import io
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from salience.core.draws import Stream
from salience.core.errors import InputError
from salience.core.options import option
from salience.core.perturbation import Perturbation
from salience.core.registry import register
from salience.core.types import Images


@register("perturbation", "jpeg", geometric=False, stochastic=False, cites="Hendrycks & Dietterich 2019")
class Jpeg(Perturbation):
    """The image as a JPEG file gives it back, at 8 bits, in memory. Grey images are stored as grey.

    Cost: no pass; a file is written and read for each image.

    Source: a common corruption, as in Hendrycks & Dietterich (2019), "Benchmarking neural network robustness".

    Differs from the source: one quality, 50 by default; theirs are 25 down to 7.
    """

    quality: int = option(50, "quality of the file, 1 to 95", at_least=1, at_most=95)

    def apply(self, images: Images, streams: Sequence[Stream]) -> Images:
        """The compressed images."""
        if images.shape[1] not in (1, 3):
            raise InputError(f"jpeg stores images with 1 or 3 channels, not {images.shape[1]}: choose another perturbation.")
        return torch.stack([self._compressed(image) for image in images]).to(images)

    def _compressed(self, image: Tensor) -> Tensor:
        pixels = (image * 255).round().clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy()
        with io.BytesIO() as file:
            Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(file, "JPEG", quality=self.quality)
            back = np.array(Image.open(file), dtype=np.float32)
        return torch.from_numpy(back / 255).view(*pixels.shape).permute(2, 0, 1)
