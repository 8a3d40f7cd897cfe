"""COCO: objects with outlines."""

import json
import warnings
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from salience.core.errors import InputError
from salience.core.options import option
from salience.core.registry import register
from salience.zoo.data import _files
from salience.zoo.datasets import Dataset, Item, Masks

ENDING = ".mask.png"
THINGS = 90
"""COCO's larger category numbers are not objects but stuff: sky, walls, grass."""


Picture = tuple[str, Path, dict[int, list[Any]] | InputError]
"""Name, path, and what the mask of each class is made from, or why it cannot be had."""


@register("dataset", "coco", cites="Lin et al. 2014")
class Coco(Dataset):
    """Photographs with the union of all objects of a class as its mask; pictures without a labelled class are left out.

    Two layouts: the usual one, ``annotations/instances_val2017.json`` beside the folder ``val2017``; or pictures
    with masks of class numbers, ``NAME.jpg`` and ``NAME.mask.png``, and ``classes.json`` with
    ``{"classes": {"17": "cat", ...}}``.

    With ``labels=imagenet`` a cat has the labels 281 to 285 and the same mask under each: explain the class that
    the model predicts. Which ImageNet classes a COCO class stands for is told by ``coco_to_imagenet`` in
    ``classes.json``, else by a table that comes with this data set. Cost: each mask is decoded when asked for.

    Differs from the source: crowds (``iscrowd``) count as objects of their class.
    """

    root: str = option("", "the folder of the pictures and annotations")
    split: str = option("val2017", "of the usual layout: the folder of pictures, and which annotations")
    labels: str = option("own", "own (COCO's category numbers), imagenet, or a JSON file {class name: index or list of indices}")
    objects: int | None = option(None, "only pictures with exactly so many objects, no crowds, all of different classes that have labels; none: all", at_least=1)

    @cached_property
    def _index(self) -> tuple[list[Picture], dict[int, str], dict[int, tuple[int, ...]]]:
        """Pictures: name, path, what the mask of each class is made from, or why that cannot be read. Class names. The labels of each class."""
        root = _files.folder(self.root, "the folder of the pictures and annotations")
        annotations = root / "annotations" / f"instances_{self.split}.json"
        if annotations.is_file():
            names, pictures = _instances(annotations, root / self.split, self.objects)
        elif (root / "classes.json").is_file():
            names = _class_names(root / "classes.json")
            pictures = list(_painted(root, names, self.objects))
        else:
            raise InputError(f"{root} holds neither annotations/instances_{self.split}.json nor classes.json with NAME{ENDING} files: give COCO's folder as root, and the split.")
        labels = self._labels(root, names)
        kept = [(name, path, of if isinstance(of, InputError) else {each: of[each] for each in sorted(of) if labels.get(each)}) for name, path, of in pictures]
        return sorted((each for each in kept if isinstance(each[2], InputError) or len(each[2]) >= (self.objects or 1)), key=lambda each: each[0]), names, labels

    def _labels(self, root: Path, names: dict[int, str]) -> dict[int, tuple[int, ...]]:
        if self.labels == "own":
            return {number: (number,) for number in names}
        path = _files.found(root, self.labels) if self.labels != "imagenet" else root / "classes.json"
        if self.labels == "imagenet" and not (path.is_file() and "coco_to_imagenet" in _json(path)):
            path = Path(__file__).with_name("coco_imagenet.json")
        table = _json(path)
        table = table.get("coco_to_imagenet", table)
        several = {name: given if isinstance(given, list) else [given] for name, given in table.items()}
        wrong = [name for name, given in several.items() if not all(type(each) is int and each >= 0 for each in given)]
        if wrong:
            raise InputError(f"{path}: {wrong[0]} must have a class index, or a list of them, whole numbers from 0.")
        return {number: tuple(several.get(name, ())) for number, name in names.items()}

    @property
    def classes(self) -> list[str] | None:
        """With its own labels: the names by category number, "" where a number is not used."""
        names = self._index[1]
        return [names.get(number, "") for number in range(max(names) + 1)] if self.labels == "own" else None

    def size(self) -> int:
        """The number of pictures with a labelled class."""
        return len(self._index[0])

    def item(self, place: int) -> Item:
        """A picture, by its path."""
        pictures, _, labels = self._index
        name, path, classes = pictures[place]
        if isinstance(classes, InputError):
            raise classes
        sources: dict[int, list[Any]] = {}
        for number, source in classes.items():
            for label in labels[number]:
                sources[label] = [*sources.get(label, ()), *source]
        groups = () if self.labels == "own" else tuple(dict.fromkeys(labels[number] for number in classes))
        return Item(name, path, tuple(sorted(sources)), Masks(sources, _mask), groups)


