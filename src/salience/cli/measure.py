"""``salience measure``."""

import time
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from salience.cli._shared import DEFAULT_MODEL, MODEL_HELP, Json, console, print_json, progress
from salience.core.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from salience.core.classifier import Classifier
    from salience.core.metric import Metric
    from salience.core.types import Report
    from salience.zoo.images import Photographs

EDGES = ("left", "top", "right", "bottom")
MANY = 100
"""A mask with so many values is a soft one, not one of classes."""

EXAMPLES = """[bold]Examples[/bold]

salience measure cat.jpg --method rise --metric deletion --metric insertion

salience measure cat.jpg --maps out/cat.rise.npz --metric deletion:steps=224

salience measure *.jpg --method gradcam --metric pointing_game --masks masks --json
"""


def measure(
    images: Annotated[list[Path], typer.Argument(help="Photographs: JPEG, PNG, ...", metavar="IMAGE", show_default=False)],
    metric: Annotated[list[str], typer.Option(help="NAME or NAME:key=value,...; may be repeated; see salience list metrics.", show_default=False, metavar="NAME", rich_help_panel="What is measured")],
    maps: Annotated[
        list[Path] | None,
        typer.Option(help="Maps to judge: an .npz with an array 'map', or an .npy; one file for all images or one each, in order.", metavar="FILE", rich_help_panel="What is measured"),
    ] = None,
    method: Annotated[list[str] | None, typer.Option(help="Methods that make the maps; may be repeated.", show_default=False, metavar="M", rich_help_panel="What is measured")] = None,
    masks: Annotated[
        Path | None,
        typer.Option(
            help="Folder with IMAGE.png or IMAGE.mask.png for each image, nonzero where the object is; or a CSV file of boxes: file,left,top,right,bottom.",
            metavar="PATH",
            rich_help_panel="What is measured",
        ),
    ] = None,
    mask_value: Annotated[int | None, typer.Option(help="The value of the object in masks of several classes.", show_default="all but 0", metavar="N", rich_help_panel="What is measured")] = None,
    model: Annotated[str, typer.Option(metavar="M", help=MODEL_HELP, rich_help_panel="How")] = DEFAULT_MODEL,
    target: Annotated[str | None, typer.Option(help="A class index or name.", show_default="that of the maps, else the predicted class", metavar="T", rich_help_panel="How")] = None,
    seed: Annotated[int, typer.Option(help="Of all draws, the maps' too.", metavar="N", rich_help_panel="How")] = 0,
    fit: Annotated[str | None, typer.Option(help="How a picture is brought to the model's size: crop, squash or pad.", show_default="the model's own", metavar="F", rich_help_panel="How")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...", metavar="D", rich_help_panel="How")] = "cpu",
    as_json: Json = False,
) -> None:
    """Measure maps: how faithful, well placed, robust or simple they are.

    The maps are made by --method, or read from --maps, also if something else made them.
    """
    from salience.core.metric import Metric
    from salience.show.table import table
    from salience.zoo.images import check_path
    from salience.zoo.models import load_model

    if (maps is None) == (method is None):
        raise InputError("Say either --method, which makes the maps, or --maps, which reads them.")
    if maps is not None and len(maps) not in (1, len(images)):
        raise InputError(f"{len(maps)} files of maps were given for {len(images)} images: give one for all, or one for each.")
    chosen = [Metric.from_value(each) for each in metric]
    for path in images:
        check_path(path)
    classifier = load_model(model, device=device)
    shown: list[Sequence[str]] = []
    try:
        with progress() as report:
            for place, path in enumerate(images):
                with _naming(path):
                    for row in _rows(classifier, path, chosen, method or [], maps_of(maps, place, len(images)), _mask(masks, path, mask_value), target, seed, fit, report):
                        if as_json:
                            print_json(row)
                        value = row["reason"] if row["value"] is None else f"{row['value']:.4g}"
                        error = "" if row["stderr"] is None else f"{row['stderr']:.2g}"
                        shown.append((path.name, row["label"], row["method"], row["metric"], value, error, f"{row['seconds']:.1f}"))
    finally:  # an error does not lose what was measured before it
        if shown and not as_json:
            console().print(table(("image", "class", "method", "metric", "value", "stderr", "seconds"), shown))


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Name the picture in what is wrong with it."""
    try:
        yield
    except InputError as error:
        raise InputError(str(error) if str(error).startswith(str(path)) else f"{path}: {error}") from error


def _rows(
    model: "Classifier", path: Path, metrics: "Sequence[Metric]", methods: Sequence[str], given: Any, mask: "np.ndarray | None", target: str | None, seed: int, fit: str | None, report: "Report"
) -> Iterator[dict[str, Any]]:
    """The rows of one image."""
    from salience.core.errors import UndefinedError
    from salience.core.explainer import Explainer
    from salience.zoo.images import load_images

    image = load_images([path], model, fit)
    chosen: Sequence[str | None] = methods or [None]
    for text in chosen:
        explainer = None if text is None else Explainer.from_value(text)
        report(f"{path.name}: {explainer or 'reading the map'}", 0, None)
        e = given if explainer is None else explainer(model, image, target, seed=seed)
        if explainer is None:
            _warn_of_other_weights(e, model)
        wanted = target if target is not None else _own_target(e, model, image)
        name = str(explainer) if explainer is not None else getattr(e, "method", "")
        for metric in metrics:
            if explainer is None and not name and metric.facts.get("needs_explainer"):
                raise InputError(f"{metric.name} makes new maps, and the file of maps does not say by which method: say --method instead of --maps.")
            report(f"{path.name}: {metric}", 0, None)
            start = time.perf_counter()
            row: dict[str, Any] = {"value": None, "stderr": None, "status": "ok", "reason": ""}
            try:
                found = metric(model, image, wanted, e, masks=None if mask is None else [mask], explainer=explainer, seed=seed)
                row |= {"value": float(found.values[0]), "stderr": None if found.stderr is None else float(found.stderr[0])}
            except UndefinedError as error:
                row |= {"status": "undefined", "reason": str(error)}
            index = wanted if isinstance(wanted, int) else model.class_index(wanted, len(model.labels or ()) or 10**9)
            keys = {"image": str(path), "method": name, "target": index, "label": model.label(index), "metric": str(metric)}
            yield keys | row | {"seconds": round(time.perf_counter() - start, 3)}


def _warn_of_other_weights(e: Any, model: "Classifier") -> None:
    """Warn if an explanation is of another network than the one that judges it."""
    explained = getattr(e, "record", {}).get("model", {})
    if explained and explained["weights"] != model.weights_hash():
        warnings.warn(f"The maps explain {explained['name']}, whose weights are not those of {model.name}, which judges them: name their network with --model.", UserWarning, stacklevel=1)


def _own_target(e: Any, model: "Classifier", image: "Photographs") -> int:
    """The target of an explanation, or the predicted class of maps that do not say theirs."""
    from torch import Tensor

    if hasattr(e, "targets"):
        return int(e.targets[0])
    return int(model.outputs(image.as_subclass(Tensor).to(model.device)).argmax())


def maps_of(files: Sequence[Path] | None, place: int, count: int) -> Any:
    """The maps of one image: an `Explanation` if salience wrote the file, else an array (1, ...).

    Args:
        files: One file for all images or one each: an .npz with an array ``map``, (h, w), (n, h, w) or (n, c, h, w),
            or an .npy, which for one image may be (3, h, w), a map with three channels, too.
        place: The number of the image.
        count: How many images there are.

    Raises:
        InputError: If the file is missing, holds no maps, or not as many as images.
    """
    import numpy as np

    from salience.core.explanation import Explanation

    if files is None:
        return None
    path = files[place if len(files) > 1 else 0]
    index, wanted = (0, 1) if len(files) > 1 else (place, count)
    if not path.exists():
        raise InputError(f"There is no file {path}: check the path.")
    holds_none = f"{path} holds no maps: give an .npz file with an array 'map', (n, c, h, w) or (n, h, w), or such an array as an .npy file."
    try:
        with path.open("rb") as opened:
            loaded = np.load(opened, allow_pickle=False)
            plain = isinstance(loaded, np.ndarray)
            names, array = ([], loaded) if plain else (loaded.files, loaded["map"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(holds_none) from error
    if array.dtype.kind not in "biuf":
        raise InputError(f"The array of maps in {path} must hold real numbers, not {array.dtype.name}: save the maps as floats.")
    if array.ndim not in (2, 3, 4):
        raise InputError(holds_none)
    if array.ndim == 2 or (plain and wanted == 1 and array.ndim == 3 and len(array) == 3):
        array = array[None]
    if len(array) != wanted:
        raise InputError(f"{path} holds {len(array)} map(s) for {wanted} image(s): give a file with one map for each image.")
    return Explanation.load(path)[index] if "record" in names else array[index : index + 1]


def _mask(where: Path | None, image: Path, value: int | None) -> "np.ndarray | None":
    """The mask of an image (h, w), True where the object is, or its boxes (k, 4)."""
    import numpy as np

    from salience.zoo.data import _files

    if where is None:
        return None
    if where.is_file():
        rows = [row for row in _files.table(where, ("file", *EDGES)).values() if row["file"] in (image.name, str(image))]
        if not rows:
            raise InputError(f"{where} has no box of {image.name}: add it, or leave --masks out.")
        try:
            return np.array([[float(row[edge]) for edge in EDGES] for row in rows])
        except ValueError as error:
            raise InputError(f"{where}: the edges of a box are numbers ({error}).") from error
    for name in (f"{image.stem}{ending}" for ending in (".mask.png", ".png", ".mask.PNG", ".PNG")):
        if (where / name).exists() and not (where / name).samefile(image):
            found = _files.mask_values(where / name)
            kinds = np.unique(found[found != 0]) if found.ndim == 2 else ()
            if value is not None:
                return found == value if found.ndim == 2 else (found == value).all(-1)
            if 1 < len(kinds) < MANY:
                warnings.warn(
                    f"The mask {where / name} has {len(kinds)} values besides 0 ({', '.join(map(str, kinds[:8]))}): all count as the object. Choose one with --mask-value.", UserWarning, stacklevel=1
                )
            return _files.mask(where / name)
    raise InputError(f"There is no mask {image.stem}.png or {image.stem}.mask.png in {where}: add it, or leave --masks out.")
