"""Promises about the project itself: floors, imports, the README, the docs."""

import ast
import os
import re
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import torch
from beartype.roar import BeartypeCallHintParamViolation

import salience as sal
from salience.core import registry
from salience.core.montecarlo import Attribution, relative_error
from salience.core.perturbation import Perturbation

ROOT = Path(__file__).parent.parent
FLOORS = {
    "core": 0,
    "perturb": 1,
    "perturbations": 1,
    "similarities": 1,
    "explainers": 2,
    "metrics": 2,
    "attacks": 2,
    "training": 2,
    "interop": 3,
    "zoo": 3,
    "show": 4,
    "studies": 4,
    "cli": 5,
    "__main__": 6,
}
NEIGHBOURS = {
    ("attacks", "explainers"): "the gradient is what is attacked by default",
    ("studies", "show"): "reports hold pictures",
    ("attacks", "show"): "an attack shows itself in a notebook: imported then",
    ("core", "show"): "an explanation shows itself in a notebook: imported then",
}
"""Imports from a floor that is not lower, and why."""
SOURCES = sorted((ROOT / "src" / "salience").rglob("*.py"))


def floor(module: str) -> int:
    """The floor of ``salience.part...``; the bare package (its version) is below all."""
    parts = module.split(".")
    return FLOORS[parts[1]] if len(parts) > 1 else -1


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_import_only_from_lower_floors(path):
    relative = path.relative_to(ROOT / "src").with_suffix("")
    if relative.parts[1] == "__init__":
        return
    own = FLOORS[relative.parts[1]]
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            if name.startswith("salience."):
                pair = (relative.parts[1], name.split(".")[1])
                assert pair[0] == pair[1] or floor(name) < own or pair in NEIGHBOURS, f"{relative} imports {name}"


