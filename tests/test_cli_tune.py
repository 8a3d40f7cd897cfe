"""``salience tune``, through the command line."""

import inspect
import json
import re
from pathlib import Path

import numpy as np
import pytest
import skimage
import torch
from PIL import Image

import salience as sal
from salience import cli
from salience.cli.tune import tune as command
from salience.perturb.tune import DRAWS, cache_folder
from salience.studies.tuning import AUC_IMAGES, LIMIT, tune

TINY = ("--model", "python:tiny_models:net")
SHARED = Path(__file__).parents[2] / "shared" / "data" / "imagenet_photos"


@pytest.fixture
def run(capfd, tmp_path, monkeypatch):
    """Run the command in an empty folder: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        code = cli.main(["tune", *map(str, arguments)])
        return code, *capfd.readouterr()

    return run


@pytest.fixture
def photos(tmp_path):
    """A folder of three photographs."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("chelsea.png", "coffee.png", "rocket.jpg"):
        with Image.open(Path(skimage.__file__).parent / "data" / name) as picture:
            picture.convert("RGB").resize((48, 36)).save(folder / f"{Path(name).stem}.png")
    return folder


def test_table_sentences_and_files(run, photos):
    code, out, err = run("noisegrad", *TINY, "--data", photos, "--draws", 4, "--out", "found")
    assert code == 0
    assert err.count("\n") == 1
    assert err.startswith("About 168 forward passes, ")
    record = json.loads(Path("found/tune.json").read_text())
    with Image.open("found/tune.png") as picture:
        assert picture.size[0] > 800
    lines = out.splitlines()
    assert [line.split()[0] for line in lines if line.strip()[:1].isdigit()] == [f"{row['weight_sigma']:.3g}" for row in record["rows"]]
    assert sum("searched" in line for line in lines) == 1
    assert record["sentences"][0].removeprefix("the smallest") in out
    assert "3 pictures x 4 draws, with the clean predictions as labels." in out
    assert out.endswith("The picture and all numbers are in found/tune.png and found/tune.json.\n")
    model = sal.load_model("python:tiny_models:net")
    assert model.weights_hash() == record["weights"]
    assert sal.explain("noisegrad:weight_samples=2", model, torch.rand(1, 3, 24, 32)).record["images"]["weight_sigma"] == pytest.approx([record["choices"][0]["row"]["weight_sigma"]])


def test_what_is_found_is_taken_instead_of_what_a_model_carries(run, photos):
    model, image = sal.load_model("cmnist-lenet"), torch.rand(1, 3, 32, 32)

    def level():
        return sal.explain("noisegrad:weight_samples=2", model, image).record["images"]["weight_sigma"][0]

    carried = level()
    code, out, _ = run("noisegrad", "--model", "cmnist-lenet", "--data", photos, "--limit", 3, "--draws", 3, "--seed", 1)
    assert code == 0
    (said,) = [line for line in out.splitlines() if line.startswith("On this machine")]
    found = json.loads(Path("out/tune.json").read_text())["choices"][0]["row"]["weight_sigma"]
    assert said.startswith(f"On this machine weight_sigma=auto now takes {found:.3g} for cmnist-lenet instead of the {carried:g} that it carries; to undo this, delete ")
    assert level() == pytest.approx(found) != carried
    Path(said.split("delete ")[1].rstrip(".")).unlink()
    assert level() == carried


