"""The studies of papers: their pure parts on numbers known in closed form, and each script once on a tiny network and its own pictures."""

import argparse
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from study_scripts import STUDIES, loaded, mean, objects, run, table

import salience as sal
from salience.core.draws import streams
from salience.studies.statistics import bootstrap_interval
from salience.studies.study import Data, Study
from salience.studies.work import seeds_of

NET = "python:tiny_models:net"


@pytest.fixture
def script(monkeypatch):
    """A file of the folder of studies as a module."""
    monkeypatch.setattr("os.cpu_count", lambda: 1)  # one thread
    return lambda name: loaded(name, monkeypatch)


@pytest.fixture
def quick(script, monkeypatch):
    """A script whose best estimator of RISE is a cheap one: its own is tested elsewhere."""

    def quick(name, **changes):
        module = script(name)
        monkeypatch.setattr(module, "rise", lambda masks, estimator, grid=7: script("_common").rise(masks, estimator.replace("crossfit", "centred"), grid))
        for key, value in changes.items():
            monkeypatch.setattr(module, key, value)
        return module

    return quick


@pytest.fixture
def photographs(tmp_path):
    """Two small pictures of two classes each, with masks and labels: as COCO has them and as a labelled folder."""
    folder, generator = tmp_path / "pictures", np.random.default_rng(0)
    folder.mkdir()
    for number in range(4):
        Image.fromarray(generator.integers(0, 255, (20, 24, 3), dtype=np.uint8)).save(folder / f"{number}.png")
        mask = np.zeros((20, 24), np.uint8)
        mask[4:12, 6:14] = 1 + number % 2
        Image.fromarray(mask).save(folder / f"{number}.mask.png")
    (folder / "classes.json").write_text('{"classes": {"1": "bee", "2": "dog"}, "coco_to_imagenet": {"bee": [1, 0], "dog": 3}}')
    (folder / "labels.csv").write_text("file,class_index\n" + "".join(f"{number}.png,{number}\n" for number in range(4)))
    return folder


# --- the common file --------------------------------------------------------------------------------------------------------------------------


def test_a_claim_is_decided_by_its_test_adjusted_for_all_claims_of_the_study(script, tmp_path, capsys):
    common = script("_common")
    rising = np.linspace(0.1, 0.2, 8)
    report = common.Report(argparse.Namespace(out=tmp_path), "A study")
    true = common.difference("less", "0.1 and 0.5", rising, rising + 0.4, "<")
    false = common.difference("more", "-", rising, rising + 0.4, ">")
    few = common.difference("untestable", "-", rising[:3], rising[:3] + 0.4, "<")
    assert (true.p, true.agrees, false.agrees) == (pytest.approx(2 / 2**8), True, False)
    assert np.isnan(few.p)
    assert "3 pairs, at least 6" in few.ours
    report.claims([true, false, few, common.Claim("not here", "12", "needs another network")])
    written = capsys.readouterr().out
    assert "cannot be decided" not in written
    found = re.findall(r"\*\*(.*?)\*\*: (.*)", written)
    assert found == [("holds", "less"), ("does not hold", "more"), ("not decided here", "untestable"), ("not decided here", "not here")]
    report.claims([true] * 8)  # 8 claims of p = 1/128: Holm makes it 1/16
    written = capsys.readouterr().out
    assert "**holds**" not in written
    assert "8 of 8 claims cannot be decided here, whatever the values are: of so few pictures p is at least 0.0078, which for 8 claims is not under 0.05." in written


def test_a_claim_against_a_constant_and_one_without_a_difference(script):
    common = script("_common")
    assert common.difference("", "", np.full(10, 0.7) + np.linspace(0, 0.01, 10), 0.5, ">").agrees
    equal = common.difference("", "", np.full(10, 0.7), 0.7, ">")
    assert (equal.p, equal.verdict(equal.p)) == (1.0, "not decided here")


