"""From files to overlays and maps on disk, in groups, so that memory does not grow with the number of files."""

import dataclasses
import hashlib
import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from salience.core.classifier import Classifier
from salience.core.errors import InputError, unknown
from salience.core.explainer import Explainer
from salience.core.explanation import Explanation
from salience.core.files import write_whole
from salience.core.spec import build
from salience.core.types import Outputs, Report
from salience.explainers._input_noise import InputNoise
from salience.explainers._layers import white_box
from salience.show.overlay import overlay
from salience.zoo.images import FITS, Photographs, check_path, load_images
from salience.zoo.models import load_model

TOGETHER = 8
"""Images explained in one call: they share the draws of weights."""

STEM_BYTES = 100
"""Most bytes of a photograph's name in a result's: file systems take 255, with method, hash and ending."""


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        paths: Files of photographs.
        out: Folder for the results.
        methods: Specifications.
        model: A name that `load_model` knows.
        targets: ``auto``, ``top3``, class indices or names.
        score: The score explained by the methods that depend on one; None for the method's own.
        seed: Of all draws.
        samples: Draws, for every method that has this option.
        tolerance: Relative error at which an image's draws stop.
        fit: How photographs are brought to the model's size; None for the model's own.
        device: Where to compute.
        precision: ``float32`` or ``bfloat16``.
    """

    paths: Sequence[Path]
    out: Path
    methods: Sequence[str]
    model: str
    targets: Sequence[str] = ("auto",)
    score: str | None = None
    seed: int = 0
    samples: int | None = None
    tolerance: float | None = None
    fit: str | None = None
    device: str = "cpu"
    precision: str = "float32"

    def unusual(self) -> dict[str, object]:
        """The settings that differ from their defaults and change the maps: they are part of a file's name."""
        default = Request((), Path(), (), "efficientnet-lite0")
        names = ("model", "score", "seed", "tolerance", "fit", "precision")
        return {name: getattr(self, name) for name in names if getattr(self, name) != getattr(default, name)}


@dataclass(frozen=True)
class Row:
    """One result: an image, a method, a target."""

    image: str
    method: str
    target: int
    label: str
    probability: float
    samples: int
    converged: bool | None
    relative_error: float | None
    seconds: float
    map: str
    overlay: str


def explain_files(request: Request, report: Report) -> Iterator[tuple[Row, Explanation]]:
    """Explain files; every result is on disk when it is handed on.

    Names, options and targets are checked, and every file is read once, before anything is computed or written. What only shows in the
    network itself (a layer that is not there, a window larger than the image) is found when its method begins: what was written before it is whole.

    Args:
        request: What is asked for.
        report: Told what is going on.

    Raises:
        InputError: If anything asked for cannot be done.
    """
    explainers = _explainers(request)
    for path in request.paths:
        check_path(path)
    if request.fit is not None and request.fit not in FITS:
        raise unknown("fit", request.fit, FITS)
    report("loading the model", 0, None)
    model = load_model(request.model, device=request.device, precision=request.precision)
    groups = _groups(request, model, report)
    _check(request, model, explainers, groups[0])
    _check_writable(request.out)
    stems = stems_of(request.paths)
    first = _loaded(request, groups[0], model).as_subclass(Tensor).to(model.device)
    with model.frozen():
        for explainer in explainers:
            report(f"preparing {explainer.name}", 0, None)
            model = explainer.prepare(model, first)
    for group in groups:
        images = _loaded(request, group, model)
        outputs = _outputs(model, images)
        wanted = [_targets(request.targets, row, model) for row in outputs]
        for explainer in explainers:
            what = f"{explainer.name}, image {group[0] + 1}" + (f" to {group[-1] + 1}" if len(group) > 1 else "") + f" of {len(request.paths)}"
            report(what, 0, None)
            for turn, e, seconds in _explained(request, model, explainer, images, wanted, partial(report, what)):
                for place, index in enumerate(group):
                    if turn < len(wanted[place]):
                        target, named = wanted[place][turn]
                        stem = f"{stems[index]}.{_file_name(request, explainer, target if named else None)}"
                        facts = (str(request.paths[index]), model.label(target), model.as_probabilities(outputs[place][None])[0, target].item(), seconds / len(group))
                        yield _written(e[place : place + 1], request.out / stem, *facts)


def _explainers(request: Request) -> list[Explainer]:
    found = [build("explainer", text) for text in request.methods]
    if request.samples is not None:
        having = [each for each in found if any(field.name == "samples" for field in dataclasses.fields(each))]
        if not having:
            raise InputError(f"{', '.join(each.name for each in found)}: no option samples to set; leave --samples out.")
        found = [dataclasses.replace(each, samples=request.samples) if each in having else each for each in found]
    return list({str(each): each for each in found}.values())


def _groups(request: Request, model: Classifier, report: Report) -> list[list[int]]:
    """Numbers of files that are explained together: at most `TOGETHER`, neighbours, of one size."""
    sizes = []
    for number, path in enumerate(request.paths):
        report("reading the images", number, len(request.paths))
        sizes.append(tuple(load_images([path], model, request.fit).shape))
    groups = []
    for _, same in groupby(range(len(sizes)), key=sizes.__getitem__):
        numbers = list(same)
        groups += [numbers[start : start + TOGETHER] for start in range(0, len(numbers), TOGETHER)]
    return groups


