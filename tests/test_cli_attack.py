"""``salience attack`` on the command line."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import salience as sal
from salience import cli

TINY = ("--model", "python:tiny_models:net", "--steps", "3")


@pytest.fixture
def run(capfd, tmp_path, monkeypatch):
    """Run a command in a folder with two pictures: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    for name in ("a", "b"):
        Image.fromarray(draw.integers(0, 256, (30, 50, 3), dtype=np.uint8)).save(f"{name}.png")

    def run(*arguments):
        code = cli.main([str(each) for each in arguments])
        return code, *capfd.readouterr()

    return run


def objects(text: str) -> list[dict]:
    return [json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON")) for line in text.splitlines()]


def test_json_files_and_picture(run):
    code, out, err = run("attack", "a.png", *TINY, "--toward", "b.png", "--threat", "delta+stadv+recolor", "--budget", "delta=0.02,stadv=0.03", "--seed", 4, "--json")
    assert (code, err) == (0, "")
    (row,) = objects(out)
    asked = "image method threat target class_kept budget distance_to_target_before distance_to_target_after distance_to_original random_distance_to_target random_distance_to_original lpips ssim steps seconds perturbed pictures"
    assert set(asked.split()) <= set(row)
    assert row["threat"] == "recolor+stadv:budget=0.03+delta:budget=0.02"
    assert (row["method"], row["steps"], row["lpips"]) == ("gradient", 3, None)
    assert all(used <= most for used, most in zip((row["budget"][name] for name in ("recolor", "stadv", "delta")), (0.06, 0.03, 0.02), strict=True))
    with np.load(row["perturbed"], allow_pickle=False) as file:
        image, record = file["image"], json.loads(str(file["record"]))
    model = sal.load_model("python:tiny_models:net")
    clean = sal.load_images(["a.png"], model).as_subclass(type(model.mean))
    assert image.shape == clean.shape[1:]
    assert image.dtype == np.float32
    assert 0 <= image.min() <= image.max() <= 1
    assert record["weights"] == model.weights_hash()
    assert (row["toward"], row["model"], record["toward"]) == ("b.png", "python:tiny_models:net", "b.png")
    assert row["bounds"] == {"recolor": 0.06, "stadv": 0.03, "delta": 0.02}
    assert row["class_kept"] is (row["label_after"] == model.label(row["predicted_after"]) and row["predicted_after"] == int(model.outputs(clean).argmax()))
    (picture,) = row["pictures"]
    with Image.open(picture) as opened:
        assert opened.width > 1000
    found = sal.attack(model, clean, sal.load_images(["b.png"], model), threat="delta:budget=0.02+stadv:budget=0.03+recolor", steps=3, seed=4)
    figures = {name for name in row if re.search("^(distance_to|random_|probability_|objective_)|^ssim$", name)}
    assert len(figures) == 11
    assert {name: float(getattr(found, name)[0]) for name in figures} == {name: pytest.approx(row[name], abs=1e-5) for name in figures}, "Python and the command line have the same names"
    assert sorted(path.name for path in Path("out").iterdir()) == sorted([Path(row["perturbed"]).name, Path(picture).name])
    assert re.fullmatch(r"a\.attack-[0-9a-f]{6}\.png", Path(picture).name)


def test_a_fixed_attack_of_a_random_method_shows_both_figures(run):
    arguments = ("attack", "a.png", *TINY, "--toward", "b.png", "--method", "smoothgrad:samples=2", "--fixed", "--beta", "10+100", "--output-weight", "0")
    (row,) = objects(run(*arguments, "--json")[1])
    assert 0 < row["distance_on_own_draws"] < 1
    assert (row["fixed"], row["beta"], row["output_weight"], row["restarts"]) == (True, [10, 100], 0, 1)
    assert f"a.png: {row['distance_on_own_draws']:.3f} to the target on the draws that the attack has seen." in run(*arguments)[1]
    assert run("attack", "a.png", *TINY, "--beta", "x")[::2] == (2, "Error: beta must be a number, not 'x'.\n")


def test_without_an_aim_and_with_a_map_as_aim(run):
    (row,) = objects(run("attack", "a.png", *TINY, "--json")[1])
    assert row["objective"] == "top_k"
    assert row["distance_to_target_before"] is row["distance_to_target_after"] is row["random_distance_to_target"] is None
    assert row["random_distance_to_original"] > 0
    assert row["objective_after"] < row["objective_before"]
    said = run("attack", "a.png", *TINY)[1]
    assert f"a.png: top_k went from {row['objective_before']:.3g} to {row['objective_after']:.3g}; random changes make it {row['random_objective']:.3g}." in said
    assert run("explain", "b.png", *TINY[:2], "--method", "gradient", "--out", "maps")[0] == 0
    (saved,) = Path("maps").glob("*.npz")
    (by_map,) = objects(run("attack", "a.png", *TINY, "--toward", saved, "--json")[1])
    (by_image,) = objects(run("attack", "a.png", *TINY, "--toward", "b.png", "--json")[1])
    assert by_map["distance_to_target_after"] == pytest.approx(by_image["distance_to_target_after"], abs=1e-4)


def test_several_images_and_a_table(run):
    code, out, _ = run("attack", "a.png", "a.png", *TINY, "--toward", "b.png")
    assert code == 0
    names = [path.name for path in Path("out").iterdir()]
    assert sorted(re.sub("-[0-9a-f]{6}", "", name) for name in names) == ["a-2.attack.npz", "a-2.attack.png", "a.attack.npz", "a.attack.png"]
    assert run("attack", "a.png", *TINY, "--toward", "b.png", "--budget", "0.02")[0] == 0
    assert len(list(Path("out").iterdir())) == 6  # another question, other files: they overwrote each other
    assert "Cosine distances of the map" in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--budget", "0.1", "--threat", "delta+stadv"), "Error: There are 2 threats, so say whose budget it is: --budget delta=0.1,stadv=0.1."),
        (("--budget", "stadv=0.1"), "Error: --budget names stadv, but the threats are delta: add it to --threat, or leave its budget out."),
        (("--budget", "much"), "Error: delta: budget must be a number, not 'much'."),
        (("--budget", "-1"), "Error: delta: budget must be above 0, not -1.0."),
        (("--threat", "stadvv"), "Error: Unknown threat 'stadvv': did you mean stadv?"),
        (("--objective", "target_map"), "Error: The objective target_map needs something to aim at: give toward (images, maps or an explanation), or take the objective top_k or centre_of_mass."),
        (
            ("--method", "rise"),
            "Error: The maps of rise are not differentiable, so they cannot be attacked: take gradient, input_x_gradient, integrated_gradients, smoothgrad, uniformgrad, beta_smoothing or gradcam.",
        ),
        (("--toward", "nothing.npz"), "Error: There is no file nothing.npz: check the path."),
        (("--steps", "0"), "Error: attack: steps must be at least 1, not 0."),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(run, arguments, sentence):
    code, out, err = run("attack", "a.png", *TINY, *arguments)
    assert (code, out, err) == (2, "", sentence + "\n")
    assert not Path("out").exists()


def test_list(run):
    assert run("list", "threats")[1].split()[:1] == ["threat"]
    assert {row["name"] for row in objects(run("list", "objectives", "--json")[1])} == {"target_map", "top_k", "centre_of_mass"}


def test_a_missing_picture_is_named_before_anything_is_attacked(run):
    assert run("attack", "a.png", "nothing.png", *TINY) == (2, "", "Error: nothing.png does not exist: check the path.\n")
    assert not Path("out").exists()


def test_budgets_as_people_write_them(run):
    (row,) = objects(run("attack", "a.png", *TINY, "--threat", "delta+stadv", "--budget", "delta=0.1, stadv=0.02", "--json")[1])
    assert row["bounds"] == {"stadv": 0.02, "delta": 0.1}
    assert run("attack", "a.png", *TINY, "--budget", "delta=0.1,delta=0.2")[::2] == (2, "Error: --budget names a threat twice (delta=0.1,delta=0.2): give each one budget.\n")
