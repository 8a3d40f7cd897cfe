"""Mosaics: several photographs of different classes in one picture."""

import warnings
from functools import cached_property, partial
from typing import Annotated, Any

import numpy as np
from PIL import Image, ImageOps

from salience.core.draws import Stream, streams
from salience.core.errors import InputError
from salience.core.options import option
from salience.core.registry import register
from salience.zoo.datasets import Dataset, Item, Masks
from salience.zoo.images import load_images


@register("dataset", "mosaic", cites="Böhle et al. 2021")
class Mosaic(Dataset):
    """A grid of photographs of different classes from another data set: where each class is, is known exactly.

    Mosaics take their photographs from all of them in a random order, so that no two share one: what holds of pictures
    drawn independently, intervals and tests, holds of them. Where more are asked for, a new round through the photographs
    begins, and a warning says so. Each photograph's centre is cut to a square and resized. The labels
    are those of the photographs, row by row; a class's mask is its cell. Models that crop their input cut off
    the mosaic's border: load with ``fit="squash"`` to show them all of it.

    Source: Böhle, Fritz & Schiele (2021), the grid pointing game.

    Differs from the source: photographs need not be confidently classified (choose such ones beforehand); a network
    sees neighbouring cells, so that the truth is approximate.
    """

    of: Annotated[Any, Dataset] = option(None, "the data set of labelled photographs, for example (folder:root=photos,labels=labels.csv)")
    rows: int = option(2, "rows of the grid", at_least=1)
    columns: int = option(2, "columns of the grid", at_least=1)
    cell: int = option(224, "side of a cell, in pixels", at_least=1)
    number: int | None = option(None, "how many mosaics; none: as many as share no photograph", at_least=1)
    seed: int = option(0, "seed of the choice of photographs")

    def _labels_of(self, place: int) -> tuple[int, ...]:
        """Those of a photograph; none, with a warning, if its annotation cannot be read."""
        try:
            return self.of[place].labels
        except InputError as error:
            warnings.warn(f"Photograph {place + 1} of {self.of} is in no mosaic: {error}", UserWarning, stacklevel=2)
            return ()

    @cached_property
    def _labels(self) -> list[tuple[int, ...]]:
        labels = [self._labels_of(place) for place in range(len(self.of))]
        if len({each for each in labels if each}) < self.rows * self.columns:
            raise InputError(f"A mosaic of {self.rows} x {self.columns} needs photographs of {self.rows * self.columns} classes; {self.of} does not have so many: give labels, or a smaller grid.")
        return labels

    @property
    def classes(self) -> list[str] | None:
        """Those of the photographs."""
        return self.of.classes

    def size(self) -> int:
        """The number of mosaics."""
        return len(self._chosen)

    @cached_property
    def _chosen(self) -> list[list[int]]:
        """The photographs of each mosaic."""
        mosaics = self._round(0)
        if not mosaics:
            raise InputError(f"The photographs of {self.of} share too many classes for a mosaic of {self.rows} x {self.columns}: give more of them, or a smaller grid.")
        if self.number is None:
            return mosaics
        if self.number > len(mosaics):
            warnings.warn(
                f"Of {self.number} mosaics only {len(mosaics)} share no photograph, so intervals over all of them are too narrow: leave number out, or give more photographs.",
                UserWarning,
                stacklevel=2,
            )
        turn = 0
        while len(mosaics) < self.number:
            turn += 1
            mosaics += self._round(turn)
        return mosaics[: self.number]

    def _round(self, turn: int) -> list[list[int]]:
        """Mosaics that share no photograph: the photographs in a random order, each in the first mosaic with room for it that has none of its classes yet."""
        stream: Stream = streams(self.seed, 1)[0]
        begun: list[tuple[list[int], set[int]]] = []
        whole = []
        for candidate in stream.generator("mosaics", turn).permutation(len(self._labels)).tolist():
            labels = self._labels[candidate]
            if not labels:
                continue
            place = next((place for place, (_, there) in enumerate(begun) if there.isdisjoint(labels)), len(begun))
            if place == len(begun):
                begun.append(([], set()))
            photographs, there = begun[place]
            photographs.append(candidate)
            there.update(labels)
            if len(photographs) == self.rows * self.columns:
                whole.append(begun.pop(place)[0])
        return whole

    def item(self, place: int) -> Item:
        """A mosaic as a PIL image."""
        whole = Image.new("RGB", (self.columns * self.cell, self.rows * self.cell))
        cells: dict[int, tuple[int, int]] = {}
        groups: tuple[tuple[int, ...], ...] = ()
        for number, chosen in enumerate(self._chosen[place]):
            item, corner = self.of[chosen], divmod(number, self.columns)
            picture = load_images(item.picture).pictures[0]
            whole.paste(ImageOps.fit(picture, (self.cell, self.cell), Image.Resampling.BICUBIC), (corner[1] * self.cell, corner[0] * self.cell))
            cells |= dict.fromkeys(item.labels, corner)
            groups += item.groups or tuple((label,) for label in item.labels)
        return Item(f"mosaic-{place:05d}", whole, tuple(cells), Masks(cells, partial(_mask, self.rows, self.columns, self.cell)), groups if any(len(each) > 1 for each in groups) else ())


def _mask(rows: int, columns: int, cell: int, corner: tuple[int, int]) -> np.ndarray:
    mask = np.zeros((rows * cell, columns * cell), bool)
    mask[corner[0] * cell : (corner[0] + 1) * cell, corner[1] * cell : (corner[1] + 1) * cell] = True
    return mask