def test_an_estimate_is_a_function_of_means_over_images_with_an_interval_around_it(script):
    common = script("_common")
    a, b = np.linspace(1, 3, 20), np.linspace(2, 6, 20)
    point, low, high = map(float, re.fullmatch(r"([\d.]+) \[([\d.]+), ([\d.]+)\]", common.estimated(lambda x, y: x * y, a, b)).groups())
    assert point == pytest.approx(a.mean() * b.mean(), abs=1e-4)
    assert low < point < high


def test_a_claim_about_a_function_of_means(script):
    common = script("_common")
    a, b = np.linspace(1, 3, 20), np.linspace(2, 6, 20)  # b is twice a, whatever images are drawn
    ratio = common.beyond("", "", lambda x, y: y / x, ">", 1.5, a, b)
    assert (ratio.agrees, ratio.p) == (True, pytest.approx(2 * stats.t.cdf(stats.norm.ppf(1 / 4001) * np.sqrt(19 / 20), 19)))
    assert common.beyond("", "", lambda x, y: y / x, "<", 1.5, a, b).agrees is False
    assert common.beyond("", "", lambda x: x, ">", 2.0, a).p > 0.9
    assert np.isnan(common.beyond("", "", lambda x: x, ">", 2.0, a[:5]).p)


def test_a_bootstrap_of_few_images_is_as_careful_as_a_test_of_ranks(script):
    """Six numbers on one side of a bound: ranks cannot say more than p = 2 / 2**6, nor should a bootstrap, and its interval is that of the mean."""
    common, values = script("_common"), np.linspace(0.1, 0.3, 6)
    claim = common.beyond("", "", lambda mean: mean, ">", 0.0, values)
    assert claim.agrees
    assert claim.p > 0.02
    low, high = map(float, re.search(r"\[(.*), (.*)\]", common.estimated(lambda mean: mean, values)).groups())
    wanted = bootstrap_interval(values)
    assert (low, high) == pytest.approx((wanted.low, wanted.high), abs=0.004)
    assert common.estimated(lambda mean: mean, values[:1]) == "0.1000"  # of one image there is no interval


def test_resamples_without_a_number_speak_for_neither_side(script):
    """A ratio that is not defined where its divisor is not positive, as a correlation of maps: here in about one resample of eight."""
    common, divisor = script("_common"), np.append(np.full(11, 1.0), -9.0)
    ratio = lambda above, below: above / np.where(below > 0, below, np.nan)  # noqa: E731
    claim = common.beyond("", "", ratio, ">", 0.5, np.full(12, 1.0), divisor)
    assert claim.agrees
    assert claim.p > 0.1
    assert re.match(r"6\.0000 \[-, -\] against 0\.5, 12 images", claim.ours)


def test_nothing_is_decided_where_ranks_and_mean_point_opposite_ways(script):
    """Eleven pictures a little less and one much more: the mean is more, Wilcoxon's test says less."""
    common, zero = script("_common"), np.zeros(12)
    values = np.append(np.linspace(-0.011, -0.001, 11), 5.0)
    for way in ("<", ">"):
        claim = common.difference("", "", values, zero, way)
        assert claim.p < 0.05
        assert claim.verdict(claim.p) == "not decided here"
        assert claim.ours.endswith("12 images, wilcoxon, whose ranks point the other way")


def test_seeds_without_an_interval_decide_nothing(script):
    common, rising = script("_common"), np.linspace(0.1, 0.2, 12)
    once = np.stack([rising, np.full(12, np.nan)], 1)  # the second draw of weights failed everywhere
    assert "the weights were drawn once" in common.difference("", "", once, 0.0, ">", shared_seeds=True).ours
    assert np.isnan(common.difference("", "", once, 0.0, ">", shared_seeds=True).p)
    assert np.isnan(common.difference("", "", np.tile([1.0, -1.0], (3, 1)), 0.0, ">", shared_seeds=True).p)  # and three images are no test at all


