"""Studies: the file, and that nothing short of a burnt disk loses or changes a row."""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import salience as sal
from salience.core.metric import UndefinedError
from salience.perturb.tune import keep_weight_sigma
from salience.studies.engines import ENGINES
from salience.studies.merge import merge
from salience.studies.plan import estimate, plan
from salience.studies.run import run_study
from salience.studies.store import KEY, Store
from salience.studies.study import Study, read_study
from salience.studies.summary import tables, threads_of
from salience.studies.work import _relative_error, compute, seeds_of

SUPPORT = Path(__file__).parent.parent / "support"

STUDY = """name: small
seed: 3
models: python:tiny_models:net
data: {folder: pictures, limit: 3}
methods: [gradient, "smoothgrad:samples=3", random]
metrics: ["deletion:steps=4", gini, pointing_game, ssim]
perturbations: [gaussian_noise, horizontal_flip]
seeds: [0, 1]
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder with four pictures and a study file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    draw = np.random.default_rng(0)
    for number in range(4):
        Image.fromarray(draw.integers(0, 256, (24, 32, 3), dtype=np.uint8)).save(tmp_path / "pictures" / f"{number}.png")
    (tmp_path / "study.yaml").write_text(STUDY)
    return tmp_path


def without_seconds(store: Store, table: str = "results") -> list[dict]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in store.rows(table)]


def same(first: Store, second: Store) -> bool:
    """NaN-safe equality of everything but seconds."""
    return all(json.dumps(without_seconds(first, table)) == json.dumps(without_seconds(second, table)) for table in ("results", "curves"))


class TestTheFile:
    def test_what_is_read(self, folder):
        study = read_study("study.yaml")
        assert study.models == ["python:tiny_models:net"]
        assert study.quality == ["deletion:steps=4", "gini", "pointing_game"]
        assert study.similarities == ["ssim"]
        assert (study.data.dataset, study.data.options, study.data.limit) == ("folder", {"root": "pictures"}, 3)

    @pytest.mark.parametrize(
        ("old", "new", "line", "said"),
        [
            ("python:tiny_models:net", "resnet_fifty", 3, "Unknown model 'resnet_fifty': "),
            ("python:tiny_models:net", "[efficientnet-lite0, efficientnet-light0]", 3, "Unknown model 'efficientnet-light0': did you mean efficientnet-lite0"),
            ("perturbations: [gaussian_noise, horizontal_flip]\n", "", 6, "The metrics ssim compare maps of perturbed pictures, but there are no perturbations: add some"),
            (", ssim", "", 6, "The perturbations gaussian_noise, horizontal_flip are of no use without a similarity among the metrics: add one, for example ssim"),
            ("ssim", "lpips", 6, "A study cannot measure lpips, which compares images and not maps"),
            ("gini", "ginny", 6, "Unknown metric 'ginny': did you mean gini"),
            ("smoothgrad:samples=3", "smoothgrad:sample=3", 5, "did you mean samples"),
            ("smoothgrad:samples=3", "smoothgrat", 5, "did you mean smoothgrad"),
            ('"smoothgrad:samples=3"', "rise:samples=10,grid=4", 5, "'grid=4' is no name: in a list in square brackets put what has commas of its own in quotes"),
            ("gaussian_noise", "gausian_noise", 7, "Unknown perturbation 'gausian_noise': did you mean gaussian_noise"),
            ("perturbations", "perturbation", 7, "Unknown key 'perturbation': did you mean perturbations"),
            ("seeds: [0, 1]", "seeds: [0, 0]", 8, "0 is listed twice"),
            ("seeds: [0, 1]", "seeds: [0, x]", 8, "seeds: input should be a valid integer"),
            ("seeds: [0, 1]", "seeds: [0, 9223372036854775808]", 8, "seeds: input should be less than 9223372036854775808"),
            ("models: python:tiny_models:net", "models: []", 3, "models: list should have at least 1 item"),
            ("seeds: [0, 1]", "variants: []", 8, "variants: list should have at least 1 item"),
            ("folder: pictures", "dataset: imagenet, folder: pictures", 4, "data has a folder and a dataset: give folder: DIR, or dataset: NAME and root: DIR."),
            ("limit: 3", "limit: 0", 4, "data.limit: input should be greater than or equal to 1"),
            ("folder: pictures", "folder: nowhere", 4, "nowhere"),
            ("{folder: pictures, limit: 3}", "pictures", 4, "data needs a folder (folder: DIR) or a data set (dataset: NAME, root: DIR)."),
            ("folder: pictures", "dataset: folders, root: pictures", 4, "did you mean folder"),
            ("{folder: pictures, limit: 3}", "\n  folder: pictures\n  limit: 3\n  shuffel: 3", 7, "Unknown option of folder: 'shuffel': did you mean shuffle"),
            ("{folder: pictures, limit: 3}", "\n  limit: 3\n  targts: labels\n  folder: pictures", 6, "Unknown option of folder: 'targts': did you mean targets"),
            ("{folder: pictures, limit: 3}", "\n  limit: 3\n  folder: nowhere", 6, "nowhere is not a folder"),
            ("{folder: pictures, limit: 3}", "\n  folder: pictures\n  limit: 3\n  labels: none.csv", 7, "There is no file none.csv"),
            ("seed: 3", "name: twice", 2, "duplicate key"),
            ("seed: 3", "keep_maps: true", 2, "keep_maps: input should be a whole number, not true."),
            ("limit: 3", "limit: true", 4, "data.limit: input should be a whole number, not true."),
            ("seeds: [0, 1]", "seeds: [false, 1]", 8, "seeds: input should be a whole number, not false."),
            ("limit: 3", "options: {limit: 3}", 4, "Unknown option of folder: 'options'"),
            ("python:tiny_models:net", "resnet18", 3, "Unknown model 'resnet18': did you mean timm:resnet18, torchvision:resnet18"),
            ("name: small\n", "", 1, "name is missing"),
            ("[0, 1]", "[0, 1", 9, ""),
        ],
    )
    def test_a_mistake_is_named_with_its_line(self, folder, old, new, line, said):
        assert old in STUDY
        (folder / "study.yaml").write_text(STUDY.replace(old, new, 1))
        with pytest.raises(sal.InputError) as error:
            read_study("study.yaml")
        text = str(error.value)
        assert f"study.yaml, line {line}: " in text
        assert said in text
        assert "\n" not in text.strip()

    @pytest.mark.parametrize("name", ["efficientnet-lite1", "python:no.such:net", "torchvision:resnet18", "timm:any?pretrained=false", "trained:nowhere"])
    def test_models_are_not_loaded(self, folder, name):
        (folder / "study.yaml").write_text(STUDY.replace("python:tiny_models:net", name))
        assert read_study("study.yaml").models == [name]

    def test_numbers_as_yaml_writes_them(self, folder):
        (folder / "study.yaml").write_text(STUDY.replace("seed: 3", "seed: 3\nchunk: 2"))
        assert read_study("study.yaml").chunk == 2

    def test_no_file(self, folder):
        with pytest.raises(sal.InputError, match=r"^none.yaml cannot be read"):
            read_study("none.yaml")


class TestRows:
    def test_every_combination_has_a_row(self, folder):
        store = run_study(read_study("study.yaml"), "out")
        rows = store.rows()
        keys = [tuple(row[name] for name in KEY) for row in rows]
        assert len(set(keys)) == len(keys)
        # images x methods x seeds x (relative error, 3 metrics, ssim of 2 perturbations x 3 variants and of the floor)
        assert len(rows) == 3 * 3 * 2 * (1 + 3 + 2 * 3 + 1)
        by_status = dict(store.query("select status, count(*) from results group by status")[1])
        # the pointing game has no masks here, and the control random does not know its error
        assert by_status == {"ok": 3 * 3 * 2 * 10 - 3 * 2, "failed": 3 * 3 * 2, "undefined": 3 * 2}
        assert {row["reason"].split(":")[0] for row in rows if row["status"] == "failed"} == {"pointing_game compares maps with where the object is"}
        assert len(store.rows("curves")) == 3 * 3 * 2 * 5

    def test_a_relative_error_that_is_not_known_is_no_number(self, folder):
        """The control random had 0, as if it were deterministic."""
        rows = run_study(read_study("study.yaml"), "out", limit=1).rows()
        found = {(row["method"], row["value"], row["status"], row["reason"]) for row in rows if row["metric"] == "relative_error" and row["method"] != "smoothgrad:samples=3"}
        assert found == {("gradient", 0.0, "ok", None), ("random", None, "undefined", "random draws at random but does not know its error.")}

    def test_noisy_networks_that_lose_the_class_are_told_of(self, folder):
        methods = ["gradient", "noisegrad:weight_sigma=0,weight_samples=2", "noisegrad:weight_sigma=40,weight_samples=20", "beta_smoothing"]
        (folder / "study.yaml").write_text(f"name: kept\nmodels: python:tiny_models:net\ndata: {{folder: pictures, limit: 3}}\nmethods: {methods}\nseeds: [0, 1]\n")
        store = run_study(read_study("study.yaml"), "out")
        rows = [row for row in store.rows() if row["metric"] == "class_kept"]
        kept = {method: [row["value"] for row in rows if row["method"] == method] for method in dict.fromkeys(row["method"] for row in rows)}
        quiet, noisy, smooth = (next(values for method, values in kept.items() if method.endswith(end)) for end in ("weight_sigma=0.0", "weight_sigma=40.0", "beta_smoothing"))
        assert len(kept) == 3
        assert quiet == [1] * 6
        assert len(smooth) == 6
        assert 0 < np.mean(noisy) < 0.5
        notes = tables(store)[0].notes
        assert sum("so most of what it shows are broken networks" in note for note in notes) == 1
        assert f"its noisy or smoothed networks keep the class in {np.mean(noisy):.0%} of all cases" in " ".join(notes)

    def test_an_infinite_relative_error_is_no_number(self, folder):
        """It was a value, but the means left it out and called it undefined."""
        e = sal.explain("smoothgrad:samples=3", sal.load_model("python:tiny_models:net"), torch.rand(1, 3, 24, 32))
        lost = dataclasses.replace(e, maps=torch.ones_like(e.maps), stderr=torch.ones_like(e.maps))
        with pytest.raises(UndefinedError, match=r"^Nothing stands out of the sampling noise, so the relative error is infinite: take more draws\.$"):
            _relative_error(lost)

    def test_values_are_those_of_the_library(self, folder):
        study = read_study("study.yaml")
        store = run_study(study, "out", limit=1)
        model = sal.load_model("python:tiny_models:net")
        images = sal.load_images(["pictures/0.png"], model)
        seed = [seeds_of(study, store.rows()[0]["image"], 1)]
        e = sal.explain("smoothgrad:samples=3", model, images, seed=seed)
        expected = sal.measure("deletion:steps=4", model, images, None, e, seed=seed)
        (found,) = [row["value"] for row in store.rows() if (row["metric"], row["method"], row["seed"]) == ("deletion:steps=4", "smoothgrad:samples=3", 1)]
        assert found == pytest.approx(float(expected), abs=1e-6)

    def test_a_score_is_for_methods_that_depend_on_one(self, folder):
        """The controls failed."""
        study = read_study("study.yaml").model_copy(update={"score": "log_probability", "methods": ["gradient", "random", "centre"], "metrics": ["gini", "ssim"]})
        rows = run_study(study, "out", limit=1).rows()
        assert {(row["method"], row["reason"]) for row in rows if row["status"] == "failed"} == set()
        (gradient,) = (row["value"] for row in rows if (row["method"], row["metric"], row["seed"]) == ("gradient", "gini", study.seeds[0]))
        item, model = study.data.load()[0], sal.load_model(study.models[0])
        image = sal.load_images([item.picture], model)
        assert gradient == pytest.approx(sal.measure("gini", model, image, None, sal.explain("gradient", model, image, score="log_probability")).item())

    def test_one_bad_picture_does_not_stop_the_others(self, folder):
        (folder / "pictures" / "1.png").write_bytes(b"no picture")
        store = run_study(read_study("study.yaml"), "out")
        rows = store.rows()
        assert tables(store)[0].title.endswith(" (2 pictures)")
        bad = [row for row in rows if row["image"].endswith("1.png")]
        assert {row["status"] for row in bad} == {"failed"}
        assert len(bad) == 3 * 2 * 11
        assert all("1.png is not an image that can be read" in row["reason"] for row in bad)
        assert "ok" in {row["status"] for row in rows}

    @pytest.mark.parametrize("perturbation", ["translation", "translation:right=0.4", "rotation"])
    def test_pixels_out_of_view_are_no_agreement(self, folder, perturbation):
        """Maps that have nothing to do with each other, of pictures that were moved: they agree as little as those of pictures that were not."""
        changes = {"methods": ["random"], "metrics": ["spearman", "pearson", "mse", "ssim"], "perturbations": [perturbation, "gaussian_noise"], "variants": ["fresh", "floor"], "seeds": [1, 2, 3, 4]}
        text = read_study("study.yaml").model_copy(update=changes).model_dump_json()
        store = run_study(Study.model_validate_json(text), "out", threads=1)
        means = {row[:3]: row[3] for row in store.query("SELECT metric, perturbation, variant, avg(value) FROM results WHERE variant <> '' GROUP BY ALL")[1]}
        moved = next(each for _, each, _ in means if each.startswith(perturbation))
        assert {key for key in means if key[0] == "ssim"} == {("ssim", moved, "fresh"), ("ssim", "gaussian_noise", "fresh"), ("ssim", "", "floor"), ("ssim", moved, "floor")}
        for metric in ("spearman", "pearson", "ssim"):
            assert abs(means[metric, moved, "fresh"]) < 0.05
        for metric in changes["metrics"]:  # the control's draws are the same for both
            assert means[metric, moved, "floor"] == pytest.approx(means[metric, moved, "fresh"], abs=1e-6)
            assert means[metric, "", "floor"] == pytest.approx(means[metric, moved, "floor"], abs=0.03)

    def test_a_mask_that_cannot_be_read_fails_what_needs_it(self, folder):
        """It ended the study, and --resume ended at the same place."""
        for number in range(3):
            Image.fromarray(np.full((24, 32), 255, np.uint8)).save(folder / "pictures" / f"{number}.mask.png")
        (folder / "pictures" / "1.mask.png").write_bytes(b"no mask")
        (folder / "pictures" / "labels.csv").write_text("file,class_index,mask\n" + "".join(f"{number}.png,2,{number}.mask.png\n" for number in range(3)))
        (folder / "study.yaml").write_text(STUDY.replace("limit: 3", "labels: labels.csv, targets: labels"))
        store = run_study(read_study("study.yaml"), "out")
        found = store.query("SELECT DISTINCT image, metric, reason FROM results WHERE status = 'failed'")[1]
        assert [row[:2] for row in found] == [("1.png", "pointing_game")]
        assert "1.mask.png cannot be read" in found[0][2]
        assert same(run_study(read_study("study.yaml"), "out", resume=True), store)
        assert tables(store)[0].notes[0] == "pointing_game: left out 2 failed of gradient; 2 failed of smoothgrad:samples=3; 2 failed of random."

    def test_a_file_that_is_missing_fails_alone(self, folder):
        """A table of labels that named one picture too many refused the whole study."""
        (folder / "pictures" / "labels.csv").write_text("file,class_index,mask\n0.png,2,nowhere.png\n7.png,2,\n")
        (folder / "study.yaml").write_text(STUDY.replace("limit: 3", "labels: labels.csv, targets: labels"))
        store = run_study(read_study("study.yaml"), "out")
        found = dict(store.query("SELECT image, any_value(reason) FROM results WHERE status = 'failed' GROUP BY image")[1])
        assert set(found) == {"0.png", "7.png"}
        assert "nowhere.png cannot be read" in found["0.png"]
        assert "7.png" in found["7.png"]
        assert store.query("SELECT DISTINCT metric FROM results WHERE image = '0.png' AND status = 'failed'")[1] == [("pointing_game",)]
        assert store.query("SELECT DISTINCT status FROM results WHERE image = '7.png'")[1] == [("failed",)]

    def test_files_that_changed_since_the_last_study_are_read_anew(self, folder):
        """Within one process, as in a notebook: models and tables of labels were those of the first study."""
        table = folder / "pictures" / "labels.csv"
        (folder / "study.yaml").write_text(STUDY.replace("limit: 3", "labels: labels.csv, targets: labels"))
        targets = []
        for label in (2, 1):
            table.write_text(f"file,class_index\n0.png,{label}\n")
            targets += run_study(read_study("study.yaml"), f"out{label}").query("SELECT DISTINCT target FROM results")[1]
        assert targets == [(2,), (1,)]

    def with_a_damaged_picture(self, folder):
        """A small study, what it comes to, and one of its pictures, which is cut short now, with its content."""
        study = read_study("study.yaml").model_copy(update={"methods": ["gradient"], "metrics": ["gini"], "perturbations": []})
        expected = run_study(study, "whole")
        picture = folder / "pictures" / "1.png"
        content = picture.read_bytes()
        picture.write_bytes(content[:100])
        return study, expected, picture, content

    def test_a_picture_that_has_been_mended_is_read_when_the_study_goes_on(self, folder):
        study, expected, picture, content = self.with_a_damaged_picture(folder)
        store = run_study(study, "out")
        assert not same(store, expected)
        picture.write_bytes(content)
        assert same(run_study(study, "out", resume=True), expected)

    def test_killed_while_a_mended_picture_is_made_anew(self, folder, monkeypatch):
        """Its rows were gone, but the manifest still had the damaged picture: the study was refused for ever."""
        study, expected, picture, content = self.with_a_damaged_picture(folder)
        store = run_study(study, "out")
        picture.write_bytes(content)
        with monkeypatch.context() as patch:
            patch.setattr(Store, "write_manifest", lambda *_: sys.exit())
            with pytest.raises(SystemExit):
                run_study(study, "out", resume=True)
        assert store.query("SELECT * FROM results WHERE image = '1.png'")[1] == []
        assert same(run_study(study, "out", resume=True), expected)

    def test_what_failed_for_want_of_memory_is_tried_again(self, folder, monkeypatch):
        """Such rows were as final as any: one full memory spoiled a study."""
        study = read_study("study.yaml").model_copy(update={"methods": ["gradient"], "metrics": ["gini"], "perturbations": []})
        expected = run_study(study, "whole")

        def full(*_, **__):
            raise MemoryError

        with monkeypatch.context() as patch:
            patch.setattr(sal.Gradient, "__call__", full)
            store = run_study(study, "out")
        reasons = store.query("SELECT DISTINCT method, reason FROM results WHERE status = 'failed'")[1]
        assert ("gradient", "The memory was full: --resume tries it again; take fewer workers, a smaller chunk, or a machine with more.") in reasons
        assert same(run_study(study, "out", resume=True), expected)

    def test_an_item_that_cannot_be_made_does_not_stop_the_others(self, folder):
        """A damaged annotation ended the study before it began."""
        for each in ("JPEGImages", "Annotations", "ImageSets/Main"):
            (folder / each).mkdir(parents=True)
        box = "<bndbox><xmin>3</xmin><ymin>3</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
        whole = f"<annotation><size><height>24</height><width>32</width></size><object><name>bird</name>{box}</object></annotation>"
        for number in range(3):
            Image.open(f"pictures/{number}.png").save(f"JPEGImages/{number}.jpg")
            (folder / "Annotations" / f"{number}.xml").write_text(whole)
        (folder / "ImageSets/Main/val.txt").write_text("0\n1\n2\n")
        (folder / "study.yaml").write_text(STUDY.replace("folder: pictures, limit: 3", "dataset: voc, root: ."))
        study = read_study("study.yaml").model_copy(update={"methods": ["gradient"]})
        expected = run_study(study, "whole")
        (folder / "Annotations" / "1.xml").write_text("<annotation>")
        store = run_study(study, "out")
        rows = without_seconds(store)
        bad = [row for row in rows if row["image"] == "unreadable picture 2"]
        assert [row for row in rows if row not in bad] == [row for row in without_seconds(expected) if row["image"] != "1"]
        assert len(bad) == 2 * 11
        assert {row["status"] for row in bad} == {"failed"}
        assert all("1.xml is not an annotation of PASCAL VOC" in row["reason"] for row in bad)
        assert same(run_study(study, "out", resume=True), store)
        (folder / "Annotations" / "1.xml").write_text(whole)  # as it was: what could not be made has its own name now
        assert same(run_study(study, "out", resume=True), expected)
        assert list(store.manifest["images"]) == ["0", "1", "2"]
        for number in range(3):
            (folder / "Annotations" / f"{number}.xml").write_text("<annotation>")
        with pytest.raises(sal.InputError, match=r"^Annotations/0.xml is not an annotation of PASCAL VOC"):
            plan(study)

    def test_maps_are_kept_on_request(self, folder):
        store = run_study(read_study("study.yaml").model_copy(update={"keep_maps": 1}), "out")
        files = list((store.folder / "maps").glob("*.npz"))
        assert len(files) == 3  # one picture, three methods
        with np.load(files[0], allow_pickle=False) as file:
            assert file["map"].shape[0] == 2
            assert file["image"].shape == (1, 3, 24, 32)
        random = [file for file in map(np.load, files) if "stderr" in file.files]
        assert random
        assert all(len(file["df"]) == len(file["stderr"]) == len(file["map"]) for file in random)

    def test_seeds_of_pictures_differ_and_those_of_weights_are_shared(self, folder):
        study = read_study("study.yaml")
        (a, shared), (b, again) = seeds_of(study, "a", 0), seeds_of(study, "b", 0)
        assert a != b
        assert shared == again
        assert seeds_of(study, "a", 1)[1] != shared


class TestTheStore:
    def test_a_query_cannot_change_anything(self, folder):
        store = run_study(read_study("study.yaml"), "out", limit=1)
        before = without_seconds(store)
        for wrong in ("drop table results", "delete from results", "copy results to 'elsewhere.csv'", "set enable_external_access = true", "select 1; select 2"):
            with pytest.raises(sal.InputError, match=r"^Only SELECT is allowed in a query"):
                store.query(wrong)
        for empty in ("", " ; ", "-- nothing"):
            with pytest.raises(sal.InputError, match=r"^The query is empty: give a SELECT"):
                store.query(empty)
        assert store.query("with a as (select 1 as b) select * from a;") == (["b"], [(1,)])
        for wrong in ("select * from read_csv('study.yaml')", "select nothing from results", "selec"):
            with pytest.raises(sal.InputError, match=r"^The query failed: .*[^.!]\. The tables are results \(image, target, .*, seconds\) and curves \(image, .*, y\)\.$"):
                store.query(wrong)
        assert without_seconds(store) == before
        assert not (folder / "elsewhere.csv").exists()

    def test_a_damaged_part_is_set_aside_and_computed_again(self, folder):
        study = read_study("study.yaml")
        whole = run_study(study, "whole")
        store = run_study(study, "out")
        first, second = sorted((store.folder / "results").glob("*.parquet"))[:2]
        first.write_bytes(first.read_bytes()[: first.stat().st_size // 2])
        (store.folder / "curves" / second.name).write_bytes(b"")
        untouched = {file: file.stat().st_mtime_ns for file in (store.folder / "results").glob("*.parquet") if file not in (first, second)}
        run_study(study, "out", resume=True)
        assert same(store, whole)
        assert all(file.stat().st_mtime_ns == when for file, when in untouched.items())
        assert len(list(store.folder.glob("*/*.damaged"))) == 2

    def test_ctrl_c_while_the_database_works(self, folder, monkeypatch):
        """DuckDB makes a RuntimeError of it, which was called a bug."""

        class Interrupted(contextlib.nullcontext):
            def execute(self, *_):
                raise RuntimeError("Query interrupted")

        monkeypatch.setattr("duckdb.connect", lambda: Interrupted(Interrupted()))
        with pytest.raises(KeyboardInterrupt):
            Store("out").write("unit", [], [])
        assert list((folder / "out" / "results").iterdir()) == []

    @pytest.mark.parametrize("left", [0, 300, -20])
    def test_damaged_maps_are_computed_again(self, folder, left):
        study = read_study("study.yaml").model_copy(update={"keep_maps": 1})
        whole = run_study(study, "whole")
        store = run_study(study, "out")
        damaged = min(store.folder.glob("maps/*.npz"))
        damaged.write_bytes(damaged.read_bytes()[:left])
        run_study(study, "out", resume=True)
        assert same(store, whole)
        with np.load(damaged) as maps, np.load(whole.folder / "maps" / damaged.name) as expected:
            assert np.array_equal(maps["map"], expected["map"])

    @pytest.mark.parametrize("lost", ["curves/*.parquet", "maps/*.npz"])
    def test_curves_and_maps_that_are_gone_are_computed_again(self, folder, lost):
        study = read_study("study.yaml").model_copy(update={"keep_maps": 1})
        whole = run_study(study, "whole")
        store = run_study(study, "out")
        gone = min(store.folder.glob(lost))
        untouched = {file: file.stat().st_mtime_ns for file in (store.folder / "results").glob("*.parquet") if file.stem != gone.stem}
        gone.unlink()
        run_study(study, "out", resume=True)
        assert same(store, whole)
        assert gone.exists()
        assert all(file.stat().st_mtime_ns == when for file, when in untouched.items())

    def test_curves_that_are_gone_are_not_merged(self, folder):
        store = run_study(read_study("study.yaml"), "out")
        min((store.folder / "curves").iterdir()).unlink()
        with pytest.warns(UserWarning, match=r"^The study is not complete: 8 of 9 units "):
            merge(["out"], "all")

    def test_curves_of_an_attempt_that_lacked_memory_go(self, folder):
        store = run_study(read_study("study.yaml"), "out", limit=1)
        unit = min((store.folder / "curves").iterdir()).stem
        store.write(unit, store.rows()[:1], [])
        assert unit in store.complete()

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's file that is always full")
    def test_a_full_disk_is_told_in_a_sentence(self, tmp_path):
        """It was told in JSON."""
        (tmp_path / "results").mkdir()
        (tmp_path / "results" / ".u.parquet.part").symlink_to("/dev/full")
        with pytest.raises(sal.InputError) as raised:
            Store(tmp_path).write("u", [{"image": "a.png", "value": 1.0}], [])
        wanted = f"Cannot write {tmp_path / 'results' / 'u.parquet'}: No space left on device. Free some space or mend the folder, then continue with --resume."
        assert str(raised.value) == wanted

    @pytest.mark.parametrize("damage", [lambda whole: whole[: len(whole) // 2], lambda whole: b""])
    def test_a_damaged_part_is_named(self, folder, damage):
        store = run_study(read_study("study.yaml"), "out", limit=1)
        part = sorted((store.folder / "results").glob("*.parquet"))[1]
        part.write_bytes(damage(part.read_bytes()))
        for ask in (store.rows, lambda: tables(store), lambda: store.query("select 1")):
            with pytest.raises(sal.InputError, match=rf"^{part} is damaged: continue the study with --resume, which sets it aside and computes it again\.$"):
                ask()

    @pytest.mark.skipif(sys.platform == "win32", reason="Windows allows no star in names")
    def test_a_folder_may_have_the_letters_of_a_pattern(self, folder):
        study = read_study("study.yaml")
        store = run_study(study, "r[1]*", limit=1)
        run_study(study, "r1", limit=2)
        assert len(store.rows()) == 3 * 2 * 11
        run_study(study, "r[1]*", limit=2, resume=True)
        assert same(store, Store("r1"))

    def test_no_study(self, folder):
        with pytest.raises(sal.InputError, match="holds no study"):
            Store(folder).query("select 1")

    def test_parts_without_a_manifest_are_not_mixed_with_another_study(self, folder):
        store = run_study(read_study("study.yaml"), "out", limit=1)
        (store.folder / "manifest.json").unlink()
        for resume in (False, True):
            with pytest.raises(sal.InputError, match=r"^out holds parts of a study, but no manifest\.json: restore it, or choose another folder with --out\.$"):
                run_study(read_study("study.yaml"), "out", resume=resume)

    def test_a_damaged_manifest(self, folder):
        store = run_study(read_study("study.yaml"), "out", limit=1)
        (store.folder / "manifest.json").write_text("{")
        with pytest.raises(sal.InputError, match=r"manifest.json is damaged"):
            run_study(read_study("study.yaml"), "out", resume=True)


def test_a_study_that_is_refused_leaves_no_folder(folder):
    """An empty one with a lock was left."""
    study = read_study("study.yaml")
    with pytest.raises(sal.InputError, match="more than the"):
        run_study(study, "new/out", workers=1000, threads=1)
    assert not (folder / "new" / "out").exists()


class TestResume:
    def test_refused_without_saying_so_and_with_another_study(self, folder):
        study = read_study("study.yaml")
        run_study(study, "out", limit=2)
        with pytest.raises(sal.InputError, match=r"^out holds a study already: continue it with --resume"):
            run_study(study, "out", limit=2)
        with pytest.raises(sal.InputError, match="seed was 3 and is 4"):
            run_study(study.model_copy(update={"seed": 4}), "out", resume=True, limit=2)
        with pytest.raises(sal.InputError, match="1 pictures are gone"):
            run_study(study, "out", resume=True, limit=1)
        Image.new("RGB", (32, 24)).save(folder / "pictures" / "0.png")
        with pytest.raises(sal.InputError, match=r"the picture .*0.png or its labels or masks have changed"):
            run_study(study, "out", resume=True, limit=2)

    def test_other_weights_are_refused(self, folder, monkeypatch):
        study = read_study("study.yaml")
        run_study(study, "out", limit=1)
        import salience.studies.manifest as module

        other = sal.load_model("python:tiny_models:net")
        with torch.no_grad():
            other.module.head.bias.add_(1)
        monkeypatch.setattr(module, "model_of", lambda *_: other)
        with pytest.raises(sal.InputError, match="the weights of python:tiny_models:net have changed"):
            run_study(study, "out", resume=True, limit=1)

    @pytest.mark.parametrize(
        ("change", "said"), [("mean", r"mean of python:tiny_models:net was \[.*\] and is \[0\.25, "), ("size", r"size of .* was \[24, 32\] and is \[16, 24\]"), ("net", "structure of ")]
    )
    def test_other_preprocessing_or_structure_is_refused(self, folder, monkeypatch, change, said):
        """Only the weights were looked at: rows of two models came into one folder."""
        study = read_study("study.yaml")
        run_study(study, "out", limit=1)
        import salience.studies.manifest as module

        other = sal.load_model("python:tiny_models:net")
        if change == "mean":
            other.mean[:, 0] = 0.25
        elif change == "size":
            other.size = (16, 24)
        else:
            other.module.added = torch.nn.Tanh()
        monkeypatch.setattr(module, "model_of", lambda *_: other)
        with pytest.raises(sal.InputError, match=said):
            run_study(study, "out", resume=True, limit=1)

    def test_seconds_count_the_maps_of_a_perturbed_picture_once(self, folder, monkeypatch):
        import salience.studies.work as module

        def slow(*arguments):
            time.sleep(0.2)
            return made(*arguments)

        made = module.compared
        monkeypatch.setattr(module, "compared", slow)
        study = read_study("study.yaml").model_copy(update={"metrics": ["mse", "ssim", "cosine"], "perturbations": ["gaussian_noise"], "methods": ["gradient"], "seeds": [0], "variants": ["common"]})
        (row,) = run_study(study, "out", limit=1).query("SELECT count(*) FILTER (seconds >= 0.2), count(*) FROM results WHERE variant = 'common'")[1]
        assert tuple(row) == (1, 3)

    def test_another_level_of_weight_noise_is_refused_where_a_method_takes_it(self, folder):
        """A level that `salience tune` keeps between two parts of a study would change what its second part does."""
        base = read_study("study.yaml").model_copy(update={"metrics": ["gini"], "perturbations": []})
        free, taking = (base.model_copy(update={"methods": methods}) for methods in (["gradient"], ["noisegrad:weight_samples=2"]))
        run_study(free, "free", limit=1)
        run_study(taking, "taking", limit=1)
        keep_weight_sigma(sal.load_model("python:tiny_models:net").weights_hash(), 0.125, {})
        run_study(free, "free", resume=True, limit=1)
        with pytest.raises(sal.InputError, match=r"the noise level known for python:tiny_models:net was None and is 0\.125 \(salience tune\)"):
            run_study(taking, "taking", resume=True, limit=1)

    def test_the_limit_may_grow(self, folder):
        study = read_study("study.yaml")
        store = run_study(study, "out", limit=1)
        first = {file: file.stat().st_mtime_ns for file in (store.folder / "results").glob("*")}
        run_study(study, "out", resume=True, limit=4)
        assert same(store, run_study(study, "whole", limit=4))
        assert all(file.stat().st_mtime_ns == when for file, when in first.items())

    def test_shards_join_to_the_whole(self, folder):
        study = read_study("study.yaml")
        for number in (1, 2, 3):
            run_study(study, f"part{number}", shard=(number, 3))
        assert same(merge(["part1", "part2", "part3"], "all"), run_study(study, "whole"))
        run_study(study.model_copy(update={"seed": 9}), "other")
        with pytest.raises(sal.InputError, match="holds another study"):
            merge(["part1", "other"], "mixed")

    def test_parts_of_different_threads_are_told(self, folder):
        """Tasks of a job array may run on machines that differ: their rows are kept, and so is what they were run with."""
        study = read_study("study.yaml").model_copy(update={"methods": ["gradient"], "metrics": ["gini"], "perturbations": []})
        parts = [run_study(study, f"part{number}", shard=(number, 2), threads=number) for number in (1, 2)]
        with pytest.warns(UserWarning, match=r"^The parts were computed with different numbers of threads \(1, 2\): their rows may differ in the last digits\. The manifest says which\.$"):
            whole = merge(["part1", "part2"], "all")
        assert whole.manifest["threads"] is None
        assert whole.manifest["parts"] == [{"shard": [number, 2], "threads": number, "versions": part.manifest["versions"]} for number, part in enumerate(parts, 1)]
        assert threads_of(whole.manifest) == "1, 2"
        with pytest.raises(sal.InputError, match=r"^all was joined from parts with different numbers of threads, so it cannot be continued: continue the parts, and merge them again\.$"):
            run_study(study, "all", resume=True, limit=4)

    def test_a_shard_has_every_method_and_picture(self, folder):
        """With as many shards as methods each had one method alone: the slow one made its task last as long as all of them."""
        planned = plan(read_study("study.yaml"))
        for number in (1, 2, 3):
            part = planned.part((number, 3))
            assert {unit.method for unit in part} == {"gradient", "smoothgrad:samples=3", "random"}
            assert {unit.image for unit in part} == {"0.png", "1.png", "2.png"}

    def test_what_two_parts_have_is_taken_from_the_first(self, folder):
        """The rows were those of the last, beside curves of the first."""
        study = read_study("study.yaml")
        first, second = (run_study(study, name) for name in ("first", "second"))
        unit = plan(study).units[0]
        second.write(unit.id, [{**unit.__dict__, "target": None, "status": "failed", "reason": "a disk that was away"}], [])
        assert same(merge(["first", "second"], "all"), first)

    def test_what_is_missing_in_a_part_is_told(self, folder):
        study = read_study("study.yaml").model_copy(update={"methods": ["gradient"], "metrics": ["gini"], "perturbations": []})
        for number in (1, 2):
            run_study(study, f"part{number}", shard=(number, 2))
        file = next((folder / "part1" / "results").iterdir())
        file.write_bytes(b"half of it")
        with pytest.warns(UserWarning, match=r"^The study is not complete: 2 of 3 units .* Continue the shards with --resume, and merge again into another folder\.$"):
            merge(["part1", "part2"], "all")
        assert file.read_bytes() == b"half of it"  # the parts are only read
        (folder / "all" / "manifest.json").unlink()
        with pytest.raises(sal.InputError, match=r"^all holds a study already: choose another folder"):
            merge(["part1", "part2"], "all")

    def test_missing_shards_are_named(self, folder):
        study = read_study("study.yaml")
        for number in (1, 3):
            run_study(study, f"part{number}", shard=(number, 3))
        for parts, missing in ((["part1", "part3"], "The shard 2/3 is missing"), (["part3"], "The shards 1/3, 2/3 are missing")):
            with pytest.raises(sal.InputError, match=f"^{missing}: run what is missing with --shard, and give all folders to merge"):
                merge(parts, "all")
        assert not (folder / "all").exists()

    @pytest.mark.parametrize("limit", [0, -1])
    def test_a_limit_without_pictures_is_refused(self, folder, limit):
        study = read_study("study.yaml")
        for refused in (lambda: plan(study, limit), lambda: run_study(study, "out", limit=limit)):
            with pytest.raises(sal.InputError, match=rf"^A limit of {limit} leaves no pictures: give at least 1 with --limit, or leave it out\.$"):
                refused()
        assert not (folder / "out").exists()

    def test_two_workers_give_the_same_rows(self, folder, monkeypatch):
        monkeypatch.setenv("PYTHONPATH", str(SUPPORT))
        monkeypatch.setattr(os, "cpu_count", lambda: 2)
        study = read_study("study.yaml")
        two = run_study(study, "two", workers=2)
        assert two.manifest["threads"] == 1
        monkeypatch.setattr(os, "cpu_count", lambda: 1)
        assert same(two, run_study(study, "one"))

    @pytest.mark.parametrize(("cores", "bound", "used", "workers", "threads"), [(8, 8, 8, 1, 8), (8, 8, 3, 1, 3), (8, 4, 8, 2, 2), (8, 8, 1, 4, 1), (2, 8, 8, 1, 2)])
    def test_threads_are_those_that_torch_uses_and_the_process_has(self, folder, monkeypatch, cores, bound, used, workers, threads):
        """A job of a cluster may be bound to some cores, or have OMP_NUM_THREADS."""
        monkeypatch.setattr(os, "cpu_count", lambda: cores)
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(bound)), raising=False)
        monkeypatch.setattr(torch, "get_num_threads", lambda: used)
        monkeypatch.setitem(ENGINES, "local", lambda study, tasks, workers, threads: iter(()))
        assert run_study(read_study("study.yaml"), "out", workers=workers).manifest["threads"] == threads

    def test_kinds_of_objects_are_known_from_the_data(self, folder):
        """A cat may be any of ImageNet's cats; a giraffe is none of its classes."""
        (folder / "coco").mkdir()
        for name, value in (("a", 17), ("b", 44)):
            Image.new("RGB", (32, 24)).save(folder / "coco" / f"{name}.jpg")
            Image.fromarray(np.full((24, 32), value, np.uint8)).save(folder / "coco" / f"{name}.mask.png")
        (folder / "coco" / "classes.json").write_text('{"classes": {"17": "cat", "44": "bottle"}, "coco_to_imagenet": {"cat": [281, 282], "bottle": 440}}')
        (folder / "study.yaml").write_text(STUDY.replace("folder: pictures", "dataset: coco, root: coco, labels: imagenet"))
        assert run_study(read_study("study.yaml"), "out").manifest["categories"] == [[281, 282]]

    def test_the_plan(self, folder):
        planned = plan(read_study("study.yaml"))
        assert len(planned.units) == 9
        assert len({unit.id for unit in planned.units}) == 9
        assert sorted(unit.id for number in (1, 2) for unit in planned.part((number, 2))) == sorted(unit.id for unit in planned.units)
        assert planned.note == "3 of 3 pictures have no mask, which pointing_game needs: such rows will be failed."
        (folder / "study.yaml").write_text(STUDY.replace(", pointing_game", ""))
        assert plan(read_study("study.yaml")).note == ""

    def test_the_time_is_that_of_a_picture_that_can_be_explained(self, folder, monkeypatch):
        """With a damaged picture first a study was said to take no time at all."""
        (folder / "pictures" / "0.png").write_bytes(b"")
        timed = []
        monkeypatch.setattr("salience.studies.plan.compute", lambda study, unit: timed.append((unit.method, unit.image)) or compute(study, unit))
        study = read_study("study.yaml")
        assert set(estimate(plan(study))) == {("python:tiny_models:net", method) for method in study.methods}
        assert timed == [(method, image) for method in study.methods for image in ("0.png", "1.png")]


