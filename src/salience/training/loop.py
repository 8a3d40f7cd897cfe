"""The one loop that trains every architecture by every recipe, and can be killed at any time."""

import dataclasses
import hashlib
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from salience.core.device import check_device, check_precision
from salience.core.draws import Stream
from salience.core.errors import InputError
from salience.core.files import write_whole
from salience.core.model import Model
from salience.core.threads import with_threads
from salience.core.types import Report
from salience.core.versions import versions_here, warn_of_versions
from salience.training.architecture import Architecture
from salience.training.augmentation import DRAWS
from salience.training.card import judged, load_trained, load_weights, markdown
from salience.training.curves import learning_curves
from salience.training.folder import Folder, load_optimiser, optimiser_tensors, read_tensors, read_training
from salience.training.pictures import Pictures
from salience.training.recipe import Recipe

CHECKPOINT_SECONDS = 300.0
"""Besides the end of every epoch, the state is kept about this often."""

GLANCE = 2000
"""Test pictures judged after every epoch, for the learning curve; they are spread over all."""


class Trainer:
    """A network, its optimiser and its place in the plan: epoch and step.

    The order of the pictures is keyed by seed and epoch, what is drawn for a picture by seed, epoch and picture, and what a
    recipe draws by seed, epoch and step. So a step depends on nothing but the state before it.

    Args:
        recipe: What is done.
        model: The network.
        data: The training pictures.
        seed: Of everything that is drawn.
    """

    def __init__(self, recipe: Recipe, model: Model, data: Pictures, seed: int) -> None:
        self.recipe, self.model, self.data, self.seed = recipe, model, data, seed
        self.stream = Stream((seed,), (seed,)).at("training")
        self.optimiser = recipe.optimiser(model.module.parameters())
        self.steps = math.ceil(len(data) / recipe.batch)
        self.epoch, self.step = 0, 0
        self.loss, self.seconds = 0.0, 0.0

    def run_epoch(self) -> Iterator[None]:
        """The steps that are left of the epoch, one at a time; then the next epoch is to come."""
        order = torch.from_numpy(self.stream.generator("order", self.epoch).permutation(len(self.data)))
        draws = self.stream.uniform((len(self.data), DRAWS), "augment", self.epoch)
        batches = order.tensor_split(self.steps)
        while self.step < self.steps:
            begun = time.perf_counter()
            rows = batches[self.step]
            images = self.recipe.augmented(self.data.images[rows], draws[rows])
            self.loss += self._take_step(images.to(self.model.device), self.data.labels[rows].to(self.model.device))
            self.step += 1
            self.seconds += time.perf_counter() - begun
            yield
        self.epoch, self.step, self.loss = self.epoch + 1, 0, 0.0

    def _take_step(self, images: Tensor, labels: Tensor) -> float:
        stream = self.stream.at(self.epoch, self.step)
        torch.manual_seed(int(stream.generator("torch").integers(2**31)))  # for dropout
        total = self.recipe.epochs * self.steps
        rate = self.recipe.rate_at((self.epoch * self.steps + self.step) / total if total > 1 else 0.5)  # at 0, a single step would change nothing
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        loss = self.recipe.loss(self.model, images, labels, epoch=self.epoch, stream=stream)
        value = loss.item()
        if not math.isfinite(value):
            raise InputError(f"The loss is {value} in step {self.step + 1} of epoch {self.epoch + 1}: lower the rate of the recipe.")
        loss.backward()
        self.optimiser.step()
        return value

    def state(self) -> dict[str, Tensor]:
        """All that `restore` needs, as tensors."""
        place = {"epoch": self.epoch, "step": self.step, "loss": self.loss, "seconds": self.seconds}
        net = {f"net.{key}": value for key, value in self.model.module.state_dict().items()}
        return net | optimiser_tensors(self.optimiser) | {f"place.{key}": torch.tensor(value, dtype=torch.float64) for key, value in place.items()}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Go back to the state that was kept."""
        load_weights(self.model.module, {key.removeprefix("net."): value for key, value in tensors.items() if key.startswith("net.")}, "the checkpoint's network")
        load_optimiser(self.optimiser, tensors)
        self.epoch, self.step = int(tensors["place.epoch"]), int(tensors["place.step"])
        self.loss, self.seconds = float(tensors["place.loss"]), float(tensors["place.seconds"])


def train(
    recipe: str | Recipe,
    architecture: str | Architecture,
    data: Pictures,
    out: str | Path,
    *,
    test: Pictures | None = None,
    seed: int = 0,
    start: str | Path | None = None,
    precision: str = "float32",
    device: str = "cpu",
    threads: int | None = None,
    resume: bool = False,
    attacked: int = 1000,
    note: str = "",
    command: str = "",
    report: Report | None = None,
) -> dict[str, Any]:
    """Train a network, or go on where it was interrupted.

    Args:
        recipe: What is done, such as ``"adversarial:steps=1,epochs=15"``.
        architecture: What is trained, such as ``"resnet9:width=16"``; its classes come from the data.
        data: The training pictures.
        out: The folder for everything; `load_model` takes it as ``trained:FOLDER``.
        test: The test pictures; None leaves the network unjudged.
        seed: Of everything that is drawn.
        start: A trained folder, or a safetensors file of weights, to begin with.
        precision: ``float32``, or ``bfloat16`` (autocast) for speed.
        device: For example ``cpu`` or ``cuda``.
        threads: Threads of the processor; None takes those the run began with, or torch's own number.
        resume: Continue the run that the folder holds. A finished one is judged again only if another number of pictures shall be attacked.
        attacked: Test pictures that are attacked for the card; 0 for none.
        note: A sentence for the card.
        command: The command line, for the card.
        report: Told how far it is.

    Returns:
        The card: what the network was made from and how good it is.

    Raises:
        InputError: If the folder holds a run and `resume` is not set, or another run; the device cannot be used; or recipe, architecture, start and data do not fit together.
    """
    check_device(device)
    check_precision(precision, device)
    recipe, architecture = Recipe.from_value(recipe), Architecture.from_value(architecture)
    architecture = _with_classes(architecture, data)
    _check(recipe, data, test, start)
    folder = Folder(out)
    with folder.locked(), with_threads(_threads(folder, threads)), torch.random.fork_rng(range(torch.cuda.device_count())):
        old = folder.read("run.json")
        if old is not None and not resume:
            raise InputError(f"{out} holds a training run already: continue it with --resume, or choose another folder with --out.")
        first = None if start is None else _start(Path(start))
        mean, std = data.mean_and_std() if first is None else first[1] or data.mean_and_std()
        run = _described(recipe, architecture, data, test, seed, precision, torch.get_num_threads()) | {"start": None if first is None else first[2], "mean": list(mean), "std": list(std)}
        if old is not None:
            _check_same(old, run, out)
            finished = folder.read("card.json")
            if finished is not None:
                return _judged_anew(folder, finished, test, attacked, device, report)
        model = _untrained(architecture, data, mean, std, seed, first).to_device(device).using(precision=precision, name=Path(out).name)
        _check_fits(model, architecture)
        folder.write("run.json", run if old is None else old)
        trainer = Trainer(recipe, model, data, seed)
        kept = folder.read_checkpoint() if old is not None else None
        if kept is not None:
            trainer.restore(kept)
        rows = folder.read_log(trainer.epoch)
        _run(trainer, folder, rows, test, report)
        return _write_card(folder, {"name": Path(out).name, "note": note, **run, **_result(trainer, folder, rows, test, attacked, report), "command": command})


def _result(trainer: Trainer, folder: Folder, rows: list[dict[str, Any]], test: Pictures | None, attacked: int, report: Report | None) -> dict[str, Any]:
    """Write the weights; what the card says of them."""
    model, data = trainer.model, trainer.data
    sha256 = folder.write_tensors("model.safetensors", model.module.state_dict())
    figures = {"accuracy": None, "pgd": None, "weight_sigma": None} if test is None else judged(model.using(precision="float32"), test, attacked=attacked, seed=trainer.seed, report=report)
    return {
        "recipe": str(trainer.recipe),
        "weights": sum(weight.numel() for weight in model.module.parameters()),
        "size": list(data.images.shape[2:]),
        "classes": list(data.classes),
        **figures,
        "loss": rows[-1]["loss"] if rows else None,
        "seconds": round(trainer.seconds, 1),
        "sha256": sha256,
    }


def _judged_anew(folder: Folder, finished: dict[str, Any], test: Pictures | None, attacked: int, device: str, report: Report | None) -> dict[str, Any]:
    """The card of a finished run; the network is judged again if another number of pictures shall be attacked."""
    card = {key: value for key, value in finished.items() if key != "format"}
    there = 0 if card["pgd"] is None else card["pgd"]["images"]
    if test is None or test.multilabel or min(attacked, len(test)) == there:
        return card
    model = load_trained(folder.path / "card.json", folder.path / "model.safetensors").to_device(device)
    return _write_card(folder, card | judged(model, test, attacked=attacked, seed=card["seed"], report=report))


def _write_card(folder: Folder, card: dict[str, Any]) -> dict[str, Any]:
    """The card, written for people and for `load_model`."""
    write_whole(folder.path / "card.md", markdown(card).encode())
    folder.write("card.json", card)
    return card


def _check_fits(model: Model, architecture: Architecture) -> None:
    """Refuse pictures of a size that the network cannot take, before anything is written."""
    size = model.size or (32, 32)
    try:
        model.outputs(torch.zeros(1, model.channels_in, *size, device=model.device))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise InputError(f"{architecture} cannot take pictures of {size[0]} x {size[1]}: give another --size, such as 32 or 224, or another architecture.") from error


def _untrained(architecture: Architecture, data: Pictures, mean: tuple, std: tuple, seed: int, first: tuple | None) -> Model:
    """The network that training begins with."""
    torch.manual_seed(int(Stream((seed,), (seed,)).generator("weights").integers(2**31)))
    module = architecture.begin().to(memory_format=torch.channels_last)
    if first is not None:
        load_weights(module, first[0], str(architecture))
    return Model(module, mean=mean, std=std, size=tuple(data.images.shape[2:]), labels=data.classes)


def _run(trainer: Trainer, folder: Folder, rows: list[dict[str, Any]], test: Pictures | None, report: Report | None) -> None:
    """Train to the end of the plan, keeping the state, the log and the curves."""
    recipe, model = trainer.recipe, trainer.model
    total, saved = recipe.epochs * trainer.steps, time.monotonic()
    while trainer.epoch < recipe.epochs:
        model.train()
        number, loss = trainer.epoch, 0.0
        for _ in trainer.run_epoch():
            loss = trainer.loss / trainer.step
            if report is not None:
                report("training", number * trainer.steps + trainer.step, total)
            if time.monotonic() - saved > CHECKPOINT_SECONDS and trainer.step < trainer.steps:
                folder.write_tensors("checkpoint.safetensors", trainer.state())
                saved = time.monotonic()
        model.eval()
        row = {"epoch": trainer.epoch, "loss": loss, "test": None if test is None or test.multilabel else _glance(model, test.some(GLANCE)), "seconds": round(trainer.seconds, 1)}
        rows.append(row)
        folder.write_log(rows)
        write_whole(folder.path / "curves.png", learning_curves(rows))
        folder.write_tensors("checkpoint.safetensors", trainer.state())
        saved = time.monotonic()
    model.eval()


def _glance(model: Model, test: Pictures) -> float:
    """Accuracy on a few test pictures."""
    return round((model.outputs(test.pixels().to(model.device)).argmax(1).cpu() == test.labels).float().mean().item(), 5)


def _with_classes(architecture: Architecture, data: Pictures) -> Architecture:
    """The architecture for what the data hold."""
    return dataclasses.replace(architecture, classes=len(data.classes), channels=data.images.shape[1])


def _check(recipe: Recipe, data: Pictures, test: Pictures | None, start: str | Path | None) -> None:
    if len(data.classes) < 2 and not data.multilabel:
        raise InputError("The training pictures are all of one class, so there is nothing to learn: give pictures of two classes at least.")
    if recipe.multilabel != data.multilabel:
        raise InputError(f"{recipe.name} needs {'rows of 0 and 1' if recipe.multilabel else 'one class a picture'}: {'use another recipe' if recipe.multilabel else 'use the recipe multilabel'}.")
    if recipe.pretrained and start is None:
        raise InputError(f"{recipe.name} begins with a trained network: give its folder or its weights with --from.")
    if test is not None and (test.classes != data.classes or test.images.shape[1:] != data.images.shape[1:] or test.multilabel != data.multilabel):
        raise InputError("The test pictures differ from the training pictures in size or classes: give those of the same data set.")


def _start(path: Path) -> tuple[dict[str, Tensor], tuple | None, str]:
    """Weights to begin with, the mean and std of the card that was written for them, if it is beside them, and their SHA-256."""
    file = path / "model.safetensors" if path.is_dir() else path
    tensors, sha256 = read_tensors(file), hashlib.sha256(file.read_bytes()).hexdigest()
    cards = [card for card in (read_training(file.with_name("card.json")), read_training(file.with_suffix(".json"))) if card is not None]
    own = next((card for card in cards if card["sha256"] == sha256), None)
    if cards and own is None and path.is_dir():
        raise InputError(f"{file} is not the file that card.json was written for: restore both.")
    return tensors, None if own is None else (tuple(own["mean"]), tuple(own["std"])), sha256


def _threads(folder: Folder, threads: int | None) -> int:
    """How many threads this run takes: as asked for, else those that it began with, else torch's own number."""
    old = folder.read("run.json")
    used = threads if threads is not None else torch.get_num_threads() if old is None else old["threads"]
    if used < 1:
        raise InputError("threads must be at least 1.")
    return used