def test_values_that_are_missing_are_named_in_the_results(script, photographs, tmp_path, capsys):
    common = script("_common")
    (photographs / "broken.png").write_bytes(b"no picture")
    with (photographs / "labels.csv").open("a") as file:
        file.write("broken.png,0\n")
    given = argparse.Namespace(out=tmp_path / "out", limit=None, workers=1, left_out=[])
    report = common.Report(given, "A study")
    study = Study(name="any", models=[NET], data=Data(dataset="folder", root=str(photographs), labels="labels.csv"), methods=["gradient", "edges", "random"], metrics=["gini"])
    store = common.rows(study, tmp_path / "out" / "rows", given)
    assert np.isnan(common.values(store, "gradient", "gini", model=NET)[:, 0]).tolist() == [False] * 4 + [True]
    report.done()
    written = (tmp_path / "out" / "results.md").read_text()
    assert re.search(rf"## Values that are missing\n\n.*\n\n- {NET}, gini, relative_error of edges, gradient, random: 5 rows failed: .*broken\.png", written)
    assert written.count("rows") == 2  # that random maps have no error is not told


@pytest.mark.parametrize(("options", "limit"), [([], 10), (["--full"], 15), (["--full", "--limit", "3"], 3), (["--limit", "4"], 4)])
def test_the_help_names_the_number_of_pictures_that_is_taken(script, tmp_path, options, limit):
    common, given = script("_common"), []
    made = common.parser("any", "A study.", 10, "pictures", full=15)
    assert "(default: 10; with --full 15)" in " ".join(made.format_help().split())
    assert common.main(made, given.append, [*options, "--out", str(tmp_path)]) == 0
    assert given[0].limit == limit


def test_every_script_explains_its_options(script, capsys):
    scripts = sorted(file.stem for file in STUDIES.glob("*.py") if "__main__" in file.read_text())
    assert len(scripts) == 18
    for name in scripts:
        with pytest.raises(SystemExit):
            script(name).options().parse_args(["--help"])
        assert "with --full" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "option"), [("report_robustness", "--masks"), ("rise_figures", "--examples"), ("noisegrad_tables", "--steps"), ("smoothed_attacks", "--draws")])
def test_numbers_begin_at_one(script, capfd, name, option):
    with pytest.raises(SystemExit):
        script(name).options().parse_args([option, "0"])
    assert capfd.readouterr().err.endswith(f"error: argument {option}: must be at least 1\n")


def test_data_are_sought_in_one_folder_by_all_scripts(script, tmp_path, monkeypatch):
    monkeypatch.setenv("SALIENCE_DATA", str(tmp_path))
    script("_common")
    assert runpy.run_path(str(STUDIES / "_common.py"))["DATA"] == script("models").data_folder() == tmp_path


def test_a_missing_folder_is_named_with_the_option_that_names_another(script, tmp_path, monkeypatch):
    common = script("_common")
    monkeypatch.setattr(common, "DATA", tmp_path / "no data")
    monkeypatch.chdir(tmp_path)
    given = argparse.Namespace(out=tmp_path / "out")
    with pytest.raises(sal.InputError, match=r"^A folder of photographs is needed and not found at nowhere: say where it is with --photos\.$"):
        common.photographs(Path("nowhere"), given)
    shipped = common.photographs(common.DATA / "imagenet_photos", given)  # the default folder, which is not there: scikit-image's
    assert len(sal.load_dataset(**{"kind" if key == "dataset" else key: value for key, value in shipped.items()})) == len(common.SHIPPED)
    with pytest.raises(sal.InputError, match=r"^COCO is needed: say where it is with --coco\.$"):
        common.required(None, "--coco", "COCO")


def test_a_script_refuses_in_one_line(script, tmp_path, capfd, monkeypatch):
    module = script("rise_table1")
    monkeypatch.chdir(tmp_path)
    assert module.main(module.options(), module.work, ["--full"]) == 2
    assert capfd.readouterr().err == "ImageNet's validation set, a folder a class, is needed: say where it is with --imagenet.\n"
    module = script("rise_table2")
    assert module.main(module.options(), module.work, ["--full"]) == 2
    assert capfd.readouterr().err.startswith("--full needs a network trained on VOC or COCO: ")
    assert module.main(module.options(), module.work, ["--coco", "nowhere"]) == 2
    assert capfd.readouterr().err == "A folder of COCO's photographs and masks is needed and not found at nowhere: say where it is with --coco.\n"


