"""A study that nobody ran: its rows are made up, so that what must come out is known."""

import io

import numpy as np

from salience.studies.store import Store
from salience.studies.work import Unit

METHODS = ["gradient", "smoothgrad:samples=5", "random"]
LEVELS = dict(zip(METHODS, (0.25, 0.5, 0.75), strict=True))
IMAGES = [f"image_{number:02d}.png" for number in range(16)]
SEEDS = [0, 1]


def value(image, method, seed):
    """Images differ, seeds differ, and each method has its own level."""
    return LEVELS[method] + 0.01 * (IMAGES.index(image) - 7.5) + 0.02 * (-1) ** (seed + IMAGES.index(image) + METHODS.index(method))


def rows_of(image, method, change=lambda row: row):
    """The rows of a unit; `change` may alter each."""
    rows = []
    for seed in SEEDS:
        key = {"image": image, "target": 3, "label": "cat", "model": "net", "method": method, "perturbation": "", "variant": "", "seed": seed, "status": "ok", "seconds": 0.5}
        rows.append(key | {"metric": "deletion", "value": value(image, method, seed), "stderr": None})
        rows.append(key | {"metric": "relative_error", "value": 0.125})
        moved = {"metric": "ssim", "perturbation": "gaussian_noise", "prediction_changed": image < "image_02"}
        rows.append(key | moved | {"variant": "common", "value": 1 - value(image, method, seed)})
        rows.append(key | moved | {"variant": "floor", "perturbation": "", "value": 0.875})
    return [change(row) for row in rows]


def curves_of(image, method):
    key = {"image": image, "target": 3, "label": "cat", "model": "net", "method": method, "metric": "deletion", "perturbation": "", "variant": "", "curve": "deletion"}
    return [key | {"seed": seed, "x": x, "y": value(image, method, seed) * (1 - x)} for seed in SEEDS for x in (0.0, 0.5, 1.0)]


def maps_of(image, random):
    """Maps of two seeds as a study keeps them: 3 channels for a method without errors, 1 for a random one."""
    rng = np.random.default_rng(IMAGES.index(image))
    arrays = {"image": rng.random((1, 3, 10, 14), np.float32), "map": rng.normal(size=(2, 1 if random else 3, 10, 14)).astype(np.float32), "target": np.array([3, 3]), "seed": np.array(SEEDS)}
    with io.BytesIO() as file:
        np.savez_compressed(file, **arrays, **({"stderr": np.full((2, 1, 10, 14), 0.25, np.float32), "df": np.full(2, 49.0, np.float32)} if random else {}))
        return file.getvalue()


def made(folder, images=IMAGES, change=lambda row: row, maps=0, hashes=None, without=None, **study):
    """A store in a folder.

    Args:
        folder: Where.
        images: Names.
        change: Of each row.
        maps: Pictures whose maps are kept.
        hashes: Of pictures, where they differ from the usual.
        without: An image and method without rows.
        study: What the manifest says of the study, where it differs from the usual.
    """
    store = Store(folder)
    described = {"name": "made <up>", "data": {"dataset": "folder", "targets": "predicted", "options": {"root": "photos"}}, "models": ["net"], "methods": METHODS}
    described |= {"metrics": ["deletion", "ssim"], "perturbations": ["gaussian_noise"], "variants": ["common", "floor"], "seed": 7, "seeds": SEEDS, "score": None, "precision": "float32"}
    described |= {"device": "cpu", "fit": None, "chunk": None, "keep_maps": maps}
    manifest = {"study": described | study, "models": {"net": "ab" * 32}, "threads": 1, "shard": [1, 1], "versions": {"salience": "0.1.0", "torch": "2.14"}, "categories": []}
    store.write_manifest(manifest | {"images": {name: (hashes or {}).get(name, "cd" * 32) for name in images}})
    units = [(image, method) for image in images for method in METHODS if (image, method) != without]
    kept = [each for each in units if each[0] in images[:maps]]
    for image, method in kept:
        store.write(Unit(0, image, "net", method).id, rows_of(image, method, change), curves_of(image, method), maps_of(image, method.startswith("smoothgrad")))
    rest = [each for each in units if each not in kept]
    if rest:
        store.write("rest", [row for each in rest for row in rows_of(*each, change)], [row for each in rest for row in curves_of(*each)])
    return store
