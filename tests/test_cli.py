"""The command line, on real photographs: what it writes, and one clear line for everything that can be wrong."""

import contextlib
import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import skimage
import torch
from PIL import Image

import salience as sal
from salience import cli
from salience.cli._shared import print_json

PHOTOGRAPHS = Path(skimage.__file__).parent / "data"
CAT, COFFEE, ROCKET = PHOTOGRAPHS / "chelsea.png", PHOTOGRAPHS / "coffee.png", PHOTOGRAPHS / "rocket.jpg"
FIELDS = ["image", "method", "target", "label", "probability", "samples", "converged", "relative_error", "seconds", "map", "overlay"]
TINY = ("--model", "python:tiny_models:net")


@pytest.fixture
def run(capfd, tmp_path, monkeypatch):
    """Run a command in an empty folder: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        code = cli.main([str(each) for each in arguments])
        return code, *capfd.readouterr()

    return run


@pytest.fixture
def explained(run):
    """Explain with a tiny model: the objects that ``--json`` prints."""

    def explained(*arguments):
        code, out, err = run("explain", *arguments, *(() if "--model" in arguments else TINY), "--json")
        assert (code, err) == (0, "")
        return [json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON")) for line in out.splitlines()]

    return explained


@pytest.fixture
def refused(run, tmp_path):
    """Run what must be refused: the one line on standard error. Nothing is printed or written."""

    def refused(*arguments, code=2):
        before = set(tmp_path.rglob("*"))
        got, out, err = run("explain", *arguments, *(() if "--model" in arguments else TINY), *(() if "--method" in arguments else ("--method", "gradient")))
        assert (got, out) == (code, "")
        assert err.endswith("\n")
        assert err.count("\n") == 1
        assert {path for path in set(tmp_path.rglob("*")) - before if path.is_file()} == set()
        return err.rstrip("\n")

    return refused


def width(path):
    with Image.open(path) as picture:
        return picture.size[0]


def files(folder="out"):
    return sorted(path.name for path in Path(folder).iterdir())


class TestExplain:
    def test_files_and_json(self, explained):
        (row,) = explained(CAT, "--method", "smoothgrad:samples=4")
        assert list(row) == FIELDS
        assert row["image"] == str(CAT)
        assert row["method"] == "smoothgrad:samples=4"
        assert row["label"] == ["ant", "bee", "Egyptian cat", "dog", "eel"][row["target"]]
        assert 0.2 < row["probability"] <= 1
        assert row["samples"] == 4
        assert row["converged"] is None
        assert row["relative_error"] is None or row["relative_error"] > 0
        assert row["seconds"] > 0
        assert files() == [Path(row["map"]).name, Path(row["overlay"]).name]
        assert re.fullmatch(r"chelsea\.smoothgrad-[0-9a-f]{6}\.png", Path(row["overlay"]).name)
        assert width(row["overlay"]) == 640
        with np.load(row["map"], allow_pickle=False) as stored:
            assert stored["map"].shape == stored["stderr"].shape == (1, 3, 24, 32)
            assert json.loads(str(stored["record"]))["method"] == "smoothgrad:samples=4"

    def test_the_map_is_that_of_the_library(self, explained):
        (row,) = explained(CAT, "--method", "smoothgrad:samples=4", "--seed", 7, "--target", "dog", "--score", "probability")
        model = sal.load_model("python:tiny_models:net")
        e = sal.explain("smoothgrad:samples=4", model, sal.load_images(CAT, model), "dog", score="probability", seed=7)
        stored = sal.Explanation.load(row["map"])
        assert torch.equal(stored.maps, e.maps)
        assert stored.score == "probability"
        assert row["probability"] == pytest.approx(e.record["images"]["probability"][0])

    def test_a_score_is_for_methods_that_depend_on_one(self, explained, run):
        """One control among the methods refused them all, where --samples is for those that have it."""
        scores = [sal.Explanation.load(row["map"]).score for row in explained(CAT, "--method", "gradient", "--method", "edges", "--score", "probability")]
        assert scores[0] == "probability"
        assert scores[1] != "probability"
        code, _, err = run("explain", CAT, *TINY, "--method", "edges", "--score", "probability")
        assert code == 2
        assert "edges does not depend on a score" in err

    def test_defaults_have_plain_names_and_deterministic_methods_no_error(self, explained):
        (row,) = explained(CAT, "--method", "gradient", "--model", "efficientnet-lite0")
        assert files() == ["chelsea.gradient.npz", "chelsea.gradient.png"]
        assert row["label"] == "tiger cat"
        assert row["relative_error"] is None
        with np.load(row["map"]) as stored:
            assert "stderr" not in stored.files

    def test_nothing_is_overwritten(self, explained, tmp_path):
        """Equal stems, several methods, options, targets, scores and seeds: a file each."""
        (tmp_path / "more").mkdir()
        Image.new("RGB", (40, 30)).save(tmp_path / "more" / "Chelsea.jpg")
        asked = [CAT, "more/Chelsea.jpg", "--method", "gradient", "--method", "smoothgrad:samples=2", "--target", "auto", "--target", "eel"]
        rows = explained(CAT, "more/Chelsea.jpg", "--method", "smoothgrad:samples=3", "--target", "auto", "--target", "top3", "--target", "eel")
        rows += explained(*asked)
        rows += explained(*asked, "--seed", 1)
        rows += explained(*asked, "--score", "probability")
        rows += explained(*asked, "--fit", "squash")
        overlays = [row["overlay"] for row in rows]
        assert len(set(overlays)) == len(overlays)
        assert len(files()) == 2 * len(overlays)
        assert {Path(name).name.split(".")[0] for name in overlays} == {"chelsea", "Chelsea-2"}

    def test_a_rerun_writes_the_same_files(self, explained):
        first = explained(CAT, "--method", "smoothgrad:samples=2")
        content = Path(first[0]["overlay"]).read_bytes()
        again = explained(CAT, "--method", "smoothgrad:samples=2")
        assert again[0]["overlay"] == first[0]["overlay"]
        assert Path(again[0]["overlay"]).read_bytes() == content
        assert len(files()) == 2

    def test_targets(self, explained):
        top = explained(CAT, "--method", "gradient", "--target", "top3")
        assert [row["probability"] for row in top] == sorted((row["probability"] for row in top), reverse=True)
        assert len({row["target"] for row in top}) == 3
        (best,) = explained(CAT, "--method", "gradient")
        assert best["target"] == top[0]["target"]
        same = explained(CAT, "--method", "gradient", "--target", "2", "--target", "egyptian CAT", "--target", "2")
        assert [row["target"] for row in same] == [2]
        every = explained(CAT, COFFEE, "--method", "gradient", "--target", "auto", "--target", "0", "--target", "top2")
        assert len({(row["image"], row["target"]) for row in every}) == len(every)

    def test_top3_of_a_method_is_what_each_class_gets_alone(self, explained):
        for method in ("smoothgrad:samples=3", "lime:samples=40", "occlusion"):
            for row in explained(CAT, "--method", method, "--target", "top3"):
                (alone,) = explained(CAT, "--method", method, "--target", row["target"], "--out", "alone")
                first, second = (sal.Explanation.load(each["map"]).maps for each in (row, alone))
                assert torch.allclose(first, second, rtol=1e-4, atol=1e-6)

    def test_samples_sets_the_option_of_every_method_that_has_it(self, explained):
        rows = explained(CAT, "--method", "gradient", "--method", "smoothgrad", "--method", "vargrad:samples=9", "--samples", 3)
        assert [row["samples"] for row in rows] == [0, 3, 3]

    def test_tolerance(self, explained):
        (row,) = explained(CAT, "--method", "smoothgrad:samples=200", "--tolerance", 1000)
        assert (row["samples"], row["converged"]) == (50, True)
        (row,) = explained(CAT, "--method", "smoothgrad:samples=60", "--tolerance", 1e-6)
        assert (row["samples"], row["converged"]) == (60, False)

    def test_pictures_of_one_name_are_told_apart(self, run):
        Path("other").mkdir()
        shutil.copy(CAT, "other")
        said = " ".join(run("explain", CAT, f"other/{Path(CAT).name}", *TINY, "--method", "gradient")[1].split())
        assert f"other/{Path(CAT).name}" in said

    def test_a_tolerance_that_was_not_reached_stands_in_the_table(self, run):
        said = [run("explain", CAT, *TINY, "--method", "smoothgrad:samples=60", "--tolerance", tolerance)[1] for tolerance in (1e-6, 1000)]
        assert ["(too large)" in " ".join(text.split()) for text in said] == [True, False]

    def test_an_infinite_error_is_null(self, explained):
        (row,) = explained(CAT, "--method", "smoothgrad:samples=1")
        assert row["relative_error"] is None

    def test_many_files_of_different_sizes_together(self, explained, tmp_path):
        paths = []
        for number in range(11):
            paths.append(tmp_path / f"{number}.png")
            Image.new("RGB", (30 + number // 4, 20), (9 * number, 30, 60)).save(paths[-1])
        for model in ("net", "any_size"):
            rows = explained(*paths, "--method", "gradient", "--model", f"python:tiny_models:{model}")
            assert [row["image"] for row in rows] == list(map(str, paths))
        assert sal.Explanation.load(rows[-1]["map"]).maps.shape == (1, 3, 20, 32)

    def test_groups_do_not_change_a_map(self, explained):
        together = explained(CAT, COFFEE, ROCKET, "--method", "smoothgrad:samples=3")
        alone = explained(COFFEE, "--method", "smoothgrad:samples=3", "--out", "alone")
        first, second = (sal.Explanation.load(row["map"]).maps for row in (together[1], alone[0]))
        assert torch.allclose(first, second, rtol=1e-4, atol=1e-7)

    def test_a_black_box(self, explained):
        (row,) = explained(CAT, "--method", "occlusion", "--model", "python:tiny_models:black_box")
        assert row["label"] in ("ant", "bee", "Egyptian cat", "dog", "eel")

    @pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
    def test_a_name_that_is_no_text(self, explained, tmp_path):
        name = os.fsdecode(b"caf\xe9.png")
        Image.open(CAT).resize((60, 40)).save(tmp_path / "cat.png")
        (tmp_path / "cat.png").rename(tmp_path / name)
        (row,) = explained(tmp_path / name, "--method", "gradient")
        assert Path(row["overlay"]).is_file()

    def test_table(self, run):
        code, out, err = run("explain", CAT, COFFEE, "--method", "gradient", "--method", "smoothgrad:samples=3", *TINY)
        assert (code, err) == (0, "")
        lines = out.split("\n")
        assert lines[1].split() == ["image", "class", "prob.", "method", "samples", "rel.", "error", "seconds"]
        assert out.count("chelsea.png") == 1
        assert "4 overlay(s) (.png) and map(s) with errors (.npz) are in out." in lines

    def test_warnings_are_one_line_each(self, run):
        code, _, err = run("explain", CAT, "--method", "gradient", "--model", "python:tiny_models:worried", "--json")
        assert code == 0
        assert set(err.splitlines()) == {"Warning: the networks no longer see the class"}

    @pytest.mark.parametrize("kind", ["animated", "cmyk", "sixteen", "palette", "alpha", "grey"])
    def test_kinds_of_pictures(self, explained, tmp_path, kind):
        picture = Image.open(CAT).convert("RGB").resize((60, 40))
        path, options = tmp_path / "a.png", {}
        if kind == "animated":
            path, options = tmp_path / "a.gif", {"save_all": True, "append_images": [picture.rotate(90)]}
        elif kind == "sixteen":
            picture = Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)
        elif kind == "cmyk":
            path, picture = tmp_path / "a.jpg", picture.convert("CMYK")
        elif kind == "palette":
            picture, options = picture.quantize(16), {"transparency": 3}
        else:
            picture = picture.convert({"alpha": "RGBA", "grey": "L"}[kind])
        picture.save(path, **options)
        (row,) = explained(path, "--method", "gradient")
        assert width(row["overlay"]) == 640


class TestRefused:
    def test_files(self, refused, tmp_path):
        (tmp_path / "empty.png").touch()
        (tmp_path / "text.jpg").write_text("not a picture")
        (tmp_path / "cut.jpg").write_bytes(ROCKET.read_bytes()[:50_000])
        end = "give a JPEG, PNG or similar file."
        assert refused("nowhere.jpg") == "Error: nowhere.jpg does not exist: check the path."
        assert refused(tmp_path) == f"Error: {tmp_path} is a directory: give image files, for example {tmp_path}/*.jpg."
        assert refused("empty.png") == f"Error: empty.png is empty: {end}"
        assert refused("text.jpg") == f"Error: text.jpg is not an image that can be read: {end}"
        assert re.fullmatch(r"Error: cut\.jpg is damaged or cut off \(.+\): get a whole copy of the file\.", refused("cut.jpg"))

    def test_one_bad_file_among_good_ones_stops_before_anything_is_written(self, refused):
        assert refused(CAT, COFFEE, "nowhere.jpg") == "Error: nowhere.jpg does not exist: check the path."

    def test_decompression_bomb(self, refused, monkeypatch):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
        assert refused(CAT) == f"Error: {CAT} has more than 1000 pixels, more than is safe to decode: shrink it first."

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (("--method", "smothgrad"), r"Unknown method 'smothgrad': did you mean smoothgrad, .+\?"),
            (("--method", "smoothgrad:sample=3"), r"Unknown option of smoothgrad: 'sample': did you mean samples\?"),
            (("--method", "smoothgrad:samples=0"), r"smoothgrad: samples must be at least 1, not 0\."),
            (("--method", "smoothgrad:samples=many"), r"smoothgrad: samples must be a whole number, not 'many'\."),
            (("--method", "smoothgrad:samples"), r"'smoothgrad:samples': options are written key=value, not 'samples'\."),
            (("--method", "smoothgrad:base=(gradient"), r"Brackets do not match in .+\."),
            (("--method", "smoothgrad", "--samples", "0"), r"smoothgrad: samples must be at least 1, not 0\."),
            (("--method", "gradient", "--samples", "9"), r"gradient: no option samples to set; leave --samples out\."),
            (("--method", "gradient", "--target", "egyptian"), r"Unknown class 'egyptian': did you mean Egyptian cat\?"),
            (("--method", "gradient", "--target", "5"), r"Target 5 is out of range: python:tiny_models:net has classes 0 to 4\."),
            (("--method", "gradient", "--target=-1"), r"Target -1 is out of range: python:tiny_models:net has classes 0 to 4\."),
            (("--method", "gradient", "--target", "top6"), r"Target top6 is out of range: python:tiny_models:net has 5 classes, so give top1 to top5\."),
            (("--method", "gradient", "--target", "top0"), r"Target top0 is out of range: python:tiny_models:net has 5 classes, so give top1 to top5\."),
            (("--method", "gradient", "--score", "logits"), r"Unknown score 'logits': did you mean logit\?"),
            (("--method", "gradient", "--fit", "corp"), r"Unknown fit 'corp': did you mean crop\?"),
            (("--method", "gradient", "--precision", "float16"), r"Unknown precision 'float16': did you mean .+\?"),
            (("--method", "gradient", "--tolerance", "0"), r"tolerance must be above 0, not 0\.0\."),
            (("--method", "gradient", "--device", "abacus"), r"The device 'abacus' cannot be used here \(.+\): use cpu\."),
            (("--method", "gradient", "--model", "efficientnet-lite"), r"Unknown model 'efficientnet-lite': did you mean efficientnet-lite2, .+\?"),
            (("--method", "gradient", "--model", "timm:resnet81"), r"Unknown timm model 'resnet81': did you mean resnet18, .+\?"),
            (("--method", "gradient", "--model", "python:nowhere:make"), r"The module nowhere cannot be imported \(No module named 'nowhere'\): run from its folder, or install it\."),
            (("--method", "gradient", "--model", "python:tiny_models:not_a_model"), r"python:tiny_models:not_a_model returned int: it must return a sal\.Model, a sal\.BlackBox or an nn\.Module\."),
            (
                ("--method", "gradient", "--model", "python:tiny_models:nan"),
                r".+ returned NaN or infinite scores: check its weights, and that it takes images in \[0, 1\] with the given mean and std\.",
            ),
            (("--method", "gradient", "--model", "python:tiny_models:shapeless"), r".+ returned \(5,\) for 1 images: a classifier must return one row of scores per image, shape \(1, classes\)\."),
            (("--method", "occlusion", "--method", "gradient", "--model", "python:tiny_models:black_box"), r"python:tiny_models:black_box is a black box, so .+"),
            (("--method", "occlusion", "--score", "logit", "--model", "python:tiny_models:black_box"), r"The score 'logit' needs a model that returns logits; .+"),
        ],
        ids=lambda value: " ".join(value[-2:]) if isinstance(value, tuple) else "",
    )
    def test_what_cannot_be(self, refused, arguments, said):
        assert re.fullmatch(f"Error: {said}", refused(CAT, *arguments))

    @pytest.mark.parametrize("folder", ["/proc/nowhere", "taken", "taken/below"])
    def test_a_folder_that_cannot_be_written(self, refused, folder):
        Path("taken").touch()
        assert re.fullmatch(rf"Error: Cannot write to the folder {folder}: .+\. Choose another with --out\.", refused(CAT, "--method", "gradient", "--out", folder))

    def test_full_disk(self, refused, monkeypatch):
        def full(descriptor):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", full)
        said = "Error: Cannot write out/chelsea.gradient-[0-9a-f]{6}.npz: No space left on device. Choose a folder you can write to, with space left."
        assert re.fullmatch(said, refused(CAT, "--method", "gradient"))
        assert files() == []

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["explain"], r"Missing argument 'IMAGE.*'"),
            (["explain", "a.png", "--sample", "3"], "No such option:? '?--sample'?[ .].*--samples.*"),
            (["explain", "a.png", "--samples", "many"], "Invalid value for '--samples': .*"),
            (["nothing"], "No such command 'nothing'"),
            (["list", "methods", "gradcan"], "Unknown method 'gradcan': did you mean gradcam.*"),
        ],
    )
    def test_usage(self, run, arguments, said):
        code, out, err = run(*arguments)
        assert (code, out) == (2, "")
        where = {"explain": r"(; see|(?<=\?) See) salience explain --help", "nothing": "; see salience --help"}.get(arguments[0], "")
        assert re.fullmatch(rf"Error: {said}{where}[.?]\n", err)

    def test_a_group_without_a_command(self, run):
        code, out, err = run("study")
        assert code == 2
        assert "merge" in out
        assert err == "Error: Missing command; see salience study --help.\n"


class TestFailures:
    def test_a_bug_is_not_the_users_fault(self, refused):
        said = refused(CAT, "--method", "gradient", "--model", "python:tiny_models:broken", code=1)
        assert said == "Error: TypeError: no such luck. This is a bug in salience or in the model's own code: --debug shows where."

    def test_debug_shows_the_traceback(self, run):
        code, _, err = run("explain", CAT, "--method", "gradient", "--model", "python:tiny_models:broken", "--debug")
        assert code == 1
        assert "Traceback" in err
        code, _, err = run("--debug", "explain", "nowhere.jpg", "--method", "gradient", *TINY)
        assert code == 2
        assert "Traceback" in err
        assert err.endswith("Error: nowhere.jpg does not exist: check the path.\n")

    def test_full_memory(self, refused):
        said = refused(CAT, "--method", "gradient", "--model", "python:tiny_models:hungry", code=1)
        assert said == "Error: The memory is full: close other programs, explain smaller pictures, or take a smaller model."

    def test_interrupted_within(self, refused, monkeypatch):
        monkeypatch.setattr("salience.show.batch._explained", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert refused(CAT, "--method", "gradient", code=130) == "Interrupted: every file that was written is whole."

    def test_interrupted_within_an_import(self, refused, monkeypatch):
        """Compiled modules turn what ends their import into an ImportError, which was called a bug."""

        def imported(*_):
            try:
                raise KeyboardInterrupt
            except KeyboardInterrupt as error:
                raise ImportError("initialization failed") from error

        monkeypatch.setattr("salience.show.batch._explained", imported)
        assert refused(CAT, "--method", "gradient", code=130) == "Interrupted: every file that was written is whole."

    def test_interrupted_while_writing(self, refused, monkeypatch):
        def interrupted(descriptor):
            raise KeyboardInterrupt

        monkeypatch.setattr(os, "fsync", interrupted)
        assert refused(CAT, "--method", "gradient", code=130) == "Interrupted: every file that was written is whole."
        assert files() == []


def test_what_is_no_number_is_null_in_json(capsys):
    """A standard error that is NaN ended `measure --json` as a bug."""
    print_json({"value": 0.5, "stderr": float("nan"), "ends": (-float("inf"), 1)})
    assert capsys.readouterr().out == '{"value": 0.5, "stderr": null, "ends": [null, 1]}\n'


class TestOtherCommands:
    def test_version(self, run):
        assert run("--version") == (0, f"salience {sal.__version__}\n", "")

    @pytest.mark.parametrize("arguments", [(), ("--help",), ("explain", "--help"), ("list", "--help"), ("list", "methods", "-h"), ("demo", "--help")])
    def test_help_fits_80_columns(self, run, arguments, monkeypatch):
        monkeypatch.setenv("COLUMNS", "80")
        code, out, err = run(*arguments)
        assert (code, err) == (0, "")
        assert "Usage: salience" in out
        assert max(map(len, out.splitlines())) <= 80

    def test_help_has_examples(self, run):
        assert "salience explain cat.jpg" in run("explain", "--help")[1]

    def test_methods(self, run):
        listed = [json.loads(line) for line in run("list", "methods", "--json")[1].splitlines()]
        assert [each["name"] for each in listed] == sal.list_methods()
        smooth = next(each for each in listed if each["name"] == "smoothgrad")
        assert smooth["stochastic"] is True
        assert {"name": "samples", "default": "50", "help": "draws of input noise"} in smooth["options"]
        table = run("list", "methods")[1]
        assert all(name in table for name in sal.list_methods())

    def test_options_of_a_method(self, run):
        code, out, _ = run("list", "methods", "smoothgrad")
        assert code == 0
        assert re.search(r"samples +50 +draws of input noise", out)
        assert "It has no options." in run("list", "methods", "gradient")[1]
        assert re.search(r"percentages +10\+20\+30\+40\+50\+60\+70\+80\+90 ", run("list", "metrics", "road")[1])  # as it is typed

    def test_members_of_a_family(self, run):
        assert re.search(r"layer +none +name of the layer", run("list", "methods", "captum:DeepLift")[1])
        assert "captum:DeepLift" in run("list", "methods", "captum:NAME")[1]
        code, _, err = run("list", "methods", "captum:DeepLft")
        assert (code, err) == (2, "Error: Unknown captum method 'DeepLft': did you mean DeepLift, DeepLiftShap, LayerDeepLift?\n")

    def test_models(self, run):
        listed = [json.loads(line) for line in run("list", "models", "--json")[1].splitlines()]
        assert [each["name"] for each in listed] == sal.list_models()
        assert [each["name"] for each in listed if each["default"]] == ["efficientnet-lite0"]
        assert "efficientnet-lite0  (the default)\n" in run("list", "models")[1]

    def test_demo(self, run, monkeypatch):
        monkeypatch.setattr("salience.cli.demo.DEMO_METHODS", ("gradient", "smoothgrad:samples=2", "vargrad:samples=2"))
        code, out, err = run("demo", "--out", "shown")
        assert (code, err) == (0, "")
        for name in ("chelsea.png", "coffee.png", "rocket.jpg", "tiger cat", "espresso", "missile"):
            assert out.count(name) == 1
        assert "Open shown/index.html: the maps side by side and one by one." in out
        assert len(list(Path("shown").glob("*.png"))) == 10
        assert len(list(Path("shown").glob("*.npz"))) == 9
        html = Path("shown/index.html").read_text()
        assert html.count("data:image/png;base64,") == 10
        assert not re.search(r"(?:src|href)=\"(?!data:|#)", html)
        assert html.index("chelsea.png: tiger cat") < html.index("coffee.png: espresso") < html.index("rocket.jpg: missile")


def command(*arguments, **options):
    """The command as a process of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent / "support")}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-m", "salience", *map(str, arguments)], text=True, env=environment | options.pop("env", {}), **(pipes | options))


