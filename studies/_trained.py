"""What the studies of trained networks of "Smoothed explanations" (2022) share: networks for CIFAR-10 of one architecture, trained plainly and to be robust, and their pictures."""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import salience as sal
from models import data_file, data_folder
from salience.zoo.models import WEIGHTS, list_models

STANDARD, CURE, ADVERSARIAL = "Standard training", "CURE", "Adversarial training"
STADV, RECOLOR = "Trained against StAdv", "Trained against ReColorAdv"

SHIPPED = {STANDARD: "cifar10-standard", CURE: "cifar10-cure", ADVERSARIAL: "cifar10-adversarial"}
RECOLORADV = {STANDARD: "resnet32_normal", ADVERSARIAL: "resnet32_delta", STADV: "resnet32_stadv", RECOLOR: "resnet32_recoloradv"}


@dataclass(frozen=True)
class Networks:
    """Networks of one architecture.

    Attributes:
        title: What they are called.
        folder: For their rows and in names of pictures.
        models: Names for `load_model` by the training's name.
        note: Where they come from.
    """

    title: str
    folder: str
    models: dict[str, str]
    note: str


def options(made: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The option that names other networks."""
    made.add_argument(
        "--networks",
        nargs=3,
        metavar=("STANDARD", "CURE", "ADVERSARIAL"),
        help="names of three networks of one architecture for CIFAR-10, such as trained:FOLDER of `salience train` (default: cifar10-standard, cifar10-cure and cifar10-adversarial, which come with salience)",
    )
    return made


def networks(given: argparse.Namespace) -> tuple[list[Networks], str]:
    """The sets of networks that are there, and a sentence on what is not.

    Raises:
        InputError: If there are none.
    """
    found, missing, known = [], [], list_models()
    if given.networks:
        named = dict(zip(SHIPPED, given.networks, strict=True))
        found.append(Networks("the networks named", "named", named, f"Networks named on the command line: {', '.join(given.networks)}. {cards(named)}".strip()))
    elif set(SHIPPED.values()) <= set(known):
        found.append(Networks("salience's networks", "shipped", SHIPPED, f"Networks that come with salience, small and trained on the JPEG copy of CIFAR-10. {cards(SHIPPED)}"))
    else:
        missing.append(f"{', '.join(name for name in SHIPPED.values() if name not in known)} do not come with this copy of salience, so nothing is said of CURE")
    if (data_folder() / "cifar_models").is_dir():
        models = {title: f"python:models:{name}" for title, name in RECOLORADV.items()}
        note = "ResNet-32 of the authors of ReColorAdv, trained on exact pixels plainly and against one kind of attack each; 'adversarial training' is the one against additive attacks."
        found.append(Networks("ReColorAdv's ResNet-32", "recoloradv", models, note))
    else:
        missing.append("the folder cifar_models is not there, so nothing is said of ReColorAdv's networks")
    if not found:
        raise sal.InputError("There are no networks to compare: name three with --networks, or set SALIENCE_DATA to a folder that holds cifar_models.")
    return found, f"Not here: {'; '.join(missing)}." if missing else ""


def cards(models: dict[str, str]) -> str:
    """What the networks' cards say of their accuracy, and whether what should be robust is; empty without cards."""
    files = {title: Path(name.removeprefix("trained:")) / "card.json" if name.startswith("trained:") else WEIGHTS / f"{name}.json" for title, name in models.items()}
    if not all(file.is_file() for file in files.values()):
        return ""
    found = {title: json.loads(file.read_text()) for title, file in files.items()}
    parts = [f"{title} (`{models[title]}`) {figure(card['accuracy'])} right, {figure(card['pgd'])} under PGD" for title, card in found.items()]
    robust = {title: card["pgd"] for title, card in found.items() if card["pgd"] is not None}
    weak = [title for title, each in robust.items() if title != STANDARD and STANDARD in robust and each["low"] <= robust[STANDARD]["high"]]
    doubt = f" {' and '.join(weak)} did not make its network more robust here (the intervals overlap), so what is found of it is no judgement of the paper's." if weak else ""
    doubt += "" if len(robust) == len(found) else " Whether each became robust cannot be said: give them to `salience train --resume --attacked 1000`."
    return f"Their cards: {'; '.join(parts)}.{doubt}"


def figure(of: dict[str, Any] | None) -> str:
    """A card's share, if it was measured."""
    return "not measured" if of is None else f"{of['value']:.1%}"


def pictures() -> dict[str, Any]:
    """CIFAR-10's test pictures in a random but fixed order: torchvision's copy or an npz file in the folder of data, else the training pictures that come without the rest."""
    try:
        sal.load_dataset("cifar10", root=str(data_folder()))[0]
    except sal.InputError:
        return {"dataset": "cifar10", "root": str(data_file("cifar10_lossless4000_train.npz")), "split": "train", "shuffle": 0}
    return {"dataset": "cifar10", "root": str(data_folder()), "split": "test", "shuffle": 0}


LOSSY = "The test pictures are decoded from JPEG, if that is what the folder holds: networks trained on exact pixels are about 10 points less accurate on them."
