"""What an attack did to one image, in pictures."""

import matplotlib.figure
import numpy as np
from torch import Tensor

from salience.attacks.attacked import Attacked
from salience.core.objective import shares
from salience.show.colour import AGAINST, FOR, HEAT, Scale
from salience.show.figures import Grid
from salience.show.overlay import INK, drawing, number, to_png

WIDTH = 300
"""Of a panel, in pixels at 100 dots an inch."""

ARROWS = 16
"""Arrows across a picture of the flow."""


def attack_figure(attacked: Attacked, index: int = 0) -> bytes:
    """The image before and after, their difference, the flow, and the maps, as a PNG file.

    Maps are shares of their total, in units of an even share; all in one scale.

    Args:
        attacked: What an attack came to.
        index: Which of its images.
    """
    before, after = (each[index] for each in (attacked.images, attacked.perturbed))
    height, width = before.shape[-2:]
    maps = {"map before": shares(attacked.maps[0])[index], "map after": shares(attacked.maps[1])[index]}
    if attacked.aim is not None:
        maps["map aimed at"] = attacked.aim[index]
    values = {name: each.numpy() * height * width for name, each in maps.items()}
    scale = Scale(0.0, float(max(np.percentile(each, 99.5) for each in values.values())) or 1.0, False, HEAT)
    change = (after - before).mean(0).numpy()
    largest = float(np.abs(change).max()) or 1e-6
    signed = Scale(-largest, largest, True, AGAINST + FOR[1:])
    probabilities = [float(each[index]) for each in attacked.probability]
    with drawing():
        grid = Grid(matplotlib.figure.Figure, 4, [WIDTH / 100 * height / width] * 2, WIDTH / 100, above=0.4, below=0.75)
        grid.text(0, 0, "image before")
        grid.picture(0, 0, _large(_rgb(before)))
        grid.under(0, 0, f"{attacked.labels[index]}, probability {number(probabilities[0])}", INK)
        grid.text(0, 1, f"image after {'+'.join(threat.name for threat in attacked.attack.threats)}")
        grid.picture(0, 1, _large(_rgb(after)))
        kept = "class kept" if attacked.class_kept[index] else f"class changed to {attacked.new_labels[index]}"
        grid.under(0, 1, f"{kept}; {attacked.labels[index]}, probability {number(probabilities[1])}", INK)
        grid.text(0, 2, "difference")
        grid.picture(0, 2, _large(signed.colour(change)))
        grid.bar(0, 2, signed, f"after less before, mean of the channels (white is 1); SSIM {number(float(attacked.ssim[index]))}")
        grid.text(0, 3, "flow")
        if attacked.flow is None:
            grid.note(0, 3, "this attack moves no pixels")
        else:
            _flow(grid, attacked.flow[index], _large(_rgb(before)))
        used = ", ".join(f"{name} {number(float(each[index]))} of {number(attacked.bounds[name])}" for name, each in attacked.budget.items())
        grid.note(1, 3, f"used of the budget: {used}; {attacked.attack.steps} steps, {attacked.attack.restarts} run(s)")
        for column, (name, each) in enumerate(values.items()):
            grid.text(1, column, name)
            grid.picture(1, column, _large(scale.colour(each)))
            grid.bar(1, column, scale, f"{attacked.attack.method}: share of |map|, in units of an even share" if column == 0 else _distances(attacked, index, name))
        return to_png(grid.figure)


def _distances(attacked: Attacked, index: int, name: str) -> str:
    if name == "map aimed at" and attacked.distance_to_target is not None:
        random = "" if attacked.random_distance_to_target is None else f" (a random change of the budget: {number(float(attacked.random_distance_to_target[index]))})"
        return f"cosine distance to it: {number(float(attacked.distance_to_target[0][index]))} before, {number(float(attacked.distance_to_target[1][index]))} after{random}"
    random = "" if attacked.random_distance_to_original is None else f"; a random change of the budget moves it by {number(float(attacked.random_distance_to_original[index]))}"
    return f"cosine distance to the map before: {number(float(attacked.distance_to_original[index]))}{random}"


def _rgb(image: Tensor) -> np.ndarray:
    return image.expand(3, -1, -1).permute(1, 2, 0).numpy()


def _large(array: np.ndarray) -> np.ndarray:
    """Small pictures enlarged by whole pixels, so that panels are of one width."""
    factor = max(round(WIDTH / array.shape[1]), 1)
    rows, columns = (np.linspace(0, size - 1, round(size * (factor if factor > 1 else WIDTH / array.shape[1]))).round().astype(int) for size in array.shape[:2])
    return array[rows][:, columns]


def _flow(grid: Grid, flow: Tensor, picture: np.ndarray) -> None:
    """Arrows from where a pixel's colour comes to where it is, over the faded picture."""
    height, width = flow.shape[:2]
    axes = grid.picture(0, 3, 0.75 + 0.25 * picture)
    step = max(width // ARROWS, 1)
    rows, columns = np.mgrid[step // 2 : height : step, step // 2 : width : step]
    pixels = flow.numpy() * np.array([(width - 1) / 2, (height - 1) / 2])
    chosen = pixels[rows, columns]
    enlarged = picture.shape[1] / width
    longest = float(np.abs(pixels).max())
    axes.quiver(columns * enlarged, rows * enlarged, -chosen[..., 0], chosen[..., 1], color=INK, scale=max(longest, 1e-9) * ARROWS, width=0.004)
    grid.under(0, 3, f"where colours move to; largest move {number(longest)} pixels", INK)
