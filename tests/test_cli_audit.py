"""``salience audit``, on a photograph, through the command line."""

import json
from functools import partial
from pathlib import Path

import pytest
import skimage

import salience as sal
from salience import cli
from salience.metrics.deletion import Deletion
from salience.metrics.insertion import Insertion
from salience.studies.audit import METHODS, audit
from salience.studies.report_card import QUESTIONS

CAT, COFFEE = (Path(skimage.__file__).parent / "data" / name for name in ("chelsea.png", "coffee.png"))
TINY = ("--model", "python:tiny_models:net")
KEYS = ["question", "image", "method", "figure", "low", "high", "threshold", "passed", "sentence"]


@pytest.fixture
def run(capfd, tmp_path, monkeypatch):
    """Run the command in an empty folder: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        code = cli.main(["audit", *map(str, arguments)])
        return code, *capfd.readouterr()

    return run


def test_json_is_what_the_library_finds(run):
    code, out, err = run(CAT, COFFEE, *TINY, "--method", "gradient", "--method", "smoothgrad:samples=2", "--seed", 3, "--target", "dog", "--json")
    rows = [json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON")) for line in out.splitlines()]
    assert (code, err) == (0, "")
    assert all(list(row) == KEYS for row in rows)
    assert [(row["method"], row["question"]) for row in rows] == [(method, question) for method in ("gradient", "smoothgrad:samples=2") for question in QUESTIONS]
    model = sal.load_model("python:tiny_models:net")
    found = audit(model, sal.load_images([CAT, COFFEE], model), ["gradient", "smoothgrad:samples=2"], "dog", 3)
    assert [row["sentence"] for row in rows] == [finding.sentence for finding in found]
    assert [row["passed"] for row in rows] == [finding.passed for finding in found]


def test_a_table_a_method_and_exit_code_0_also_when_something_fails(run):
    code, out, err = run(CAT, *TINY, "--method", "edges", "--method", "gradient")
    assert (code, err) == (0, "")
    assert [line for line in out.splitlines() if "chelsea.png" in line and "," in line] == ["edges, chelsea.png", "gradient, chelsea.png"]
    rows = {question: [line for line in out.splitlines() if line.strip().startswith(question)] for question in QUESTIONS}
    assert all(len(found) == 2 for found in rows.values())
    assert "fail" in rows["random weights"][0]
    assert "< 0.5 " in rows["random weights"][0]
    assert "not asked" in rows["class kept"][1]


def test_a_black_box(run):
    code, out, err = run(CAT, "--model", "python:tiny_models:black_box", "--method", "rise:samples=20", "--json")
    assert (code, err) == (0, "")
    first = json.loads(out.splitlines()[0])
    assert (first["image"], first["passed"], first["figure"]) == (str(CAT), None, None)
    code, out, err = run(CAT, "--model", "python:tiny_models:black_box", "--method", "gradient")
    assert (code, out) == (2, "")
    assert err == "Error: python:tiny_models:black_box is a black box, so it has no gradient and no layers: use rise, occlusion or lime, or give the network itself as sal.Model(module).\n"


def test_help(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = run("--help")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    assert ", ".join(METHODS) in out


def test_the_default_model(run, monkeypatch):
    """EfficientNet-Lite0 on a real photograph: edges ignore it, the plain gradient does not, and it is shattered."""
    for metric in (Deletion, Insertion):
        monkeypatch.setattr(f"salience.studies.audit.{metric.__name__}", partial(metric, steps=2))
    code, out, _ = run(CAT, "--method", "edges", "--method", "gradient", "--json")
    assert code == 0
    rows = {(row["method"], row["question"]): row for row in map(json.loads, out.splitlines())}
    assert rows["edges", "random weights"]["passed"] is False
    assert rows["gradient", "random weights"]["passed"] is True
    assert rows["gradient", "noise"]["passed"] is False
    assert rows["edges", "noise"]["passed"] is True
