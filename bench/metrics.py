"""Metrics beside quantus and captum, and beside their own forward and backward passes run bare.

Every case judges the gradients of the same photographs by EfficientNet-Lite0; the other libraries get the network's normalised
inputs and its plain gradient, as their users write it. Numbers of passes are counted while ours runs.

    python bench/metrics.py [--photos 8] [--repeats 7]
"""

import argparse
import statistics
import warnings
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import captum.metrics
import quantus
import torch
from scipy import stats
from torch import Tensor

import salience as sal
from _elsewhere import Elsewhere, plain_network
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


def gradients(net: torch.nn.Module, inputs: object, targets: object) -> Tensor:
    """The plain gradient's absolute values, channels summed."""
    with torch.enable_grad():
        each = torch.as_tensor(inputs).clone().requires_grad_(True)
        return torch.autograd.grad(net(each).gather(1, torch.as_tensor(targets)[:, None]).sum(), each)[0].abs().sum(1, keepdim=True)


def quantus_metric(net: torch.nn.Module, inputs: Tensor, targets: Tensor, maps: Tensor, name: str, options: dict[str, Any]) -> Any:
    """A metric of quantus as its users call it."""
    metric = getattr(quantus, name)(disable_warnings=True, display_progressbar=False, **options)
    saliency = maps.abs().sum(1, keepdim=True).numpy()
    return metric(model=net, x_batch=inputs.numpy(), y_batch=targets.numpy(), a_batch=saliency, explain_func=explained, device="cpu", batch_size=8)


def explained(model: torch.nn.Module, inputs: object, targets: object, **_: object) -> object:
    """The gradient as quantus asks for it."""
    return gradients(model, inputs, targets).numpy()


def captum_sensitivity(net: torch.nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """Captum's maximum sensitivity of the plain gradient."""
    return captum.metrics.sensitivity_max(lambda each, target: (gradients(net, each[0].detach(), target),), (inputs,), perturb_radius=0.2, n_perturb_samples=10, target=targets)


def captum_infidelity(net: torch.nn.Module, inputs: Tensor, targets: Tensor, maps: Tensor) -> Tensor:
    """Captum's infidelity, with squares removed."""
    return captum.metrics.infidelity(net, removed, inputs, maps, target=targets, n_perturb_samples=100, max_examples_per_batch=16, normalize=True)


def removed(inputs: Tensor) -> tuple[Tensor, Tensor]:
    """One random square of each picture, as captum's infidelity asks for it."""
    square = torch.zeros_like(inputs)
    for each in square:
        top, left = torch.randint(0, 224 - 28, (2,))
        each[:, top : top + 28, left : left + 28] = 1
    return square * inputs, inputs * (1 - square)


def main() -> None:
    """One row a metric."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=8, help="photographs judged together")
    parser.add_argument("--repeats", type=int, default=7, help="turns of each case")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    model = sal.load_model()
    images = photographs(options.photos, model).as_subclass(Tensor)
    with model.frozen():
        targets = model.outputs(images).argmax(1)
    inputs = normalised(images, model.mean, model.std, model.value_range)
    e = sal.Gradient()(model, images, targets)
    maps = e.maps * (model.std / model.value_range).squeeze(0)  # the gradient with respect to normalised inputs
    elsewhere = Elsewhere()

    def of_quantus(metric: str, **options: object) -> Callable[[], object]:
        return elsewhere.case(quantus_metric, inputs, targets, maps, metric, options)

    def judged(metric: str) -> Callable[[], Tensor]:
        return lambda: sal.measure(metric, model, images, None, e, explainer="gradient", score="logit")

    steps = 28
    cases = {
        "gini": (judged("gini:reduction=abs_sum"), of_quantus("Sparseness", abs=True, normalise=False)),
        "faithfulness_correlation, 100 sets of 224 pixels": (
            judged("faithfulness_correlation:samples=100,reduction=abs_sum"),
            of_quantus("FaithfulnessCorrelation", nr_runs=100, subset_size=224, return_aggregate=False, abs=False, normalise=False),
        ),
        "deletion / pixel flipping, 28 steps": (judged(f"deletion:steps={steps}"), of_quantus("PixelFlipping", features_in_step=224 * 224 // steps, abs=False, normalise=False)),
        "max_sensitivity, 10 samples (captum)": (judged("max_sensitivity:samples=10"), elsewhere.case(captum_sensitivity, inputs, targets)),
        "max_sensitivity, 10 samples (quantus)": (judged("max_sensitivity:samples=10"), of_quantus("MaxSensitivity", nr_samples=10, abs=False, normalise=False)),
        "infidelity, 100 squares (captum)": (judged("infidelity:samples=100"), elsewhere.case(captum_infidelity, inputs, targets, maps)),
        "parameter_randomisation, every module (quantus MPRT)": (
            judged("parameter_randomisation:steps=none"),
            of_quantus("MPRT", layer_order="top_down", return_average_correlation=True, similarity_func=quantus.similarity_func.correlation_spearman, normalise=False),
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
    agreement(model, images, inputs, targets, maps)


def agreement(model: sal.Model, images: Tensor, inputs: Tensor, targets: Tensor, maps: Tensor) -> None:
    """Where theirs are right the numbers must be the same."""
    saliency = maps.abs().sum(1, keepdim=True)
    ours = sal.measure("gini", model, images, targets, saliency)
    theirs = quantus_metric(plain_network(), inputs, targets, maps, "Sparseness", {"abs": True, "normalise": True})
    print(f"gini: ours {[round(v, 4) for v in ours.tolist()]}, quantus {[round(float(v), 4) for v in theirs]}")
    first, second = saliency[0].flatten(), saliency[-1].flatten()
    print(f"spearman: ours {sal.similarity('spearman', saliency[:1], saliency[-1:]).item():.6f}, scipy {stats.spearmanr(first, second)[0]:.6f}")


if __name__ == "__main__":
    main()
