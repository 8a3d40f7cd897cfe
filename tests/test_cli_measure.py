"""``salience measure`` and ``salience study`` on the command line."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import salience as sal
from salience import cli

TINY = ("--model", "python:tiny_models:net")


@pytest.fixture
def run(capfd, tmp_path, monkeypatch):
    """Run a command in a folder with two pictures and a mask: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    for name in ("a", "b"):
        Image.fromarray(draw.integers(0, 256, (30, 50, 3), dtype=np.uint8)).save(f"{name}.png")
    Path("masks").mkdir()
    mask = np.zeros((30, 50), np.uint8)
    mask[10:20, 10:30] = 1
    Image.fromarray(mask).save("masks/a.png")
    Image.fromarray(np.stack([mask] * 3, 2) * 255).save("masks/b.mask.png")

    def run(*arguments):
        code = cli.main([str(each) for each in arguments])
        return code, *capfd.readouterr()

    return run


def objects(text: str) -> list[dict]:
    return [json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON")) for line in text.splitlines()]


class TestMeasure:
    def test_json(self, run):
        code, out, err = run(
            "measure", "a.png", "b.png", *TINY, "--method", "gradient", "--method", "random", "--metric", "deletion:steps=4", "--metric", "pointing_game", "--masks", "masks", "--json"
        )
        assert (code, err) == (0, "")
        rows = objects(out)
        assert [(row["image"], row["method"], row["metric"]) for row in rows] == [
            (image, method, metric) for image in ("a.png", "b.png") for method in ("gradient", "random") for metric in ("deletion:steps=4", "pointing_game")
        ]
        assert set(rows[0]) == {"image", "method", "target", "label", "metric", "value", "stderr", "status", "reason", "seconds"}
        model = sal.load_model("python:tiny_models:net")
        images = sal.load_images(["b.png"], model)
        mask = np.asarray(Image.open("masks/b.mask.png"))[..., 0]
        e = sal.explain("gradient", model, images)
        assert rows[4]["value"] == pytest.approx(float(sal.measure("deletion:steps=4", model, images, None, e)))
        assert rows[5]["value"] == float(sal.measure("pointing_game", model, images, None, e, masks=[mask]))

    def test_maps_of_ours_and_maps_made_elsewhere(self, run):
        assert run("explain", "a.png", *TINY, "--method", "gradient", "--out", "out")[0] == 0
        (saved,) = Path("out").glob("a.gradient*.npz")
        method = objects(run("measure", "a.png", *TINY, "--method", "gradient", "--metric", "gini", "--json")[1])
        ours = objects(run("measure", "a.png", *TINY, "--maps", saved, "--metric", "gini", "--json")[1])
        with np.load(saved) as file:
            np.savez("elsewhere.npz", map=file["map"][0].sum(0))
        elsewhere = objects(run("measure", "a.png", *TINY, "--maps", "elsewhere.npz", "--metric", "gini", "--json")[1])
        assert ours[0]["value"] == method[0]["value"]
        assert (ours[0]["method"], elsewhere[0]["method"]) == ("gradient", "")
        assert elsewhere[0]["target"] == ours[0]["target"]
        assert elsewhere[0]["value"] != ours[0]["value"]

    @pytest.mark.filterwarnings("default")
    def test_maps_of_another_picture_or_network_are_warned_of(self, run):
        """Files in another order than the pictures gave wrong numbers without a word."""
        assert run("explain", "a.png", *TINY, "--method", "gradient", "--out", "out")[0] == 0
        (saved,) = Path("out").glob("a.gradient*.npz")
        e = sal.Explanation.load(saved)
        dataclasses.replace(e, record=e.record | {"model": e.record["model"] | {"weights": "0" * 64}}).save("other.npz")
        for arguments, said in (
            (("b.png", *TINY, "--maps", saved), "The map of the image was made of other pixels than it is judged on: another picture, order or preprocessing?"),
            (("a.png", *TINY, "--maps", "other.npz"), "whose weights are not those of python:tiny_models:net, which judges them: name their network with --model."),
        ):
            code, _, err = run("measure", *arguments, "--metric", "gini")
            assert code == 0
            assert said in err

    def test_table(self, run):
        code, out, _ = run("measure", "a.png", *TINY, "--method", "gradient", "--metric", "gini", "--metric", "max_sensitivity:samples=2")
        assert code == 0
        assert "max_sensitivity:samples=2" in out

    def test_undefined_is_said(self, run):
        Image.fromarray(np.zeros((30, 50), np.uint8)).save("masks/a.png")
        (row,) = objects(run("measure", "a.png", *TINY, "--method", "gradient", "--metric", "pointing_game", "--masks", "masks", "--json")[1])
        assert (row["value"], row["status"]) == (None, "undefined")
        assert row["reason"]

    @pytest.mark.parametrize("mode", ["L", "LA", "RGBA"])
    def test_transparency_of_a_mask_does_not_count(self, run, mode):
        wanted = np.zeros((30, 50), bool)
        wanted[10:20, 10:30] = True
        Image.fromarray(wanted.astype(np.uint8) * 255).convert(mode).save("masks/a.png")  # opaque everywhere
        (row,) = objects(run("measure", "a.png", *TINY, "--method", "gradient", "--metric", "relevance_mass_accuracy", "--masks", "masks", "--json")[1])
        model = sal.load_model("python:tiny_models:net")
        images = sal.load_images(["a.png"], model)
        assert row["value"] == pytest.approx(float(sal.measure("relevance_mass_accuracy", model, images, None, sal.explain("gradient", model, images), masks=[wanted])))
        assert row["value"] < 0.9

    @pytest.mark.parametrize("shape", ["hw", "1hw", "chw", "1chw"])
    def test_maps_in_an_npy_file(self, run, shape):
        model = sal.load_model("python:tiny_models:net")
        images = sal.load_images(["a.png"], model)
        maps = np.random.default_rng(1).normal(size=tuple(images.shape)).astype(np.float32)
        maps = maps if "c" in shape else maps[:, 0]
        np.save("map.npy", maps if shape[0] == "1" else maps[0])
        code, out, err = run("measure", "a.png", *TINY, "--maps", "map.npy", "--metric", "gini", "--json")
        assert (code, err) == (0, "")
        assert objects(out)[0]["value"] == pytest.approx(float(sal.measure("gini", model, images, None, maps)))

    @pytest.mark.parametrize(
        ("array", "said"),
        [
            (np.zeros((2, 30, 50)), "maps.npz holds 2 map(s) for 1 image(s): give a file with one map for each image."),
            (np.array(["cat"]), "The array of maps in maps.npz must hold real numbers, not str96: save the maps as floats."),
            (np.zeros((1, 30, 50), complex), "The array of maps in maps.npz must hold real numbers, not complex128: save the maps as floats."),
            (np.zeros(3), "maps.npz holds no maps"),
        ],
    )
    def test_arrays_that_are_not_the_maps(self, run, array, said):
        np.savez("maps.npz", map=array)
        code, out, err = run("measure", "a.png", *TINY, "--maps", "maps.npz", "--metric", "gini", "--json")
        assert (code, out) == (2, "")
        assert said in err

    def test_a_damaged_file_of_maps(self, run):
        np.savez("whole.npz", map=np.zeros((1, 30, 50)))
        Path("maps.npz").write_bytes(Path("whole.npz").read_bytes()[:2000])
        code, _, err = run("measure", "a.png", *TINY, "--maps", "maps.npz", "--metric", "gini")
        assert code == 2
        assert "maps.npz holds no maps" in err

    def test_boxes(self, run):
        """The mask of a.png is a rectangle: as boxes it gives the same numbers."""
        command = ("measure", "a.png", *TINY, "--method", "gradient", "--metric", "relevance_mass_accuracy", "--json", "--masks")
        Path("boxes.csv").write_text("file,left,top,right,bottom\na.png,10,10,20,20\na.png,15,10,30,20\nc.png,0,0,1,1\n")
        assert objects(run(*command, "boxes.csv")[1])[0]["value"] == objects(run(*command, "masks")[1])[0]["value"]
        Path("boxes.csv").write_text("file,left,top,right,bottom\na.png,10,10,x,20\n")
        assert run(*command, "boxes.csv")[2].startswith("Error: a.png: boxes.csv: the edges of a box are numbers (")
        Path("boxes.csv").write_text("file,left,top,right,bottom\n")
        assert run(*command, "boxes.csv")[2] == "Error: a.png: boxes.csv has no box of a.png: add it, or leave --masks out.\n"

    def test_a_picture_is_not_its_own_mask(self, run):
        """Masks may lie beside the pictures, then as IMAGE.mask.png."""
        command = ("measure", "a.png", *TINY, "--method", "gradient", "--metric", "pointing_game", "--masks", ".")
        assert run(*command)[2] == "Error: a.png: There is no mask a.png or a.mask.png in .: add it, or leave --masks out.\n"
        Path("masks/a.png").rename("a.mask.PNG")
        assert run(*command)[0] == 0
        Path("a.mask.PNG").rename("a.mask.png")
        assert run(*command)[0] == 0

    def test_a_mask_of_several_classes(self, run):
        """Every class counted as the object, without a word."""
        command = ("measure", "a.png", *TINY, "--method", "gradient", "--metric", "relevance_mass_accuracy", "--json", "--masks", "masks")
        first = run(*command)[1]
        mask = np.asarray(Image.open("masks/a.png"))
        Image.fromarray(mask * 7 + (1 - mask) * 9).save("masks/a.png")
        code, out, err = run(*command)
        assert (code, err) == (0, "Warning: The mask masks/a.png has 2 values besides 0 (7, 9): all count as the object. Choose one with --mask-value.\n")
        assert objects(out)[0]["value"] == pytest.approx(1)
        code, out, err = run(*command, "--mask-value", 7)
        assert (code, err) == (0, "")
        assert objects(out)[0]["value"] == objects(first)[0]["value"]

    @pytest.mark.parametrize("json_option", [(), ("--json",)])
    def test_an_error_names_the_picture_and_keeps_the_rows_before_it(self, run, json_option):
        Image.fromarray(np.ones((3, 4), np.uint8)).save("masks/b.mask.png")
        code, out, err = run("measure", "a.png", "b.png", *TINY, "--method", "gradient", "--metric", "pointing_game", "--masks", "masks", *json_option)
        assert code == 2
        assert err.startswith("Error: b.png: The mask of the image has shape (3, 4)")
        assert err.count("\n") == 1
        assert "a.png" in out
        assert "b.png" not in out

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (("a.png", "--metric", "gini"), "Say either --method, which makes the maps, or --maps, which reads them."),
            (("a.png", "--method", "gradient", "--metric", "ginny"), "Unknown metric 'ginny': did you mean gini"),
            (("a.png", "--method", "gradient", "--metric", "pointing_game"), "give masks"),
            (("a.png", "--maps", "a.png", "--metric", "gini"), "a.png holds no maps: give an .npz file with an array 'map', (n, c, h, w) or (n, h, w), or such an array as an .npy file."),
            (("a.png", "--maps", "map.npy", "--metric", "random_logit"), "random_logit makes new maps, and the file of maps does not say by which method: say --method instead of --maps."),
            (("a.png", "--maps", "nothing.npz", "--metric", "gini"), "There is no file nothing.npz: check the path."),
            (("a.png", "--method", "gradient", "--metric", "gini", "--masks", "nowhere"), "There is no mask a.png or a.mask.png in nowhere: add it, or leave --masks out."),
            (("a.png", "--method", "gradient", "--metric", "gini", "--target", "dragon"), "Unknown class 'dragon'"),
            (("a.png", "--method", "gradient"), "Missing option"),
        ],
    )
    def test_mistakes(self, run, arguments, said):
        np.save("map.npy", np.ones((1, 24, 24), np.float32))
        code, out, err = run("measure", *arguments, *TINY)
        assert (code, out) == (2, "")
        assert err.startswith("Error: ")
        assert said in err
        assert err.count("\n") == 1


