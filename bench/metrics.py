"""Metrics beside quantus and captum, and beside their own forward and backward passes run bare.

Every case judges the gradients of the same photographs by EfficientNet-Lite0; the other libraries get the network's normalised
inputs and its plain gradient, as their users write it. Numbers of passes are counted while ours runs.

    python bench/metrics.py [--photos 8] [--repeats 7]
"""

import argparse
import statistics
import warnings
from collections.abc import Callable
from unittest.mock import patch

import torch
from scipy import stats
from torch import Tensor

import salience as sal
from _photos import photographs
from _timing import interleaved, ratio, report, spread
from peers import normalised


def passes(work: Callable[[], object]) -> dict[str, list[int]]:
    """How many images go through the network at a time, forward alone and forward and backward."""
    counted: dict[str, list[int]] = {"forward": [], "gradient": []}
    forward, gradient = sal.Model._forward, sal.Model.gradient_and_outputs

    def counting_forward(self: sal.Model, images: Tensor) -> object:
        counted["forward"].append(len(images))
        return forward(self, images)

    def counting_gradient(self: sal.Model, images: Tensor, targets: Tensor, score: object = None) -> object:
        counted["gradient"].append(len(images))
        return gradient(self, images, targets, score)

    with patch.object(sal.Model, "_forward", counting_forward), patch.object(sal.Model, "gradient_and_outputs", counting_gradient):
        work()
    return counted


