"""RISE: the error of each estimator at 100 to 1000 masks, and how often its intervals cover the truth.

Forward passes are dear, so each photograph gets one long run, whose scores are kept in out/bench/rise/; cut into
disjoint shorter runs, it serves every number of masks. Error: the mean squared difference from the converged map
(the mean of the other runs, whose own variance is taken off), as a share of the converged map's variance over pixels. The
original's is exact: the variance of a single mask's contribution over the number of masks.

    python bench/rise.py                 8 photographs, 10,000 masks each, about half an hour on 2 cores
    python bench/rise.py --photos 20     20 photographs, 20,000 masks each
"""

import argparse
import hashlib
import math
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy import stats
from torch import nn

import salience as sal
from _photos import paths
from _timing import OUT, PRECISIONS, interleaved, ratio, report, spread
from peers import normalised
from peers import rise as authors_rise
from salience.core.draws import streams
from salience.explainers._rise_estimators import Sample, averaged, crossfit, estimate, uncorrected

COUNTS = (100, 250, 500, 1000)
ESTIMATORS = ("crossfit", "surrogate", "centred")
REFERENCE = 4000
KEPT = 40
DATA = Path(os.environ.get("CIFAR", "../shared/data"))


@dataclass
class Case:
    """One image: its long run."""

    name: str
    label: str
    probability: float
    sample: Sample


def long_run(model: sal.Classifier, image: torch.Tensor, masks: int, name: str) -> Case:
    """The scores of many masks, from the disk if they are there. Only the most probable classes are kept."""
    key = hashlib.sha256(f"{model.name} {model.weights_hash()} {masks}".encode() + image.numpy().tobytes()).hexdigest()[:16]
    file = OUT / "rise" / f"{key}.npz"
    source = streams(0, 1)
    target = model.outputs(image[None]).argmax(1)
    bound = model.using(score=model.named_score("probability"))
    collected, _ = sal.Rise(samples=1 if file.exists() else masks, estimator="original").collected(bound, image[None], target, source)
    sample = collected.sample(0, int(target))
    if not file.exists():
        means = sample.scores.mean(0)
        means[target] = math.inf
        kept = means.topk(min(KEPT, len(means))).indices
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, grids=sample.grids.bool(), places=sample.places, scores=sample.scores[:, kept])
    with np.load(file) as saved:
        grids, places, scores = (torch.from_numpy(saved[part]) for part in ("grids", "places", "scores"))
    sample = replace(sample, grids=grids.float(), places=places, scores=scores, target=0)
    return Case(name, model.label(int(target)), float(model.as_probabilities(model.outputs(image[None]))[0, target]), sample)


def cut(total: int, count: int, most: int) -> list[torch.Tensor]:
    """Disjoint runs of some masks; if there are fewer than 20, those of a second partition too."""
    orders = [torch.arange(total)]
    if total // count < 20:
        orders.append(torch.randperm(total, generator=torch.Generator().manual_seed(count)))
    return [order[start : start + count] for order in orders for start in range(0, total - count + 1, count)][:most]


@dataclass
class Measured:
    """What the runs of one estimator and number of masks say."""

    error: float
    covered: float
    claimed: float
    runs: int


def measure(case: Case, count: int, most: int) -> dict[str, Measured]:
    """All estimators on the same runs."""
    runs = cut(len(case.sample.f), count, most)
    found = {}
    samples = [replace(case.sample.part(run), stream=streams(seed, 1)[0]) for seed, run in enumerate(runs)]
    fits = [crossfit(sample) for sample in samples]
    estimates = {"crossfit": map(averaged, fits, samples), "surrogate": map(averaged, map(uncorrected, fits, samples), samples), "centred": (estimate("centred", sample) for sample in samples)}
    for name, each_run in estimates.items():
        made = list(each_run)
        maps, errors = (torch.stack([getattr(each, what)[0, 0] for each in made]) for what in ("maps", "stderr"))
        if name == "crossfit":
            others = (maps.sum(0) - maps) / (len(maps) - 1)  # what every estimator is held against: unbiased
            doubt = errors.square().mean(0) / (len(maps) - 1)
            spread = maps.var(0).mean() / (len(maps) - 1)
        limit = torch.as_tensor(stats.t.ppf(0.975, count - 1)) * (errors.square() + doubt).sqrt()
        covered = ((maps - others).abs() <= limit).float().mean().item()
        found[name] = Measured(((maps - others).square().mean() - spread).item(), covered, errors.square().mean().item(), len(runs))
    return found


def needed(errors: dict[int, float], wanted: float) -> float:
    """Masks at which the error falls to what is wanted, between or beyond the measured numbers (log-log)."""
    x, y = np.log(list(errors)), np.log(list(errors.values()))
    for i in range(len(x) - 1):
        if y[i + 1] <= math.log(wanted) or i == len(x) - 2:
            break
    else:
        i = 0
    slope = (y[i + 1] - y[i]) / (x[i + 1] - x[i])
    return float(np.exp(x[i] + (math.log(wanted) - y[i]) / min(slope, -0.5)))


