"""Attacks: how far they get in 100 steps beside random changes of the same budget, and how fast a step is.

python bench/attack.py              ten photographs, some minutes on 2 cores
python bench/attack.py --steps 0    the speed alone
python bench/attack.py --together   also all three threats at once
"""

import argparse

import torch

import salience as sal
from _photos import photographs
from _timing import interleaved, ratio, report, spread
from salience.attacks._optimiser import descend, without_denormals
from salience.attacks._problem import Problem
from salience.core.classifier import Tape
from salience.core.draws import streams
from salience.core.objective import shares
from salience.perturb.relu import ReplaceReLU, softplus


def reach(model: sal.Model, photos: int, steps: int, threat: str) -> None:
    """The plain gradient, the authors' budgets, toward the map of the next photograph, and whether what was asked for is reached."""
    images = photographs(photos, model)
    found = sal.attack(model, images, images.roll(1, 0), threat=threat, steps=steps)
    rows = []
    for i, label in enumerate(found.labels):
        before, after = (float(each[i]) for each in (found.distance_to_target_before, found.distance_to_target_after))
        kept = "yes" if found.class_kept[i] else "no"
        rows.append([label, f"{found.probability_before[i]:.2f}", kept, f"{before:.3f}", f"{after:.3f}", f"{found.fall[i]:.0%}", f"{found.random_fall[i]:.0%}"])
    sure = found.probability_before >= 0.5
    fall, luck = float(found.fall.quantile(0.5)), float(found.random_fall.quantile(0.5))
    rows.append(["median", "", f"{int(found.class_kept.sum())} of {photos}", "", "", f"{fall:.0%}", f"{luck:.0%}"])
    asked = {
        "fall of 65 % or more": (fall >= 0.65, "fall", fall),
        "random changes: less than a quarter of it": (luck < fall / 4, "random", luck),
        f"class kept where the clean probability is at least 0.5 ({int(sure.sum())} photographs)": (bool(found.class_kept[sure].all()), "kept", float(found.class_kept[sure].float().mean())),
    }
    for requirement, (met, column, value) in asked.items():
        cells = [f"{value:.0%}" if column == each else "" for each in ("kept", "before", "after", "fall", "random")]
        rows.append([f"asked for: {requirement}: {'met' if met else 'NOT met'}", "", *cells])
    figures = {"fall": found.fall.tolist(), "random_fall": found.random_fall.tolist(), "kept": found.class_kept.tolist(), "probability": found.probability_before.tolist()}
    figures |= {"met": {requirement: met for requirement, (met, *_) in asked.items()}, "ssim": found.ssim.tolist()}
    budgets = ", ".join(f"{each.name} {each.budget}" for each in found.attack.threats)
    name = "attack_reach" if threat == "delta" else f"attack_reach_{threat.replace('+', '_')}"
    title = f"Attack on the gradient, {budgets}, {steps} steps, cosine distance to the target map"
    report(name, title, ["class", "probability", "kept", "before", "after", "fall", "random fall (median of 20)"], rows, figures)


def speed(model: sal.Model) -> None:
    """A step of the optimiser beside the forward, backward and second backward pass that it needs."""
    n = model.images_at_once((224, 224))
    images = photographs(n, model)
    outputs = model.outputs(images)
    view = model.using(score=model.named_score("logit"))
    targets, weights = outputs.argmax(1), torch.rand_like(images)
    aim = shares(view.gradient(images.roll(1, 0), targets))

    attack = sal.Attack(steps=1).aiming(True)
    problem = Problem(attack, view, images, targets, aim, aim, streams(0, n))

    def step() -> None:
        descend(attack.threats, images, [torch.zeros_like(images)], problem.loss, 1, lambda done: None)

    def bare() -> None:
        inputs = images.clone().requires_grad_(True)
        with ReplaceReLU(lambda x, ceiling: softplus(x, ceiling, 100.0)):
            gradient, found = view.using(tape=Tape(n)).gradient_and_outputs(inputs, targets)
        torch.autograd.grad((gradient * weights).sum() + found.sum(), inputs)

    def torchs() -> None:
        inputs = images.clone().requires_grad_(True)
        with ReplaceReLU(lambda x, ceiling: torch.nn.functional.softplus(x * 100) / 100 - torch.nn.functional.softplus((x - ceiling) * 100) / 100):
            (gradient,) = torch.autograd.grad(model(inputs).gather(1, targets[:, None]).sum(), inputs, create_graph=True)
        torch.autograd.grad((gradient * weights).sum(), inputs)

    with model.frozen(), without_denormals():
        times = interleaved({"a step": step, "bare passes": bare, "the same by torch's own derivatives": torchs})
    rows = [[name, spread(seconds), spread(ratio(seconds, times["a step"]))] for name, seconds in times.items()]
    report("attack_speed", f"One step of an attack on {n} photographs at 224 px (asked for: bare passes 0.87 or more)", ["case", "seconds, median (range)", "times a step"], rows, {"seconds": times})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=10, help="photographs")
    parser.add_argument("--steps", type=int, default=100, help="steps of the optimiser; 0 leaves the reach out")
    parser.add_argument("--together", action="store_true", help="also attack by delta, stadv and recolor together, at the authors' budgets")
    options = parser.parse_args()
    network = sal.load_model()
    speed(network)
    if options.steps:
        for threat in ("delta", "delta+stadv+recolor")[: 1 + options.together]:
            reach(network, options.photos, options.steps, threat)