def bare(model: sal.Model, images: Tensor, counted: dict[str, list[int]]) -> None:
    """The same passes of ready images, nothing else."""
    most = max([1, *counted["forward"], *counted["gradient"]])
    batch, targets = images.repeat(-(-most // len(images)), 1, 1, 1), torch.zeros(most, dtype=torch.int64)
    with torch.no_grad():
        for n in counted["forward"]:
            model(batch[:n])
    for n in counted["gradient"]:
        model.gradient(batch[:n], targets[:n])


def main() -> None:
    """One row a metric."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=8, help="photographs judged together")
    parser.add_argument("--repeats", type=int, default=7, help="turns of each case")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    import captum.metrics
    import quantus

    model = sal.load_model()
    images = photographs(options.photos, model).as_subclass(Tensor)
    with model.frozen():
        targets = model.outputs(images).argmax(1)
    plain = sal.load_model().module.to(memory_format=torch.contiguous_format).eval()
    inputs = normalised(images, model.mean, model.std, model.value_range)
    e = sal.Gradient()(model, images, targets)
    scale = (model.std / model.value_range).squeeze(0)
    theirs = e.maps * scale  # the gradient with respect to normalised inputs
    x, y, a = inputs.numpy(), targets.numpy(), theirs.abs().sum(1, keepdim=True).numpy()

    def gradients(model: torch.nn.Module, inputs: object, targets: object, **_: object) -> object:
        with torch.enable_grad():
            each = torch.as_tensor(inputs).clone().requires_grad_(True)
            return torch.autograd.grad(model(each).gather(1, torch.as_tensor(targets)[:, None]).sum(), each)[0].abs().sum(1, keepdim=True).numpy()

    def quiet(metric: type, **arguments: object) -> Callable[[], object]:
        made = metric(disable_warnings=True, display_progressbar=False, **arguments)
        return lambda: made(model=plain, x_batch=x, y_batch=y, a_batch=a, explain_func=gradients, device="cpu", batch_size=8)

    def judged(metric: str, maps: object = e) -> Callable[[], Tensor]:
        return lambda: sal.measure(metric, model, images, None, maps, explainer="gradient", score="logit")

    def removed(inputs: Tensor) -> tuple[Tensor, Tensor]:
        """One random square of each picture, as captum's infidelity asks for it."""
        square = torch.zeros_like(inputs)
        for each in square:
            top, left = torch.randint(0, 224 - 28, (2,))
            each[:, top : top + 28, left : left + 28] = 1
        return square * inputs, inputs * (1 - square)

    steps = 28
    cases = {
        "gini": (judged("gini"), quiet(quantus.Sparseness, abs=True, normalise=False)),
        "faithfulness_correlation, 100 sets of 224 pixels": (
            judged("faithfulness_correlation:samples=100,reduction=abs_sum"),
            quiet(quantus.FaithfulnessCorrelation, nr_runs=100, subset_size=224, return_aggregate=False, abs=False, normalise=False),
        ),
        "deletion / pixel flipping, 28 steps": (
            judged(f"deletion:steps={steps}"),
            quiet(quantus.PixelFlipping, features_in_step=224 * 224 // steps, abs=False, normalise=False),
        ),
        "max_sensitivity, 10 samples (captum)": (
            judged("max_sensitivity:samples=10"),
            lambda: captum.metrics.sensitivity_max(
                lambda each, target: (torch.from_numpy(gradients(plain, each[0].detach(), target)),), (inputs,), perturb_radius=0.2, n_perturb_samples=10, target=targets
            ),
        ),
        "max_sensitivity, 10 samples (quantus)": (judged("max_sensitivity:samples=10"), quiet(quantus.MaxSensitivity, nr_samples=10, abs=False, normalise=False)),
        "infidelity, 100 squares (captum)": (
            judged("infidelity:samples=100"),
            lambda: captum.metrics.infidelity(plain, removed, inputs, theirs, target=targets, n_perturb_samples=100, max_examples_per_batch=16, normalize=True),
        ),
        "parameter_randomisation, every module (quantus MPRT)": (
            judged("parameter_randomisation:steps=none"),
            quiet(quantus.MPRT, layer_order="top_down", return_average_correlation=True, similarity_func=quantus.similarity_func.correlation_spearman, normalise=False),
        ),
    }
    rows, figures = [], {}
    total = {"ours": 0.0, "theirs": 0.0}
    for name, (ours, peer) in cases.items():
        counted = passes(ours)
        times = interleaved({"ours": ours, "bare": lambda counted=counted: bare(model, images, counted), "theirs": peer}, options.repeats)
        figures[name] = times | {"passes": counted}
        for who in total:
            total[who] += statistics.median(times[who])
        counts = f"{sum(counted['forward'])} + {sum(counted['gradient'])}"
        rows.append([name, counts, *(spread(times[who]) for who in ("ours", "bare", "theirs")), spread(ratio(times["bare"], times["ours"])), spread(ratio(times["theirs"], times["ours"]))])
    rows.append(["all, medians added up (3 or more)", "", f"{total['ours']:.2f}", "", f"{total['theirs']:.2f}", "", f"{total['theirs'] / total['ours']:.2f}"])
    columns = ["metric", "passes: forward + gradient", "ours, seconds", "bare passes", "theirs", "bare / ours (0.87 or more)", "theirs / ours (1 or more)"]
    report("metrics", f"Metrics of {len(images)} gradients, EfficientNet-Lite0", columns, rows, figures)
    agreement(images, targets, model, x, y, a, plain, quantus)


def agreement(images: Tensor, targets: Tensor, model: sal.Model, x: object, y: object, a: object, plain: torch.nn.Module, quantus: object) -> None:
    """Where theirs are right the numbers must be the same."""
    saliency = torch.from_numpy(a)
    ours = sal.measure("gini", model, images, targets, saliency)
    theirs = quantus.Sparseness(disable_warnings=True, abs=True, normalise=True)(model=plain, x_batch=x, y_batch=y, a_batch=a, device="cpu")
    print(f"gini: ours {[round(v, 4) for v in ours.tolist()]}, quantus {[round(float(v), 4) for v in theirs]}")
    first, second = saliency[0].flatten(), saliency[-1].flatten()
    print(f"spearman: ours {sal.similarity('spearman', saliency[:1], saliency[-1:]).item():.6f}, scipy {stats.spearmanr(first, second)[0]:.6f}")


if __name__ == "__main__":
    main()