class TestStudy:
    @pytest.fixture
    def ran(self, run):
        Path("study.yaml").write_text('name: two\nmodels: python:tiny_models:net\ndata: {folder: "."}\nmethods: [gradient, random]\nmetrics: [gini, ssim]\nperturbations: gaussian_blur\n')
        code, out, err = run("study", "run", "study.yaml", "--out", "out")
        assert (code, err) == (0, "")
        assert out == "24 rows, 2 undefined are in out: see salience study show out.\n"
        return run

    def test_plan(self, run):
        Path("study.yaml").write_text('name: two\nmodels: python:tiny_models:net\ndata: {folder: "."}\nmethods: gradient\nmetrics: [gini, pointing_game]\n')
        code, out, _ = run("study", "plan", "study.yaml")
        assert code == 0
        assert "2 of 2 pictures have no mask, which pointing_game needs: such rows will be failed.\n" in out
        assert "2 units" in out
        assert re.search(r"About [\d.]+ seconds with one worker", out)  # it said 0.0 minutes

    def test_show_and_query(self, ran):
        rows = objects(ran("study", "show", "out", "--json")[1])
        assert len(rows) == 24
        code, out, _ = ran("study", "show", "out")
        assert code == 0
        assert "the noise floor" in out
        found = objects(ran("study", "query", "out", "select method, count(*) as n from results group by method order by method", "--json")[1])
        assert found == [{"method": "gradient", "n": 12}, {"method": "random", "n": 12}]
        assert ran("study", "query", "out", 'select 1 as "[/b]", \'[b]x\' as "[b]"')[1].split() == ["[/b]", "[b]", "─" * 11, "1", "[b]x"]
        code, out, err = ran("study", "query", "out", "select count(*) as n, max(value) as n from results", "--json")
        assert (code, out, err) == (2, "", "Error: Two columns are called 'n', but a JSON object has each name once: name them with AS.\n")
        assert objects(ran("study", "query", "out", "select sum(1.5) as n, 0.25 as x, date '2020-01-02' as day", "--json")[1]) == [{"n": 1.5, "x": 0.25, "day": "2020-01-02"}]
        assert objects(ran("study", "query", "out", "-- how many\nselect count(*) as n from results", "--json")[1]) == [{"n": 24}]
        assert ran("study", "query", "out", "select 1", "--jso")[0] == 2
        code, out, err = ran("study", "query", "out", "select no from results")
        assert (code, out) == (2, "")
        assert err.startswith("Error: The query failed")

    def test_shards_and_merge(self, ran):
        for number in ("1/2", "2/2"):
            assert ran("study", "run", "study.yaml", "--out", f"part{number[0]}", "--shard", number)[0] == 0
        assert ran("study", "merge", "part1", "part2", "--out", "all")[0] == 0
        one, two = (objects(ran("study", "show", folder, "--json")[1]) for folder in ("all", "out"))
        assert [row["value"] for row in one] == [row["value"] for row in two]

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (("run", "none.yaml"), "none.yaml cannot be read"),
            (("run", "study.yaml", "--out", "out"), "out holds a study already: continue it with --resume"),
            (("run", "study.yaml", "--out", "new", "--shard", "3/2"), "a shard is I/N with I from 1 to N."),
            (("run", "study.yaml", "--out", "new", "--shard", "half"), "A shard is written I/N, for example 2/8, not 'half'."),
            (("run", "study.yaml", "--out", "new", "--engine", "spark"), "Unknown engine 'spark'"),
            (("show", "nowhere"), "nowhere holds no study"),
        ],
    )
    def test_mistakes(self, ran, arguments, said):
        code, out, err = ran("study", *arguments)
        assert (code, out) == (2, "")
        assert said in err
        assert err.count("\n") == 1


@pytest.mark.parametrize("kind", ["methods", "metrics", "similarities", "perturbations", "datasets", "models"])
def test_lists(run, kind):
    code, out, _ = run("list", kind, "--json")
    names = [each["name"] for each in objects(out)]
    assert code == 0
    assert len(names) == len(set(names)) > 3
    code, out, _ = run("list", kind)
    assert code == 0
    if kind != "models":
        assert run("list", kind, names[0])[0] == 0
        assert run("list", kind, "nonsense")[0] == 2
