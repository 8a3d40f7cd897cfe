"""A map laid over the picture it explains, with a colour bar that says what is shown."""

import io
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from salience.core.explanation import Explanation
from salience.core.geometry import names_of
from salience.show.colour import PERCENTILE, Scale, Shown, about_its_mean, declared, shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LONGEST = 1024
"""Longest side of a drawn picture, in pixels."""

SHORTEST = 640
"""Smaller pictures are enlarged until their longer side has this many pixels."""

INK = "#1b1f24"
FAINT = "#57606a"
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "axes.linewidth": 0.6,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "axes.formatter.useoffset": False,
    "text.parse_math": False,
    "text.usetex": False,
}


@dataclass(frozen=True)
class Panel:
    """One image of an explanation, ready to draw.

    Attributes:
        picture: The original picture (h, w, 3) in [0, 1], at drawing size; a blank one if it is not known.
        values: The map on the picture, (h, w).
        stderr: Its standard error, (h, w), or None.
        undecided: Pixels within their error of the reference, (h, w), or None.
        seen: Pixels that the model was given, (h, w).
        shown: The map in the geometry of the model's input.
    """

    picture: np.ndarray
    values: np.ndarray
    stderr: np.ndarray | None
    undecided: np.ndarray | None
    seen: np.ndarray
    shown: Shown

    def overlay(self) -> np.ndarray:
        """The map over the picture in grey, (h, w, 3) in [0, 1].

        Colour grows with the value; pixels that the error leaves undecided keep the grey picture;
        what the model was not given fades.
        """
        grey = 0.22 + 0.74 * (self.picture @ np.array([0.299, 0.587, 0.114]))[..., None]
        least = 0.0 if self.undecided is None else 0.15
        scale = self.shown.scale
        share = least + (0.88 - least) * scale.strength(self.values) ** (0.5 if scale.signed else 0.8)
        if self.undecided is not None:
            share = np.where(self.undecided, 0.0, share)
        share = np.where(self.seen, share, 0.0)[..., None]
        mixed = share * scale.colour(self.values) + (1 - share) * grey
        return np.clip(np.where(self.seen[..., None], mixed, 0.82 + 0.18 * grey), 0, 1)

    def error(self, scale: Scale) -> np.ndarray:
        """The standard error in colours, (h, w, 3) in [0, 1]."""
        if self.stderr is None:
            raise ValueError("there is no error to draw")
        return np.where(self.seen[..., None], scale.colour(np.nan_to_num(self.stderr, nan=scale.high)), 0.94)


def panels(e: Explanation, longest: int = LONGEST, shortest: int = SHORTEST) -> list[Panel]:
    """Every image of an explanation on its original picture, where that is known.

    Args:
        e: The explanation.
        longest: Longest side of a panel, in pixels.
        shortest: What the longer side of a small picture is enlarged to.
    """
    return [_panel(e, index, each, longest, shortest) for index, each in enumerate(shown(e))]


def _panel(e: Explanation, index: int, view: Shown, longest: int, shortest: int) -> Panel:
    geometry = getattr(e.images, "geometry", [None] * len(e))[index]
    source = _source(e, index)
    height, width = _drawn(geometry.original if geometry is not None else view.values.shape, longest, shortest)
    picture = np.asarray(source.resize((width, height), Image.Resampling.LANCZOS), dtype=np.float64) / 255

    def place(array: np.ndarray) -> np.ndarray:
        tensor = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float64))[None, None]
        if geometry is None:
            return torch.nn.functional.interpolate(tensor, (height, width), mode="bilinear", align_corners=False)[0, 0].numpy()
        return geometry.to_original(tensor, (height, width))[0, 0].numpy()

    return Panel(
        picture=picture,
        values=place(view.values),
        stderr=None if view.stderr is None else place(view.stderr),
        undecided=None if view.undecided is None else place(view.undecided) > 0.5,
        seen=place(np.ones_like(view.values)) > 0.5,
        shown=view,
    )


def _source(e: Explanation, index: int) -> Image.Image:
    """The original picture, else the model's input, else a blank."""
    pictures = getattr(e.images, "pictures", None)
    if pictures is not None:
        return pictures[index].convert("RGB")
    if e.images is None:
        return Image.new("RGB", (e.maps.shape[-1], e.maps.shape[-2]), (235, 235, 235))
    pixels = e.images[index].as_subclass(torch.Tensor).clamp(0, 1).mul(255).round().to(torch.uint8)
    return Image.fromarray(pixels.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy())