def test_a_model_that_remembers_gives_the_same_scores_and_computes_each_picture_once(script):
    remembering = getattr(script("_remembering"), f"{NET}@float32")()
    images = torch.rand(5, 3, 24, 32, generator=torch.Generator().manual_seed(0))
    plain = sal.load_model(NET)
    torch.testing.assert_close(remembering.outputs(images), plain.outputs(images))
    torch.testing.assert_close(remembering.outputs(images[[4, 0, 0]]), plain.outputs(images[[4, 0, 0]]))
    assert remembering.passes == 5
    many, few = (sal.explain(f"rise:samples={samples},grid=3", remembering, images[:1]) for samples in (30, 20))
    assert remembering.passes == 5 + 30  # the image itself is known too, and the first 20 masks of 30 are those of 20
    torch.testing.assert_close(few.maps, sal.explain("rise:samples=20,grid=3", plain, images[:1]).maps)
    assert not torch.equal(many.maps, few.maps)
    assert remembering.weights_hash() == plain.weights_hash()


# --- pure parts -------------------------------------------------------------------------------------------------------------------------------


def test_the_report_s_laws_of_mask_noise_on_maps_of_known_signal_and_noise(script):
    """Signal of variance 1; noise of variance 40 a mask; the perturbed signal correlates by 0.8 with the clean one."""
    module, generator = script("report_robustness"), np.random.default_rng(0)
    signal, other = generator.standard_normal((2, 400_000))
    perturbed = 0.8 * signal + 0.6 * other

    def noisy(true, masks):
        return true + np.sqrt(40 / masks) * generator.standard_normal(true.shape)

    floor, fresh = (np.array(np.corrcoef(noisy(signal, 100), noisy(second, 100))[0, 1]) for second in (signal, perturbed))
    assert module.without_noise(floor, fresh) == pytest.approx(0.8, abs=0.01)
    more = np.corrcoef(noisy(signal, 2000), noisy(signal, 2000))[0, 1]
    assert module.at_masks(floor, 100, 2000) == pytest.approx(more, abs=0.005)
    assert module.noise_share(floor, fresh) == pytest.approx((1 - 1 / 1.4) / (1 - 0.8 / 1.4), abs=0.01)
    assert np.isnan(module.at_masks(np.array(-0.1), 100, 2000))
    other = np.corrcoef(noisy(signal, 2000), noisy(perturbed, 2000))[0, 1]
    assert module.share_at(100, 2000)(floor, fresh) == pytest.approx((1 - more) / (1 - other), abs=0.03)


def test_a_claim_that_the_paper_s_other_network_contradicts_says_so(script):
    module = script("rise_table2")
    assert module.exceptions(module.RISE, module.CMWP) == " (in the paper not for ResNet50, VOC, nor for ResNet50, COCO)"
    assert [module.exceptions(*pair) for pair in module.SAID if pair != (module.RISE, module.CMWP)] == [""] * 5


def test_the_masks_share_of_a_background_of_known_signal_and_noise(script):
    module, generator = script("rise_figures"), np.random.default_rng(0)
    signal = generator.standard_normal((300, 300))
    maps = torch.from_numpy(signal + np.sqrt(3.0) * generator.standard_normal((4, 300, 300)))
    everywhere = torch.ones(300, 300, dtype=torch.bool)
    share = module.mask_share(maps, everywhere)
    assert share == pytest.approx(0.75, abs=0.01)
    assert module.at_masks(np.array(share), 100, 300) == pytest.approx(0.5, abs=0.02)
    assert module.mask_share(maps[:, :1] * 0 + torch.from_numpy(signal[:1]), everywhere[:1]) == pytest.approx(0, abs=1e-9)


