"""Models that look up what they have computed before: ``python:_remembering:NAME@PRECISION``, NAME being any model's.

Methods that mask the picture share draws: the masks of RISE's first 250 draws are the same for every estimator, for every number of
masks and for every class. In a study with such methods most of the forward passes then cost nothing. Processes do not share
what they remember, so it serves studies with one worker.
"""

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor

import salience as sal

MOST = 40_000
"""Rows of scores kept, the latest; of 1000 classes they take 160 MB."""


class Remembering(sal.BlackBox):
    """A model as a black box; the scores of a picture that it has seen before, bit for bit, are looked up.

    Args:
        plain: The model that computes them.
    """

    def __init__(self, plain: sal.Classifier) -> None:
        outputs = "probabilities" if plain.probabilities else "logits"
        super().__init__(self.recalled, size=plain.size, labels=plain.labels, outputs=outputs, mean_colour=plain.mean_colour.tolist(), name=plain.name)
        self.plain, self.fit, self.crop_fraction, self.device = plain, plain.fit, plain.crop_fraction, plain.device
        self.known: dict[bytes, Tensor] = {}
        self.passes = 0

    def recalled(self, images: Tensor) -> Tensor:
        """The scores of some images."""
        keys = [hashlib.blake2b(image.contiguous().numpy().tobytes(), digest_size=16).digest() for image in images.cpu()]
        new = {key: place for place, key in enumerate(keys) if key not in self.known}
        if new:
            self.known |= dict(zip(new, self.plain.outputs(images[list(new.values())]), strict=True))
            self.passes += len(new)
        found = torch.stack([self.known[key] for key in keys])
        for key in list(self.known)[: max(len(self.known) - MOST, 0)]:
            del self.known[key]
        return found

    def weights_hash(self) -> str | None:  # type: ignore[override]  # a black box has none, but this one's network is known
        """The model's."""
        return self.plain.weights_hash()


def __getattr__(name: str) -> Callable[[], Remembering]:
    model, _, precision = name.rpartition("@")
    if not model:
        raise AttributeError(f"_remembering has no {name}: name a model and its precision, for example efficientnet-lite0@float32")
    return lambda: Remembering(sal.load_model(model, precision=precision))
