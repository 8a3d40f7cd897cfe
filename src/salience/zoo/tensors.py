"""A data set as tensors in memory, which is what training takes."""

from collections.abc import Callable

import numpy as np
import torch

from salience.core.classifier import Classifier
from salience.core.errors import InputError
from salience.training.pictures import Pictures
from salience.zoo.datasets import Dataset
from salience.zoo.images import load_images

EVERY = 500
"""Pictures between two reports of progress."""


def read_pictures(dataset: Dataset, *, size: int = 32, multilabel: bool = False, report: Callable[[str, int, int | None], None] | None = None) -> Pictures:
    """All pictures of a data set as uint8, and its labels.

    A colour array of the right size is taken as it is; any other picture is brought to the size by its shorter side, and its
    centre cut out.

    Args:
        dataset: The data set.
        size: Height and width.
        multilabel: Whether a picture may have any number of classes; otherwise it must have exactly one.
        report: Told how far it is.

    Returns:
        The pictures, with the data set's class names; without those there are as many classes as the labels name.

    Raises:
        InputError: If a picture has no label, or several where one is needed.
    """
    shape = _Square(size)
    images = torch.empty((len(dataset), 3, size, size), dtype=torch.uint8)
    labels, names = [], []
    for place, item in enumerate(dataset):
        if report is not None and place % EVERY == 0:
            report("reading the pictures", place, len(dataset))
        if not multilabel and len(item.labels) != 1:
            raise InputError(f"The picture {item.name} has {len(item.labels)} classes, and training needs one: give labels, or use the recipe multilabel.")
        picture = item.picture
        if isinstance(picture, np.ndarray) and picture.dtype == np.uint8 and picture.shape == (size, size, 3):
            images[place] = torch.from_numpy(picture).permute(2, 0, 1)
        else:
            images[place] = (load_images(picture, shape)[0] * 255).round().to(torch.uint8)
        labels.append(item.labels)
        names.append(item.name)
    classes = tuple(dataset.classes or (f"class {index}" for index in range(1 + max((index for each in labels for index in each), default=0))))
    if multilabel:
        rows = torch.zeros((len(dataset), len(classes)), dtype=torch.int64)
        for place, each in enumerate(labels):
            rows[place, list(each)] = 1
        return Pictures(images, rows, classes, str(dataset), tuple(names))
    return Pictures(images, torch.tensor([each[0] for each in labels]), classes, str(dataset), tuple(names))


class _Square(Classifier):
    """Says what size pictures are brought to."""

    crop_fraction = 1.0

    def __init__(self, size: int) -> None:
        self.size = (size, size)
        self.mean_colour = torch.full((3,), 0.5)
