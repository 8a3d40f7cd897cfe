"""``salience tune``."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from salience.cli._shared import DEFAULT_MODEL, MODEL_HELP, Json, console, print_json, progress, say, tell

if TYPE_CHECKING:
    from salience.core.classifier import Classifier
    from salience.studies.tuned import Tuning

EXAMPLES = """[bold]Examples[/bold]

salience tune noisegrad --model python:my_package.models:make --data photos

salience tune smoothgrad --data 'folder:root=photos,labels=labels.csv,shuffle=1' --limit 100

salience tune fusiongrad --data 'voc:root=VOCdevkit/VOC2007' --model python:my_package.models:make --json | jq .choices
"""


def tune(
    method: Annotated[str, typer.Argument(help="A method with noise: NAME or NAME:key=value,...", metavar="METHOD", show_default=False)],
    data: Annotated[str, typer.Option(help="A folder of pictures (in random order), or a data set: NAME:key=value,...; see salience list datasets.", metavar="D", show_default=False)],
    model: Annotated[str, typer.Option(metavar="M", help=MODEL_HELP)] = DEFAULT_MODEL,
    limit: Annotated[int, typer.Option(help="Pictures at most.", metavar="N")] = 40,
    draws: Annotated[int, typer.Option(help="Draws of noise at each level.", metavar="N")] = 20,
    auc_images: Annotated[int, typer.Option("--auc-images", help="Pictures with masks on which maps are made at each level; 0: none.", metavar="N")] = 4,
    seed: Annotated[int, typer.Option(help="Of all draws.", metavar="N")] = 0,
    fit: Annotated[str | None, typer.Option(help="How a picture is brought to the model's size: crop, squash or pad.", show_default="the model's own", metavar="F")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...", metavar="D")] = "cpu",
    out: Annotated[Path, typer.Option(help="Folder for tune.png and tune.json.", metavar="DIR")] = Path("out"),
    as_json: Json = False,
) -> None:
    """Find how much noise a method may use on a model: the level at which accuracy drops by 5 %.

    For a method with noise in the weights it is what weight_sigma=auto then takes on this model.

    With the defaults EfficientNet-Lite0 needs about 2 minutes on 2 cores, 3 for fusiongrad, and where there are masks 1 more; asking again costs nothing, as the result is kept.
    """
    from salience.core.files import write_whole
    from salience.show.overlay import to_png
    from salience.studies.tuning import tune as tuned
    from salience.zoo.models import load_model

    with progress() as report:
        report("loading the model", 0, None)
        classifier = load_model(model, device=device)
        found = tuned(method, classifier, data, limit=limit, draws=draws, seed=seed, auc_images=auc_images, fit=fit, report=report, announce=say)
    record = found.record()
    for name, content in (("tune.json", json.dumps(record, allow_nan=False, indent=1).encode()), ("tune.png", to_png(found.show()))):
        write_whole(out / name, content)
    if as_json:
        print_json(record | {"picture": str(out / "tune.png")})
        return
    _print(found, classifier)
    tell(f"The picture and all numbers are in {out / 'tune.png'} and {out / 'tune.json'}.")


def _print(found: "Tuning", model: "Classifier") -> None:
    """What was found, and what it changes."""
    from salience.perturb.tune import kept_weight_sigma, level_file

    console().print(found.table())
    for sentence in found.sentences():
        tell(sentence[0].upper() + sentence[1:])
    weights, level = model.weights_hash(), kept_weight_sigma(model)
    if found.option == "weight_sigma" and weights is not None and level is not None:
        instead = "" if model.carried_weight_sigma is None else f" instead of the {model.carried_weight_sigma:g} that it carries"
        undo = f"to undo this, delete {level_file(weights)}."
        tell(f"On this machine weight_sigma=auto now takes {level:.3g} for {model.name}{instead}; {undo}")
