"""The card of a trained network: what it was made from, how good it is, and the way back from files to a model."""

import hashlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from salience.core.duration import duration
from salience.core.errors import InputError
from salience.core.model import Model
from salience.core.types import Report
from salience.perturb.tune import tuned_weight_sigma
from salience.training.architecture import Architecture
from salience.training.average_precision import average_precisions
from salience.training.folder import read_tensors, read_training
from salience.training.pgd import EPSILON, pgd
from salience.training.pictures import Pictures
from salience.training.recipe import Recipe

PGD_STEPS, PGD_RESTARTS = 20, 5
TUNED_ON = 200
"""Test pictures on which the weight noise for noisegrad is found."""


def model_of(card: dict[str, Any], tensors: dict[str, Tensor]) -> Model:
    """The network that a card describes, with its weights, in evaluation mode.

    Raises:
        InputError: If the weights do not fit.
    """
    module = Architecture.from_value(card["architecture"]).build()
    load_weights(module, tensors, card["architecture"])
    module = module.eval().to(memory_format=torch.channels_last)
    model = Model(module, mean=card["mean"], std=card["std"], size=card["size"], labels=card["classes"], outputs="multilabel" if Recipe.from_value(card["recipe"]).multilabel else "logits")
    model.crop_fraction = 1.0
    model.carried_weight_sigma = card.get("weight_sigma")
    return model


def load_weights(module: torch.nn.Module, tensors: dict[str, Tensor], what: str) -> None:
    """Put weights into a network, in its own memory order.

    Raises:
        InputError: If they do not fit.
    """
    try:
        module.load_state_dict({key: value.float() if value.is_floating_point() else value for key, value in tensors.items()})
    except RuntimeError as error:
        raise InputError(f"The weights do not fit {what}: give those of the same architecture and width.") from error


def load_trained(card: Path, weights: Path) -> Model:
    """A trained network from its card and its weights.

    Raises:
        InputError: If a file is missing, damaged, or not the one that belongs to the other.
    """
    found = read_training(card)
    if found is None:
        raise InputError(f"There is no trained network in {card.parent}: give a folder that 'salience train' wrote to its end, or finish it with --resume.")
    tensors = read_tensors(weights)
    if hashlib.sha256(weights.read_bytes()).hexdigest() != found["sha256"]:
        raise InputError(f"{weights} is not the file that {card.name} was written for: restore both.")
    return model_of(found, tensors)


def judged(model: Model, test: Pictures, *, attacked: int, seed: int, report: Report | None = None) -> dict[str, Any]:
    """How good a network is on test pictures, for its card.

    Args:
        model: The network.
        test: The test pictures.
        attacked: How many of them, as `Pictures.some` chooses them, are attacked by PGD; 0 for none.
        seed: Seed of the attack's starts.
        report: Told how far it is.

    Returns:
        ``accuracy`` with its 95 % interval (Wilson), or the mean average precision with that of the jackknife where an image may have several
        classes; ``pgd``, the accuracy under attack, or None; ``weight_sigma`` for noisegrad, or None.
    """
    if report is not None:
        report("testing", 0, None)

    outputs = torch.cat([model.outputs(test.pixels(slice(start, start + 1000)).to(model.device)) for start in range(0, len(test), 1000)]).cpu()
    if test.multilabel:
        return {"accuracy": mean_average_precision(outputs, test.labels), "pgd": None, "weight_sigma": None}
    accuracy = {"measure": "accuracy", **share((outputs.argmax(1) == test.labels).numpy())}
    if report is not None:
        report("finding the weight noise", 0, None)
    sigma = tuned_weight_sigma(model, test.some(TUNED_ON).pixels().to(model.device))
    robust = None
    if attacked:
        told = None if report is None else partial(report, "attacking")
        some = test.some(attacked)
        survived = pgd(model, some.pixels().to(model.device), some.labels.to(model.device), steps=PGD_STEPS, restarts=PGD_RESTARTS, seed=seed, progress=told)
        robust = {"epsilon": round(EPSILON, 6), "steps": PGD_STEPS, "restarts": PGD_RESTARTS, **share(survived.cpu().numpy())}
    return {"accuracy": accuracy, "pgd": robust, "weight_sigma": float(f"{sigma:.3g}")}


def share(hits: np.ndarray) -> dict[str, Any]:
    """The share of hits and its 95 % interval by Wilson."""
    from scipy.stats import binomtest

    interval = binomtest(int(hits.sum()), len(hits)).proportion_ci(0.95, method="wilson")
    return {"value": round(float(hits.mean()), 5), "low": round(float(interval.low), 5), "high": round(float(interval.high), 5), "images": len(hits)}


def mean_average_precision(outputs: Tensor, labels: Tensor) -> dict[str, Any]:
    """Mean over the classes that are there of the average precision, and its interval over images by their jackknife values.

    Images are not drawn again for it: one drawn twice ranks beside itself, which raises average precision.
    """
    from scipy.stats import t

    there, n = labels.any(0), len(labels)
    if not there.any():
        return {"measure": "mean average precision", "value": 0.0, "low": 0.0, "high": 1.0, "images": n}
    values = average_precisions(outputs[:, there].double().numpy(), labels[:, there].bool().numpy())
    low, high = np.clip(values.mean() + t.ppf([0.025, 0.975], n - 1) * values.std(ddof=1) / n**0.5, 0, 1) if n > 1 else (0.0, 1.0)
    return {"measure": "mean average precision", "value": round(float(values.mean()), 5), "low": round(float(low), 5), "high": round(float(high), 5), "images": n}


def figure(found: dict[str, Any] | None) -> str:
    """A share with its interval, in percent."""
    return "not measured" if found is None else f"{100 * found['value']:.1f} % ({100 * found['low']:.1f} to {100 * found['high']:.1f}, {found['images']} images)"


def markdown(card: dict[str, Any]) -> str:
    """The card as a page."""
    pgd, test = card["pgd"], card["test"]
    attack = "" if pgd is None else f"PGD, L-infinity {pgd['epsilon'] * 255:.0f}/255, {pgd['steps']} steps, {pgd['restarts']} random starts: "
    tested = "nothing" if test is None else f"`{test['name']}`, {test['images']} images, SHA-256 {test['sha256']}"
    lines = [
        f"# {card['name']}",
        *([card["note"]] if card["note"] else []),
        f"- Network: `{card['architecture']}`, {card['weights']:,} weights, pictures of {card['size'][0]} x {card['size'][1]}",
        f"- Recipe: `{card['recipe']}`, seed {card['seed']}, {card['precision']}" + (f", from the weights with SHA-256 {card['start']}" if card["start"] else ""),
        f"- Trained on: `{card['data']['name']}`, {card['data']['images']} images, SHA-256 {card['data']['sha256']}",
        f"- Tested on: {tested}",
        f"- {card['accuracy']['measure'].capitalize() if card['accuracy'] else 'Accuracy'}: {figure(card['accuracy'])}, with the 95 % interval",
        f"- Under attack: {attack}{figure(pgd)}",
        f"- Weight noise for noisegrad: {card['weight_sigma'] if card['weight_sigma'] is not None else 'not measured'}",
        f"- Time: {duration(card['seconds'])} of training with {card['threads']} thread(s)",
        f"- Command: `{card['command'] or 'called from Python'}`",
        f"- Versions: {', '.join(f'{name} {version}' for name, version in card['versions'].items())}",
        f"- Weights: SHA-256 {card['sha256']}",
    ]
    return "\n\n".join(lines[: 2 if card["note"] else 1]) + "\n\n" + "\n".join(lines[2 if card["note"] else 1 :]) + "\n"