def _json(path: Path) -> dict[str, Any]:
    try:
        read = json.loads(_files.text(path))
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is not JSON ({error}): get a whole copy of the file.") from error
    if not isinstance(read, dict):
        raise InputError(f"{path} must be a JSON object, not a {type(read).__name__}.")
    return read


def _class_names(path: Path) -> dict[int, str]:
    stored = _json(path)
    try:
        return {int(number): name for number, name in stored["classes"].items() if int(number) > 0}
    except (KeyError, AttributeError, ValueError) as error:
        raise InputError(f'{path} must have the class names as {{"classes": {{"17": "cat"}}}}, by the number in the masks.') from error


def _painted(root: Path, names: dict[int, str], objects: int | None) -> Iterator[Picture]:
    """Pictures with masks of class numbers; a class counts as one object, stuff as none."""
    for picture in _files.pictures(root):
        mask = root / f"{picture.stem}{ENDING}"
        if picture.name.endswith(ENDING) or not mask.is_file():
            continue
        try:
            there = [number for number in np.unique(_values(mask)).tolist() if number in names]
        except InputError as error:
            yield picture.name, picture, error
            continue
        if objects is not None:
            there = [number for number in there if number <= THINGS]
        if objects in (None, len(there)):
            yield picture.name, picture, {number: [(mask, number)] for number in there}


def _instances(path: Path, folder: Path, objects: int | None) -> tuple[dict[int, str], list[Picture]]:
    """Class names and pictures of an instances file."""
    stored = _json(path)
    try:
        names = {each["id"]: each["name"] for each in stored["categories"]}
        sizes = {each["id"]: (each["file_name"], each["height"], each["width"]) for each in stored["images"]}
        found: dict[int, list[dict[str, Any]]] = {}
        for each in stored["annotations"]:
            found.setdefault(each["image_id"], []).append(each)
        pictures: list[Picture] = []
        for image, all_of_it in found.items():
            name, height, width = sizes[image]
            classes: dict[int, list[Any]] = {}
            for each in all_of_it:
                if each["segmentation"]:
                    classes.setdefault(each["category_id"], []).append((height, width, each["segmentation"]))
            if objects is None or (len(all_of_it) == len(classes) == objects and not any(each.get("iscrowd") for each in all_of_it)):
                pictures.append((name, folder / name, classes))
    except (KeyError, TypeError) as error:
        raise InputError(f"{path} is not a file of COCO instances ({error} is missing or wrong): it must have images, categories and annotations with segmentation.") from error
    return names, pictures


def _values(path: Path) -> np.ndarray:
    values = _files.mask_values(path)
    if values.ndim != 2:
        raise InputError(f"{path} has colours: its pixels must be class numbers, in one channel.")
    return values


def _mask(sources: list[Any]) -> np.ndarray:
    """The union of what is painted in a mask file with a number, or outlined by polygons or run lengths."""
    return np.logical_or.reduce([_values(each[0]) == each[1] if isinstance(each[0], Path) else _decoded(*each) for each in sources])


def _decoded(height: int, width: int, outline: Any) -> np.ndarray:
    try:
        from pycocotools import mask as coco
    except ImportError as error:
        raise InputError("COCO's outlines need pycocotools: pip install 'salience[data]'.") from error
    try:
        loose = isinstance(outline, list) or isinstance(outline["counts"], list)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # pycocotools knows no NumPy 2 yet
            decoded = coco.decode(coco.frPyObjects(outline, height, width) if loose else outline).astype(bool)
        if decoded.shape[:2] != (height, width):
            raise ValueError(f"it is of a picture of {decoded.shape[1]} x {decoded.shape[0]}, not {width} x {height}")
    except Exception as error:  # it raises that class itself
        raise InputError(f"An outline of COCO cannot be read ({error}): give polygons of three points or more, or run lengths of the picture's size.") from error
    return decoded.any(-1) if decoded.ndim == 3 else decoded