def test_json_is_what_the_library_finds_and_comes_from_the_cache(run, photos):
    code, out, _ = run("uniformgrad:noise_level=0.4", *TINY, "--data", f"folder:root={photos}", "--limit", 2, "--draws", 3, "--seed", 5, "--json")
    assert code == 0
    (line,) = out.splitlines()
    record = json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert [each["rule"] for each in record["choices"]] == ["searched", "published", "equal sd", "given"]
    assert record["basis"]["images"] == 2
    found = tune("uniformgrad:noise_level=0.4", sal.load_model("python:tiny_models:net"), f"folder:root={photos}", limit=2, draws=3, seed=5, announce=lambda text: pytest.fail("searched anew"))
    assert found.sentences() == record["sentences"]
    assert record.pop("picture") == "out/tune.png"
    assert json.loads(Path("out/tune.json").read_text()) == record
    again = run("uniformgrad:noise_level=0.4", *TINY, "--data", f"folder:root={photos}", "--limit", 2, "--draws", 3, "--seed", 5, "--json")
    assert again == (0, line + "\n", "")


def test_maps_where_there_are_masks(run, photos):
    names = sorted(path.name for path in photos.iterdir())
    model = sal.load_model("python:tiny_models:net")
    classes = sal.explain("gradient", model, sal.load_images([photos / name for name in names], model)).targets.tolist()
    rows = ["file,class_index,mask"]
    for name, index in zip(names, classes, strict=True):
        mask = np.zeros((36, 48), np.uint8)
        mask[10:20, 15:30] = 255
        (photos / "masks").mkdir(exist_ok=True)
        Image.fromarray(mask).save(photos / "masks" / name)
        rows.append(f"{name},{index},masks/{name}")
    (photos / "labels.csv").write_text("\n".join(rows))
    code, out, _ = run("smoothgrad:samples=2", *TINY, "--data", f"folder:root={photos},labels=labels.csv", "--draws", 2, "--auc-images", 2)
    assert code == 0
    assert "AUC" in out
    assert "with the data set's labels." in out
    record = json.loads(Path("out/tune.json").read_text())
    assert record["basis"]["auc_images"] == 2
    assert all(0 <= row["auc"] <= 1 for row in record["rows"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("gradient", "--data", "."), "Error: gradient has neither weight_sigma nor noise_level, so there is no noise to tune: take one of "),
        (("noisegrad", "--data", "nowhere"), "Error: nowhere is neither a folder of pictures nor a data set: give a folder, or for example folder:root=photos,labels=labels.csv.\n"),
        (("noisegrad", "--data", "."), "Error: There are no pictures in "),
        (("noisegrad",), "Error: Missing option '--data'"),
    ],
)
def test_mistakes_are_one_line(run, arguments, message):
    code, out, err = run(*arguments, *TINY)
    assert (code, out) == (2, "")
    assert err.startswith(message)
    assert err.count("\n") == 1
    assert not Path("out").exists()


def test_a_damaged_cache_is_one_warning(run, photos):
    arguments = ("noisegrad", *TINY, "--data", photos, "--draws", 2)
    run(*arguments)
    for path in cache_folder().rglob("*.json"):
        path.write_text("{")
    code, _, err = run(*arguments)
    assert code == 0
    warning, told = err.splitlines()
    assert warning.startswith("Warning: ")
    assert re.fullmatch(r"About 84 forward passes, [\d.]+ seconds here; and where the data have masks, maps at every level\.", told)


def test_defaults_are_those_of_the_library():
    defaults = {name: each.default for name, each in inspect.signature(command).parameters.items()}
    assert (defaults["limit"], defaults["draws"], defaults["auc_images"]) == (LIMIT, DRAWS, AUC_IMAGES)


def test_help(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = run("--help")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    assert "2 minutes on 2 cores" in " ".join(out.split())


def test_the_default_model(run):
    """EfficientNet-Lite0 on real photographs: it carries its level, and 0.2 of noise in the image is much for it."""
    if not SHARED.is_dir():
        pytest.skip("the photographs of ../shared/data are not here")
    code, out, _ = run("smoothgrad", "--data", SHARED, "--limit", 3, "--draws", 2, "--json")
    assert code == 0
    record = json.loads(out)
    assert record["basis"]["chance"] == pytest.approx(1 / 1000)
    assert max(row["drop"] for row in record["rows"]) >= 0.5
