"""A folder of pictures and its table."""

import numpy as np
import pytest
from PIL import Image

import salience as sal
from salience.zoo.datasets import load_dataset


@pytest.fixture
def root(tmp_path):
    for name in ("b.jpg", "a.PNG", ".hidden.png", "c.webp"):
        Image.new("RGB", (5, 3)).save(tmp_path / name, format="PNG")
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "below").mkdir()
    Image.new("RGB", (5, 3)).save(tmp_path / "below" / "d.png")
    return tmp_path


def labelled(root, text, **options):
    (root / "labels.csv").write_text(text, **options)
    return load_dataset("folder", root=root, labels="labels.csv")


def test_only_pictures_by_name(root):
    data = load_dataset("folder", root=root)
    assert [(item.name, item.labels, dict(item.masks)) for item in data] == [(name, (), {}) for name in ("a.PNG", "b.jpg", "c.webp")]
    assert data[0].picture == root / "a.PNG"
    assert data.classes is None


def test_table(root):
    data = labelled(root, "\ufeffclass_index,note,file\n4,x,c.webp\n 0 , y,below/d.png\n3,,c.webp\n", encoding="utf-8")
    assert [(item.name, item.labels) for item in data] == [("below/d.png", (0,)), ("c.webp", (4, 3))]


def test_the_table_may_lie_elsewhere(root, tmp_path_factory):
    table = tmp_path_factory.mktemp("tables") / "mine.csv"
    table.write_text("file,class_index\nb.jpg,1\n")
    assert [item.labels for item in load_dataset("folder", root=root, labels=table)] == [(1,)]


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "I;16"])
def test_masks_are_where_the_file_is_not_zero(root, mode):
    wanted = np.zeros((3, 5), bool)
    wanted[1, 2:] = True
    mask = Image.fromarray(wanted.astype(np.uint8) * 255)
    if mode == "P":
        mask = Image.fromarray(wanted.astype(np.uint8) * 3)
        mask.putpalette([9, 9, 9] * 4)
    (Image.fromarray(wanted.astype(np.uint16) * 700) if mode == "I;16" else mask if mode == "P" else mask.convert(mode)).save(root / "m.png")
    item = labelled(root, "file,class_index,mask\nb.jpg,4,m.png\nb.jpg,2,\n")[0]
    assert item.labels == (4, 2)
    assert list(item.masks) == [4]
    assert item.masks[4].dtype == bool
    assert (item.masks[4] == wanted).all()


def refusal(root, text):
    with pytest.raises(sal.InputError) as caught:
        labelled(root, text)
    return str(caught.value).replace(str(root), "ROOT")


def test_refused(root, tmp_path_factory):
    for options, message in {
        (): "root is missing: give the folder of the pictures.",
        (("root", "nowhere"),): "nowhere is not a folder: give the folder of the pictures.",
        (("root", str(root)), ("labels", "lables.csv")): f"There is no file lables.csv, neither in {root} nor as a path of its own: check the name.",
    }.items():
        with pytest.raises(sal.InputError) as caught:
            load_dataset("folder", **dict(options))
        assert str(caught.value) == message
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(sal.InputError) as caught:
        load_dataset("folder", root=empty)
    assert str(caught.value) == f"There are no pictures in folder:root={empty}: check its options."


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "ROOT/labels.csv has no column file: its first line must name the columns file, class_index, with commas between them."),
        ("file;class_index\nb.jpg;1\n", "ROOT/labels.csv has no column file: its first line must name the columns file, class_index, with commas between them."),
        ("file,class\nb.jpg,1\n", "ROOT/labels.csv has no column class_index: its first line must name the columns file, class_index, with commas between them."),
        ("file,class_index\ny.jpg,1\nz.jpg,2\n", "None of the pictures that ROOT/labels.csv names, such as y.jpg, is in ROOT: check both paths."),
        ("file,class_index\nb.jpg,1\n./b.jpg,1\n", "ROOT/labels.csv, line 3: b.jpg has the class 1 twice; leave one."),
        ("file,class_index\nb.jpg,1\nb.jpg,1\n", "ROOT/labels.csv, line 3: b.jpg has the class 1 twice; leave one."),
        ("file,class_index\nb.jpg,cat\n", "ROOT/labels.csv, line 2: class_index must be a whole number from 0, not 'cat'."),
        ("file,class_index\nb.jpg,-1\n", "ROOT/labels.csv, line 2: class_index must be a whole number from 0, not '-1'."),
        ("file,class_index\nb.jpg\n", "ROOT/labels.csv, line 2: class_index must be a whole number from 0, not ''."),
        ("file,class_index\n,1\n", "ROOT/labels.csv, line 2: file is empty; name a file."),
        ("file,class_index\n\n\nb.jpg,cat\n", "ROOT/labels.csv, line 4: class_index must be a whole number from 0, not 'cat'."),
        ("file, class_index\nb.jpg, cat\n", "ROOT/labels.csv, line 2: class_index must be a whole number from 0, not 'cat'."),
    ],
)
def test_tables_refused(root, text, message):
    assert refusal(root, text) == message


def test_files_that_are_not_what_they_should_be(root):
    (root / "m.png").write_bytes(b"no mask")
    item = labelled(root, "file,class_index,mask\nb.jpg,1,m.png\n")[0]
    with pytest.raises(sal.InputError, match=r"^The mask .*m\.png cannot be read \(.*\): give a PNG file of the picture's size\.$"):
        item.masks[1]
    (root / "labels.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(sal.InputError, match=r"labels\.csv is not a text file: save it as UTF-8\.$"):
        load_dataset("folder", root=root, labels="labels.csv")