def test_spreads_of_the_tables(script):
    table1, table2 = script("rise_table1"), script("rise_table2")
    found = np.array([[1.0, 3.0], [2.0, 4.0]])
    assert table1.spread(found) == pytest.approx(np.std([1.5, 3.5], ddof=1))
    assert table1.of_a_picture(found) == pytest.approx(np.sqrt(2.0))
    assert np.isnan(table1.spread(found[:, :1]))
    hits = np.array([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]])  # classes a, a, b: 50 and 25 percent
    assert table2.spread(hits, ["a", "a", "b"], ["1", "2", "3"]) == pytest.approx(np.std([50, 25], ddof=1))
    assert table2.accuracy_cell(hits, ["a", "a", "b"], ["1", "2", "3"]).startswith("37.5 [")


# --- each script, whole -----------------------------------------------------------------------------------------------------------------------


def test_the_report_is_made(quick, photographs, tmp_path, capfd):
    module = quick("report_robustness", SMOOTHGRAD="smoothgrad:samples=2")
    written = run(module, capfd, "--photos", photographs, "--model", NET, "--masks", 4, "--out", tmp_path / "out", "--limit", 1)
    found = table(written, "SSIM, maps brought to 0..1")
    assert found["noise, sd 25 of 255: RISE"]["published"] == "0.3762"
    assert found["horizontal flip: edges"]["common"] == "1.0000"  # edges do not look at the network, and a flip undone leaves them


def test_the_report_sets_pictures_of_another_prediction_apart_and_compares_maps_as_they_are(quick, tmp_path, capfd, monkeypatch):
    """The noise changes what the network sees in some of four pictures: the map of edges, which draws nothing, tells which pictures are in which cell."""
    images, _ = objects(tmp_path / "pictures", 4)
    module, sheets = quick("report_robustness", SMOOTHGRAD="smoothgrad:samples=2"), []
    monkeypatch.setattr(module, "sheet", lambda *given, drawn=module.sheet: sheets.append(given) or drawn(*given))
    name = "python:study_nets:balanced"
    written = run(module, capfd, "--photos", tmp_path / "pictures", "--model", name, "--masks", 4, "--out", tmp_path / "out", "--limit", 4)
    model, data = sal.load_model(name), sal.load_dataset("folder", root=str(tmp_path / "pictures"), labels="labels.csv", shuffle=0)
    study = Study(name="any", data=Data(dataset="folder", root=str(tmp_path / "pictures")), methods=["edges"])
    order = [int(item.name.removesuffix(".png")) for item in data]
    images = images[order]
    noisy = sal.GaussianNoise().apply(images, streams([seeds_of(study, item.name, 0) for item in data], 4))
    changed = (model.outputs(images).argmax(1) != model.outputs(noisy).argmax(1)).numpy()
    assert 0 < changed.sum() < 4  # else there is nothing to see
    edges = [sal.explain("edges", model, each).maps[:, 0].flatten(1).double() for each in (images, noisy)]
    raw, scaled = (torch.cosine_similarity(*pair).numpy() for pair in (edges, [(each - each.amin(1, True)) / (each.amax(1, True) - each.amin(1, True)) for each in edges]))
    for title, values in {"cosine, maps as they are": raw, "cosine, maps brought to 0..1": scaled}.items():
        row = table(written, title)["noise, sd 25 of 255: edges"]
        assert row["pictures and apart"] == f"{(~changed).sum()} and {changed.sum()}"
        for column, kept in {"common": ~changed, "fresh": ~changed, "apart: common": changed}.items():
            assert mean(row[column]) == pytest.approx(values[kept].mean(), abs=6e-5)
        assert row["floor"].startswith("1.0000")
    assert np.abs(raw - scaled).max() > 1e-3
    assert table(written, "cosine, maps as they are")["noise, sd 25 of 255: RISE"]["published"] == "0.9963"
    assert re.search(rf"RISE has a higher SSIM than SmoothGrad: noise.*\n.*\n.*, {(~changed).sum()} images", written)
    (_, rows, *_) = sheets[-1]
    np.testing.assert_allclose(rows[0][1][1].picture, noisy[0].permute(1, 2, 0), atol=1e-6)  # the picture whose maps are below it