def test_heavy_libraries_are_imported_when_used():
    code = (
        "import sys, torch, salience as sal\n"
        "model = sal.Model(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()))\n"
        "sal.explain('smoothgrad:samples=2', model, torch.rand(1, 3, 8, 8))\n"
        "print([name for name in ('captum', 'quantus', 'zennit', 'pytorch_grad_cam', 'sklearn', 'skimage', 'matplotlib', 'pandas', 'timm', 'torchvision') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_imports_leave_pythons_random_numbers_alone():
    """The first use of a name, and of another library's methods."""
    code = (
        "import random\n"
        "random.seed(5)\n"
        "before = random.getstate()\n"
        "import salience as sal\n"
        "for name in sal.__all__:\n"
        "    getattr(sal, name)\n"
        "    assert random.getstate() == before, name\n"
        "from salience.explainers.peers_gradcam import PytorchGradCAM\n"
        "PytorchGradCAM.members()\n"
        "assert random.getstate() == before, 'grad-cam'"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)


def test_importing_is_quick_because_torch_is_not_imported():
    code = "import sys, salience; salience.__version__; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"


def tables():
    spec = spec_from_file_location("tables", ROOT / "docs" / "tables.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_readme_has_the_current_table_of_methods():
    text = (ROOT / "README.md").read_text()
    assert tables().replaced(text) == text, "run make readme"


def test_readme_counts_the_methods():
    methods = [entry for name, entry in registry.entries("explainer").items() if not name.endswith("*")]
    controls = [entry for entry in methods if entry.facts.get("control")]
    assert f"{len(methods) - len(controls)} methods" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("kind", registry.PACKAGES)
def test_everything_registered_is_documented(kind):
    page = tables().in_full(kind)
    assert any(f"{{{{ {kind}_in_full }}}}" in file.read_text() for file in (ROOT / "docs").glob("*.md"))
    for name, entry in registry.entries(kind).items():
        assert f"## {name.replace('*', 'NAME')}" in page
        assert "| option | default | what it is |" in page or not entry.cls.__dataclass_fields__


def test_every_public_name_is_in_the_reference():
    registered = {entry.cls.__name__ for kind in registry.PACKAGES for entry in registry.entries(kind).values()}
    members = set(re.findall(r"\w+", " ".join(re.findall(r"members: \[(.*)\]", (ROOT / "docs" / "api.md").read_text()))))
    assert set(sal.__all__) - registered <= members


@pytest.fixture
def example(request):
    """Run the example of a docs page that registers something; it is forgotten afterwards."""
    page, kind, name = request.param
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)
    (code,) = [block for block in blocks if f'@register("{kind}", "{name}"' in block]
    sys.modules["example"] = type(sys)("example")
    try:
        exec(compile(code, page, "exec"), {"__name__": "example"})
        yield sal.Model(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Softplus(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()))
    finally:
        registry._entries[kind].pop(name, None)
        del sys.modules["example"]


def page(name, kind, entry):
    """What `example` runs."""
    return pytest.mark.parametrize("example", [(name, kind, entry)], indirect=True)


@page("new-method.md", "explainer", "signed_square")
def test_the_example_of_a_new_method_works(example):
    images = torch.rand(1, 3, 8, 8)
    e = sal.explain("signed_square:power=2", example, images, targets=0)
    gradient = sal.explain("gradient", example, images, targets=0).maps
    assert torch.allclose(e.maps, gradient * gradient.abs() ** 2)
    assert e.method == "signed_square:power=2.0"


@page("new-method.md", "explainer", "exposed_gradient")
def test_the_example_of_a_random_method_works(example):
    images = torch.rand(2, 3, 8, 8)
    e = sal.explain("exposed_gradient:samples=40,low=0.9", example, images, targets=[0, 3], seed=[1, 2])
    assert torch.allclose(e.maps[1:], sal.explain("exposed_gradient:samples=40,low=0.9", example, images[1:], targets=3, seed=[2], chunk=3).maps, atol=1e-6)
    assert torch.allclose(e.maps, sal.explain("gradient", example, images * 0.95, targets=[0, 3]).maps, atol=0.02)
    assert (e.stderr > 0).any()
    assert torch.allclose(sal.explain("exposed_gradient:low=1", example, images).maps, sal.explain("gradient", example, images).maps, atol=1e-6)


@page("metrics.md", "metric", "peak_share")
def test_the_example_of_a_new_metric_works(example):
    assert sal.measure("peak_share:pixels=16", example, torch.rand(1, 3, 8, 8), 0, torch.ones(1, 8, 8)).item() == 0.25
    assert "peak_share" in sal.list_metrics()


@page("metrics.md", "perturbation", "posterise")
def test_the_example_of_a_new_perturbation_works(example):
    images = torch.rand(2, 3, 8, 8)
    assert sorted(Perturbation.from_value("posterise:shades=3")(images).unique().tolist()) == [0, 0.5, 1]
    assert "posterise" in sal.list_perturbations()


@page("attacks.md", "threat", "exposure")
def test_the_example_of_a_new_threat_works(example):
    images = torch.rand(2, 3, 8, 8)
    found = sal.attack(example, images, images.flip(0), threat="exposure+delta", steps=5)
    assert (found.budget["exposure"] > 0).all()
    assert (found.budget["exposure"] <= 0.25).all()
    alone = sal.attack(example, images, images.flip(0), threat="exposure", steps=5)
    factor = alone.perturbed / images
    assert ((factor - 1).abs() <= 0.25 + 1e-6).all()


@page("studies.md", "dataset", "squares")
def test_the_example_of_a_new_data_set_works(example, tmp_path):
    data = sal.load_dataset("squares", pictures=3, side=5)
    assert [(item.labels, item.masks[item.labels[0]].sum(), item.picture[item.masks[item.labels[0]]].mean()) for item in data] == [((0,), 25, 255), ((1,), 25, 0), ((0,), 25, 255)]
    (tmp_path / "study.yaml").write_text("name: squares\nmodels: [cmnist-lenet]\ndata: {dataset: squares, pictures: 3, targets: labels}\nmethods: [edges]\nmetrics: [relevance_mass_accuracy]\n")
    rows = sal.run_study(sal.read_study(tmp_path / "study.yaml"), tmp_path / "out").rows()
    assert [row["status"] for row in rows if row["metric"] == "relevance_mass_accuracy"] == ["ok"] * 3
    assert "squares" in sal.list_datasets()


def test_no_download_address_in_constraints():
    assert not re.search(r"https?:|file:|\s@\s", (ROOT / "constraints.txt").read_text())


def test_the_package_can_be_run_as_a_module():
    done = subprocess.run([sys.executable, "-m", "salience", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("salience ")


class TestOtherPackages:
    """Methods of packages that name a module in their entry points."""

    @pytest.fixture
    def listed(self, tmp_path):
        def run(code):
            (tmp_path / "other_methods.py").write_text(code)
            (tmp_path / "other-1.0.dist-info").mkdir()
            (tmp_path / "other-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
            (tmp_path / "other-1.0.dist-info" / "entry_points.txt").write_text("[salience]\nmine = other_methods\n")
            command = [sys.executable, "-m", "salience", "list", "methods", "theirs"]
            return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": str(tmp_path)})

        return run

    def test_are_known_on_the_command_line(self, listed):
        method = "    def attribute(self, model, images, targets, streams):\n        return Attribution(images)\n"
        facts = 'signed=True, stochastic=False, needs_gradient=False, cites="nobody"'
        done = listed(f'from salience import Attribution, Explainer, register\n\n@register("explainer", "theirs", {facts})\nclass Theirs(Explainer):\n    """The picture itself."""\n\n{method}')
        assert (done.returncode, done.stdout.splitlines()[0]) == (0, "The picture itself.")

    def test_that_cannot_be_imported_are_named(self, listed):
        done = listed("import nothing_of_the_kind\n")
        assert done.returncode == 2
        assert done.stderr.startswith("Error: other_methods, which an installed package adds to salience, cannot be imported (ModuleNotFoundError: ")
        assert done.stderr.endswith("mend or uninstall that package.\n")


def test_python_has_what_the_command_line_has():
    """`sal.audit`, `sal.tune` and `sal.list_objectives` were missing."""
    from salience.cli import listing

    lists = {f"list_{each.name or each.callback.__name__}" for each in listing.app.registered_commands}
    assert {*lists, "explain", "measure", "attack", "audit", "tune", "train"} <= set(sal.__all__)
    assert all(callable(getattr(sal, name)) for name in lists)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ((torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4), "much"), "not an instance of the underlying array type"),
        ((torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4), torch.zeros(2, 2)), "2 dimensions, not the 1 expected"),
    ],
)
def test_types_and_shapes_are_checked_while_tests_run(values, said):
    with pytest.raises(BeartypeCallHintParamViolation, match=said):
        relative_error(*values)


def test_sizes_of_one_name_are_equal_within_a_call_but_not_from_one_to_the_next():
    model = sal.Model(torch.nn.Sequential(torch.nn.Conv2d(3, 2, 1), torch.nn.Flatten(), torch.nn.LazyLinear(2)))
    for n in (1, 2):
        assert model.gradient(torch.rand(n, 3, 2, 2), torch.zeros(n, dtype=torch.int64)).shape == (n, 3, 2, 2)
    with pytest.raises(BeartypeCallHintParamViolation, match="size of dimension n is 3 which does not equal the existing value of 2"):
        model.gradient(torch.rand(2, 3, 2, 2), torch.zeros(3, dtype=torch.int64))


def test_fields_are_checked_while_tests_run():
    with pytest.raises(BeartypeCallHintParamViolation, match="notes"):
        Attribution(torch.zeros(1, 1, 2, 2), notes=3)
