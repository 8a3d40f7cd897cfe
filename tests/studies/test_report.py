"""The report: what it says, that it needs nothing else, how it looks in a browser; and studies side by side."""

import html
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from made_study import IMAGES, LEVELS, METHODS, SEEDS, made, value
from PIL import Image

from salience import cli
from salience.core.errors import InputError
from salience.show.figures import KEY
from salience.studies.charts import COLOURS, _band, _drawn_curves, curves, gallery
from salience.studies.compare_studies import as_row, compare_studies, settings
from salience.studies.report import write_report
from salience.studies.statistics import bootstrap_interval
from salience.studies.store import Store
from salience.studies.summary import tables
from salience.studies.tabulated import escaped, unmarked
from salience.studies.variance import flip_probability, variance_split
from salience.studies.work import Unit

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def refused(message):
    return pytest.raises(InputError, match=f"^{re.escape(message)}$")


def opened(png):
    return Image.open(io.BytesIO(png))


class Page(HTMLParser):
    """Text, tables and pictures of a page; every element must be closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.text, self.tags, self.tables = [], "", [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data if not self.tables[-1][-1][-1] else f" {data}"

    def cells(self, *headings):
        """For each table that has these headings, its rows by their first cell."""
        found = [table for table in self.tables if set(headings) <= set(table[0])]
        return [{row[0]: dict(zip(table[0], row, strict=True)) for row in table[1:]} for table in found]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    def change(row):
        if row["method"] == "random" and row["image"] == "image_03.png" and row["metric"] == "deletion":
            return row | {"status": "failed", "value": None, "reason": "ValueError: <it> broke"}
        return row | {"stderr": 0.01} if row["metric"] == "deletion" else row

    return made(tmp_path_factory.mktemp("study"), change=change, maps=2)


@pytest.fixture(scope="module")
def written(study, tmp_path_factory):
    files = write_report(study, tmp_path_factory.mktemp("out"))
    return {file.name: file.read_text() for file in files} | {"path": files[0]}


@pytest.fixture(scope="module")
def page(written):
    return Page(written["report.html"])


def test_three_files(written):
    assert list(written) == ["report.html", "tables.md", "tables.tex", "path"]
    assert written["tables.md"].startswith("# made \\<up\\>\n\nMean over images")
    assert written["tables.md"].count("\n## ") == written["tables.tex"].count(r"\begin{table}") == written["tables.tex"].count(r"\end{table}") == 4
    assert written["tables.tex"].count("{") == written["tables.tex"].count("}")
    for name in ("tables.md", "tables.tex"):
        assert "nan" not in written[name].lower()


def test_what_was_left_out_and_not_tested_stands_in_both_files_of_tables(study, written):
    """Without its notes a printed table says less than it must: what bold is worth, what was left out."""
    notes = [note for table in tables(study) for note in table.notes]
    assert notes
    assert all(escaped(note) in written["tables.tex"] and unmarked(note) in written["tables.md"] for note in notes)


def test_they_go_into_the_study_by_default(tmp_path):
    store = made(tmp_path, images=IMAGES[:1])
    assert write_report(store) == [tmp_path / name for name in ("report.html", "tables.md", "tables.tex")]


def test_the_page_needs_nothing_else(written, page):
    for _, attributes in page.tags:
        assert attributes.get("src", "data:").startswith("data:image/png;base64,") or "src" not in attributes
        assert attributes.get("href", "#").startswith("#")
    assert "script" not in dict(page.tags)
    assert not re.search(r"url\(|@import|http", re.sub(r"base64,[^\"]*", "", written["report.html"]))
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    assert {attributes["href"][1:] for tag, attributes in page.tags if tag == "a"} <= ids
    assert "prefers-color-scheme: dark" in written["report.html"]
    assert "made &lt;up&gt;" in written["report.html"]


def test_pictures_have_words_and_headings_a_scope(page):
    assert all(attributes["alt"].strip() for tag, attributes in page.tags if tag == "img")
    assert all(attributes["scope"] in ("col", "row") for tag, attributes in page.tags if tag == "th")


def test_the_page_says_what_was_run(page):
    assert "made <up>" in page.text
    facts = {row[0]: row[1] for row in page.tables[0]}
    assert facts["pictures"] == "16, data set folder (root photos)"
    assert facts["model"] == "net, weights abababababababab"
    assert facts["methods"] == "gradient, smoothgrad:samples=5, random"
    assert (facts["seeds"], facts["seed"], facts["threads"], facts["precision"]) == ("0, 1", "7", "1", "float32")
    assert facts["versions"] == "salience 0.1.0, torch 2.14"
    assert facts["rows"] == "384, of which 382 ok, 0 undefined, 2 failed"
    assert facts["complete"] == "yes"
    assert facts["computed for"] == "3.2 minutes"
    assert "not complete" not in page.text
    (reasons,) = page.cells("status", "reason")
    assert list(reasons["failed"])[:3] == ["status", "values", "reason"]  # long specifications of methods pushed the reason out of view
    assert reasons["failed"] == {"status": "failed", "values": "2", "methods": "random", "metrics": "deletion", "reason": "ValueError: <it> broke"}


def test_the_page_has_the_means(page):
    (means,) = page.cells("method", "deletion (low)")
    assert re.fullmatch(r"0\.25 \[0\.2\d+, 0\.2\d+\]", means["gradient"]["deletion (low)"])
    assert means["gradient"]["relative_error"] == "0.125 [0.125, 0.125]"
    assert not re.search(r"\bnan\b", page.text, re.IGNORECASE)


def test_the_page_has_the_tests(page):
    tests = next(table for table in page.cells("method", "difference to the best") if table["gradient"]["difference to the best"] == "the best" and table["random"]["pictures"] == "15")
    random = tests["random"]
    assert random["difference to the best"] == "0.5 [0.5, 0.5]"
    assert (random["pairs"], random["test"], random["p"], random["p (Holm)"], random["effect"]) == ("15", "wilcoxon", "< 0.001", "< 0.001", "1.00")
    assert (random["tied"], random["tied, unadjusted"], random["left out"]) == ("no", "no", "2 failed")
    values = {method: np.array([[value(image, method, seed) for seed in SEEDS] for image in IMAGES if image != "image_03.png"]) for method in METHODS}
    assert random["flips"] == f"{flip_probability(values['random'], values['gradient']):.2g}"
    split = variance_split(values["random"], np.full_like(values["random"], 0.01))
    total = split.images + split.sampling + split.seeds
    assert [random[name] for name in ("between images", "sampling", "seeds")] == [f"{part / total:.0%}" for part in (split.images, split.sampling, split.seeds)] == ["70%", "4%", "26%"]


def test_an_unfinished_study_says_so(tmp_path):
    store = made(tmp_path, images=IMAGES[:7], without=(IMAGES[0], "random"))
    page = Page(write_report(store)[0].read_text())
    assert "no, 20 of 21 units (an image, a model and a method each) are done" in page.text
    assert "The study is not complete" in page.text


def test_many_reasons_are_cut_with_a_word(tmp_path, monkeypatch):
    monkeypatch.setattr("salience.studies.report.REASONS", 3)
    store = made(tmp_path, images=IMAGES[:6], change=lambda row: row | {"status": "undefined", "value": None, "reason": f"empty: {row['image']}"} if row["metric"] == "deletion" else row)
    page = Page(write_report(store)[0].read_text())
    assert "3 more reasons: salience study query shows them" in page.text
    assert page.text.count("empty: ") == 3


def test_values_that_are_all_undefined_make_a_page(tmp_path):
    store = made(tmp_path, images=IMAGES[:2], change=lambda row: row | {"status": "undefined", "value": None, "reason": "empty"})
    page = Page(write_report(store)[0].read_text())
    (means,) = page.cells("method", "deletion (low)")
    assert means["gradient"]["deletion (low)"] == "-"
    assert not re.search(r"\bnan\b", page.text, re.IGNORECASE)


def test_curves_are_means_over_pictures_of_means_over_seeds(study):
    (chart,) = curves(study)
    assert chart.title == "deletion, net: mean over 16 pictures"
    pixels = np.asarray(opened(chart.png).convert("RGB")).reshape(-1, 3)
    for colour in COLOURS[: len(METHODS)]:
        wanted = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
        assert (pixels == wanted).all(1).sum() > 100
    x = np.array([0.0, 0.5, 1.0])
    values = np.random.default_rng(0).normal(size=(40, 3))
    points, mean, low, high = _band([(x, row) for row in values])
    assert np.array_equal(points, x)
    assert np.allclose(mean, values.mean(0))
    for place in range(3):
        expected = bootstrap_interval(values[:, place], resamples=20_000)
        assert np.allclose((low[place], high[place]), (expected.low, expected.high), atol=0.05)


def test_curves_of_methods_that_draw_weights_have_no_band():
    """All pictures share the weights, so they do not tell how far others would move the curve: the band held it in half of all cases."""
    lines = [(np.array([0.0, 1]), np.array([0, value])) for value in (1.0, 2, 4)]
    figure = _drawn_curves("deletion", {"deletion": {"gradient": lines, "noisegrad": lines}}, ["gradient", "noisegrad"])
    assert [len(figure.axes[0].lines), len(figure.axes[0].collections)] == [2, 1]


def test_curves_of_other_points_are_read_off_at_those_of_the_first():
    _, mean, low, high = _band([(np.array([0, 0.5, 1]), np.array([0, 1, 2.0])), (np.array([0, 0.25, 1]), np.array([2, 2.5, 4.0]))])
    assert np.allclose(mean, [1, 2, 3])
    assert (low <= mean).all()
    assert (mean <= high).all()
    _, mean, low, high = _band([(np.array([0, 1]), np.array([0.5, 1.5]))])
    assert np.array_equal(low, high)


def test_the_gallery_has_maps_and_errors(study):
    exhibits, left = gallery(study, 5)
    assert left == 0
    assert [each.title for each in exhibits] == ["image_00.png: cat", "image_01.png: cat"]
    assert [(shot.method, shot.error is not None) for shot in exhibits[0].shots] == [(method, method.startswith("smoothgrad")) for method in METHODS]
    assert all(opened(shot.map).size == (240, 171) for shot in exhibits[0].shots)
    smooth = exhibits[0].shots[1]
    assert opened(smooth.error).size == (240, 171)
    assert smooth.error_scale == "standard error: 0 (white) to 0.25"
    assert smooth.scale.startswith("±")
    with np.load(study.folder / "maps" / f"{Unit(0, IMAGES[0], 'net', METHODS[0]).id}.npz") as kept:
        picture = np.asarray(opened(exhibits[0].picture).resize((14, 10))) / 255
        assert np.abs(picture - kept["image"][0].transpose(1, 2, 0)).mean() < 0.1


def test_the_page_says_what_colours_mean_as_contact_sheets_do(study, tmp_path):
    """It said that pixels within two standard errors of zero are grey: of three draws it is 4.3."""
    page = write_report(study, tmp_path)[0].read_text()
    assert html.unescape(page).count(KEY) == 1
    assert "standard errors of zero" not in page


def test_the_gallery_is_cut_with_a_number(study):
    exhibits, left = gallery(study, 1)
    assert (len(exhibits), left) == (1, 1)


def test_a_damaged_file_of_maps_is_named(tmp_path):
    store = made(tmp_path, images=IMAGES[:1], maps=1)
    file = tmp_path / "maps" / f"{Unit(0, IMAGES[0], 'net', 'gradient').id}.npz"
    file.write_bytes(file.read_bytes()[:300])
    with refused(f"{file} is damaged: continue the study with --resume, which computes it again."):
        gallery(store, 1)


@pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium on the PATH")
def test_the_page_in_a_browser(written, tmp_path):
    shot = tmp_path / "shot.png"
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1280,4000", f"--screenshot={shot}"]
    subprocess.run([CHROMIUM, *options, written["path"].as_uri()], check=True, capture_output=True, timeout=120)
    pixels = np.asarray(Image.open(shot).convert("RGB")).astype(int)
    assert pixels.shape == (4000, 1280, 3)
    drawn = np.abs(pixels - pixels[0, 0]).max(2) > 60
    bands = drawn.reshape(40, 100, 1280).any((1, 2))
    assert bands[:35].mean() > 0.8
    assert not drawn[:, -4:].any()  # nothing runs over the edge
    coloured = (pixels.max(2) - pixels.min(2)) > 60
    assert coloured.sum() > 5000  # curves, maps, boxes


# two studies


def test_studies_are_compared_on_the_pictures_they_share(tmp_path):
    first = made(tmp_path / "a", images=IMAGES[:10])
    second = made(tmp_path / "b", images=IMAGES[2:], change=lambda row: row | {"value": row["value"] + 0.125} if row["metric"] == "deletion" else row, hashes={IMAGES[9]: "other"})
    found = compare_studies(first, second)
    deletion = [each for each in found if each.metric == "deletion"]
    assert [each.method for each in deletion] == METHODS
    for each in deletion:
        assert each.test.pairs == 7  # image_02 to image_08
        assert each.first == pytest.approx(LEVELS[each.method] - 0.025)
        assert each.second - each.first == pytest.approx(0.125)
        assert each.test.difference == pytest.approx(0.125)
        assert each.test.p == pytest.approx(2 / 2**7)
        assert each.adjusted > each.test.p
    assert {each.test.p for each in found if each.metric == "ssim"} == {1.0}
    assert settings(first, second) == ["1 pictures of equal names (the pictures, their labels or masks), image_09.png first: left out"]
    row = as_row(deletion[0])
    assert (row["method"], row["pairs"], row["prediction_changed"]) == ("gradient", 7, False)


@pytest.mark.parametrize("shared", [True, False])
def test_seeds_are_paired_by_their_numbers(tmp_path, monkeypatch, shared):
    """Seeds 0 and 1 against 1 and 2: only seed 1 is in both. What is printed covers what was tested."""
    monkeypatch.setattr("salience.studies.compare_studies.shares_draws", lambda metric, method: shared)
    first = made(tmp_path / "a", images=IMAGES[:9])
    second = made(tmp_path / "b", images=IMAGES[:9], change=lambda row: row | {"seed": row["seed"] + 1}, seeds=[1, 2])
    for each in compare_studies(first, second):
        if each.metric == "deletion":
            before, after = (np.mean([value(image, each.method, seed) for image in IMAGES[:9]]) for seed in (1, 0))
            assert (each.first, each.second) == (pytest.approx(before), pytest.approx(after))
            assert each.test.difference == pytest.approx(after - before)
    apart = made(tmp_path / "c", images=IMAGES[:9], change=lambda row: row | {"seed": row["seed"] + 7}, seeds=[7, 8])
    assert {each.test.difference for each in compare_studies(first, apart)} == {0.0}


def test_a_seed_that_one_study_lacks_is_left_out_of_both(tmp_path):
    first = made(tmp_path / "a", images=IMAGES[:8])
    lost = {"status": "undefined", "value": None, "reason": "empty"}
    second = made(tmp_path / "b", images=IMAGES[:8], change=lambda row: row | lost if (row["metric"], row["image"], row["seed"]) == ("deletion", IMAGES[0], 0) else row)
    for each in compare_studies(first, second):
        assert each.first == each.second
        assert each.test.difference == 0


def test_studies_are_compared_on_the_classes_they_share(tmp_path):
    """One study also explains other classes, of which values are lower: the values of the common class are equal."""

    def others(row):
        return row | {"target": 9, "value": -1.0} if row["seed"] == 1 else row

    first, second = made(tmp_path / "a", images=IMAGES[:8]), made(tmp_path / "b", images=IMAGES[:8], change=others)
    found = compare_studies(first, second)
    assert {each.test.difference for each in found} == {0.0}
    assert all(each.first == each.second for each in found)
    apart = made(tmp_path / "c", images=IMAGES[:8], change=lambda row: row | {"target": 9})
    with pytest.raises(InputError, match="have nothing in common"):
        compare_studies(first, apart)


def test_what_differs_is_told(tmp_path):
    first, second = made(tmp_path / "a", images=IMAGES[:1]), made(tmp_path / "b", images=IMAGES[:1], seed=8, precision="bfloat16")
    assert settings(first, second) == ["seed: 7 and 8", "precision: float32 and bfloat16"]


def test_methods_that_one_study_lacks_are_told(tmp_path):
    """They were left out without a word."""
    first, second = made(tmp_path / "a", images=IMAGES[:1]), made(tmp_path / "b", images=IMAGES[:1])
    manifest = dict(second.manifest)
    manifest["study"] = manifest["study"] | {"methods": [*manifest["study"]["methods"][:1], "smoothgrad:samples=60"]}
    second.write_manifest(manifest)
    lost = ", ".join(first.manifest["study"]["methods"][1:])
    assert settings(first, second) == [f"methods that only the first has: {lost}", "methods that only the second has: smoothgrad:samples=60"]


def test_nothing_in_common(tmp_path):
    first, second = made(tmp_path / "a", images=IMAGES[:2]), made(tmp_path / "b", images=IMAGES[2:4])
    with refused(
        f"{first.folder} and {second.folder} have nothing in common (0 pictures are in both): compare studies with equal pictures, classes explained, models, methods, metrics and perturbations."
    ):
        compare_studies(first, second)
    with refused(f"{tmp_path} holds no study: give a folder that 'salience study run' wrote."):
        compare_studies(first, Store(tmp_path))


# the command line


@pytest.fixture
def run(capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        code = cli.main(["study", *map(str, arguments)])
        return code, *capfd.readouterr()

    return run


def test_the_command_report(run, tmp_path):
    made("kept", images=IMAGES[:2])
    assert run("report", "kept", "--out", "page") == (0, "Open page/report.html; its tables are in page/tables.md and page/tables.tex.\n", "")
    assert (tmp_path / "page" / "report.html").exists()
    assert run("report", "nothing") == (2, "", "Error: nothing holds no study: give a folder that 'salience study run' wrote.\n")


def test_a_study_that_was_run_becomes_a_page(run, tmp_path, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 1)  # one thread
    Image.effect_noise((40, 30), 90).convert("RGB").save("a.png")
    (tmp_path / "s.yaml").write_text("name: small\nmodels: python:tiny_models:net\ndata: {folder: .}\nmethods: [gradient, 'rise:samples=40']\nmetrics: 'deletion:steps=4'\nkeep_maps: 1\n")
    code, _, err = run("run", "s.yaml", "--out", "kept")
    assert code == 0, err
    assert run("report", "kept")[0] == 0
    page = Page((tmp_path / "kept" / "report.html").read_text())
    alts = [attributes["alt"] for tag, attributes in page.tags if tag == "img"]
    assert [alt for alt in alts if alt.startswith(("Map", "Standard error"))] == [
        "Map of gradient over the picture",
        "Map of rise:samples=40 over the picture",
        "Standard error of the map of rise:samples=40",
    ]
    assert "Curves of every method: deletion:steps=4, python:tiny_models:net: mean over 1 picture" in alts


def test_the_command_compare(run):
    made("a", images=IMAGES[:7])
    made("b", images=IMAGES[:8], seed=9)
    code, out, err = run("compare", "a", "b")
    assert (code, err) == (0, "")
    assert "b against a" in out
    assert "They differ in seed: 7 and 9." in out
    assert re.search(r"deletion +gradient +0\.205 +0\.205 +0 \[0, 0\] +1\.000 +1\.000 +7", out)
    assert "not testable: 2 pairs" in out.lower()
    assert "too narrow" not in out
    made("c", images=IMAGES[:3], change=lambda row: row | {"value": row["value"] * 0.875})
    assert "Under 5 pictures an interval is hardly more than the range of their values, so it is too narrow" in " ".join(run("compare", "a", "c")[1].split())
    assert "nan" not in out.lower()
    code, out, _ = run("compare", "a", "b", "a", "--json")
    rows = [json.loads(line, parse_constant=pytest.fail) for line in out.splitlines()]
    assert len(rows) == 2 * 15
    assert {row["second"] for row in rows} == {"a", "b"}
    assert rows[0]["p_holm"] == 1
    assert run("compare", "a") == (2, "", "Error: Give the folders of two studies or more.\n")