def process(*arguments: str, **options) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(SUPPORT), "OMP_NUM_THREADS": "1"} | options.pop("env", {})
    return subprocess.Popen([sys.executable, "-m", "salience", "study", "run", "study.yaml", *arguments], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


def wait_for(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


class TestProcesses:
    def test_killed_and_resumed(self, folder):
        """kill -9 at three moments, then to the end: the rows of a run that was left alone, nothing computed twice."""
        (folder / "study.yaml").write_text(STUDY.replace("limit: 3", "limit: 4"))
        parts = folder / "out" / "results"
        for number in (1, 3, 6):
            running = process("--out", "out", *(["--resume"] if (folder / "out" / "manifest.json").exists() else []))
            wait_for(lambda number=number: len(list(parts.glob("*.parquet"))) >= number)
            running.send_signal(signal.SIGKILL)
            running.communicate()
        before = {file: file.stat().st_mtime_ns for file in parts.glob("*.parquet")}
        ended = process("--out", "out", "--resume")
        out, err = ended.communicate(timeout=120)
        assert (ended.returncode, err) == (0, "")
        assert "264 rows, 8 undefined, 24 failed are in out" in out
        assert all(file.stat().st_mtime_ns == when for file, when in before.items())
        assert same(Store("out"), run_study(read_study("study.yaml"), "whole"))
        assert not list((folder / "out").rglob("*.part"))

    def test_one_run_at_a_time(self, folder):
        (folder / "study.yaml").write_text(STUDY.replace("tiny_models:net", "tiny_models:slow").replace("samples=3", "samples=9999"))
        first = process("--out", "out", env={"BEGUN": str(folder / "begun")})
        wait_for(lambda: (folder / "begun").exists())
        second = process("--out", "out", "--resume", env={"BEGUN": str(folder / "begun")})
        _, err = second.communicate(timeout=60)
        assert (second.returncode, err) == (2, "Error: Another process is running a study in out: wait for it, or take another folder.\n")
        first.send_signal(signal.SIGINT)
        _, err = first.communicate(timeout=60)
        assert (first.returncode, err) == (130, "Interrupted: every file that was written is whole.\n")

    def test_nobody_waits_for_workers_that_are_interrupted(self, folder):
        """Ctrl-C, which reaches every process, ended the command only when all units under way were done, here in an hour or so."""
        (folder / "study.yaml").write_text(STUDY.replace("tiny_models:net", "tiny_models:slow").replace("samples=3", "samples=9999"))
        running = process("--out", "out", "--workers", "2", "--threads", "1", env={"BEGUN": str(folder / "begun")}, start_new_session=True)
        wait_for(lambda: (folder / "begun").exists())
        os.killpg(running.pid, signal.SIGINT)
        _, err = running.communicate(timeout=60)
        assert (running.returncode, err) == (130, "Interrupted: every file that was written is whole.\n")

    def test_sigterm_ends_a_study_as_ctrl_c_does(self, folder):
        """Batch systems send it when the time is over. Python's warning of leaked semaphores was all that was said."""
        (folder / "study.yaml").write_text(STUDY.replace("tiny_models:net", "tiny_models:slow").replace("samples=3", "samples=9999"))
        running = process("--out", "out", "--workers", "2", "--threads", "1", env={"BEGUN": str(folder / "begun")})
        wait_for(lambda: (folder / "begun").exists())
        running.terminate()
        _, err = running.communicate(timeout=60)
        assert (running.returncode, err) == (143, "Terminated: every file that was written is whole.\n")

    def test_workers_that_are_interrupted_while_they_start_say_nothing(self, folder):
        """Ctrl-C in the first seconds printed the trace of where each was in its imports."""
        running = process("--out", "out", "--workers", "2", "--threads", "1", start_new_session=True)
        wait_for(lambda: (folder / "out" / "manifest.json").exists())
        time.sleep(0.3)
        os.killpg(running.pid, signal.SIGINT)
        _, err = running.communicate(timeout=60)
        assert (running.returncode, err) == (130, "Interrupted: every file that was written is whole.\n")

    @pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files as Unix does")
    def test_a_full_disk(self, folder):
        """A file may not grow: as if the disk were full. What was asked for is said, no half file is left, and it goes on from there."""
        import resource

        full = process("--out", "out", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500)))
        _, err = full.communicate(timeout=60)
        assert full.returncode == 2
        assert err.startswith("Error: Cannot write out")
        assert err.count("\n") == 1
        assert not list((folder / "out").rglob("*.part"))
        ended = process("--out", "out", "--resume")
        assert ended.communicate(timeout=60)[1] == ""
        assert same(Store("out"), run_study(read_study("study.yaml"), "whole"))


def test_ray_nodes_that_die(folder, monkeypatch):
    """Two Ray nodes on this machine; the one at work is killed after the first rows: the table is the same."""
    ray = pytest.importorskip("ray", reason="the extra ray is not installed")
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    study = read_study("study.yaml")
    whole = run_study(study, "whole")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own
        cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        try:
            nodes = [cluster.add_node(num_cpus=1), cluster.add_node(num_cpus=1)]
            monkeypatch.setenv("RAY_ADDRESS", cluster.address)
            killed = []

            def report(what, done, total):
                if what == "computing" and done == 1 and not killed:
                    killed.append(cluster.remove_node(nodes[0], allow_graceful=False))

            store = run_study(study, "out", engine="ray", report=report)
        finally:
            ray.shutdown()
            cluster.shutdown()
    assert killed
    assert same(store, whole)
