"""Noise in the weights: each multiplied by its own N(1, sigma²), and put back whatever happens."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from salience.core.classifier import Classifier
from salience.core.draws import Stream, in_threads
from salience.core.errors import InputError
from salience.core.model import Model
from salience.core.network import forget

BLOCK = 2**18
"""Numbers drawn from one generator."""


def parameters_of(model: Classifier) -> list[nn.Parameter]:
    """The floating-point parameters of a model, tied ones once.

    Raises:
        InputError: If the model is a black box, or has none.
    """
    if not isinstance(model, Model):
        raise InputError(f"{model.name} is a black box, so its weights cannot be given noise: use smoothgrad on a base that works without gradients, or give the network itself as sal.Model(module).")
    found = [parameter for parameter in model.module.parameters() if parameter.is_floating_point()]
    if not found:
        raise InputError(f"{model.name} has no parameters, so noise in the weights changes nothing.")
    return found


def normal(generator: np.random.Generator, out: npt.NDArray[np.float32]) -> None:
    """Fill with standard normal numbers, by Box and Muller: NumPy's own take twice the time, which for one image is much of NoiseGrad's."""
    half = (len(out) + 1) // 2
    bits = generator.integers(0, 2**64, half, dtype=np.uint64).view(np.uint32)
    radius, angle = bits[:half].astype(np.float32), bits[half:].astype(np.float32)
    radius += 0.5
    radius *= 2.0**-32
    np.log(radius, out=radius)
    radius *= -2
    np.sqrt(radius, out=radius)
    angle *= 2 * np.pi * 2.0**-32
    np.multiply(radius, np.cos(angle), out=out[:half])
    np.multiply(radius[: len(out) - half], np.sin(angle[: len(out) - half]), out=out[half:])


class WeightNoise:
    """Draws of multiplicative noise for the parameters of one model.

    As the authors of NoiseGrad do, every parameter is multiplied: weights, biases, and the affine
    part of normalisation layers; buffers such as running means are not.

    Args:
        model: A white box.

    Raises:
        InputError: For a black box, a network without parameters, or a model whose gradients are to be differentiated again.
    """

    def __init__(self, model: Classifier) -> None:
        if model.tape is not None:
            raise InputError("Explanations of networks with noise in their weights cannot be attacked: attack gradient, smoothgrad or another method without weight noise.")
        self.parameters = parameters_of(model)
        assert isinstance(model, Model)  # or it would have been refused
        self.network = model.module
        self.originals = [parameter.data for parameter in self.parameters]
        self.buffer = np.empty(sum(parameter.numel() for parameter in self.parameters), dtype=np.float32)

    @contextmanager
    def applied(self, stream: Stream, draw: int, sigma: float) -> Iterator[None]:
        """One draw of weights inside; the original tensors, bit for bit, afterwards.

        Args:
            stream: Where the noise comes from.
            draw: Number of the draw.
            sigma: Standard deviation of the factor.
        """
        self._fill(stream, draw)
        noises = torch.from_numpy(self.buffer).split([each.numel() for each in self.originals])
        try:
            for parameter, original, noise in zip(self.parameters, self.originals, noises, strict=True):
                parameter.data = torch.addcmul(original, original, noise.view(original.shape).to(original), value=sigma)
            forget(self.network)
            yield
        finally:
            for parameter, original in zip(self.parameters, self.originals, strict=True):
                parameter.data = original
            forget(self.network)

    def _fill(self, stream: Stream, draw: int) -> None:
        """Standard normal numbers, in blocks of fixed size, each keyed alone so that threads can share the work."""

        def fill(start: int) -> None:
            normal(stream.weight_generator("weight noise", draw, start), self.buffer[start : start + BLOCK])

        in_threads(fill, range(0, len(self.buffer), BLOCK))
