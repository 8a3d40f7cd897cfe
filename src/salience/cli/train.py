"""``salience train``."""

import dataclasses
import hashlib
import shlex
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from salience.cli._shared import Json, console, print_json, progress, tell
from salience.core.errors import InputError

if TYPE_CHECKING:
    from salience.core.types import Report
    from salience.training.pictures import Pictures
    from salience.zoo.datasets import Dataset

EXAMPLES = """[bold]Examples[/bold]

salience train standard --architecture resnet9:width=16 --data cmnist:root=DIR --epochs 6 --out nets/cmnist

salience train adversarial:steps=1,flip=true,shift=4 --architecture resnet9:width=16 --data cifar10:root=DIR --precision bfloat16 --out nets/robust

salience train cure --from nets/plain --architecture resnet9:width=16 --data cifar10:root=DIR --out nets/cure --resume

salience explain digit.png --model trained:nets/cmnist --method gradient
"""


def train(
    recipe: Annotated[str, typer.Argument(help="NAME or NAME:key=value,...; see salience list recipes.", metavar="RECIPE", show_default=False)],
    data: Annotated[
        list[str],
        typer.Option(
            help="NAME:key=value,...; the split is train unless it says another; may be repeated, they are joined; see salience list datasets.",
            metavar="D",
            show_default=False,
            rich_help_panel="What is trained",
        ),
    ],
    architecture: Annotated[
        str | None, typer.Option(help="NAME or NAME:key=value,...; see salience list architectures.", show_default="the papers' for the recipe", metavar="A", rich_help_panel="What is trained")
    ] = None,
    test: Annotated[str | None, typer.Option(help="Pictures for the card.", show_default="the data set's own test split", metavar="D", rich_help_panel="What is trained")] = None,
    start: Annotated[Path | None, typer.Option("--from", help="A trained folder or a safetensors file to begin with.", metavar="DIR", rich_help_panel="What is trained")] = None,
    size: Annotated[int | None, typer.Option(help="Height and width of the pictures.", show_default="32; with --full the papers'", metavar="N", rich_help_panel="What is trained")] = None,
    epochs: Annotated[int | None, typer.Option(help="Times that every picture is seen.", show_default="the recipe's own", metavar="N", rich_help_panel="How")] = None,
    full: Annotated[bool, typer.Option("--full", help="The papers' setting: epochs, optimiser, augmentation; what the recipe spells out stays.", rich_help_panel="How")] = False,
    seed: Annotated[int, typer.Option(help="Of all that is drawn.", metavar="N", rich_help_panel="How")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on in the folder where it was interrupted.", rich_help_panel="How")] = False,
    attacked: Annotated[int, typer.Option(help="Test pictures attacked by PGD for the card; 0: none.", metavar="N", rich_help_panel="How")] = 1000,
    precision: Annotated[str, typer.Option(help="float32, or bfloat16 for speed.", metavar="P", rich_help_panel="Speed")] = "float32",
    threads: Annotated[int | None, typer.Option(help="Threads.", show_default="torch's number, or what the run began with", metavar="N", rich_help_panel="Speed")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...", metavar="D", rich_help_panel="Speed")] = "cpu",
    out: Annotated[Path, typer.Option(help="The folder for everything; --model trained:DIR uses it.", metavar="DIR", rich_help_panel="Output")] = Path("trained"),
    note: Annotated[str, typer.Option(help="A sentence for the card.", metavar="TEXT", rich_help_panel="Output")] = "",
    as_json: Json = False,
) -> None:
    """Train a network for small pictures. Whatever ends it, --resume goes on to the same weights.

    The folder gets checkpoints, a log, learning curves, the weights, and a card: data, recipe, accuracy with its interval, and accuracy under attack.
    """
    from salience.core.spec import written
    from salience.training.architecture import Architecture
    from salience.training.loop import train as trained
    from salience.training.recipe import SIZE, Recipe
    from salience.zoo.datasets import Dataset

    if (size is not None and size < 1) or attacked < 0:
        raise InputError("--size must be at least 1 and --attacked at least 0.")
    chosen = Recipe.from_value(recipe)
    network = Architecture.from_value(architecture or (chosen.full_network if full else chosen.network))
    size = size or (chosen.full_size if full else SIZE)
    if full:
        chosen = dataclasses.replace(chosen.full(network), **{name: getattr(chosen, name) for name in written(recipe)})
    if epochs is not None:
        chosen = dataclasses.replace(chosen, epochs=epochs)
    splits = [_splits(Dataset.from_value(each), "split" in written(each)) for each in data]
    tested = splits[0][1] if test is None else Dataset.from_value(test)
    with progress() as report:
        training, testing = _read([each for each, _ in splits], tested, size, chosen.multilabel, report)
        card = trained(
            chosen,
            network,
            training,
            out,
            test=testing,
            seed=seed,
            start=start,
            precision=precision,
            device=device,
            threads=threads,
            resume=resume,
            attacked=attacked,
            note=note,
            command=shlex.join(["salience", *sys.argv[1:]]),
            report=report,
        )
    if as_json:
        print_json(card)
    else:
        _print_card(card, out)


def _splits(data: "Dataset", given: bool) -> "tuple[Dataset, Dataset | None]":
    """The pictures to train with, those of a split that was given, and those to test with, if the data set has splits."""
    splits = {field.name: field.default for field in dataclasses.fields(data)}
    if "split" not in splits:
        return data, None

    def of(split: Any) -> "Dataset":
        changes: dict[str, Any] = {"split": split}
        return dataclasses.replace(data, **changes)

    return data if given else of("train"), of(splits["split"])


def _read(data: "list[Dataset]", test: "Dataset | None", size: int, multilabel: bool, report: "Report") -> "tuple[Pictures, Pictures | None]":
    """Both in memory. Where class names are not known there are as many classes as the labels of all name.

    Raises:
        InputError: If a picture is in both.
    """
    from salience.training.pictures import joined
    from salience.zoo.tensors import read_pictures

    sets = [*data, *([] if test is None else [test])]
    read = [read_pictures(each, size=size, multilabel=multilabel, report=report) for each in sets]
    if all(each.classes is None for each in sets):
        most = max((each.classes for each in read), key=len)
        read = [each.with_classes(most) for each in read]
    training = joined(read[: len(data)])
    if test is None:
        return training, None
    pixels = [{hashlib.sha256(each.numpy()).digest(): name for each, name in zip(pictures.images, pictures.names, strict=True)} for pictures in (training, read[-1])]
    both = [(pixels[0][each], pixels[1][each]) for each in pixels[0].keys() & pixels[1].keys()]
    same = sorted(name for name, other in both if name == other)
    if same:
        raise InputError(f"{len(same)} pictures, {same[0]} first, are in the training and in the test pictures: give others with --test.")
    if both:
        warnings.warn(f"{len(both)} test pictures, {both[0][1]} first, are also among the training pictures, under other names.", UserWarning, stacklevel=2)
    return training, read[-1]


def _print_card(card: "dict[str, Any]", out: Path) -> None:
    """What was trained and how good it is."""
    from salience.show.table import table
    from salience.training.card import figure

    console().print(table(("network", "recipe", "test", "under attack"), [(card["architecture"], card["recipe"], figure(card["accuracy"]), figure(card["pgd"]))]))
    tell(f"Use it as --model trained:{out}; {out / 'card.md'} tells the rest.")
