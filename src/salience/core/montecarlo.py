"""The Monte-Carlo engine: draws, chunks, averages, estimates its own error, stops when told to.

Every stochastic method of the papers is an expectation. A method says what one draw is; the rest is here.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from salience.core.classifier import Classifier
from salience.core.types import Maps, PerImage, Targets

BLOCKS = 20
"""Draw i belongs to block i modulo 20; block means give the error of non-linear steps."""

DREW = "drew"
"""Noted, as 1, by methods that draw at random without knowing their error."""

FIRST_CHECK = 50
"""With a tolerance the error is looked at after 50, 100, 200, 400, ... draws, so that no result depends on the chunk."""


@dataclass
class Attribution:
    """What one call of an explainer returns.

    Attributes:
        maps: (n, c, h, w), or (n, 1, h, w).
        outputs: The network's outputs (n, k) at the explained images, if the method had to compute them.
        notes: Facts worth recording, one number an image each, averaged over draws.
    """

    maps: Maps
    outputs: Tensor | None = None
    notes: dict[str, Shaped[Tensor, " n"]] = field(default_factory=dict)


@dataclass
class Draws:
    """What a method makes for the engine: some draws for some images.

    Attributes:
        values: (draws, images, ...), what is averaged or collected.
        notes: Facts worth recording, (draws, images) each; their averages end up in the record.
    """

    values: Float[Tensor, "draws images *rest"]
    notes: dict[str, Float[Tensor, "draws images"]] = field(default_factory=dict)


@dataclass(frozen=True)
class Estimate:
    """A map and what is known of its error.

    Attributes:
        maps: (n, c, h, w).
        stderr: Standard error of each value, same shape; NaN with a single draw.
        df: Degrees of freedom of the standard error, (n,).
        blocks: Up to 20 block estimates, (b, n, c, h, w), whose mean weighted by `counts` is the map
            (for a non-linear statistic: its jackknife pseudo-values).
        counts: Draws in each block, (b, n).
    """

    maps: Tensor
    stderr: Tensor
    df: Tensor
    blocks: Tensor
    counts: Tensor


@runtime_checkable
class Accumulator(Protocol):
    """Takes draws in, gives an `Estimate` at any time."""

    def add(self, draws: range, active: Tensor, values: Tensor) -> None:
        """Take in values (draws, active images, ...)."""

    def estimate(self, images: Tensor) -> Estimate:
        """The estimate for some of the images, from the draws so far."""


class Moments:
    """Streaming mean and variance per block of draws (Welford's recurrence, so nothing cancels).

    Memory: two numbers a pixel and block, whatever the number of draws.
    """

    def __init__(self, n: int, samples: int) -> None:
        self.n = n
        self.used = min(BLOCKS, samples)
        self.counts = torch.zeros(self.used, n)
        self.mean = self.m2 = torch.empty(0)

    def add(self, draws: range, active: Tensor, values: Tensor) -> None:
        """Take in the maps of some draws.

        Args:
            draws: Numbers of the draws.
            active: Indices (a,) of the images they are for.
            values: (draws, a, c, h, w).
        """
        values = values.float()  # a network in bfloat16 gives some methods' maps in bfloat16
        if not self.mean.numel():
            self.mean = values.new_zeros(self.used, self.n, *values.shape[2:])
            self.m2 = torch.zeros_like(self.mean)
        everything = len(active) == self.n
        for value, draw in zip(values, draws, strict=True):
            block = draw % BLOCKS
            self.counts[block, active] += 1
            count = float(self.counts[block, active[0]])
            mean, m2 = (self.mean[block], self.m2[block]) if everything else (self.mean[block, active], self.m2[block, active])
            delta = value - mean
            mean.add_(delta, alpha=1 / count)
            m2.addcmul_(delta, delta, value=1 - 1 / count)
            if not everything:
                self.mean[block, active], self.m2[block, active] = mean, m2

    def merged(self, images: Tensor, without: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Count (n,), mean and sum of squared deviations (n, c, h, w) of all blocks but one."""
        keep = [block for block in range(self.used) if block != without]
        total = self.counts[keep][:, images].sum(0)
        mean = torch.zeros_like(self.mean[0, images])
        m2 = torch.zeros_like(mean)
        for block in keep:
            share = (self.counts[block, images] / total).to(mean.device)[:, None, None, None]
            mean.addcmul_(share, self.mean[block, images])
        for block in keep:
            count = self.counts[block, images].to(mean.device)[:, None, None, None]
            m2 += self.m2[block, images] + count * (self.mean[block, images] - mean).square()
        return total, mean, m2

    def estimate(self, images: Tensor) -> Estimate:
        """The mean over draws and its standard error, sd / sqrt(draws)."""
        count, mean, m2 = self.merged(images)
        size = count.to(mean.device)[:, None, None, None]
        stderr = (m2 / (size - 1) / size).sqrt()
        return Estimate(mean, stderr, count - 1, self.mean[:, images], self.counts[:, images])


class Mean:
    """The streaming mean alone: all that a method within another method needs."""

    def __init__(self, n: int) -> None:
        self.counts = torch.zeros(n)
        self.mean: Tensor | None = None

    def add(self, draws: range, active: Tensor, values: Tensor) -> None:
        """Take in values (draws, a, ...); the images all have the same number of draws, as nothing stops within a method."""
        self.counts[active] += len(draws)
        new = values.float().mean(0)
        self.mean = new if self.mean is None else torch.lerp(self.mean, new, len(draws) / float(self.counts[0]))

    def estimate(self, images: Tensor) -> Estimate:
        """The mean over draws; its error is not known."""
        assert self.mean is not None
        mean, counts = self.mean[images], self.counts[images]
        return Estimate(mean, mean.new_full((), math.nan).expand_as(mean), counts - 1, mean[None], counts[None])


def jackknife(whole: Tensor, without: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Standard error and pseudo-values of a statistic, from its values with each block left out.

    The delete-a-group jackknife for unequal groups (Busing, Meijer & van der Leeden 1999).

    Args:
        whole: The statistic of all draws, (n, ...).
        without: The statistic without each block, (b, n, ...).
        counts: Draws in each block, (b, n).

    Returns:
        The standard error (n, ...) and the pseudo-values (b, n, ...).
    """
    shape = (*counts.shape, *(1,) * (whole.ndim - 1))
    share = (counts.sum(0) / counts).to(whole).view(shape)
    pseudo = share * whole - (share - 1) * without
    centre = len(counts) * whole - ((1 - 1 / share) * without).sum(0)
    return ((pseudo - centre).square() / (share - 1)).mean(0).sqrt(), pseudo


def level_stderr(maps: Tensor, blocks: Tensor, counts: Tensor) -> PerImage:
    """Standard error of the mean of all values of a map, (n,), from its block estimates, as in `Estimate`."""
    level, of_blocks = maps.flatten(1).mean(1, dtype=torch.float64), blocks.flatten(2).mean(2, dtype=torch.float64)
    weights = counts.to(of_blocks)
    total = weights.sum(0)
    return jackknife(level, (total * level - weights * of_blocks) / (total - weights), counts)[0]


def relative_error(maps: Tensor, stderr: Tensor, level: PerImage) -> PerImage:
    """Mean standard error of a map as a share of the map's own spread.

    The spread is the standard deviation over the map's values with the variance of the noise taken
    off; where nothing is left, or no more than float32 rounds, the error is infinite. Noise that all values share
    moves none against another, so it is not in the spread: the noise there is that of the values less that of their mean.

    Args:
        maps: (n, c, h, w).
        stderr: Of each value.
        level: Standard error of each map's mean, as `level_stderr` gives it.
    """
    values, noise = maps.flatten(1).double(), stderr.flatten(1).double()
    own = noise.square().mean(1) - level.to(noise).square()
    signal = values.var(1, correction=0) - torch.where(own > 0, own, 0.0)  # the NaN of one draw stays in the numerator
    rounding = torch.finfo(torch.float32).eps * values.abs().amax(1)
    return torch.where(signal > rounding.square(), noise.mean(1) / signal.clamp_min(torch.finfo(signal.dtype).tiny).sqrt(), math.inf).float()


def reached(estimate: Estimate, tolerance: float) -> Tensor:
    """Whether the relative error of each map is at most the tolerance, (n,)."""
    level = level_stderr(estimate.maps, estimate.blocks, estimate.counts)
    return (relative_error(estimate.maps, estimate.stderr, level) <= tolerance).cpu()


@dataclass
class Done(Attribution):
    """What a whole call comes to: maps and, for random methods, what is known of their error.

    Attributes:
        estimate: The maps and their errors; None for a deterministic method, or one that draws but does not know its error.
        samples: Draws used, (n,); None where there is no estimate.
        converged: Whether the tolerance was reached, (n,); None without a tolerance.
        retarget: The same for other targets, from the same draws; None where there are no scores for it.
    """

    estimate: Estimate | None = None
    samples: Tensor | None = None
    converged: Tensor | None = None
    retarget: Callable[[Targets], "Done"] | None = None

    def estimated(self, estimate: Estimate, tolerance: float | None) -> "Done":
        """The same draws, with another estimate from them."""
        return replace(self, maps=estimate.maps, estimate=estimate, converged=None if tolerance is None else reached(estimate, tolerance))


@functools.cache
def together(images: int, at_once: int) -> int:
    """Draws of so many images to make together: the fewest that fill passes of `at_once` images to 95 %, or best, in four passes at most."""

    def filled(draws: int) -> float:
        return draws * images / (at_once * -(-draws * images // at_once))

    return max(range(1, max(1, 4 * at_once // images) + 1), key=lambda draws: (min(filled(draws), 0.95), -draws))


def run(
    draw: Callable[[range, Tensor], Draws],
    accumulator: Accumulator,
    *,
    n: int,
    samples: int,
    at_once: int,
    model: Classifier,
    tolerance: float | None = None,
) -> Done:
    """Make draws until there are enough.

    Args:
        draw: From the numbers of some draws and the indices (a,) of the images that still need them
            to `Draws`.
        accumulator: Takes the values in.
        n: Images.
        samples: Draws at most.
        at_once: Images that go through the network at once; draws are made together so that they fill such passes.
        model: Its ``progress`` is told about the draws.
        tolerance: Stop for an image once the relative error of its map is at most this, looked at
            after 50, 100, 200, ... draws. Stopping early favours runs whose error looks small: the
            interval of a stopped map is a little too narrow.
    """
    active = torch.arange(n)
    used = torch.zeros(n, dtype=torch.int64)
    converged = torch.zeros(n, dtype=torch.bool)
    totals: dict[str, Tensor] = {}
    check, done = (FIRST_CHECK if tolerance is not None else samples), 0
    while done < samples and len(active):
        limit = min(check, samples)
        draws = range(done, min(done + together(len(active), at_once), limit))
        result = draw(draws, active)
        accumulator.add(draws, active, result.values)
        for key, values in result.notes.items():
            total = totals.setdefault(key, torch.zeros(n))
            total[active] += values.detach().float().cpu().sum(0)
        done = draws.stop
        used[active] = done
        if tolerance is not None and done == limit:
            good = reached(accumulator.estimate(active), tolerance)
            converged[active] = good
            active = active[~good]
            check *= 2
        if model.progress is not None:
            model.progress(done if len(active) else samples, samples)
    notes = {key: total / used for key, total in totals.items()}
    estimate = accumulator.estimate(torch.arange(n))
    return Done(estimate.maps, None, notes, estimate, used, None if tolerance is None else converged)
