"""``salience attack``."""

import dataclasses
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from salience.cli._shared import DEFAULT_MODEL, MODEL_HELP, Json, console, print_json, progress, tell
from salience.core.errors import InputError

if TYPE_CHECKING:
    from salience.attacks.attack import Attack
    from salience.attacks.attacked import Attacked
    from salience.core.model import Model
    from salience.core.types import Report

COLUMNS = ("image", "class", "kept", "method", "threat", "to target", "random to target", "to original", "random to original", "ssim", "lpips", "seconds")

EXAMPLES = """[bold]Examples[/bold]

salience attack cat.jpg --toward dog.jpg

salience attack cat.jpg --toward dog.jpg --threat delta+stadv+recolor --budget delta=0.015,stadv=0.02

salience attack cat.jpg --method smoothgrad:samples=10 --objective centre_of_mass --steps 300

salience attack cat.jpg --toward out/dog.gradient.npz --json | jq .distance_to_target_after
"""


def attack(
    images: Annotated[list[Path], typer.Argument(help="Photographs: JPEG, PNG, ...", metavar="IMAGE", show_default=False)],
    toward: Annotated[
        Path | None, typer.Option(help="A photograph, or an .npz file of a map: the attack aims at its map.", show_default="nothing: the most important pixels are emptied", metavar="IMAGE2|MAP.npz")
    ] = None,
    method: Annotated[str, typer.Option(help="The explanation under attack: NAME or NAME:key=value,...", metavar="M", rich_help_panel="What is attacked")] = "gradient",
    model: Annotated[str, typer.Option(metavar="M", help=MODEL_HELP, rich_help_panel="What is attacked")] = DEFAULT_MODEL,
    target: Annotated[str | None, typer.Option(help="The class explained: an index or a name.", show_default="the predicted class", metavar="T", rich_help_panel="What is attacked")] = None,
    threat: Annotated[str, typer.Option(help="How the image may be changed: delta, stadv, recolor, joined by +.", metavar="T", rich_help_panel="How")] = "delta",
    budget: Annotated[
        str | None, typer.Option(help="How far: one number for one threat, or delta=0.03,stadv=0.05,recolor=0.06.", show_default="those of the paper", metavar="B", rich_help_panel="How")
    ] = None,
    objective: Annotated[str | None, typer.Option(help="target_map, top_k or centre_of_mass.", show_default="target_map with --toward, else top_k", metavar="O", rich_help_panel="How")] = None,
    steps: Annotated[int, typer.Option(help="Steps of the optimiser.", metavar="N", rich_help_panel="How")] = 100,
    restarts: Annotated[int, typer.Option(help="Runs, the best of which counts.", metavar="N", rich_help_panel="How")] = 1,
    output_weight: Annotated[float, typer.Option(help="Weight of the change of the probabilities in the loss.", metavar="W", rich_help_panel="How")] = 2.5,
    beta: Annotated[str, typer.Option(help="Sharpness of the softplus that stands for ReLU; two joined by + grow it.", metavar="B", rich_help_panel="How")] = "100",
    fixed: Annotated[bool, typer.Option("--fixed", help="Keep the same draws of a random method throughout, which flatters the attack: both figures are shown.", rich_help_panel="How")] = False,
    seed: Annotated[int, typer.Option(help="Of all draws.", metavar="N", rich_help_panel="How")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...", metavar="D", rich_help_panel="How")] = "cpu",
    out: Annotated[Path, typer.Option(help="Folder for the pictures (.png) and the changed images (.npz).", metavar="DIR", rich_help_panel="Output")] = Path("out"),
    as_json: Json = False,
) -> None:
    """Change photographs a little so that their explanations change and their classes stay, and measure what came of it.

    Writes IMAGE.attack.png and, with the changed image as array 'image' (3, h, w) in [0, 1], IMAGE.attack.npz; where an option is not the default, six digits that stand for the options follow.
    """
    from salience.attacks.attack import Attack
    from salience.core.model import Model
    from salience.core.options import convert
    from salience.show.batch import digits, stems_of
    from salience.show.table import table
    from salience.zoo.images import check_path
    from salience.zoo.models import load_model

    chosen = Attack(method=method, threat=threat, objective=objective, steps=steps, restarts=restarts, output_weight=output_weight, beta=convert(beta, tuple[float, ...], "beta"), fixed=fixed)
    chosen = dataclasses.replace(chosen, threat=_with_budgets(chosen, budget))
    for path in images:
        check_path(path)
    network = load_model(model, device=device)
    if not isinstance(network, Model):
        raise InputError(f"An attack needs the gradients of the network, and {model} is a black box: give a network.")
    aim = None if toward is None else _aim(toward, network)
    given = {"attack": str(chosen), "model": model, "target": target, "toward": toward and str(toward), "seed": seed}
    usual = {"attack": str(Attack()), "model": DEFAULT_MODEL, "target": None, "toward": None, "seed": 0}
    unusual = {key: value for key, value in given.items() if value != usual[key]}
    rows: list[list[str]] = []
    own: list[str] = []
    with progress() as report:
        for path, name in zip(images, stems_of(images), strict=True):
            row = _attacked(chosen, network, path, out / f"{name}.attack{digits(unusual)}", toward, aim, target, seed, report)
            if as_json:
                print_json(row)
            rows.append(_cells(row))
            if aim is None:
                own.append(f"{path.name}: {row['objective']} went from {row['objective_before']:.3g} to {row['objective_after']:.3g}; random changes make it {row['random_objective']:.3g}.")
            if row["distance_on_own_draws"] is not None:
                own.append(f"{path.name}: {row['distance_on_own_draws']:.3f} {'to the target' if aim is not None else 'to the original'} on the draws that the attack has seen.")
    if not as_json:
        console().print(table(COLUMNS, rows))
        for sentence in own:
            tell(sentence)
        tell("Cosine distances of the map: to the map aimed at (before → after) and to the map as it was; random: the median of 20 random changes of the same budget.", "dim")
        tell(f"The pictures (.png) and changed images (.npz) are in {out}.")


def _attacked(chosen: "Attack", model: "Model", path: Path, stem: Path, toward: Path | None, aim: Any, target: str | None, seed: int, report: "Report") -> dict[str, Any]:
    """Attack one image, write its files, return its row."""
    import numpy as np

    from salience.core.files import atomic, write_whole
    from salience.show.overlay import to_png
    from salience.zoo.images import load_images

    start = time.perf_counter()
    image = load_images([path], model)
    found = chosen.run(model, image, aim, target, seed=seed, progress=lambda done, total: report(f"{path.name}: attacking {chosen.method}", done, total))
    seconds = time.perf_counter() - start
    row = row_of(found, 0) | {
        "image": str(path),
        "toward": toward and str(toward),
        "model": found.model,
        "seed": seed,
        "seconds": round(seconds, 3),
        "perturbed": f"{stem}.npz",
        "pictures": [f"{stem}.png"],
    }
    picture = to_png(found.show())
    with atomic(f"{stem}.npz") as file:
        np.savez_compressed(file, image=found.perturbed[0].numpy(), record=np.array(json.dumps(row | {"weights": found.weights})))
    write_whole(f"{stem}.png", picture)
    return row


def row_of(found: "Attacked", index: int) -> dict[str, Any]:
    """What is known of one attacked image, ready for JSON."""

    def of(values: Any) -> float | None:
        return None if values is None else float(values[index])

    return {
        "method": str(found.attack.method),
        "threat": "+".join(map(str, found.attack.threats)),
        "objective": str(found.attack.objective),
        "target": int(found.targets[index]),
        "label": found.labels[index],
        "class_kept": bool(found.class_kept[index]),
        "probability_before": of(found.probability_before),
        "probability_after": of(found.probability_after),
        "predicted_after": int(found.predictions[1][index]),
        "label_after": found.new_labels[index],
        "budget": {name: float(used[index]) for name, used in found.budget.items()},
        "bounds": found.bounds,
        "distance_to_target_before": of(found.distance_to_target_before),
        "distance_to_target_after": of(found.distance_to_target_after),
        "distance_to_original": of(found.distance_to_original),
        "random_distance_to_target": of(found.random_distance_to_target),
        "random_distance_to_original": of(found.random_distance_to_original),
        "objective_before": of(found.objective_before),
        "objective_after": of(found.objective_after),
        "random_objective": of(found.random_objective),
        "lpips": of(found.lpips),
        "ssim": of(found.ssim),
        "distance_on_own_draws": of(found.own_draws),
        "steps": found.attack.steps,
        "restarts": found.attack.restarts,
        "beta": list(found.attack.beta),
        "output_weight": found.attack.output_weight,
        "fixed": found.attack.fixed,
        "blind_steps": int(found.blind[index]),
    }


def _cells(row: dict[str, Any]) -> list[str]:
    """What the table shows of an attacked image, in the order of `COLUMNS`."""

    def said(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    aimed = "-" if row["distance_to_target_before"] is None else f"{said(row['distance_to_target_before'])} → {said(row['distance_to_target_after'])}"
    kept = "yes" if row["class_kept"] else "no"
    numbers = [said(row[key]) for key in ("random_distance_to_target", "distance_to_original", "random_distance_to_original", "ssim", "lpips")]
    return [Path(row["image"]).name, row["label"], kept, row["method"], row["threat"], aimed, *numbers, f"{row['seconds']:.1f}"]


def _with_budgets(chosen: "Attack", text: str | None) -> tuple:
    """The threats with the budgets given."""
    from salience.core.options import convert

    if text is None:
        return chosen.threat
    names = [threat.name for threat in chosen.threat]
    pairs = [part.strip().partition("=")[::2] for part in text.split(",")] if "=" in text else [(names[0], text)]
    given = dict(pairs)
    if len(given) < len(pairs):
        raise InputError(f"--budget names a threat twice ({text}): give each one budget.")
    if len(names) > 1 and "=" not in text:
        raise InputError(f"There are {len(names)} threats, so say whose budget it is: --budget {','.join(f'{name}={text}' for name in names)}.")
    wrong = set(given) - set(names)
    if wrong:
        raise InputError(f"--budget names {', '.join(sorted(wrong))}, but the threats are {'+'.join(names)}: add it to --threat, or leave its budget out.")
    return tuple(dataclasses.replace(threat, budget=convert(given[threat.name], float, f"{threat.name}: budget")) if threat.name in given else threat for threat in chosen.threat)


def _aim(path: Path, model: "Model") -> Any:
    """The image, or the map, that the attack aims at."""
    from salience.cli.measure import maps_of
    from salience.zoo.images import load_images

    return maps_of([path], 0, 1) if path.suffix == ".npz" else load_images([path], model)
