"""Summaries of a study whose numbers are known: means, what is bold, what is left out, and how it is written."""

import re

import numpy as np
import pytest
from made_study import IMAGES, METHODS, SEEDS, made, value
from rich.console import Console

from salience.core.errors import InputError
from salience.core.registry import entries
from salience.studies.report import write_report
from salience.studies.statistics import bootstrap_interval
from salience.studies.store import Store
from salience.studies.summary import cells_of, grouped, incomplete, left_out, shares_weights, tables
from salience.studies.tabulated import details, escaped, heading, is_best, latex, line, markdown, number, p_value, print_summary, shares, with_interval


def refused(message):
    return pytest.raises(InputError, match=f"^{re.escape(message)}$")


def column_of(found, metric, title=""):
    return next(column for table in found if table.title.endswith(title) for column in table.columns if column.metric == metric)


def when(change, **wanted):
    """A change of the rows that have some fields."""
    return lambda row: row | change if all(row[key] == each for key, each in wanted.items()) else row


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return made(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def found(store):
    return tables(store)


def test_a_table_for_every_place_in_the_order_of_the_file(found):
    assert [table.title for table in found] == [
        "net (16 pictures)",
        "net, the same picture twice, fresh draws: the noise floor (16 pictures)",
        "net, gaussian_noise, same draws, geometry undone (14 pictures)",
        "net, gaussian_noise, same draws, geometry undone, pictures whose prediction changed (2 pictures)",
    ]
    assert [[column.metric for column in table.columns] for table in found] == [["deletion", "relative_error"], ["ssim"], ["ssim"], ["ssim"]]
    assert all(table.methods == METHODS for table in found)


def test_maps_left_as_they_are_have_a_table_only_where_pixels_moved(tmp_path):
    def variants(name, perturbation, *given):
        store = made(tmp_path / name, change=when({"variant": "as_is", "perturbation": perturbation}, variant="floor"), perturbations=["gaussian_noise", "horizontal_flip"], variants=[*given, "as_is"])
        return {place.perturbation for place in grouped(store) if place.variant == "as_is"}

    assert variants("flip", "horizontal_flip", "common") == {"horizontal_flip"}
    assert variants("noise", "gaussian_noise", "common") == set()
    assert variants("alone", "gaussian_noise") == {"gaussian_noise"}


def test_no_interval_of_a_share_reaches_beyond_1(tmp_path):
    """Over few draws of weights, which all pictures share, it was 0.98 [0.67, 1.28]."""

    def kept(row):
        row = row | {"metric": "class_kept", "value": 0.9 + 0.1 * row["seed"]} if row["metric"] == "deletion" else row
        return row | {"method": "noisegrad"} if row["method"] == "random" else row

    store = made(tmp_path, change=kept, methods=[*METHODS[:2], "noisegrad"])
    interval = column_of(tables(store), "class_kept").comparison.methods["noisegrad"].interval
    assert interval.low < 0.9
    assert interval.high == 1.0


def test_means_intervals_and_bold_are_those_of_the_rows(found):
    column = column_of(found, "deletion")
    for method in METHODS:
        values = np.array([[value(image, method, seed) for seed in SEEDS] for image in IMAGES])
        standing = column.comparison.methods[method]
        assert np.allclose(column.cells.values[method], values)
        assert standing.mean == pytest.approx(values.mean())
        assert standing.interval == bootstrap_interval(values)
    assert [is_best(method, column) for method in METHODS] == [True, False, False]
    assert column.comparison.methods["random"].against_best.difference == pytest.approx(0.5)
    assert column_of(found, "ssim", "undone (14 pictures)").comparison.best == "gradient"


def test_pictures_whose_prediction_changed_stand_apart_but_not_in_the_noise_floor(found):
    assert column_of(found, "ssim", "changed (2 pictures)").cells.images == IMAGES[:2]
    assert column_of(found, "ssim", "undone (14 pictures)").cells.images == IMAGES[2:]


def test_the_relative_error_has_no_best(found):
    column = column_of(found, "relative_error")
    assert heading(column) == "relative_error"
    assert not any(is_best(method, column) for method in METHODS)


def test_what_has_no_value_is_left_out_and_counted(tmp_path):
    def change(row):
        row = when({"status": "undefined", "value": None, "reason": "empty"}, image="image_00.png", method="gradient", metric="deletion", seed=0)(row)
        row = when({"status": "failed", "value": None, "reason": "no"}, image="image_01.png", metric="deletion", method="gradient")(row)
        return when({"value": float("inf")}, image="image_02.png", metric="deletion", method="gradient", seed=1)(row)

    (table, *_) = tables(made(tmp_path, change=change))
    (column, _) = table.columns
    assert column.cells.undefined == {"gradient": 2, "smoothgrad:samples=5": 0, "random": 0}
    assert column.cells.failed["gradient"] == 2
    assert np.isnan(column.cells.values["gradient"]).sum() == 4
    assert column.comparison.methods["gradient"].images == 15
    assert "deletion: left out 2 undefined and 2 failed of gradient." in table.notes


def test_targets_are_averaged_and_so_are_their_errors(tmp_path):
    store = made(tmp_path, images=IMAGES[:1])
    rows = [row | {"target": target, "value": float(target), "stderr": error} for row in store.rows() if row["metric"] == "deletion" for target, error in ((1, 0.3), (3, 0.4))]
    other = Store(tmp_path / "other")
    other.write_manifest(store.manifest)
    other.write("a", rows, [])
    cells, _ = next(iter(grouped(other).values()))["deletion"]
    assert np.array_equal(cells.values["gradient"], [[2, 2]])
    assert np.allclose(cells.errors["gradient"], np.sqrt((0.3**2 + 0.4**2) / 2))  # they share their draws: an upper bound


def test_the_variance_splits(tmp_path):
    split = column_of(tables(made(tmp_path, change=when({"stderr": 0.01}, metric="deletion"))), "deletion").splits["gradient"]
    within = 2 * 0.02**2  # of the seeds +0.02 and -0.02
    assert split.sampling == pytest.approx(1e-4)
    assert split.seeds == pytest.approx(within - 1e-4)
    assert split.images == pytest.approx(1e-4 * 16 * 17 / 12 - within / 2)  # the variance of 0 to 15


def test_metrics_by_class_have_their_mean_over_classes(tmp_path, monkeypatch):
    monkeypatch.setitem(entries("metric")["pointing_game"].facts, "by_class", True)

    def change(row):
        rare = row["image"] < "image_03"
        return row | {"metric": "pointing_game", "target": int(rare), "value": float(rare)} if row["metric"] == "deletion" else row

    accuracy = column_of(tables(made(tmp_path, change=change, metrics=["pointing_game", "ssim"])), "pointing_game").accuracies["gradient"]
    assert (accuracy.mean, accuracy.classes) == (0.5, {"0": 0.0, "1": 1.0})


def test_a_mean_over_classes_counts_draws_that_pictures_share(tmp_path, monkeypatch):
    monkeypatch.setitem(entries("metric")["pointing_game"].facts, "by_class", True)
    monkeypatch.setattr("salience.studies.summary.shares_draws", lambda metric, method: method == "random")

    def change(row):
        hit = row["image"] < ("image_08" if row["seed"] else "image_12")
        return row | {"metric": "pointing_game", "value": float(hit)} if row["metric"] == "deletion" else row

    found = column_of(tables(made(tmp_path / "two", change=change, metrics=["pointing_game", "ssim"])), "pointing_game").accuracies
    assert found["gradient"].mean == found["random"].mean == 0.625
    assert found["gradient"].interval.high - found["gradient"].interval.low < 0.5
    assert (found["random"].interval.low, found["random"].interval.high) == (0, 1)
    alone = made(tmp_path / "one", change=lambda row: change(row) | {"seed": 0}, metrics=["pointing_game", "ssim"])
    assert np.isnan(column_of(tables(alone), "pointing_game").accuracies["random"].interval.low)


def test_an_interval_of_hits_alone_is_said_to_be_too_narrow(tmp_path, monkeypatch):
    """A method that hits in all of 16 pictures with an interval from 1 to 1 looks certain; its true share may be 0.8."""
    monkeypatch.setitem(entries("metric")["pointing_game"].facts, "by_class", True)

    def change(row):
        return row | {"metric": "pointing_game", "value": float(row["method"] == "gradient" or row["image"] < "image_03")} if row["metric"] == "deletion" else row

    notes = tables(made(tmp_path, change=change, metrics=["pointing_game", "ssim"]))[0].notes
    assert [note for note in notes if "a point" in note] == [
        "pointing_game: all pictures of gradient have one value, so the interval is a point, which is too narrow: where 16 pictures agree, up to 21% of all may still differ."
    ]


def test_classes_of_one_kind_of_object_are_one(tmp_path, monkeypatch):
    """Three cats by three names, all hit, and a fish, missed: the mean over kinds is 1/2, over names it would be 3/4."""
    monkeypatch.setitem(entries("metric")["pointing_game"].facts, "by_class", True)
    targets = dict(zip(IMAGES, (281, 282, 283, 1), strict=False))

    def change(row):
        return row | {"metric": "pointing_game", "target": targets[row["image"]], "value": float(targets[row["image"]] > 1)} if row["metric"] == "deletion" else row

    store = made(tmp_path, images=IMAGES[:4], change=change, metrics=["pointing_game", "ssim"])
    assert column_of(tables(store), "pointing_game").accuracies["gradient"].mean == 0.75
    store.write_manifest(store.manifest | {"categories": [[281, 282, 283, 284, 285]]})
    column = column_of(tables(store), "pointing_game")
    assert (column.accuracies["gradient"].mean, column.accuracies["gradient"].classes) == (0.5, {"1": 0.0, "281": 1.0})
    headings, *rows = details(tables(store)[0])
    assert headings[-1] == "mean over classes"
    assert [row[-1].split(" ")[0] for row in rows[:3]] == ["0.5"] * 3


def test_what_stands_under_a_table(found):
    first, *_ = found
    headings, *rows = details(first)
    assert headings == ["metric", "method", "less the best", "pairs", "flips", "images / sampling / seeds"]
    split = shares(column_of(found, "deletion"), "random")
    assert [row[:2] for row in rows] == [["deletion", "gradient"], ["", "smoothgrad:samples=5"], ["", "random"]]  # every relative error is the same
    assert [row[2:5] for row in rows] == [["the best", "", ""], ["0.25 [0.25, 0.25]", "16", "0"], ["0.5 [0.5, 0.5]", "16", "0"]]
    assert rows[2][5] == " / ".join(split)
    assert split == ["70%", "0%", "30%"]


def test_what_says_nothing_is_left_out_under_a_table(tmp_path):
    once = made(tmp_path / "once", change=when({"seed": 0}), seeds=[0])
    assert details(tables(once)[0])[0] == ["metric", "method", "less the best", "pairs"]
    alone = Store(tmp_path / "alone")
    alone.write_manifest(once.manifest | {"study": once.manifest["study"] | {"methods": METHODS[:1]}})
    alone.write("a", [row for row in once.rows() if row["method"] == METHODS[0]], [])
    assert [details(table) for table in tables(alone)] == [[]] * 4
    assert len(markdown(tables(alone)[0]).splitlines()) == 3


def test_too_few_pictures_are_said_to_be(tmp_path):
    few, six = made(tmp_path / "few", images=IMAGES[:4]), made(tmp_path / "six", images=IMAGES[:6], change=when({"prediction_changed": False}))
    first = tables(six)[0]
    assert tables(few)[0].notes == [
        "2 of 2 comparisons with the best are not testable: 4 pairs, at least 6 are needed.",
        "deletion: under 5 pictures an interval is hardly more than the range of their values, so it is too narrow (of two it holds the mean in 51 %, not 95 %).",
    ]
    assert not [note for note in first.notes if "too narrow" in note]
    assert [note for note in first.notes if note.startswith("deletion: with so few pairs and so many methods")]
    assert all(is_best(method, first.columns[0]) for method in METHODS)
    marks = [[text.endswith(" ?") for text, _ in line(tables(few)[0], method)] for method in METHODS]
    assert sum(each[0] for each in marks) == len(METHODS) - 1  # without a mark they read as significantly worse
    assert not any(text.endswith(" ?") for method in METHODS for text, _ in line(first, method))


def test_too_few_pairs_are_said_to_be(tmp_path):
    """Nine pictures each, but two that both have: the difference's interval was printed without a word."""

    def change(row):
        lost = not 7 <= IMAGES.index(row["image"]) <= 8 and (row["method"] == "gradient") == (row["image"] > "image_08.png")
        return row | ({"status": "failed", "value": None, "stderr": None} if lost else {"value": row["value"] * 2 if row["method"] == "gradient" else row["value"]})

    found = tables(made(tmp_path / "study", change=change))[0]
    standings = found.columns[0].comparison.methods
    assert {each.images for each in standings.values()} == {9}
    assert 2 in {each.against_best.pairs for each in standings.values() if each.against_best}
    assert [note for note in found.notes if note.startswith("deletion: under 5 pictures an interval")]


def test_who_shares_weight_draws():
    assert [shares_weights(method) for method in ("gradient", "noisegrad", "smoothgrad:base=(noisegrad)", "fusiongrad", "rise")] == [False, True, True, True, False]


def test_markdown_is_a_table(found):
    first, *_ = found
    means, below = markdown(first).split("\n\n")
    assert {line.count("|") for line in below.splitlines()} == {7}
    assert below.splitlines()[2].startswith("| deletion | `gradient` | the best | ")
    lines = means.splitlines()
    cells = [line.strip("|").split("|") for line in lines]
    assert {len(each) for each in cells} == {3}
    assert lines[0] == "| method | deletion (low) | relative_error |"
    assert re.fullmatch(r"\| `gradient` \| \*\*0\.25 \[0\.2\d+, 0\.2\d+\]\*\* \| 0\.125 \[0\.125, 0\.125\] \|", lines[2])
    assert "**" not in "".join(lines[3:])


def test_latex_is_balanced_and_escaped(found):
    text = latex(found[0])
    assert text.count("{") == text.count("}")
    assert [text.count(rf"\{word}") for word in ("begin{tabular}{lrr}", "begin{tabular}{llrrrr}", "toprule", "midrule", "bottomrule")] == [1, 1, 2, 2, 2]
    rows = [line for line in text.splitlines() if line.endswith(r" \\")]
    assert [line.count("&") for line in rows] == [2] * 4 + [5] * 4
    assert rows[7].startswith(r" & \texttt{random} & 0.5 [0.5, 0.5] & 16 & 0 & 70\% / 0\% / 30\%")
    assert rows[0] == r"method & deletion (low) & relative\_error \\"
    assert rows[1].startswith(r"\texttt{gradient} & \textbf{0.25 [")
    assert escaped("a_b%&#${}~^\\") == r"a\_b\%\&\#\$\{\}\textasciitilde{}\textasciicircum{}\textbackslash{}"
    assert escaped("<a|b>") == r"\textless{}a\textbar{}b\textgreater{}"  # LaTeX's own letters for these are other signs


def test_numbers_that_are_not_known_are_dashes():
    nan = float("nan")
    assert [with_interval(nan), with_interval(0.12345), number(nan, ".2f"), p_value(nan), p_value(0.0004), p_value(0.04)] == ["-", "0.123", "-", "-", "< 0.001", "0.040"]


def test_on_a_terminal(store, capsys):
    print_summary(store, Console(width=100))
    out = capsys.readouterr().out
    assert out.count("\n method ") == 4
    assert re.search(r"gradient +0\.25 \[0\.2\d+, 0\.2\d+\] \*", out)
    assert re.search(r"random +0\.5 \[0\.5, 0\.5\] +16 +0 +70% / 0% / 30%", out)
    assert "pictures whose prediction changed (2 pictures)" in out
    assert "nan" not in out.lower()


def test_a_study_that_is_not_complete_says_so(tmp_path, store, capsys):
    part = made(tmp_path, images=IMAGES[:7], without=("image_03.png", "random"))
    warning = "The study is not complete: 20 of 21 units (an image, a model and a method each) are done."
    print_summary(part, Console(width=400))
    assert capsys.readouterr().out.startswith(warning)
    write_report(part)
    for name in ("tables.md", "tables.tex"):
        assert warning in (tmp_path / name).read_text()
    assert incomplete(store) == ""


def test_without_rows_or_study(tmp_path):
    with refused(f"{tmp_path} holds no study: give a folder that 'salience study run' wrote."):
        tables(Store(tmp_path))
    with refused(f"{tmp_path} has no rows yet: continue the study with 'salience study run --resume'."):
        tables(made(tmp_path, images=[]))


def rows_of(method, values, stderr=None):
    """Rows of one metric: values by image and target, None where undefined."""
    return [
        {"image": image, "method": method, "target": target, "seed": 0, "value": value, "status": "undefined" if value is None else "ok", "stderr": stderr} for (image, target), value in values.items()
    ]


def test_methods_are_compared_on_the_targets_that_both_have():
    """Two methods that were equal wherever both had a value differed by 0.3, p = 0.0005."""
    whole = {(f"{image}", target): 0.2 + 0.6 * target + 0.01 * image for image in range(12) for target in (0, 1)}
    half = {key: None if key[1] else each for key, each in whole.items()}
    cells = cells_of(rows_of("a", whole) + rows_of("b", half), ["a", "b"])
    np.testing.assert_array_equal(cells.values["a"], cells.values["b"])
    assert (cells.unpaired, cells.undefined) == ({"a": 12, "b": 0}, {"a": 0, "b": 12})
    assert left_out(cells, "a") == "12 unpaired (another method lacks the target)"
    lost = dict.fromkeys(whole)
    assert cells_of(rows_of("a", whole) + rows_of("b", lost), ["a", "b"]).values["a"][0] == pytest.approx(0.5)  # a method without any value takes nothing from the others


def test_the_error_of_a_mean_over_targets_counts_that_they_share_their_draws():
    cells = cells_of(rows_of("a", {("0", target): 1.0 for target in range(4)}, stderr=0.1), ["a"])
    assert cells.errors["a"].tolist() == [[pytest.approx(0.1)]]
