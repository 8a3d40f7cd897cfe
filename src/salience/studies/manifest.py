"""What a study's folder says of how its rows were made: nothing that they depend on may change while it is continued."""

from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from salience.core.classifier import Classifier
from salience.core.errors import InputError
from salience.core.explainer import Explainer
from salience.core.threads import with_threads
from salience.core.types import Report
from salience.core.versions import versions_here, warn_of_versions
from salience.perturb.tune import known_weight_sigma, tuned_weight_sigma
from salience.studies.plan import Plan
from salience.studies.study import Study
from salience.studies.work import model_of
from salience.zoo.images import load_images

TUNED_ON = 10
"""Pictures on which the level of weight noise is searched at most, where a method takes it and none is known."""


def describe(planned: Plan, shard: tuple[int, int], threads: int, old: dict[str, Any] | None = None, report: Report | None = None) -> dict[str, Any]:
    """The manifest of a run of one shard with so many threads; of a study that is continued, `old` is what it had."""
    study = planned.study
    networks = {name: model_of(name, study.device, study.precision, study.chunk) for name in study.models}
    models = {name: network.weights_hash() for name, network in networks.items()}
    tuned = any(getattr(each, "weight_sigma", None) == "auto" for method in study.methods for each in Explainer.from_value(method).nested())
    found_then = {} if old is None else old["weight_sigma"]
    levels = {name: known_weight_sigma(network) or found_then.get(name) or _searched(study, name, network, threads, report) for name, network in networks.items() if tuned}
    described = study.model_dump(mode="json")
    described["data"].pop("limit")
    settings = {name: network.settings for name, network in networks.items()}
    found = {"study": described, "models": models, "settings": settings, "weight_sigma": levels, "threads": threads, "shard": list(shard), "versions": versions_here()}
    return found | {"images": planned.images, "categories": planned.categories}


def _searched(study: Study, name: str, network: Classifier, threads: int, report: Report | None) -> float | None:
    """The level that ``weight_sigma=auto`` takes throughout a study: found on its first pictures, whatever its limit. None if there is none; rows will say why."""
    if report is not None:
        report(f"the noise level of {name}", 0, None)
    data, pictures = study.data.load(), []
    for place in range(len(data)):
        with suppress(Exception):  # whatever is wrong with it, its rows will say so
            pictures.append(load_images([data[place].picture], network, study.fit))
        if len(pictures) == TUNED_ON:
            break
    alike = [each.as_subclass(Tensor) for each in pictures if each.shape == pictures[0].shape]
    try:
        with torch.inference_mode(False), with_threads(threads), network.frozen():
            return tuned_weight_sigma(network, torch.cat(alike).to(network.device)) if alike else None
    except InputError:  # a black box, or a single output
        return None


def check_same(old: dict[str, Any], new: dict[str, Any], folder: str | Path, mended: Collection[str] = ()) -> None:
    """Refuse to mix two studies in one folder."""
    changes = [f"{key} was {old['study'].get(key)!r} and is {value!r}" for key, value in new["study"].items() if old["study"].get(key) != value]
    changes += [f"the weights of {name} have changed" for name, value in new["models"].items() if old["models"].get(name) != value and name in old["models"]]
    for name, value in new["settings"].items():
        was = old["settings"].get(name, value)
        changes += [f"{key} of {name} was {was.get(key)} and is {each}" for key, each in value.items() if was.get(key) != each]
    levels = old["weight_sigma"]
    changes += [f"the noise level known for {name} was {levels[name]} and is {value} (salience tune)" for name, value in new["weight_sigma"].items() if levels.get(name, value) != value]
    changes += [f"the picture {name} or its labels or masks have changed" for name, value in new["images"].items() if old["images"].get(name, value) != value and name not in mended]
    shorter = [name for name in old["images"] if name not in new["images"]]
    if old["shard"] is not None and shorter:
        changes += [f"pictures are gone: {len(shorter)}, {shorter[0]} first (a limit may only grow)"]
    if list(old["images"])[: len(new["images"])] != list(new["images"])[: len(old["images"])] and old["shard"] is not None and not shorter:
        changes += ["the order of the pictures has changed"]
    if old["shard"] != new["shard"]:
        changes += [f"the shard was {old['shard']} and is {new['shard']}"]
    if changes:
        raise InputError(f"{folder} holds another study: {'; '.join(changes)}. Undo the change, or run in a new folder.")
    warn_of_versions(old["versions"], new["versions"], "study", "rows")
