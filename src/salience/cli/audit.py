"""``salience audit``."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from salience.cli._shared import DEFAULT_MODEL, MODEL_HELP, Json, console, print_json, progress

EXAMPLES = """[bold]Examples[/bold]

salience audit cat.jpg --method gradcam

salience audit *.jpg --model python:my_package.models:make --method rise --method gradcam

salience audit *.jpg --json | jq -r 'select(.passed == false).sentence'
"""


def audit(
    images: Annotated[list[Path], typer.Argument(help="Photographs: JPEG, PNG, ...; more of them give narrower intervals.", metavar="IMAGE", show_default=False)],
    method: Annotated[
        list[str] | None, typer.Option(help="NAME or NAME:key=value,...; may be repeated.", show_default="gradient, smoothgrad, gradcam, rise", metavar="NAME", rich_help_panel="What is audited")
    ] = None,
    model: Annotated[str, typer.Option(metavar="M", help=MODEL_HELP, rich_help_panel="What is audited")] = DEFAULT_MODEL,
    target: Annotated[str | None, typer.Option(help="A class index or name.", show_default="the predicted class", metavar="T", rich_help_panel="What is audited")] = None,
    seed: Annotated[int, typer.Option(help="Of all draws.", metavar="N", rich_help_panel="How")] = 0,
    fit: Annotated[str | None, typer.Option(help="How a picture is brought to the model's size: crop, squash or pad.", show_default="the model's own", metavar="F", rich_help_panel="How")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...", metavar="D", rich_help_panel="How")] = "cpu",
    as_json: Json = False,
) -> None:
    """Audit methods on your own model and photographs: can their maps be trusted?

    Do they change when the weights are random, beat maps that ignore the model, converge, survive noise, a blur and a flip?

    Makes 8 maps of every image and method. The page "Audit a method" of the documentation tells where the thresholds come from.
    """
    from salience.studies.audit import METHODS
    from salience.studies.audit import audit as audited
    from salience.zoo.images import load_images
    from salience.zoo.models import load_model

    with progress() as report:
        report("loading the model", 0, None)
        classifier = load_model(model, device=device)
        findings = audited(classifier, load_images(images, classifier, fit), method or METHODS, target, seed, report)
    if as_json:
        for each in findings:
            print_json(dataclasses.asdict(each))
        return
    console().print(findings)
