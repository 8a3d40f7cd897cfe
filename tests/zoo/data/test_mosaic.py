"""Mosaics of photographs."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import salience as sal
from salience.zoo.datasets import load_dataset

SHARED = Path(__file__).parents[4] / "shared" / "data"


@pytest.fixture
def photos(tmp_path):
    """Ten photographs of five classes; red tells which, a white frame at the long sides goes with the crop."""
    lines = ["file,class_index"]
    for number in range(10):
        array = np.full((20, 34, 3), 255, np.uint8)
        array[:, 7:27] = (20 * number, 0, 0)
        Image.fromarray(array if number % 2 else array.transpose(1, 0, 2)).save(tmp_path / f"{number}.png")
        lines.append(f"{number}.png,{number // 2}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    return load_dataset("folder", root=tmp_path, labels="labels.csv")


@pytest.mark.parametrize(("rows", "columns", "number"), [(2, 2, 2), (1, 2, 5), (2, 1, 5), (1, 5, 2)])
def test_each_class_is_in_its_cell(photos, rows, columns, number):
    data = load_dataset("mosaic", of=photos, rows=rows, columns=columns, cell=20)
    assert len(data) == number
    for item in data:
        picture = np.asarray(item.picture)
        assert picture.shape == (20 * rows, 20 * columns, 3)
        assert len(set(item.labels)) == rows * columns
        assert tuple(item.masks) == item.labels
        for number, label in enumerate(item.labels):
            top, left = 20 * (number // columns), 20 * (number % columns)
            cell = np.zeros(picture.shape[:2], bool)
            cell[top : top + 20, left : left + 20] = True
            assert (item.masks[label] == cell).all()
            red = np.unique(picture[cell][:, 0])
            assert len(red) == 1
            assert red[0] // 40 == label
        assert sum(mask.astype(int) for mask in item.masks.values()).max() == 1


def test_cells_are_resized(photos):
    item = load_dataset("mosaic", of=photos, cell=7)[0]
    assert item.picture.size == (14, 14)
    assert sal.load_images(item.picture).geometry[0].original == item.masks[item.labels[0]].shape


SHARED_PHOTOGRAPHS = "ignore:Of .* mosaics only .* share no photograph"


@pytest.mark.filterwarnings(SHARED_PHOTOGRAPHS)
def test_mosaics_depend_on_seed_and_number_only(photos):
    def pictures(**options):
        return [(item.name, item.labels, np.asarray(item.picture).tobytes()) for item in load_dataset("mosaic", of=photos, cell=20, **options)]

    whole = pictures(number=30)
    assert len(set(whole)) == 30
    assert len({part[2] for part in whole}) > 25
    assert pictures() == pictures(limit=2) == whole[:2]
    assert pictures(number=3) == whole[:3]
    assert pictures(seed=1) != whole[:2]
    assert sorted(pictures(number=30, shuffle=2)) == sorted(whole)


@pytest.mark.parametrize("seed", range(5))
def test_no_photograph_is_in_two_mosaics(tmp_path, seed):
    """Mosaics that share photographs are not independent: intervals over them were two to three times too narrow."""
    lines = ["file,class_index"]
    for number in range(40):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(tmp_path / f"{number:02d}.png")
        lines.append(f"{number:02d}.png,{number // 4}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    of = load_dataset("folder", root=tmp_path, labels="labels.csv")
    reds = [red for item in load_dataset("mosaic", of=of, cell=4, seed=seed) for red in np.unique(np.asarray(item.picture)[..., 0])]
    assert len(reds) == len(set(reds)) >= 36
    with pytest.warns(UserWarning, match=r"^Of 30 mosaics only (9|10) share no photograph, so intervals over all of them are too narrow: leave number out, or give more photographs\.$"):
        assert len(load_dataset("mosaic", of=of, cell=4, seed=seed, number=30)) == 30


@pytest.mark.filterwarnings(SHARED_PHOTOGRAPHS)
def test_all_photographs_are_used_about_equally(photos):
    labels = [label for item in load_dataset("mosaic", of=photos, rows=1, number=500) for label in item.labels]
    counts = np.bincount(labels, minlength=5)
    assert abs(counts - 200).max() < 5 * np.sqrt(1000 * 0.2 * 0.8)


def test_as_text(photos):
    data = load_dataset("mosaic", of=str(photos), limit=2)
    assert data.of == photos
    assert str(data) == f"mosaic:limit=2,of=({photos})"


@pytest.mark.filterwarnings(SHARED_PHOTOGRAPHS)
def test_photographs_with_several_classes_never_share_one(tmp_path):
    rows = ["file,class_index"]
    for name, labels in {"a": (0, 1), "b": (1, 2), "c": (2, 3), "d": (3, 0)}.items():
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
        rows += [f"{name}.png,{label}" for label in labels]
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    of = load_dataset("folder", root=tmp_path, labels="labels.csv")
    for item in load_dataset("mosaic", of=of, rows=1, cell=8, number=20):
        assert sorted(item.labels) == [0, 1, 2, 3]
        assert [item.masks[label][:, :8].all() for label in item.labels] == [True, True, False, False]
    with pytest.raises(sal.InputError) as caught:
        load_dataset("mosaic", of=of, rows=1, columns=3)[0]
    assert str(caught.value) == f"The photographs of {of} share too many classes for a mosaic of 1 x 3: give more of them, or a smaller grid."


@pytest.mark.filterwarnings(SHARED_PHOTOGRAPHS)
def test_refused(photos):
    with pytest.raises(sal.InputError) as caught:
        load_dataset("mosaic", of=photos, rows=2, columns=3)
    assert str(caught.value) == f"A mosaic of 2 x 3 needs photographs of 6 classes; {photos} does not have so many: give labels, or a smaller grid."
    with pytest.raises(sal.InputError, match=r"^A data set is a specification such as 'folder:root=photos', or what sal\.load_dataset returns, not NoneType\.$"):
        load_dataset("mosaic")
    (Path(photos.root) / "3.png").write_bytes(b"x")
    with pytest.raises(sal.InputError, match=r"3\.png is not an image that can be read: give a JPEG, PNG or similar file\.$"):
        list(load_dataset("mosaic", of=photos, number=50))


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared photographs are not here")
def test_real_photographs():
    of = load_dataset("folder", root=SHARED / "imagenet_photos", labels="labels.csv")
    item = load_dataset("mosaic", of=of, limit=1)[0]
    assert item.picture.size == (448, 448)
    assert len(item.labels) == 4


def test_a_photograph_whose_annotation_cannot_be_read_is_in_no_mosaic(tmp_path):
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (tmp_path / folder).mkdir(parents=True)
    for number, name in enumerate(("dog", "cat", "cow")):
        Image.new("RGB", (10, 7)).save(tmp_path / "JPEGImages" / f"{number}.jpg")
        (tmp_path / "Annotations" / f"{number}.xml").write_text(
            f"<annotation><size><width>10</width><height>7</height></size><object><name>{name}</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>7</ymax></bndbox></object></annotation>"
        )
    (tmp_path / "Annotations" / "1.xml").write_text("<annotation>")
    (tmp_path / "ImageSets/Main/val.txt").write_text("0\n1\n2\n")
    with pytest.warns(UserWarning, match=r"^Photograph 2 of voc:root=.* is in no mosaic: .*1\.xml is not an annotation"):
        data = load_dataset("mosaic", of=load_dataset("voc", root=tmp_path), rows=1, columns=2, cell=5)
    labels = {label for item in data for label in item.labels}
    assert labels == {11, 9}
