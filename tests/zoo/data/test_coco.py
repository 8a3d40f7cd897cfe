"""COCO's outlines, and pictures with masks of class numbers."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco
from skimage.draw import polygon2mask

import salience as sal
from salience.zoo.datasets import load_dataset

SHARED = Path(__file__).parents[4] / "shared" / "data" / "coco_masks"
NAMES = {17: "cat", 18: "dog", 25: "giraffe"}


def block(top, left, bottom, right):
    mask = np.zeros((20, 30), np.uint8)
    mask[top:bottom, left:right] = 1
    return mask


def lengths(mask):
    """Run lengths down the columns, zeros first."""
    flat, runs, value = mask.flatten("F").tolist(), [0], 0
    for each in flat:
        if each != value:
            runs.append(0)
            value = each
        runs[-1] += 1
    return {"size": [20, 30], "counts": runs}


def rectangle(top, left, bottom, right):
    return [left, top, right, top, right, bottom, left, bottom]


@pytest.fixture
def root(tmp_path):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "val2017").mkdir()
    packed = coco.encode(np.asfortranarray(block(0, 20, 5, 30)))
    packed["counts"] = packed["counts"].decode()
    annotations = [
        (1, 18, [rectangle(2, 3, 10, 12)], 0),
        (1, 18, [rectangle(12, 3, 16, 8), rectangle(0, 25, 4, 29)], 0),
        (1, 17, lengths(block(5, 15, 9, 21)), 1),
        (2, 17, packed, 0),
        (2, 25, [rectangle(10, 0, 20, 10)], 0),
        (3, 25, [rectangle(1, 1, 5, 5)], 0),
        (5, 17, [rectangle(1, 1, 5, 5)], 0),
        (5, 18, [rectangle(6, 6, 9, 9)], 0),
        (6, 18, [], 0),
    ]
    stored = {
        "images": [{"id": number, "file_name": f"{7 - number:012d}.jpg", "height": 20, "width": 30} for number in range(1, 7)],
        "categories": [{"id": number, "name": name} for number, name in NAMES.items()],
        "annotations": [{"image_id": image, "category_id": category, "segmentation": outline, "iscrowd": crowd} for image, category, outline, crowd in annotations],
    }
    (tmp_path / "annotations/instances_val2017.json").write_text(json.dumps(stored))
    for number in range(1, 7):
        Image.new("RGB", (30, 20)).save(tmp_path / "val2017" / f"{number:012d}.jpg")
    return tmp_path


@pytest.mark.parametrize("outline", [[[1, 1, 5, 5]], [[]], "abc", {"size": [20, 30]}, {"size": [30, 20], "counts": [100, 500]}])
def test_outlines_that_are_none(root, outline):
    file = root / "annotations/instances_val2017.json"
    stored = json.loads(file.read_text())
    stored["annotations"] = [{"image_id": 1, "category_id": 17, "segmentation": outline}]
    file.write_text(json.dumps(stored))
    item = load_dataset("coco", root=root)[0]
    with pytest.raises(sal.InputError, match=r"^An outline of COCO cannot be read \(.*\): give polygons of three points or more, or run lengths of the picture's size\.$"):
        item.masks[17]


def test_masks_are_the_union_of_a_class(root):
    data = load_dataset("coco", root=root)
    assert [item.name for item in data] == [f"{number:012d}.jpg" for number in (2, 4, 5, 6)]
    item = data[3]
    assert (item.labels, item.groups, data.classes[18]) == ((17, 18), (), "dog")
    assert (item.masks[17] == block(5, 15, 9, 21)).all()
    assert (item.masks[18] == (block(2, 3, 10, 12) | block(12, 3, 16, 8) | block(0, 25, 4, 29))).all()
    assert (data[2].masks[17] == block(0, 20, 5, 30)).all()
    assert sal.load_images(item.picture).geometry[0].original == item.masks[17].shape


def test_slanted_polygons_as_scikit_image_draws_them(root):
    path = root / "annotations/instances_val2017.json"
    stored = json.loads(path.read_text())
    corners = np.array([[3.0, 2.0], [17.5, 9.0], [12.0, 26.5], [5.0, 20.0]])
    stored["annotations"][0]["segmentation"] = [corners[:, ::-1].flatten().tolist()]
    stored["annotations"] = stored["annotations"][:1]
    path.write_text(json.dumps(stored))
    found, wanted = load_dataset("coco", root=root)[0].masks[18], polygon2mask((20, 30), corners - 0.5)
    assert (found & wanted).sum() / (found | wanted).sum() > 0.9


def test_imagenet_labels_from_the_table_that_comes_with_it(root):
    data = load_dataset("coco", root=root, labels="imagenet")
    assert [item.name[-5] for item in data] == ["2", "5", "6"]
    item = data[2]
    cats, dogs = tuple(range(281, 286)), tuple(range(151, 269))
    assert item.groups == (cats, dogs)
    assert item.labels == dogs + cats
    assert (item.masks[283] == block(5, 15, 9, 21)).all()
    assert item.masks[151] is item.masks[268]
    assert data.classes is None


def test_labels_from_a_file(root):
    (root / "mine.json").write_text(json.dumps({"cat": 4, "giraffe": [9, 4], "unicorn": 1}))
    item = load_dataset("coco", root=root, labels="mine.json")[2]
    assert item.labels == (4, 9)
    assert item.groups == ((4,), (9, 4))
    assert (item.masks[9] == block(10, 0, 20, 10)).all()
    assert (item.masks[4] == (block(0, 20, 5, 30) | block(10, 0, 20, 10))).all()
    (root / "mine.json").write_text(json.dumps({"cat": 4, "dog": 4}))
    assert load_dataset("coco", root=root, labels="mine.json")[2].groups == ((4,),)
    (root / "mine.json").write_text(json.dumps({"cat": "four"}))
    with pytest.raises(sal.InputError, match=r"mine\.json: cat must have a class index, or a list of them, whole numbers from 0\.$"):
        load_dataset("coco", root=root, labels="mine.json")


def test_pictures_with_so_many_objects(root):
    assert [item.name[-5] for item in load_dataset("coco", root=root, objects=2)] == ["2", "5"]
    assert [item.name[-5] for item in load_dataset("coco", root=root, objects=2, labels="imagenet")] == ["2"]
    assert [item.name[-5] for item in load_dataset("coco", root=root, objects=1)] == ["4"]


def test_nothing_is_printed(root, capsys):
    load_dataset("coco", root=root).fingerprint()
    assert capsys.readouterr() == ("", "")


@pytest.fixture
def painted(tmp_path):
    values = 17 * block(0, 0, 5, 5) + 18 * block(5, 5, 9, 9) + 184 * block(10, 0, 20, 30) + 255 * block(0, 29, 1, 30)
    Image.fromarray(values.astype(np.uint8)).save(tmp_path / "a.mask.png")
    Image.fromarray(25 * block(0, 0, 5, 5)).save(tmp_path / "b.mask.png")
    for name in "abc":
        Image.new("RGB", (30, 20)).save(tmp_path / f"{name}.jpg")
    (tmp_path / "classes.json").write_text(json.dumps({"classes": {"0": "unlabeled", "184": "tree-merged"} | NAMES, "coco_to_imagenet": {"cat": [281, 282], "dog": 207}}))
    return tmp_path


def test_painted_masks(painted):
    data = load_dataset("coco", root=painted)
    assert [(item.name, item.labels) for item in data] == [("a.jpg", (17, 18, 184)), ("b.jpg", (25,))]
    assert (data[0].masks[18] == block(5, 5, 9, 9)).all()
    assert data[0].masks[17].dtype == bool
    mapped = load_dataset("coco", root=painted, labels="imagenet")
    assert [(item.name, item.labels, item.groups) for item in mapped] == [("a.jpg", (207, 281, 282), ((281, 282), (207,)))]
    assert (mapped[0].masks[282] == block(0, 0, 5, 5)).all()
    assert [item.name for item in load_dataset("coco", root=painted, objects=2)] == ["a.jpg"]


def test_stuff_does_not_stand_in_for_an_object(painted):
    """A dog without a label and a tree with one were two objects that have labels."""
    (painted / "classes.json").write_text(json.dumps({"classes": {"184": "tree-merged"} | NAMES, "coco_to_imagenet": {"cat": [281, 282], "tree-merged": 5}}))
    assert [item.labels for item in load_dataset("coco", root=painted, labels="imagenet", limit=1)] == [(5, 281, 282)]
    with pytest.raises(sal.InputError, match="There are no pictures in"):
        load_dataset("coco", root=painted, labels="imagenet", objects=2)


def test_a_mosaic_keeps_what_belongs_together(painted):
    """Each of an object's labels was a target of its own, and `salience tune` took mean average precision for accuracy."""
    data = load_dataset("coco", root=painted, labels="imagenet")
    assert load_dataset("mosaic", of=data, rows=1, columns=1, cell=16, number=1)[0].groups == ((281, 282), (207,))


