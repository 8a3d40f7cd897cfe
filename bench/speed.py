"""Speed beside today's usual tools and beside the limit: bare forward and backward passes on the same chunks.

Cases in bfloat16 are left out on processors that have no instructions for it.
"""

import argparse
import statistics
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial

import torch

import salience as sal
from _elsewhere import Elsewhere
from _photos import photographs
from _timing import interleaved, ratio, report, spread
from peers import fusiongrad, noisegrad, normalised, rise, smoothgrad
from salience.core.device import bfloat16_is_fast
from salience.core.draws import Stream
from salience.perturb.weights import WeightNoise

MASKS = 500


def bare_gradients(model: sal.Model, images: torch.Tensor, targets: torch.Tensor, passes: int, *, plain: bool = False) -> None:
    """Forward and backward passes of ready images, normalisation included, nothing else: as quick as in a call of ours, or as PyTorch makes them."""
    step = model.images_at_once(images.shape[-2:])
    batch, wanted = images.repeat(step, 1, 1, 1)[:step], targets.repeat(step)[:step]
    with model.frozen():
        for part in model.chunks(images[:1].expand(passes, -1, -1, -1)):
            n = part.stop - part.start
            if plain:
                model._pass(nullcontext(), batch[:n].detach().requires_grad_(True), wanted[:n], model.bound_score, False)
            else:
                model.gradient(batch[:n], wanted[:n])


def bare_forwards(model: sal.Model, image: torch.Tensor, passes: int, *, plain: bool = False) -> None:
    """Forward passes of ready images, normalisation included, nothing else: as quick as in a call of ours, or as PyTorch makes them."""
    batch = image.repeat(model.images_at_once(image.shape[-2:], gradients=False), 1, 1, 1)
    with torch.no_grad(), model.frozen():
        for part in model.chunks(image.expand(passes, -1, -1, -1), gradients=False):
            (model if plain else model._forward)(batch[: part.stop - part.start])


def bare_noise(model: sal.Model, images: torch.Tensor, targets: torch.Tensor, draws: int, passes: int, *, plain: bool = False) -> None:
    """Draws of weight noise, and under each some forward and backward passes: draws cannot share a pass."""
    noise = WeightNoise(model)
    with model.frozen():
        for draw in range(draws):
            with noise.applied(Stream((0,), (0,)), draw, 0.005):
                bare_gradients(model, images, targets, passes, plain=plain)


def table(name: str, title: str, times: dict[str, list[float]], ours: str, other_rows: dict[str, str]) -> None:
    """Seconds of every case and how many times `ours` is faster, with what was asked for."""
    rows = [[case, spread(seconds), spread(ratio(seconds, times[ours])), other_rows.get(case, "")] for case, seconds in times.items()]
    report(name, title, ["case", "seconds, median (range)", f"times that of: {ours}", "asked for"], rows, {"seconds": times})


def agreement(method: sal.Explainer, model: sal.Model, fast: sal.Model, images: torch.Tensor, targets: torch.Tensor) -> None:
    """How far the maps in bfloat16 are from those in float32 with equal draws, beside the error that both have."""
    if not bfloat16_is_fast():
        return
    exact, rounded = (method(each, images, targets) for each in (model, fast))
    pattern, other = (e.maps - e.maps.mean((1, 2, 3), keepdim=True) for e in (exact, rounded))
    alike = torch.nn.functional.cosine_similarity(pattern.flatten(1), other.flatten(1))
    apart = (pattern - other).flatten(1).norm(dim=1) / pattern.flatten(1).norm(dim=1)
    print(
        f"{exact.method}, bfloat16 and float32, equal draws: patterns correlate {alike.min().item():.4f}, are apart by {apart.max().item():.3f} of their length, "
        f"levels {rounded.maps.mean().item():.3g} and {exact.maps.mean().item():.3g} (the float32 map's own relative error: {exact.relative_error.max().item():.3f})",
        flush=True,
    )


