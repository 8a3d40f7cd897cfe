"""PASCAL VOC's boxes."""

import numpy as np
import pytest
from PIL import Image

import salience as sal
from salience.zoo.datasets import load_dataset


def annotation(*objects):
    parts = "".join(
        f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox>"
        "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></part></object>"
        for name, difficult, box in objects
    )
    return f"<annotation><size><width>10</width><height>7</height><depth>3</depth></size>{parts}</annotation>"


@pytest.fixture
def root(tmp_path):
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (tmp_path / folder).mkdir(parents=True)
    pictures = {
        "000001": annotation(("dog", 0, (2, 3, 4, 5)), ("dog", 1, (9, 7, 10, 7)), ("cat", 1, (1, 1, 2, 2)), ("person", 0, (1, 1, 10, 7))),
        "000002": annotation(("tvmonitor", 0, ("1.2", "1.0", "3.7", "1.4")), ("aeroplane", 0, (10, 7, 10, 7))),
        "000003": annotation(("cow", 1, (1, 1, 2, 2))),
    }
    for name, text in pictures.items():
        Image.new("RGB", (10, 7)).save(tmp_path / "JPEGImages" / f"{name}.jpg")
        (tmp_path / "Annotations" / f"{name}.xml").write_text(text)
    (tmp_path / "ImageSets/Main/val.txt").write_text("000001\n000002\n000003\n\n")
    (tmp_path / "ImageSets/Main/train.txt").write_text("000002\n")
    (tmp_path / "ImageSets/Main/cat_val.txt").write_text("000001 1\n")
    return tmp_path


def test_boxes_are_from_one_and_inclusive(root):
    """Against a loop over all pixels and boxes."""
    boxes = {11: [(2, 3, 4, 5), (9, 7, 10, 7)], 14: [(1, 1, 10, 7)]}
    item = load_dataset("voc", root=root)[0]
    assert (item.name, item.labels, list(item.masks)) == ("000001", (11, 14), [11, 14])
    for index, several in boxes.items():
        wanted = np.zeros((7, 10), bool)
        for row in range(1, 8):
            for column in range(1, 11):
                wanted[row - 1, column - 1] = any(left <= column <= right and top <= row <= bottom for left, top, right, bottom in several)
        assert (item.masks[index] == wanted).all()
    assert item.masks[11].sum() == 9 + 2
    assert sal.load_images(item.picture).geometry[0].original == item.masks[11].shape


def test_classes_are_alphabetical_and_corners_may_have_decimals(root):
    data = load_dataset("voc", root=root, split="train")
    assert data.classes == sorted(data.classes)
    assert len(data.classes) == 20
    item = data[0]
    assert item.labels == (0, 19)
    assert np.argwhere(item.masks[0]).tolist() == [[6, 9]]
    assert np.argwhere(item.masks[19]).tolist() == [[0, 0], [0, 1], [0, 2], [0, 3]]


def test_a_class_that_is_all_difficult_is_left_out(root):
    item = load_dataset("voc", root=root)[2]
    assert item.labels == ()
    assert dict(item.masks) == {}


def test_the_list_of_a_class_is_of_the_pictures_that_have_it(root):
    """As VOC writes it: 1, or -1 without the class, or 0 where all of it is difficult."""
    (root / "ImageSets/Main/dog_val.txt").write_text("000001  1\n000002 -1\n000003  0\n")
    assert [item.name for item in load_dataset("voc", root=root, split="dog_val")] == ["000001"]
    (root / "ImageSets/Main/dog_val.txt").write_text("000002 -1\n000003  0\n")
    with pytest.raises(sal.InputError, match=r"^There are no pictures in voc:root=.*,split=dog_val: check its options\.$"):
        load_dataset("voc", root=root, split="dog_val")


def test_refused(root):
    with pytest.raises(sal.InputError) as caught:
        load_dataset("voc", root=root, split="test")
    assert str(caught.value) == f"{root}/ImageSets/Main/test.txt is missing: give the folder of one year as root, and one of its lists as split (there: train, val)."
    for text in ("<annotation>", annotation(("unicorn", 0, (1, 1, 2, 2))), annotation(("cat", 0, (1, 1, 2, ""))), "<annotation/>"):
        (root / "Annotations/000001.xml").write_text(text)
        with pytest.raises(sal.InputError, match=r"000001\.xml is not an annotation of PASCAL VOC \(.*\): give the year's own files\.$"):
            load_dataset("voc", root=root)[0]
    (root / "Annotations/000001.xml").unlink()
    with pytest.raises(sal.InputError, match=r"000001\.xml cannot be read \(No such file or directory\): check the path\.$"):
        load_dataset("voc", root=root)[0]