def test_refused(root, painted, tmp_path_factory, monkeypatch):
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(sal.InputError) as caught:
        load_dataset("coco", root=empty)
    assert str(caught.value) == f"{empty} holds neither annotations/instances_val2017.json nor classes.json with NAME.mask.png files: give COCO's folder as root, and the split."
    Image.new("RGB", (30, 20)).save(painted / "b.mask.png")
    (root / "annotations/instances_val2017.json").rename(root / "annotations/kept.json")
    bad = load_dataset("coco", root=painted)  # which does not keep the others from being read
    assert bad[0].labels == (17, 18, 184)
    with pytest.raises(sal.InputError, match=r"b\.mask\.png has colours: its pixels must be class numbers, in one channel\.$"):
        bad[1]
    (painted / "classes.json").write_text("[]")
    with pytest.raises(sal.InputError, match=r"classes\.json must be a JSON object, not a list\.$"):
        load_dataset("coco", root=painted)
    (painted / "classes.json").write_text("{}")
    with pytest.raises(sal.InputError, match=r'classes\.json must have the class names as \{"classes": \{"17": "cat"\}\}, by the number in the masks\.$'):
        load_dataset("coco", root=painted)
    for text, message in {"{": r"is not JSON \(.*\): get a whole copy of the file\.$", "{}": r"is not a file of COCO instances \('categories' is missing or wrong\): .*\.$"}.items():
        (root / "annotations/instances_val2017.json").write_text(text)
        with pytest.raises(sal.InputError, match=message):
            load_dataset("coco", root=root)
    (root / "annotations/kept.json").rename(root / "annotations/instances_val2017.json")
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(sal.InputError, match=r"^COCO's outlines need pycocotools: pip install 'salience\[data\]'\.$"):
        load_dataset("coco", root=root)[0].masks[17]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared COCO photographs are not here")
def test_real_pictures():
    """The shares of the picture that the table beside them gives."""
    import csv

    data = load_dataset("coco", root=SHARED)
    by_name = {item.name: item for item in data}
    assert len(data) == 53
    for row in csv.DictReader((SHARED / "labels.csv").read_text().splitlines()):
        item = by_name[row["file"]]
        for part in filter(None, row["coco_things_area_fraction"].split("; ")):
            name, share = part.split(":")
            assert item.masks[data.classes.index(name)].mean() == pytest.approx(float(share), abs=0.006)
    mapped = {item.name: item for item in load_dataset("coco", root=SHARED, labels="imagenet")}
    assert mapped["000000000073.jpg"].labels == (665, 670)
    assert "000000000072.jpg" not in mapped
    shape = sal.load_images(mapped["000000000073.jpg"].picture).geometry[0].original
    assert mapped["000000000073.jpg"].masks[665].shape == shape
