"""A folder a class."""

import pytest
from PIL import Image

import salience as sal
from salience.zoo.datasets import load_dataset


@pytest.fixture
def root(tmp_path):
    for folder, name in (("n02123045", "x.JPEG"), ("n01440764", "b.JPEG"), ("n01440764", "a.JPEG"), ("n02085620", "a.JPEG")):
        (tmp_path / folder).mkdir(exist_ok=True)
        Image.new("RGB", (5, 3)).save(tmp_path / folder / name)
    (tmp_path / "words.txt").write_text("x")
    return tmp_path


def test_classes_are_the_sorted_folders(root):
    data = load_dataset("imagenet", root=root)
    assert data.classes == ["n01440764", "n02085620", "n02123045"]
    assert [(item.name, item.labels) for item in data] == [("n01440764/a.JPEG", (0,)), ("n01440764/b.JPEG", (0,)), ("n02085620/a.JPEG", (1,)), ("n02123045/x.JPEG", (2,))]
    assert sal.load_images(data[3].picture).shape == (1, 3, 3, 5)


def test_some_of_imagenets_classes_keep_its_indices(root):
    """A tench, a Chihuahua and a tabby."""
    data = load_dataset("imagenet", root=root, labels="imagenet")
    assert [item.labels for item in data] == [(0,), (0,), (151,), (281,)]
    assert len(data.classes) == 1000
    assert data.classes[281] == "n02123045"
    (root / "cats").mkdir()
    with pytest.raises(sal.InputError) as caught:
        load_dataset("imagenet", root=root, labels="imagenet")
    assert str(caught.value) == f"{root}/cats is not a class of ImageNet's 1000, which are called n01440764 and so on: take labels=own."
    assert [item.labels for item in load_dataset("imagenet", root=root)][-1] == (3,)


def test_refused(root):
    with pytest.raises(sal.InputError) as caught:
        load_dataset("imagenet", root=root / "n01440764")
    assert str(caught.value) == f"{root}/n01440764 has no folders: give the folder that holds one folder a class, for example imagenet/val."
