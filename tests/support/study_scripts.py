"""What the tests of the scripts in studies share: a script as a module, its run, the tables of its results, and pictures to run it on."""

import importlib
import json
import re
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from salience.core import registry

STUDIES = Path(__file__).parents[2] / "studies"


def loaded(name, monkeypatch):
    """A file of the folder of studies; what it and the files it imports register is gone after the test."""
    monkeypatch.syspath_prepend(str(STUDIES))
    module = importlib.import_module(name)
    for found, (kind, own) in list(registry._names.items()):
        if (STUDIES / f"{found.__module__}.py").is_file():
            registry._entries[kind].pop(own, None)
            monkeypatch.setitem(registry._entries[kind], own, registry.Entry(own, found, {"needs_explainer": kind == "metric"}))
    return module


def run(module, capfd, *arguments):
    """What a script prints, which is what it writes."""
    assert module.main(module.options(), module.work, [str(each) for each in arguments]) == 0
    printed = capfd.readouterr().out
    out = Path(arguments[arguments.index("--out") + 1])
    written = (out / "results.md").read_text()
    for line in written.splitlines():
        assert line in printed
    for picture in re.findall(r"\]\((.*\.png)\)", written):
        with Image.open(out / picture) as drawn:
            assert np.asarray(drawn.convert("L")).std() > 10, f"{picture} is blank"
    return written


def table(written, title):
    """The table under the heading that begins so: for the first cell of each line the others, by their columns' names."""
    lines = written[written.index(f"## {title}") :].split("\n\n")[1].splitlines()
    head, _, *body = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {first: dict(zip(head[1:], rest, strict=True)) for first, *rest in body}


def mean(cell):
    """The number that a cell begins with."""
    return float(cell.split()[0])


def objects(folder, count=8):
    """Pictures of 24 x 32 of one colour and noise each, with labels and with masks as COCO has them: a bee (class 1 or 0) at the left, a dog (3) at the right.

    Returns:
        Images (n, 3, h, w) in [0, 1] as the network ``study_nets`` sees them, and for class index 0, 1 and 3 the mask.
    """
    folder.mkdir()
    generator, pictures = np.random.default_rng(0), []
    mask = np.zeros((24, 32), np.uint8)
    mask[4:20, 2:14], mask[8:22, 18:30] = 1, 2
    for number in range(count):
        pictures.append((generator.integers(0, 256, 3) * 0.7 + generator.integers(0, 77, (24, 32, 3))).astype(np.uint8))
        Image.fromarray(pictures[-1]).save(folder / f"{number}.png")
        Image.fromarray(mask).save(folder / f"{number}.mask.png")
    (folder / "classes.json").write_text(json.dumps({"classes": {"1": "bee", "2": "dog"}, "coco_to_imagenet": {"bee": [1, 0], "dog": 3}}))
    (folder / "labels.csv").write_text("file,class_index\n" + "".join(f"{number}.png,{number % 5}\n" for number in range(count)))
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) / 255, {label: torch.from_numpy(mask == value) for label, value in ((0, 1), (1, 1), (3, 2))}
