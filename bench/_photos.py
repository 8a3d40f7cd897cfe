"""The photographs of the benches: a folder if one is given or found, else those that scikit-image ships."""

import os
from pathlib import Path

import skimage.data

import salience as sal

SHIPPED = ("chelsea.png", "coffee.png", "rocket.jpg", "astronaut.png")
FOLDER = Path(os.environ.get("PHOTOGRAPHS", "../shared/data/imagenet_photos"))


def paths(n: int) -> list[str]:
    """Paths of n photographs, spread over the folder after the shipped ones; repeated if there are too few."""
    shipped = [str(Path(skimage.data.__file__).parent / name) for name in SHIPPED[:3]]
    more = sorted(str(path) for path in FOLDER.glob("*.[jJ][pP]*[gG]")) if FOLDER.is_dir() else []
    found = shipped + more[7 :: max(1, len(more) // max(n, 1))]
    return (found * n)[:n]


def photographs(n: int, model: sal.Model):
    """The photographs as the model takes them."""
    return sal.load_images(paths(n), model)