def photograph(case: Case) -> dict[str, Any]:
    """All figures of one photograph."""
    whole, one = estimate("crossfit", case.sample), estimate("original", case.sample)
    variance = (whole.maps.var() - whole.stderr.square().mean()).item()
    per_mask = one.stderr.square().mean().item() * len(case.sample.f)
    results = {count: measure(case, count, 30) for count in COUNTS}
    curve = {count: each["crossfit"].error for count, each in results.items()}
    return {
        "photograph": case.name,
        "class": case.label,
        "probability": case.probability,
        "map_variance": variance,
        "original": {count: per_mask / count / variance for count in (*COUNTS, REFERENCE)},
        "errors": {name: {count: each[name].error / variance for count, each in results.items()} for name in ESTIMATORS},
        "of_original": {name: {count: each[name].error / (per_mask / count) for count, each in results.items()} for name in ESTIMATORS},
        "claimed_of_original": {count: each["crossfit"].claimed / (per_mask / count) for count, each in results.items()},
        "covered": {name: {count: each[name].covered for count, each in results.items()} for name in ESTIMATORS},
        "runs": {count: each["crossfit"].runs for count, each in results.items()},
        "needed": needed(curve, per_mask / REFERENCE),
    }


def quartiles(values: list[float]) -> str:
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
    return f"{middle:.3g} ({low:.3g}-{high:.3g})"


def photographs(count: int, masks: int, workers: int) -> float:
    """Errors and coverage on photographs, with the default model in float32; the median of the masks needed."""
    model = sal.load_model("efficientnet-lite0")
    chosen = list(dict.fromkeys(paths(count)))
    cases = []
    for number, path in enumerate(chosen):
        with model.frozen():
            cases.append(long_run(model, sal.load_images([path], model)[0], masks, Path(path).name))
        print(f"{number + 1}/{len(chosen)} {cases[-1].name}: {cases[-1].label}, {cases[-1].probability:.3f}", flush=True)
    found = _in_parallel(photograph, cases, workers)
    rows = []
    for each in found:
        errors = [f"{each['original'][n]:.3g} / {each['of_original']['crossfit'][n]:.3f}" for n in COUNTS]
        rows.append([each["photograph"], f"{each['probability']:.2f}", *errors, f"{each['original'][REFERENCE]:.3g}", f"{each['needed']:.0f}"])
    for name in ESTIMATORS:
        rows.append([f"all: {name}, share of the original's error", "", *(quartiles([each["of_original"][name][n] for each in found]) for n in COUNTS), "", ""])
    rows.append(["all: crossfit's share by its own standard errors", "", *(quartiles([each["claimed_of_original"][n] for each in found]) for n in COUNTS), "", ""])
    rows.append(["all: worst photograph (at most 1.02)", "", *(f"{max(each['of_original']['crossfit'][n] for each in found):.3f}" for n in COUNTS), "", ""])
    for name in ("crossfit", "surrogate"):
        rows.append([f"all: covered by the 95 % interval, {name}", "", *(f"{np.mean([each['covered'][name][n] for each in found]):.3f}" for n in COUNTS), "", ""])
    rows.append(["all: masks for the error of 4000 original ones", "", "", "", "", "", "", quartiles([each["needed"] for each in found])])
    columns = ["photograph", "p", *(f"{n}: original's error / crossfit's share of it" for n in COUNTS), f"original, {REFERENCE}", "masks needed"]
    report("rise", f"RISE on {len(found)} photographs, {masks} masks each: error as a share of the map's variance", columns, rows, {"photographs": found})
    return float(np.median([each["needed"] for each in found]))


def time_to_error(needed: float) -> None:
    """Seconds to the error of the original at 4000 masks: the authors' procedure, and ours with the masks it needs."""
    model, fast = sal.load_model(), sal.load_model(precision="bfloat16")
    image = sal.load_images(paths(1), model).as_subclass(torch.Tensor)
    plain = sal.load_model().module.to(memory_format=torch.contiguous_format)
    inputs = normalised(image, model.mean, model.std, model.value_range)
    masks, few = math.ceil(needed), 400
    times = interleaved({"authors": lambda: authors_rise(plain, inputs, few), "float32": lambda: sal.Rise(samples=masks)(model, image), "bfloat16": lambda: sal.Rise(samples=masks)(fast, image)}, 7)
    theirs = [each * REFERENCE / few for each in times["authors"]]
    rows = [[f"authors' procedure, {REFERENCE} masks (from {few}: its cost is in proportion)", spread(theirs, 1), "", ""]]
    for precision, wanted in zip(PRECISIONS, ("10 or more", "25 or more"), strict=False):
        rows.append([f"ours, {masks} masks, {precision}", spread(times[precision], 1), spread(ratio(theirs, times[precision]), 1), wanted])
    report("rise_time", f"RISE: time to the error of the original at {REFERENCE} masks", ["case", "seconds, median (range)", "times faster", "asked for"], rows, {"seconds": times})