class TestAsAProcess:
    def test_help_does_not_import_torch(self, tmp_path):
        code = "import sys, salience.cli; salience.cli.main(['--help']); sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, check=False).returncode == 0

    @pytest.mark.parametrize(("own", "set_by_us"), [({}, {"GOMP_SPINCOUNT": "5000"}), ({"OMP_WAIT_POLICY": "active"}, {}), ({"GOMP_SPINCOUNT": "7"}, {})])
    def test_threads_soon_sleep_while_they_wait_unless_the_user_says_otherwise(self, own, set_by_us, tmp_path):
        """OpenMP reads it when torch is loaded, so it must stand in the environment before."""
        code = (
            "import os, sys, salience.cli\nsalience.cli.main(['--version'])\nassert 'torch' not in sys.modules\nprint({name: os.environ[name] for name in salience.cli.WAITING if name in os.environ})"
        )
        environment = {name: value for name, value in os.environ.items() if name not in cli.WAITING} | own
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == str(own | set_by_us)

    def test_python_seldom_looks_for_cycles_and_never_at_the_end(self, tmp_path):
        code = (
            "import atexit, gc, salience.cli as cli\nbefore = gc.get_threshold()\natexit.register(lambda: print(gc.get_freeze_count() > 0))\n"
            "with cli.collecting_seldom():\n    print(gc.get_threshold()[0] == cli.OBJECTS)\n"
            "print(cli.main(['--help']) == 0, gc.get_threshold() == before, gc.get_freeze_count() == 0)"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
        assert [done.stdout.splitlines()[place] for place in (0, -2, -1)] == ["True", "True True True", "True"]

    def test_the_default_model_on_real_photographs(self, tmp_path):
        process = command("explain", CAT, ROCKET, "--method", "gradcam", "--method", "smoothgrad", "--samples", 3, "--json", cwd=tmp_path)
        out, err = process.communicate(timeout=120)
        assert (process.returncode, err) == (0, "")
        rows = [json.loads(line) for line in out.splitlines()]
        assert [(row["label"], row["method"]) for row in rows] == [("tiger cat", "gradcam"), ("missile", "gradcam"), ("tiger cat", "smoothgrad:samples=3"), ("missile", "smoothgrad:samples=3")]
        assert all((tmp_path / row["overlay"]).is_file() and (tmp_path / row["map"]).is_file() for row in rows)

    def test_bad_input(self, tmp_path):
        process = command("explain", "nowhere.jpg", "--method", "gradient", *TINY, cwd=tmp_path)
        assert process.communicate(timeout=120) == ("", "Error: nowhere.jpg does not exist: check the path.\n")
        assert process.returncode == 2
        assert list(tmp_path.iterdir()) == []

    def test_interrupt(self, tmp_path):
        begun = tmp_path / "begun"
        process = command("explain", CAT, "--method", "smoothgrad:samples=100000", "--model", "python:tiny_models:slow", cwd=tmp_path, env={"BEGUN": str(begun)})
        end = time.monotonic() + 100
        while not begun.exists() and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60) == ("", "Interrupted: every file that was written is whole.\n")
        assert process.returncode == 130
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == [begun]

    def test_interrupt_within_code_that_is_made_of_text(self, tmp_path):
        """Python then ended by the signal itself, not with the exit code."""
        (tmp_path / "made.py").write_text("def net():\n    exec('raise KeyboardInterrupt')\n")
        process = command("explain", CAT, "--method", "gradient", "--model", "python:made:net", cwd=tmp_path)
        assert process.communicate(timeout=60) == ("", "Interrupted: every file that was written is whole.\n")
        assert process.returncode == 130

    def test_progress_is_shown_on_a_terminal_and_on_standard_error_only(self, tmp_path):
        reader, terminal = os.openpty()
        process = command(
            "explain", CAT, "--method", "smoothgrad:samples=30", "--model", "python:tiny_models:slow", "--json", cwd=tmp_path, env={"BEGUN": str(tmp_path / "begun"), "TERM": "xterm"}, stderr=terminal
        )
        os.close(terminal)
        shown = b""
        with contextlib.suppress(OSError):  # how a terminal says that nobody writes to it any more
            while part := os.read(reader, 4096):
                shown += part
        os.close(reader)
        out, _ = process.communicate(timeout=120)
        shown = shown.decode()
        assert process.returncode == 0
        assert json.loads(out)["samples"] == 30
        assert "loading the model" in shown
        assert "smoothgrad, image 1 of 1" in shown

    def test_a_reader_that_leaves(self, tmp_path):
        process = command("list", "models", "--json", cwd=tmp_path)
        process.stdout.close()
        assert process.stderr.read() == ""
        process.stderr.close()
        assert process.wait(timeout=120) == 1

    def test_a_full_output(self, tmp_path):
        if not Path("/dev/full").exists():
            pytest.skip("there is no /dev/full")
        with Path("/dev/full").open("w") as full:
            process = subprocess.run([sys.executable, "-m", "salience", "--version"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
        assert process.stderr == "Error: There is no space left to write to: free some.\n"
        assert process.returncode == 2
