"""What an attack did, in pictures."""

import numpy as np
from torch import Tensor

from salience.attacks.attacked import Attacked
from salience.core.objective import shares
from salience.show.colour import AGAINST, FOR, HEAT, Scale
from salience.show.figures import Drawing, Grid
from salience.show.overlay import FAINT, INK, drawing, number

WIDTH = 300
"""Of a panel, in pixels at 100 dots an inch."""

MOST = 8
"""Images of a figure at most."""

ARROWS = 16
"""Arrows across a picture of the flow."""


def attack_figure(attacked: Attacked) -> Drawing:
    """Two rows an image: before and after, their difference, the flow; and the maps, as shares of their total in units of an even share, all of an image in one scale.

    At most `MOST` images are drawn.
    """
    count, (height, width) = len(attacked.images), attacked.images.shape[-2:]
    drawn = min(count, MOST)
    with drawing():
        grid = Grid(4, [WIDTH / 100 * height / width] * 2 * drawn, WIDTH / 100, above=0.4, below=0.75)
        for index in range(drawn):
            _image(grid, 2 * index, attacked, index)
        if count > drawn:
            grid.figure.text(0.02, 0.005, f"{count - drawn} more images are not drawn.", size=8, color=FAINT)
        return grid.figure


def _image(grid: Grid, row: int, attacked: Attacked, index: int) -> None:
    """Two rows of panels, from `row` on."""
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
    probabilities = [float(each[index]) for each in (attacked.probability_before, attacked.probability_after)]
    grid.text(row, 0, "image before")
    grid.picture(row, 0, _large(_rgb(before)))
    grid.under(row, 0, f"{attacked.labels[index]}, probability {number(probabilities[0])}", INK)
    grid.text(row, 1, f"image after {'+'.join(threat.name for threat in attacked.attack.threats)}")
    grid.picture(row, 1, _large(_rgb(after)))
    kept = "class kept" if attacked.class_kept[index] else f"class changed to {attacked.new_labels[index]}"
    grid.under(row, 1, f"{kept}; {attacked.labels[index]}, probability {number(probabilities[1])}", INK)
    grid.text(row, 2, "difference")
    grid.picture(row, 2, _large(signed.colour(change)))
    grid.bar(row, 2, signed, f"after less before, mean of the channels (white is 1); SSIM {number(float(attacked.ssim[index]))}")
    grid.text(row, 3, "flow")
    if attacked.flow is None:
        grid.note(row, 3, "this attack moves no pixels")
    else:
        _flow(grid, row, attacked.flow[index], _large(_rgb(before)))
    used = ", ".join(f"{name} {number(float(each[index]))} of {number(attacked.bounds[name])}" for name, each in attacked.budget.items())
    grid.note(row + 1, 3, f"used of the budget: {used}; {attacked.attack.steps} steps, {attacked.attack.restarts} run(s)")
    for column, (name, each) in enumerate(values.items()):
        grid.text(row + 1, column, name)
        grid.picture(row + 1, column, _large(scale.colour(each)))
        grid.bar(row + 1, column, scale, f"{attacked.attack.method}: share of |map|, in units of an even share" if column == 0 else _distances(attacked, index, name))


def _distances(attacked: Attacked, index: int, name: str) -> str:
    if name == "map aimed at" and attacked.distance_to_target_before is not None and attacked.distance_to_target_after is not None:
        random = "" if attacked.random_distance_to_target is None else f" (a random change of the budget: {number(float(attacked.random_distance_to_target[index]))})"
        return f"cosine distance to it: {number(float(attacked.distance_to_target_before[index]))} before, {number(float(attacked.distance_to_target_after[index]))} after{random}"
    random = "" if attacked.random_distance_to_original is None else f"; a random change of the budget moves it by {number(float(attacked.random_distance_to_original[index]))}"
    return f"cosine distance to the map before: {number(float(attacked.distance_to_original[index]))}{random}"


def _rgb(image: Tensor) -> np.ndarray:
    return image.expand(3, -1, -1).permute(1, 2, 0).numpy()


def _large(array: np.ndarray) -> np.ndarray:
    """A picture as wide as a panel, without interpolation."""
    drawn = [round(size * WIDTH / array.shape[1]) for size in array.shape[:2]]
    rows, columns = (np.arange(wanted) * size // wanted for wanted, size in zip(drawn, array.shape[:2], strict=True))
    return array[rows][:, columns]


def _flow(grid: Grid, row: int, flow: Tensor, picture: np.ndarray) -> None:
    """Arrows from where a pixel's colour comes to where it is, over the faded picture."""
    height, width = flow.shape[:2]
    axes = grid.picture(row, 3, 0.75 + 0.25 * picture)
    step = max(width // ARROWS, 1)
    rows, columns = np.mgrid[step // 2 : height : step, step // 2 : width : step]
    pixels = flow.numpy() * np.array([(width - 1) / 2, (height - 1) / 2])
    chosen = pixels[rows, columns]
    enlarged = picture.shape[1] / width
    longest = float(np.abs(pixels).max())
    axes.quiver(columns * enlarged, rows * enlarged, -chosen[..., 0], chosen[..., 1], color=INK, scale=max(longest, 1e-9) * ARROWS, width=0.004)
    grid.under(row, 3, f"where colours move to; largest move {number(longest)} pixels", INK)