def _described(recipe: Recipe, architecture: Architecture, data: Pictures, test: Pictures | None, seed: int, precision: str, threads: int) -> dict[str, Any]:
    """What must not change when a run is continued."""
    return {
        "recipe": recipe.name,
        "options": recipe.options(),
        "architecture": str(architecture),
        "data": {"name": data.name, "images": len(data), "sha256": data.sha256},
        "test": None if test is None else {"name": test.name, "images": len(test), "sha256": test.sha256},
        "seed": seed,
        "precision": precision,
        "threads": threads,
        "versions": versions_here(),
    }


def _check_same(old: dict[str, Any], new: dict[str, Any], folder: str | Path) -> None:
    """Refuse to mix two runs in one folder."""
    changes = [f"{key} was {old['options'].get(key)} and is {value}" for key, value in new["options"].items() if old["options"].get(key) != value] if old["recipe"] == new["recipe"] else []
    names = {"recipe": "recipe", "architecture": "architecture", "seed": "seed", "precision": "precision", "threads": "number of threads"}
    changes += [f"the {name} was {old[key]} and is {new[key]}" for key, name in names.items() if old[key] != new[key]]
    changes += [f"the {'training' if key == 'data' else 'test'} pictures or their labels have changed" for key in ("data", "test") if (old[key] or {}).get("sha256") != (new[key] or {}).get("sha256")]
    changes += ["the weights that it begins with have changed"] if old["start"] != new["start"] else []
    if changes:
        raise InputError(f"{folder} holds another training run: {'; '.join(changes)}. Undo the change, or train in a new folder.")
    warn_of_versions(old["versions"], new["versions"], "run", "weights")