def _drawn(size: tuple[int, ...], longest: int, shortest: int) -> tuple[int, int]:
    """Height and width at which a picture is drawn."""
    scale = min(max(1.0, shortest / max(size)), longest / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def overlay(e: Explanation, *, label: str | None = None) -> bytes:
    """A map over its picture, with a title and a colour bar, as a PNG file.

    Args:
        e: The explanation, of which the first image is drawn.
        label: Name of the class explained; by default from the record, else its index.
    """
    from matplotlib.figure import Figure

    (panel,) = panels(e[:1])
    height, width = panel.picture.shape[:2]
    across = max(width, SHORTEST)
    size = 10.5 * (across / 640) ** 0.6
    line, gap, letters = round(size * 1.45), round(size * 0.9), int(across * 0.94 / (size * 0.53))
    title = textwrap.wrap(title_of(e, 0, label), int(letters * 0.72))[:3]
    first, *others = notes_of(e, 0, panel.shown)
    notes = [(part, INK) for part in textwrap.wrap(first, letters)] + [(part, FAINT) for note in others for part in textwrap.wrap(note, letters)]
    above = gap + line * len(title) + gap // 2
    bar, ticks = round(size * 1.1), round(size * 2.0)
    below = gap + bar + ticks + gap // 2 + line * len(notes) + gap // 2
    total = above + height + below
    with drawing():
        figure = Figure(figsize=(across / 100, total / 100), dpi=100)
        for number, text in enumerate(title):
            write(figure, 0.94, 0.03, 1 - (gap + line * (number + 0.5)) / total, text, size=size * 0.78, weight="bold", va="center")
        figure.figimage((255 * panel.overlay()).round().astype(np.uint8), (across - width) // 2, below, origin="upper")
        axes = figure.add_axes((0.03, (below - gap - bar) / total, 0.94, bar / total))
        colour_bar(axes, panel.shown.scale, size=size * 0.68)
        for number, (text, color) in enumerate(notes):
            write(figure, 0.94, 0.03, (gap // 2 + line * (len(notes) - number - 0.5)) / total, text, size=size * 0.70, color=color, va="center")
        file = to_png(figure)
        figure.clear()  # figures are cycles: without this many files would wait in memory for the garbage collector
        return file


def write(figure: "Figure", most: float, x: float, y: float, text: str, **style: Any) -> None:
    """Write a text, smaller if it would be wider than a share of the figure."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    written = figure.text(x, y, text, **style)
    renderer, room = FigureCanvasAgg(figure).get_renderer(), most * figure.get_figwidth() * figure.dpi
    while (width := written.get_window_extent(renderer).width) > room:  # letters do not shrink exactly in proportion
        written.set_fontsize(0.98 * float(written.get_fontsize()) * room / width)


def colour_bar(axes: "Axes", scale: Scale, *, size: float, room: float = 0.12) -> None:
    """Draw a horizontal colour bar.

    Args:
        axes: Where.
        scale: The colours.
        size: Of the numbers, in points.
        room: Share of the bar that the number at each of its ends takes.
    """
    from matplotlib.ticker import MaxNLocator

    strip = scale.colour(np.linspace(scale.low, scale.high, 512))[None]
    axes.imshow(strip, aspect="auto", extent=(scale.low, scale.high, 0, 1), interpolation="bilinear")
    span = scale.high - scale.low
    inside = [tick for tick in MaxNLocator(4).tick_values(scale.low, scale.high) if room < (tick - scale.low) / span < 1 - room]
    ticks = [scale.low, *inside, scale.high]
    first, *middle, last = numbers(ticks)
    names = [first if scale.low == 0 else f"≤ {first}", *middle, f"≥ {last}"]
    axes.set_xticks(ticks, names)
    axes.get_xticklabels()[0].set_horizontalalignment("left")
    axes.get_xticklabels()[-1].set_horizontalalignment("right")
    axes.tick_params(axis="x", labelsize=size, length=2, pad=2)
    axes.set_yticks([])


def numbers(values: Sequence[float]) -> list[str]:
    """Numbers that stand side by side: with as many digits as tell different ones apart."""
    written = ([number(value, digits) for value in values] for digits in range(3, 8))
    return next((texts for texts in written if len(set(texts)) == len(set(values))), [number(value, 8) for value in values])


def number(value: float, digits: int = 3) -> str:
    """A number as it is printed beside a colour bar: three digits, without a trailing exponent if it can be."""
    text = f"{value:.{digits}g}"
    return "0" if float(text) == 0 else text.replace("-", "\u2212").replace("e+0", "e").replace("e\u22120", "e\u2212")


def title_of(e: Explanation, index: int, label: str | None = None) -> str:
    """Which picture, which class, how probable."""
    name, known, label = name_of(e, index), e.record["images"], label or label_of(e, index)
    probability = known["probability"][index] if "probability" in known else None
    said = label if probability is None else f"{label}, probability {probability:.3g}"
    return f"{name}: {said}" if name else said


def name_of(e: Explanation, index: int) -> str:
    """The picture's file name, with question marks for bytes that are not text; empty if it is not known."""
    names = names_of(e.images)
    return names[index].replace("\\", "/").rsplit("/", 1)[-1].encode("utf-8", "replace").decode("utf-8") if names else ""


def label_of(e: Explanation, index: int) -> str:
    """The class explained."""
    known = e.record["images"]
    return known["label"][index] if "label" in known else f"class {int(e.targets[index])}"


def notes_of(e: Explanation, index: int, view: Shown) -> list[str]:
    """The lines under the colour bar: what is shown, in which colours, how sure."""
    channels = ", channels summed" if e.maps.shape[1] > 1 else ""
    lines = [f"{e.method}: {unit_of(e)}{channels}"]
    if view.values.min() == view.values.max():
        colours = f"The value is {number(view.values.flat[0])} everywhere: this map tells no pixel from another."
    elif about_its_mean(e):
        middle = number(view.reference)
        colours = f"Red is above the map's mean, {middle}, and speaks for the class, blue is below it and speaks against it; full colour from the {PERCENTILE}th percentile of the distance."
    elif view.scale.signed:
        signs = "red is above 0, blue below it" if declared(e, "control") else "red speaks for the class, blue against it"
        colours = f"Signed: {signs}; full colour from the {PERCENTILE}th percentile of |value|."
    else:
        colours = f"Unsigned: darker is more; the scale ends at the {PERCENTILE}th percentile" + (f" and starts at the {100 - PERCENTILE:.1f}th." if view.scale.low else ".")
    known = grey_of(view) or "which pixels are within it is not known (saved without blocks)"
    sure = [draws_of(e, index), known if e.stderr is not None else "no sampling error" if e.certainty == "deterministic" else "other draws give another map"]
    return [*lines, colours, f"{'; '.join(sure).capitalize()}."]


def unit_of(e: Explanation) -> str:
    """What the numbers are: the unit declared by the method or by its base, else the score alone."""
    score = e.score.replace("_", " ")
    unit = declared(e, "unit")
    return unit.format(score=score) if unit else f"explains the {score}"


def draws_of(e: Explanation, index: int) -> str:
    """How much the map was sampled, and how well."""
    relative = e.relative_error
    return e.certainty if relative is None else f"{int(e.samples[index])} samples, relative error {number(float(relative[index]))}"


def grey_of(view: Shown) -> str:
    """What grey pixels mean; nothing where no pixel is greyed."""
    if view.undecided is None:
        return ""
    against = "0" if view.reference == 0 else f"the map's mean, {number(view.reference)}"
    return f"grey: the {view.interval} includes {against} ({view.undecided.mean():.0%} of the pixels)"


@contextmanager
def drawing() -> Iterator[None]:
    """Our style for the length of a drawing, whatever the user's; letters without a glyph are no reason to warn."""
    import matplotlib as mpl

    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def to_png(figure: "Figure") -> bytes:
    """The figure as a PNG file, drawn by Agg, without touching the user's backend."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas, buffer = FigureCanvasAgg(figure), io.BytesIO()
    canvas.draw()
    Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3]).save(buffer, "PNG", compress_level=4)
    return buffer.getvalue()