def test_pictures_without_a_value_are_not_counted(script):
    common = script("_common")
    a, b = np.linspace(1, 3, 20), np.linspace(2, 6, 20)
    a[:15] = np.nan
    assert "5 images (too few to test)" in common.beyond("", "", lambda x, y: y / x, ">", 1.5, a, b).ours
    assert common.estimated(lambda x, y: y / x, a * np.nan, b) == "-"


def test_masks_are_as_many_as_the_paper_has_for_the_network(script, tmp_path, monkeypatch):
    given = argparse.Namespace(full=True, masks=None, voc=tmp_path, voc_model="python:my_networks:vgg16_voc", coco=tmp_path, coco_model="python:my_networks:resnet50_coco")
    assert [(setting.name, setting.masks) for setting in script("rise_table2").settings(given)] == [("VOC 2007 test", 4000), ("COCO 2014 val", 8000)]
    given.masks = 100
    assert [setting.masks for setting in script("rise_table2").settings(given)] == [100, 100]
    module, asked = script("rise_table1"), []
    monkeypatch.setattr(module, "Scores", lambda given, data, model, masks: asked.append((model, masks)) or sys.exit())
    for model, wanted in ((None, ("torchvision:resnet50", 8000)), ("torchvision:vgg16", ("torchvision:vgg16", 4000))):
        with pytest.raises(SystemExit):
            module.work(argparse.Namespace(full=True, imagenet=tmp_path, model=model, masks=None, out=tmp_path))
        assert asked.pop() == wanted


def test_table_1_is_made_and_continued(quick, photographs, tmp_path, capfd):
    module = quick("rise_table1", SEEDS=[0, 1], BLACK={"Sliding window": "occlusion:window=8,stride=8", "LIME": "lime:samples=4,segmentation=grid"})
    options = ("--photos", photographs, "--model", NET, "--masks", 8, "--out", tmp_path / "out")
    written = run(module, capfd, *options, "--limit", 1)
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").glob("*/*/results/*.parquet")}
    assert len(before) == 7
    assert "2 pictures" in run(module, capfd, *options, "--limit", 2)
    assert {file: file.stat().st_mtime_ns for file in before} == before
    assert len(re.findall(r"not decided here", written)) == 7
    assert re.search(r"\| RISE +\| +0\.1076 ± 0\.0005 \| +0\.0980 ± 0\.0025 \| +0\.\d+ \|", written)


def test_table_2_is_made(quick, photographs, tmp_path, capfd):
    module = quick(
        "rise_table2",
        SEEDS=[0, 1],
        CELL=12,
        DRAWN=1,
        GAMES={"15 pixels": "pointing_game", "on the object": "pointing_game:tolerance=0.0"},
        LAYERS={"CAM": "cam", "MWP": "excitation_backprop", "c-MWP": "contrastive_excitation_backprop"},
    )
    written = run(module, capfd, "--photos", photographs, "--coco", photographs, "--model", NET, "--masks", 8, "--limit", 1, "--out", tmp_path / "out")
    assert "1 objects of 1 classes in 1 pictures" in written
    assert "4 objects of 4 classes in 1 pictures" in written


def test_the_figures_are_made(quick, photographs, tmp_path, capfd):
    module = quick("rise_figures", SEEDS=[0, 1])
    written = run(module, capfd, "--pictures", photographs, "--examples", 1, "--coco", photographs, "--model", NET, "--masks", 4, "--limit", 2, "--out", tmp_path / "out")
    assert "Of 2 objects" in written
    assert len(re.findall(r"^\| \d\.", written, re.MULTILINE)) == 1  # one example, two photographs
    (example,) = (file.name for file in (tmp_path / "out" / "pictures").iterdir())
    (tmp_path / "out" / "pictures" / "of_an_earlier_call.png").write_bytes((photographs / "3.png").read_bytes())
    given = argparse.Namespace(pictures=photographs, examples=1, out=tmp_path / "out")
    assert [file.name for file in module.chosen(given).iterdir()] == [example]
    assert {"figure_1.png", "figure_2.png", "figure_3.png", "figures_4_6_7_8.png", "figure_9.png"} <= {file.name for file in (tmp_path / "out").iterdir()}
