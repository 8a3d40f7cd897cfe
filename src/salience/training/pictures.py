"""What a network is trained on or tested with: pictures and labels in memory."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from salience.core.draws import Stream
from salience.core.errors import InputError


@dataclass(frozen=True)
class Pictures:
    """Pictures of one size and their labels.

    Attributes:
        images: (n, c, h, w).
        labels: A class index an image, (n,); or, where an image may have several classes, 1 for each that is there, (n, k).
        classes: The class names.
        name: How records call them.
        names: A name for each, perhaps.

    Raises:
        InputError: If they do not fit together.
    """

    images: UInt8[Tensor, "n c h w"]
    labels: Int[Tensor, " n"] | Int[Tensor, "n k"]
    classes: tuple[str, ...]
    name: str = "pictures"
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not len(self.images):
            raise InputError(f"{self.name}: there must be one picture at least.")
        if len(self.images) != len(self.labels):
            raise InputError(f"{self.name}: there must be one label, or row of labels, for each picture, not {len(self.labels)} for {len(self.images)}.")
        most = self.labels.shape[1] - 1 if self.multilabel else int(self.labels.max())
        if self.labels.min() < 0 or most >= len(self.classes) or (self.multilabel and self.labels.max() > 1):
            raise InputError(f"{self.name}: the labels must be indices of the {len(self.classes)} classes, or rows of 0 and 1, one for each class.")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, part: slice) -> "Pictures":
        """Some of them."""
        return Pictures(self.images[part], self.labels[part], self.classes, self.name, self.names[part])

    def some(self, count: int) -> "Pictures":
        """So many of them, at least 1, or all if there are not so many; always the same. Data sets may come class by class, so each of as many equal stretches gives one, at random."""
        count = min(count, len(self))
        ends = np.arange(count + 1) * len(self) // count
        places = Stream((0,), (0,)).generator("some pictures").integers(ends[:-1], ends[1:]).tolist()
        return Pictures(self.images[places], self.labels[places], self.classes, self.name, tuple(self.names[place] for place in places if self.names))

    def with_classes(self, classes: tuple[str, ...]) -> "Pictures":
        """The same, with further classes after its own, of which it has no picture."""
        more = len(classes) - len(self.classes)
        labels = torch.nn.functional.pad(self.labels, (0, more)) if self.multilabel else self.labels
        return Pictures(self.images, labels, classes, self.name, self.names)

    @property
    def multilabel(self) -> bool:
        """Whether an image may have several classes."""
        return self.labels.ndim == 2

    @cached_property
    def sha256(self) -> str:
        """SHA-256 over the pictures and the labels."""
        digest = hashlib.sha256(repr((tuple(self.images.shape), tuple(self.labels.shape), self.classes)).encode())
        for part in (self.images, self.labels):
            digest.update(part.contiguous().numpy().data)
        return digest.hexdigest()

    def pixels(self, part: slice = slice(None)) -> Tensor:
        """Pictures as floats in [0, 1]."""
        return self.images[part].float() / 255

    def mean_and_std(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each channel over all pixels, in [0, 1] units."""
        counts = torch.stack([torch.bincount(self.images[:, c].flatten(), minlength=256) for c in range(self.images.shape[1])]).double()
        values = torch.arange(256, dtype=torch.float64) / 255
        share = counts / counts.sum(1, keepdim=True)
        mean = share @ values
        std = ((share * (values - mean[:, None]) ** 2).sum(1)).sqrt().clamp_min(1 / 255)
        return tuple(round(each, 6) for each in mean.tolist()), tuple(round(each, 6) for each in std.tolist())


def joined(parts: Sequence[Pictures]) -> Pictures:
    """Several sets of pictures as one.

    Raises:
        InputError: If they differ in size or classes.
    """
    first = parts[0]
    if any(each.classes != first.classes or each.images.shape[1:] != first.images.shape[1:] or each.labels.shape[1:] != first.labels.shape[1:] for each in parts):
        raise InputError("The training pictures differ in size or classes: give data sets that have the same.")
    if len(parts) == 1:
        return first
    images, labels = (torch.cat([getattr(each, part) for each in parts]) for part in ("images", "labels"))
    return Pictures(images, labels, first.classes, " + ".join(each.name for each in parts), tuple(name for each in parts for name in each.names))
