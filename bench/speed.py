"""Speed beside today's usual tools and beside the limit: bare forward and backward passes on the same chunks."""

import statistics

import torch

import salience as sal
from _photos import photographs
from _timing import interleaved, ratio, report, spread
from peers import fusiongrad, noisegrad, normalised, rise, smoothgrad
from salience.core.draws import Stream
from salience.perturb.weights import WeightNoise

MASKS = 500


def bare_gradients(model: sal.Model, images: torch.Tensor, targets: torch.Tensor, passes: int) -> None:
    """Forward and backward passes of ready images, normalisation included, nothing else."""
    step = model.images_at_once(images.shape[-2:])
    batch, wanted = images.repeat(step, 1, 1, 1)[:step], targets.repeat(step)[:step]
    with model.frozen():
        for part in model.chunks(images[:1].expand(passes, -1, -1, -1)):
            n = part.stop - part.start
            model.gradient(batch[:n], wanted[:n])


def bare_forwards(model: sal.Model, image: torch.Tensor, passes: int, *, plain: bool = False) -> None:
    """Forward passes of ready images, normalisation included, nothing else: as quick as in a call of ours, or as PyTorch makes them."""
    batch = image.repeat(model.images_at_once(image.shape[-2:], gradients=False), 1, 1, 1)
    with torch.no_grad(), model.frozen():
        for part in model.chunks(image.expand(passes, -1, -1, -1), gradients=False):
            (model if plain else model._forward)(batch[: part.stop - part.start])


def bare_noise(model: sal.Model, images: torch.Tensor, targets: torch.Tensor, draws: int, passes: int) -> None:
    """Draws of weight noise, and under each some forward and backward passes: draws cannot share a pass."""
    noise = WeightNoise(model)
    with model.frozen():
        for draw in range(draws):
            with noise.applied(Stream((0,), (0,)), draw, 0.005):
                bare_gradients(model, images, targets, passes)


def table(name: str, title: str, times: dict[str, list[float]], ours: str, other_rows: dict[str, str]) -> None:
    """Seconds of every case and how many times `ours` is faster, with what was asked for."""
    rows = [[case, spread(seconds), spread(ratio(seconds, times[ours])), other_rows.get(case, "")] for case, seconds in times.items()]
    report(name, title, ["case", "seconds, median (range)", f"times that of: {ours}", "asked for"], rows, {"seconds": times})


def agreement(method: sal.Explainer, model: sal.Model, fast: sal.Model, images: torch.Tensor, targets: torch.Tensor) -> None:
    """How far the maps in bfloat16 are from those in float32 with equal draws, beside the error that both have."""
    exact, rounded = (method(each, images, targets) for each in (model, fast))
    pattern, other = (e.maps - e.maps.mean((1, 2, 3), keepdim=True) for e in (exact, rounded))
    alike = torch.nn.functional.cosine_similarity(pattern.flatten(1), other.flatten(1))
    apart = (pattern - other).flatten(1).norm(dim=1) / pattern.flatten(1).norm(dim=1)
    print(
        f"{exact.method}, bfloat16 and float32, equal draws: patterns correlate {alike.min().item():.4f}, are apart by {apart.max().item():.3f} of their length, "
        f"levels {rounded.maps.mean().item():.3g} and {exact.maps.mean().item():.3g} (the float32 map's own relative error: {exact.relative_error.max().item():.3f})",
        flush=True,
    )


def weight_noise(model: sal.Model, fast: sal.Model, plain: torch.nn.Module, images: torch.Tensor, inputs: torch.Tensor, targets: torch.Tensor, asked: str) -> None:
    """NoiseGrad and FusionGrad of some photographs."""
    n = len(images)
    noise, fusion = sal.NoiseGrad(weight_sigma=0.005), sal.FusionGrad(weight_sigma=0.005)
    limits = {"authors' procedure": asked, "bare draws + bare gradients": "0.87 or more"}
    cases = {
        "ours": lambda: noise(model, images, targets),
        "ours, bfloat16": lambda: noise(fast, images, targets),
        "bare draws + bare gradients": lambda: bare_noise(model, images, targets, 25, n),
        "authors' procedure": lambda: noisegrad(plain, inputs, targets),
    }
    table(f"noisegrad_{n}", f"NoiseGrad, 25 draws of weights, {n} photograph(s)", interleaved(cases), "ours", limits)
    cases = {
        "ours": lambda: fusion(model, images, targets),
        "ours, bfloat16": lambda: fusion(fast, images, targets),
        "bare draws + bare gradients": lambda: bare_noise(model, images, targets, 10, 10 * n),
        "authors' procedure": lambda: fusiongrad(plain, inputs, targets),
    }
    table(f"fusiongrad_{n}", f"FusionGrad, 10 x 10, {n} photograph(s)", interleaved(cases), "ours", limits)
    for method in (noise, fusion):
        agreement(method, model, fast, images, targets)


def main() -> None:
    """All speed tables."""
    model, fast = sal.load_model(), sal.load_model(precision="bfloat16")
    images = photographs(8, model)
    targets = model.outputs(images).argmax(1)
    plain = sal.load_model().module.to(memory_format=torch.contiguous_format)
    inputs = normalised(images, model.mean, model.std, model.value_range)
    one, target, sigma = inputs[:1], int(targets[0]), 0.2 * float(inputs[0].max() - inputs[0].min())

    method = sal.SmoothGrad(samples=50)
    trial = {f"batch {size}": (lambda size=size: smoothgrad(plain, one, target, 50, sigma, size)) for size in (1, 2, 4, 8, 16)}
    tried = interleaved(trial, 2)
    best = min(trial, key=lambda name: statistics.median(tried[name]))
    times = interleaved(
        {
            "ours": lambda: method(model, images[:1], targets[:1]),
            "ours, bfloat16": lambda: method(fast, images[:1], targets[:1]),
            "bare gradients": lambda: bare_gradients(model, images[:1], targets[:1], 50),
            "captum NoiseTunnel, default (all at once)": lambda: smoothgrad(plain, one, target, 50, sigma),
            f"captum NoiseTunnel, best ({best})": trial[best],
        }
    )
    table(
        "smoothgrad",
        "SmoothGrad, 50 samples, one photograph",
        times,
        "ours",
        {"captum NoiseTunnel, default (all at once)": "4 or more", f"captum NoiseTunnel, best ({best})": "1.4 or more, or bare gradients 0.9 or more"},
    )

    agreement(method, model, fast, images[:1], targets[:1])

    method = sal.Rise(samples=MASKS)
    times = interleaved(
        {
            "ours": lambda: method(model, images[:1], targets[:1]),
            "bare forward passes": lambda: bare_forwards(model, images[:1], MASKS),
            "bare forward passes of PyTorch": lambda: bare_forwards(model, images[:1], MASKS, plain=True),
            "ours, bfloat16": lambda: method(fast, images[:1], targets[:1]),
            "bare forward passes, bfloat16": lambda: bare_forwards(fast, images[:1], MASKS),
            "authors' procedure (float64 masks, batch 100)": lambda: rise(plain, one, MASKS),
        }
    )
    table("rise_speed", f"RISE, {MASKS} masks, one photograph", times, "ours", dict.fromkeys(("bare forward passes", "bare forward passes of PyTorch"), "0.91 or more"))
    agreement(method, model, fast, images[:1], targets[:1])

    for n, asked in ((1, "1 or more"), (8, "3 or more")):
        weight_noise(model, fast, plain, images[:n], inputs[:n], targets[:n], asked)


if __name__ == "__main__":
    main()
