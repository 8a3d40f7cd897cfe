"""The result of an explainer: maps, their errors, and the record of how they were made."""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from salience.core.errors import InputError
from salience.core.files import atomic, finite
from salience.core.montecarlo import DREW, jackknife, level_stderr, relative_error
from salience.core.reduction import reduce
from salience.core.types import Images, Maps, PerImage, Saliency, Targets

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMAT = 1


@dataclass(frozen=True, eq=False)
class Explanation:
    """Signed maps of n images, with a standard error where the method is random.

    Attributes:
        maps: (n, c, h, w) or (n, 1, h, w), in score units per unit of pixel value for gradients.
        stderr: Standard error of every value of `maps`; None for a deterministic method, or one that draws but does not know its error.
        df: Degrees of freedom of the errors, (n,); None for a deterministic method.
        samples: Draws used for each image, (n,); 0 for a deterministic method.
        converged: Whether the tolerance was reached, (n,); None without a tolerance.
        targets: Class index explained, (n,).
        method: The method's specification: given back to `explain` it makes the same map.
        score: Name of the score explained.
        record: Everything needed to make the maps again, and what was noted on the way.
        images: The images explained, (n, c, h, w) in [0, 1]; None after loading from a file.
        blocks: Up to 20 block estimates (b, n, c, h, w), for the error of non-linear steps.
        counts: Draws in each block, (b, n).
        retarget: The explanation of other targets, in any form that `explain` takes, from the same draws; None where there are no scores for it.
    """

    maps: Maps
    stderr: Tensor | None
    df: Tensor | None
    samples: Tensor
    converged: Tensor | None
    targets: Targets
    method: str
    score: str
    record: dict[str, Any]
    images: Images | None = None
    blocks: Tensor | None = None
    counts: Tensor | None = None
    retarget: Callable[[Any], "Explanation"] | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        """Method, score and shape, not the numbers."""
        errors = self.relative_error
        error = self.certainty if errors is None else f"relative error {', '.join(f'{each:.3g}' for each in errors.tolist())}"
        return f"<Explanation of {len(self.maps)} image(s) by {self.method}: maps {tuple(self.maps.shape)}, {self.score} of {self.targets.tolist()}, {error}>"

    def __getstate__(self) -> dict[str, Any]:
        """For pickles and copies: everything but the way back to the model."""
        return self.__dict__ | {"retarget": None}

    def __len__(self) -> int:
        """Number of images."""
        return len(self.maps)

    def __getitem__(self, index: Any) -> "Explanation":
        """The explanation of one image, or of some of them.

        Args:
            index: The number of an image, or a slice.

        Raises:
            InputError: If it is neither.
            IndexError: If there is no such image.
        """
        if isinstance(index, slice):
            part = index
        elif isinstance(index, int | np.integer) and not isinstance(index, bool):
            if not -len(self) <= index < len(self):
                raise IndexError(f"There are {len(self)} images, so no image {index}.")
            part = slice(int(index), int(index) + 1 or None)
        else:
            raise InputError(f"Images are taken by number or slice, not by {type(index).__name__}: write e[1], or e[1:3] for several.")
        cut = {name: getattr(self, name)[part] for name in ("maps", "samples", "targets")}
        cut |= {name: None if getattr(self, name) is None else getattr(self, name)[part] for name in ("stderr", "df", "converged", "images")}
        cut |= {name: None if getattr(self, name) is None else getattr(self, name)[:, part] for name in ("blocks", "counts")}
        per_image = {key: values[part] for key, values in self.record["images"].items()}
        return dataclasses.replace(self, **cut, record=self.record | {"images": per_image}, retarget=None)

    @property
    def relative_error(self) -> PerImage | None:
        """Mean standard error as a share of the map's spread (noise taken off), (n,); None if deterministic."""
        if self.stderr is None:
            return None
        if self.blocks is not None and self.counts is not None:
            return relative_error(self.maps, self.stderr, level_stderr(self.maps, self.blocks, self.counts))
        kept = self.record["images"].get("relative_error")  # files of earlier versions lack it
        own = relative_error(self.maps, self.stderr, torch.zeros(len(self)))
        if kept is None:
            return own
        return torch.where(own.isnan(), own, torch.tensor([math.inf if each is None else each for each in kept]))  # a file has null for both

    def interval(self, level: float = 0.95) -> tuple[Maps, Maps]:
        """Lower and upper end of each value's confidence interval, by Student's t.

        Args:
            level: Confidence, between 0 and 1.

        Raises:
            InputError: If the method is deterministic, or the level is not between 0 and 1.
        """
        from scipy.stats import t

        if self.stderr is None or self.df is None:
            raise InputError(f"{self.method} is {self.certainty}, so its map has no confidence interval.")
        if not 0 < level < 1:
            raise InputError(f"level must lie between 0 and 1, not {level}.")
        width = torch.as_tensor(t.ppf((1 + level) / 2, self.df.numpy()), dtype=self.maps.dtype)[:, None, None, None] * self.stderr
        return self.maps - width, self.maps + width

    def saliency(self, how: str = "abs_sum") -> Saliency:
        """The maps reduced over channels: ``sum``, ``abs_sum``, ``abs_max`` or ``l2``; (n, h, w).

        The absolute value of a noisy mean is biased upward, by about its standard error where the
        true value is near zero.
        """
        return reduce(self.maps, how)

    def saliency_stderr(self, how: str = "abs_sum") -> Saliency:
        """Standard error of `saliency`, by a jackknife over blocks of draws, (n, h, w).

        Raises:
            InputError: If the method is deterministic, or the explanation was saved without its blocks.
        """
        return self.stderr_of(lambda maps: reduce(maps, how))

    def stderr_of(self, statistic: Callable[[Tensor], Tensor]) -> Tensor:
        """Standard error of any statistic of the maps, by a jackknife over blocks of draws, (n, ...).

        Args:
            statistic: From maps (..., c, h, w) to what is wanted of each, (..., *rest).

        Raises:
            InputError: As `saliency_stderr`.
        """
        blocks, counts = self._blocks()
        weights = counts.to(blocks)[..., None, None, None]
        total = weights.sum(0)
        without = (total * self.maps - weights * blocks) / (total - weights)
        return jackknife(statistic(self.maps), statistic(without), counts)[0]

    def _blocks(self) -> tuple[Tensor, Tensor]:
        """The estimates of blocks of draws and how many draws are in each, if they are there."""
        if self.stderr is None:
            raise InputError(f"{self.method} is {self.certainty}, so its saliency has no standard error.")
        if self.blocks is None or self.counts is None:
            raise InputError("This explanation was saved without its blocks, which this error needs: save it with e.save(path, blocks=True).")
        return self.blocks, self.counts

    @property
    def certainty(self) -> str:
        """What is known of the sampling error, in words."""
        if self.stderr is not None:
            return "random, with a known error"
        return "random, with an error that is not known" if any(self.record["images"].get(DREW, ())) else "deterministic"

    @property
    def saliency_df(self) -> PerImage:
        """Degrees of freedom of `saliency_stderr`, (n,): the blocks of draws less one.

        Raises:
            InputError: As `saliency_stderr`.
        """
        return (self._blocks()[1] > 0).sum(0).float() - 1

    def for_target(self, target: Any) -> "Explanation":
        """The explanation of another class from the same draws, without any forward pass.

        Args:
            target: As for `explain`: class index or name, one for all images or one each; None takes the predicted class.

        Raises:
            InputError: If the method does not score all classes at once, this is part of an explanation or
                was loaded from a file, or there is no such class.
        """
        if self.retarget is None:
            raise InputError(
                f"There are no scores of other classes here: {self.method} computes one class at a time, or this is a part of an explanation, or from a file: call explain again with targets={target!r}."
            )
        return self.retarget(target)

    def show(self) -> "Figure":
        """A matplotlib figure: image, map and, for random methods, the error of the map."""
        from salience.show.figures import figure

        return figure(self)

    def _repr_png_(self) -> bytes:
        """How Jupyter displays it."""
        from salience.show.figures import png

        return png(self)

    def save(self, path: str | Path, *, blocks: bool = False) -> None:
        """Write maps, errors and the record to an ``.npz`` file without pickles, whole or not at all.

        Args:
            path: The file, ``*.npz``.
            blocks: Also store the block estimates, which `saliency_stderr` needs (up to 20 times larger).

        Raises:
            InputError: If it cannot be written.
        """
        if Path(path).suffix != ".npz":
            raise InputError(f"Maps are kept as .npz, not as {Path(path).name}: e.save('map.npz') keeps the maps, e.show().savefig('map.png') a picture of them.")
        arrays: dict[str, Any] = {"map": self.maps, "stderr": self.stderr, "df": self.df}
        arrays |= {"blocks": self.blocks, "counts": self.counts} if blocks else {}
        record = self.record | {"format": FORMAT, "method": self.method, "score": self.score}
        record["images"] = record["images"] | {"target": self.targets.tolist(), "samples": self.samples.tolist()}
        if self.converged is not None:
            record["images"]["converged"] = self.converged.tolist()
        if (errors := self.relative_error) is not None:
            record["images"]["relative_error"] = errors.tolist()
        text = json.dumps(finite(record), allow_nan=False)
        with atomic(path) as file:
            np.savez_compressed(file, record=np.array(text), **{key: value.numpy() for key, value in arrays.items() if value is not None})

    @classmethod
    def load(cls, path: str | Path) -> "Explanation":
        """Read what `save` wrote.

        Raises:
            InputError: If the file is missing, damaged, or from a later version.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {key: torch.from_numpy(file[key]) for key in file.files if key != "record"}
                record = json.loads(str(file["record"]))
            if record["format"] > FORMAT:
                raise InputError(f"{path} has format {record['format']}, which this version cannot read: install a later salience.")
            _check_shapes(arrays)
            facts = dict(record["images"])
            converged = facts.pop("converged", None)
            return cls(
                maps=arrays["map"],
                stderr=arrays.get("stderr"),
                df=arrays.get("df"),
                samples=torch.tensor(facts.pop("samples")),
                converged=None if converged is None else torch.tensor(converged),
                targets=torch.tensor(facts.pop("target")),
                method=record["method"],
                score=record["score"],
                record=record | {"images": facts},
                blocks=arrays.get("blocks"),
                counts=arrays.get("counts"),
            )
        except InputError:
            raise
        except FileNotFoundError as error:
            raise InputError(f"{path} does not exist: check the path.") from error
        except Exception as error:  # numpy raises many kinds for damaged files; each means the same to the user
            raise InputError(f"{path} is not an explanation saved by salience ({type(error).__name__}): give a file written by e.save().") from error


def _check_shapes(arrays: Mapping[str, Tensor]) -> None:
    """Refuse arrays that are not those of an explanation.

    Raises:
        ValueError: If a shape is not that of maps (n, c, h, w) or does not fit them.
    """
    maps = arrays["map"]
    expected = {"stderr": maps.shape, "df": maps.shape[:1], "blocks": (*arrays["blocks"].shape[:1], *maps.shape) if "blocks" in arrays else None}
    if maps.ndim != 4 or any(key in arrays and tuple(arrays[key].shape) != tuple(shape) for key, shape in expected.items() if shape is not None):
        raise ValueError("shapes")
