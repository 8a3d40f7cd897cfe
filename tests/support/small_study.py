"""A study that runs in a second, and what must be equal of two runs of it."""

import json

from salience.studies.store import Store
from salience.studies.study import Study, read_study

STUDY = """name: small
seed: 3
models: python:tiny_models:net
data: {folder: pictures, limit: 3}
methods: [gradient, "smoothgrad:samples=3", random]
metrics: ["deletion:steps=4", gini, pointing_game, ssim]
perturbations: [gaussian_noise, horizontal_flip]
seeds: [0, 1]
"""


def kept() -> Study:
    """The study of the file, and its maps are kept."""
    return read_study("study.yaml").model_copy(update={"keep_maps": 1})


def without_seconds(store: Store, table: str = "results") -> list[dict]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in store.rows(table)]


def same(first: Store, second: Store) -> bool:
    """NaN-safe equality of everything but seconds."""
    return all(json.dumps(without_seconds(first, table)) == json.dumps(without_seconds(second, table)) for table in ("results", "curves"))
