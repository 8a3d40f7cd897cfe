"""The study's file."""

import pytest
from small_study import STUDY

import salience as sal
from salience.studies.study import read_study


def test_what_is_read(folder):
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
        ('"smoothgrad:samples=3"', "{rise: samples=10}", 5, "methods: a colon with a blank after it begins a value of its own: leave the blank out, as in 'rise:option=number'."),
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
def test_a_mistake_is_named_with_its_line(folder, old, new, line, said):
    assert old in STUDY
    (folder / "study.yaml").write_text(STUDY.replace(old, new, 1))
    with pytest.raises(sal.InputError) as error:
        read_study("study.yaml")
    text = str(error.value)
    assert f"study.yaml, line {line}: " in text
    assert said in text
    assert "\n" not in text.strip()


@pytest.mark.parametrize("name", ["efficientnet-lite1", "python:no.such:net", "torchvision:resnet18", "timm:any?pretrained=false", "trained:nowhere"])
def test_models_are_not_loaded(folder, name):
    (folder / "study.yaml").write_text(STUDY.replace("python:tiny_models:net", name))
    assert read_study("study.yaml").models == [name]


def test_numbers_as_yaml_writes_them(folder):
    (folder / "study.yaml").write_text(STUDY.replace("seed: 3", "seed: 3\nchunk: 2"))
    assert read_study("study.yaml").chunk == 2


def test_no_file(folder):
    with pytest.raises(sal.InputError, match=r"^none.yaml cannot be read"):
        read_study("none.yaml")