class ResNet20(nn.Module):
    """He et al. (2016), section 4.2, for 32 x 32 images; shortcuts without parameters. Names as in published weights."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1, self.linear = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.Linear(64, 10)
        widths = (16, 16, 32, 64)
        self.layer1, self.layer2, self.layer3 = (nn.Sequential(*(Block(widths[i - 1] if j == 0 else widths[i], widths[i]) for j in range(3))) for i in (1, 2, 3))

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        return self.linear(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))


class Block(nn.Module):
    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        self.step, self.more = (2, width - before) if width > before else (1, 0)
        self.conv1, self.bn1 = nn.Conv2d(before, width, 3, self.step, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)

    def forward(self, x):
        short = F.pad(x[:, :, :: self.step, :: self.step], (0, 0, 0, 0, self.more // 2, self.more - self.more // 2))
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + short)


def cifar(file: Path) -> tuple[sal.Model, torch.Tensor]:
    """The network and 20 images, the first two of each class that it gets right."""
    from PIL import Image

    net = ResNet20()
    state = torch.load(file, map_location="cpu", weights_only=True)["state_dict"]
    net.load_state_dict({key.removeprefix("module."): value for key, value in state.items()})
    model = sal.Model(net, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), size=32, name="resnet20")
    with np.load(DATA / "cifar10_jpeg.npz") as data:
        raw, offset, labels = data["jpeg_test"].tobytes(), data["offset_test"], data["y_test"][:400]
    images = [np.array(Image.open(BytesIO(raw[offset[i] : offset[i + 1]]))) for i in range(len(labels))]
    images = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    right = model.outputs(images).argmax(1).numpy() == labels
    return model, images[np.concatenate([np.flatnonzero(right & (labels == label))[:2] for label in range(10)])]


def coverage_of(task: tuple[sal.Model, torch.Tensor, int, int]) -> dict[int, list[float]]:
    """Share of pixels covered, of one image: a list over seeds for each number of masks."""
    model, image, number, seeds = task
    with model.frozen():
        run = long_run(model, image, 10000, f"image {number}").sample
    truth = estimate("crossfit", run)
    bound, target = model.using(score=model.named_score("probability")), model.outputs(image[None]).argmax(1)
    found: dict[int, list[float]] = {n: [] for n in COUNTS[1:]}
    for seed in range(1, seeds + 1):
        with model.frozen():
            collected, _ = sal.Rise(samples=COUNTS[-1], estimator="original").collected(bound, image[None], target, streams(seed, 1))
        sample = collected.sample(0, int(target))
        for n in found:
            each = estimate("crossfit", sample.part(slice(n)))
            limit = stats.t.ppf(0.975, n - 1) * (each.stderr.square() + truth.stderr.square()).sqrt()
            found[n].append(((each.maps - truth.maps).abs() <= limit).float().mean().item())
    return found


def small_network(seeds: int, workers: int) -> None:
    """Coverage on a CIFAR-size network, if its weights are there."""
    file = next(iter(sorted((DATA / "cifar_models").glob("akamaster_resnet20*.th"))), None)
    if file is None or not (DATA / "cifar10_jpeg.npz").exists():
        print(f"No CIFAR network in {DATA}: coverage is measured on the photographs alone.")
        return
    model, images = cifar(file)
    found = _in_parallel(coverage_of, [(model, image, number, seeds) for number, image in enumerate(images)], workers)
    pooled = {n: float(np.mean([each[n] for each in found])) for n in COUNTS[1:]}
    rows = [[str(n), f"{pooled[n]:.4f}", quartiles([float(np.mean(each[n])) for each in found])] for n in pooled]
    report(
        "rise_coverage", f"Coverage of the 95 % interval, ResNet-20, {len(images)} images x {seeds} seeds (0.92 to 0.97)", ["masks", "pooled", "by image: median (quartiles)"], rows, {"covered": found}
    )


def _in_parallel(work, items: list, workers: int) -> list:
    if workers == 1:
        return [work(item) for item in items]
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return list(pool.map(work, items))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=8, help="photographs")
    parser.add_argument("--masks", type=int, help="masks a photograph; 10,000, or 20,000 from 20 photographs on")
    parser.add_argument("--seeds", type=int, help="seeds an image for the coverage on the small network; 4, or 50 from 20 photographs on")
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1), help="processes for the estimates")
    options = parser.parse_args()
    full = options.photos >= 20
    small_network(options.seeds or (50 if full else 4), options.workers)
    time_to_error(photographs(options.photos, options.masks or (20000 if full else 10000), options.workers))
