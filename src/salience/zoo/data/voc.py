"""PASCAL VOC: objects in boxes."""

import xml.etree.ElementTree as ET
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from salience.core.errors import InputError
from salience.core.options import option
from salience.core.registry import register
from salience.zoo.data import _files
from salience.zoo.datasets import Dataset, Item, Masks

CLASSES = [
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
]


@register("dataset", "voc", cites="Everingham et al. 2010")
class Voc(Dataset):
    """The pictures of a split, with the union of all boxes of a class as its mask; 20 classes in alphabetical order.

    A class whose objects are all marked difficult is left out of labels and masks, as in the pointing game; if
    one is not difficult, the boxes of all count. A list of one class, such as ``dog_val``, has a flag beside each
    picture: those with 1 are taken, not those without the class (-1) or where all its objects are difficult (0).

    Differs from the source: nothing; the boxes' corners count from 1 and lie inside them.
    """

    root: str = option("", "the folder of one year, which holds JPEGImages, Annotations and ImageSets, for example VOCdevkit/VOC2007")
    split: str = option("val", "which list in ImageSets/Main: train, val, trainval or, for 2007, test; or that of a class, such as dog_val")

    @cached_property
    def _ids(self) -> list[str]:
        where = _files.folder(self.root, "the folder of one year, for example VOCdevkit/VOC2007") / "ImageSets" / "Main"
        if not (where / f"{self.split}.txt").is_file():
            there = ", ".join(sorted(path.stem for path in where.glob("*.txt") if "_" not in path.stem)) or "none"
            raise InputError(f"{where / self.split}.txt is missing: give the folder of one year as root, and one of its lists as split (there: {there}).")
        lines = (line.split() for line in _files.text(where / f"{self.split}.txt").splitlines())
        return [line[0] for line in lines if line and line[1:2] not in (["-1"], ["0"])]

    @property
    def classes(self) -> list[str]:
        """The 20 class names."""
        return CLASSES

    def size(self) -> int:
        """The number of pictures in the split."""
        return len(self._ids)

    def item(self, place: int) -> Item:
        """A picture, by its path; its annotations are read."""
        name = self._ids[place]
        height, width, boxes = _annotation(Path(self.root) / "Annotations" / f"{name}.xml")
        return Item(name, Path(self.root) / "JPEGImages" / f"{name}.jpg", tuple(sorted(boxes)), Masks(boxes, partial(_mask, height, width)))


def _annotation(path: Path) -> tuple[int, int, dict[int, list[list[int]]]]:
    """Height, width, and for each class that is not all difficult its boxes: xmin, ymin, xmax, ymax."""
    boxes: dict[int, list[list[int]]] = {}
    easy = set()
    text = _files.text(path)
    try:
        root = ET.fromstring(text)  # noqa: S314 - the user's own files; expat bounds what entities can grow to
        height, width = (int(root.findtext(f"size/{side}", "")) for side in ("height", "width"))
        for each in root.findall("object"):
            index = CLASSES.index(each.findtext("name", "").strip())
            boxes.setdefault(index, []).append([round(float(each.findtext(f"bndbox/{side}", ""))) for side in ("xmin", "ymin", "xmax", "ymax")])
            easy |= {index} if each.findtext("difficult", "0").strip() in ("", "0") else set()
    except (ET.ParseError, ValueError) as error:
        raise InputError(f"{path} is not an annotation of PASCAL VOC ({error}): give the year's own files.") from error
    return height, width, {index: found for index, found in boxes.items() if index in easy}


def _mask(height: int, width: int, boxes: list[list[int]]) -> np.ndarray:
    mask = np.zeros((height, width), bool)
    for left, top, right, bottom in boxes:
        mask[max(top - 1, 0) : bottom, max(left - 1, 0) : right] = True
    return mask