def _loaded(request: Request, group: Sequence[int], model: Classifier) -> Photographs:
    return load_images([request.paths[index] for index in group], model, request.fit)


def _outputs(model: Classifier, images: Tensor) -> Outputs:
    return model.outputs(images.as_subclass(Tensor).to(model.device)).cpu()


def _check(request: Request, model: Classifier, explainers: Sequence[Explainer], group: Sequence[int]) -> None:
    """Find what is wrong before the first map is computed."""
    if request.tolerance is not None and not request.tolerance > 0:
        raise InputError(f"tolerance must be above 0, not {request.tolerance}.")
    images = _loaded(request, group[:1], model)
    outputs = _outputs(model, images)
    _targets(request.targets, outputs[0], model)
    if not any(explainer.heeds_score for explainer in explainers):
        explainers[0].check_score(request.score)
    for explainer in explainers:
        model.named_score(request.score, explainer.score)
        *around, innermost = explainer.nested()
        for each in around:
            if not isinstance(each, InputNoise):  # which needs no more of the network than its base
                white_box(model, each)
        if not model.white_box and innermost.facts.get("needs_gradient"):
            model.gradient(images, outputs.argmax(1))  # says why it cannot be had


def _check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"Cannot write to the folder {folder}: {error.strerror or error}. Choose another with --out.") from error


def _targets(asked: Sequence[str], outputs: Tensor, model: Classifier) -> list[tuple[int, bool]]:
    """The classes to explain of one image, each once, and whether a file's name must tell the class."""
    found: dict[int, bool] = {}
    for text in asked:
        top = re.fullmatch(r"top(\d+)", text)
        if text == "auto":
            found.setdefault(int(outputs.argmax()), False)
        elif top:
            count = int(top[1])
            if not 1 <= count <= len(outputs):
                raise InputError(f"Target {text} is out of range: {model.name} has {len(outputs)} classes, so give top1 to top{len(outputs)}.")
            for index in outputs.topk(count).indices.tolist():
                found.setdefault(index, True)
        else:
            found.setdefault(model.class_index(text, len(outputs)), True)
    return list(found.items())


def _explained(
    request: Request, model: Classifier, explainer: Explainer, images: Photographs, wanted: Sequence[list[tuple[int, bool]]], progress: Callable[[int, int], None]
) -> Iterator[tuple[int, Explanation, float]]:
    """Explain the first class of every image, then the second, ...: turn, explanation, seconds.

    An image that has fewer classes takes its first again. Methods that score all classes at once
    need no pass for the later turns.
    """
    first: Explanation | None = None
    for turn in range(max(map(len, wanted))):
        start = time.perf_counter()
        targets = torch.tensor([each[turn if turn < len(each) else 0][0] for each in wanted])
        if first is not None and first.retarget is not None and request.tolerance is None:
            e = first.retarget(targets)
        else:
            e = explainer(model, images, targets, score=request.score if explainer.heeds_score else None, seed=request.seed, tolerance=request.tolerance, progress=progress)
        first = first or e
        yield turn, e, time.perf_counter() - start


def _written(e: Explanation, stem: Path, image: str, label: str, probability: float, seconds: float) -> tuple[Row, Explanation]:
    files = [stem.with_name(f"{stem.name}.{kind}") for kind in ("npz", "png")]
    drawn = overlay(e, label=label)
    e.save(files[0])
    write_whole(files[1], drawn)
    relative = e.relative_error
    row = Row(
        image=image,
        method=e.method,
        target=int(e.targets[0]),
        label=label,
        probability=probability,
        samples=int(e.samples[0]),
        converged=None if e.converged is None else bool(e.converged[0]),
        relative_error=None if relative is None else float(relative[0]),
        seconds=round(seconds, 3),
        map=str(files[0]),
        overlay=str(files[1]),
    )
    return row, e


def _file_name(request: Request, explainer: Explainer, target: int | None) -> str:
    """The method's name, and six digits that stand for everything that is not the default."""
    text = str(explainer)
    unusual = request.unusual() | ({} if target is None else {"target": target}) | ({"method": text} if text != explainer.name else {})
    return re.sub(r"[^\w.-]+", "-", explainer.name).strip("-") + digits(unusual)


def digits(unusual: Mapping[str, Any]) -> str:
    """What is added to a file's name where something is not the default: six digits that stand for it."""
    return f"-{hashlib.sha256(json.dumps(unusual, sort_keys=True).encode()).hexdigest()[:6]}" if unusual else ""


def stems_of(paths: Sequence[Path]) -> list[str]:
    """A stem for each file; equal ones are numbered, also where they differ only in letter case."""
    found: list[str] = []
    taken: set[str] = set()
    for path in paths:
        encoded, number = os.fsencode(path.stem), 1
        stem = path.stem if len(encoded) <= STEM_BYTES else encoded[:STEM_BYTES].decode("utf-8", "ignore")
        while (candidate := stem if number == 1 else f"{stem}-{number}").lower() in taken:
            number += 1
        taken.add(candidate.lower())
        found.append(candidate)
    return found