@dataclass
class Setting:
    """What all tables share: the default model in both precisions, photographs with their predictions, and the other tools."""

    model: sal.Model
    fast: sal.Model
    images: torch.Tensor
    inputs: torch.Tensor
    targets: torch.Tensor
    elsewhere: Elsewhere = field(default_factory=Elsewhere)

    @classmethod
    def load(cls) -> "Setting":
        """With eight photographs."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that bfloat16 is slow here: its cases are left out then
            model, fast = sal.load_model(), sal.load_model(precision="bfloat16")
        images = photographs(8, model)
        return cls(model, fast, images, normalised(images, model.mean, model.std, model.value_range), model.outputs(images).argmax(1))


def weight_noise(on: Setting, method: sal.Explainer, authors: Callable, title: str, draws: int, inside: int) -> None:
    """NoiseGrad or FusionGrad of one photograph and of eight: some draws of weights, under each some passes an image."""
    for n, asked in ((1, "1 or more"), (8, "3 or more")):
        images, inputs, targets = on.images[:n], on.inputs[:n], on.targets[:n]
        cases = {
            "ours": partial(method, on.model, images, targets),
            "ours, bfloat16": partial(method, on.fast, images, targets),
            "bare draws + bare gradients": partial(bare_noise, on.model, images, targets, draws, inside * n),
            "bare draws + bare gradients of PyTorch": partial(bare_noise, on.model, images, targets, draws, inside * n, plain=True),
            "authors' procedure": on.elsewhere.case(authors, inputs, targets),
        }
        limits = {"authors' procedure": asked} | dict.fromkeys(("bare draws + bare gradients", "bare draws + bare gradients of PyTorch"), "0.87 or more")
        table(f"{method.name}_{n}", f"{title}, {n} photograph(s)", interleaved(cases), "ours", limits)
        agreement(method, on.model, on.fast, images, targets)


def noisegrad_table(on: Setting) -> None:
    """NoiseGrad beside its authors' procedure."""
    weight_noise(on, sal.NoiseGrad(weight_sigma=0.005), noisegrad, "NoiseGrad, 25 draws of weights", 25, 1)


def fusiongrad_table(on: Setting) -> None:
    """FusionGrad beside its authors' procedure."""
    weight_noise(on, sal.FusionGrad(weight_sigma=0.005), fusiongrad, "FusionGrad, 10 x 10", 10, 10)


def smoothgrad_table(on: Setting) -> None:
    """SmoothGrad beside captum's, at its default and at its best batch."""
    one, target, sigma = on.inputs[:1], int(on.targets[0]), 0.2 * float(on.inputs[0].max() - on.inputs[0].min())
    method = sal.SmoothGrad(samples=50)
    trial = {f"batch {size}": on.elsewhere.case(smoothgrad, one, target, 50, sigma, size) for size in (1, 2, 4, 8, 16)}
    tried = interleaved(trial, 2)
    best = min(trial, key=lambda name: statistics.median(tried[name]))
    default, at_best = "captum NoiseTunnel, default (all at once)", f"captum NoiseTunnel, best ({best})"
    times = interleaved(
        {
            "ours": lambda: method(on.model, on.images[:1], on.targets[:1]),
            "ours, bfloat16": lambda: method(on.fast, on.images[:1], on.targets[:1]),
            "bare gradients": lambda: bare_gradients(on.model, on.images[:1], on.targets[:1], 50),
            "bare gradients of PyTorch": lambda: bare_gradients(on.model, on.images[:1], on.targets[:1], 50, plain=True),
            default: on.elsewhere.case(smoothgrad, one, target, 50, sigma),
            at_best: trial[best],
        }
    )
    table("smoothgrad", "SmoothGrad, 50 samples, one photograph", times, "ours", {default: "4 or more", at_best: "1.4 or more, or bare gradients 0.9 or more"})
    agreement(method, on.model, on.fast, on.images[:1], on.targets[:1])


def rise_table(on: Setting) -> None:
    """RISE beside bare forward passes and its authors' procedure."""
    method, image, target = sal.Rise(samples=MASKS), on.images[:1], on.targets[:1]
    times = interleaved(
        {
            "ours": lambda: method(on.model, image, target),
            "bare forward passes": lambda: bare_forwards(on.model, image, MASKS),
            "bare forward passes of PyTorch": lambda: bare_forwards(on.model, image, MASKS, plain=True),
            "ours, bfloat16": lambda: method(on.fast, image, target),
            "bare forward passes, bfloat16": lambda: bare_forwards(on.fast, image, MASKS),
            "authors' procedure (float64 masks, batch 100)": on.elsewhere.case(rise, on.inputs[:1], MASKS),
        }
    )
    table("rise_speed", f"RISE, {MASKS} masks, one photograph", times, "ours", dict.fromkeys(("bare forward passes", "bare forward passes of PyTorch"), "0.91 or more"))
    agreement(method, on.model, on.fast, image, target)


TABLES = {"smoothgrad": smoothgrad_table, "rise": rise_table, "noisegrad": noisegrad_table, "fusiongrad": fusiongrad_table}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=f"which: {', '.join(TABLES)}; all by default")
    chosen = parser.parse_args().tables or list(TABLES)
    if not set(chosen) <= set(TABLES):
        parser.error(f"tables are {', '.join(TABLES)}, not {' '.join(sorted(set(chosen) - set(TABLES)))}")
    setting = Setting.load()
    for name in chosen:
        TABLES[name](setting)
