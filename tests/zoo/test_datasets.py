"""What all data sets have in common."""

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import salience as sal
from salience.core import registry
from salience.zoo.datasets import Dataset, Item, Masks, list_datasets, load_dataset

SHARED = Path(__file__).parents[3] / "shared" / "data"


class Colours(Dataset):
    """Five pictures, each of its own grey."""

    def size(self):
        return 5

    def item(self, place):
        return Item(f"grey {place}", np.full((4, 6, 3), place, np.uint8), (place,), {place: np.eye(4, 6, dtype=bool)})


@pytest.fixture
def photos(tmp_path):
    for number in range(5):
        Image.new("RGB", (6 + number, 4), (40 * number, 0, 0)).save(tmp_path / f"{number}.png")
    return tmp_path


def said(*given, **options):
    with pytest.raises(sal.InputError) as caught:
        load_dataset(*given, **options)
    return str(caught.value)


def test_every_kind_is_listed_and_documented():
    assert set(list_datasets()) >= {"cifar10", "cmnist", "coco", "folder", "imagenet", "mnist", "mosaic", "voc"}
    for entry in registry.entries("dataset").values():
        assert entry.cls.__doc__
        assert issubclass(entry.cls, Dataset)


def test_order_limit_and_shuffle(photos):
    assert [item.name for item in load_dataset("folder", root=photos)] == ["0.png", "1.png", "2.png", "3.png", "4.png"]
    assert [item.name for item in load_dataset("folder", root=photos, limit=2)] == ["0.png", "1.png"]
    mixed = [item.name for item in load_dataset("folder", root=photos, shuffle=1)]
    assert sorted(mixed) == ["0.png", "1.png", "2.png", "3.png", "4.png"]
    assert mixed != sorted(mixed)
    assert [item.name for item in load_dataset("folder", root=photos, shuffle=1, limit=3)] == mixed[:3]
    assert [item.name for item in load_dataset("folder", root=photos, shuffle=2)] != mixed
    whole = load_dataset("folder", root=photos, limit=50)
    assert len(whole) == 5
    assert whole[-1].name == "4.png"
    with pytest.raises(IndexError):
        whole[5]


def test_a_data_set_of_ones_own():
    own = Colours(limit=3)
    assert [item.labels for item in own] == [(0,), (1,), (2,)]
    assert own.classes is None
    assert len(own.fingerprint()) == 64


def test_options_as_text_and_paths(photos):
    built = Dataset.from_value(f"folder:root={photos},limit=2")
    assert built == load_dataset("folder", root=photos, limit="2")
    assert str(built) == f"folder:limit=2,root={photos}"
    assert Dataset.from_value(built) is built


def test_items_are_what_load_images_takes(photos):
    model = sal.Model(torch.nn.Flatten(), size=8)
    images = sal.load_images([item.picture for item in load_dataset("folder", root=photos)], model)
    assert images.shape == (5, 3, 8, 8)
    assert [geometry.original for geometry in images.geometry] == [(4, 6), (4, 7), (4, 8), (4, 9), (4, 10)]


def test_fingerprint_is_sha256_of_the_items(photos):
    digest = hashlib.sha256()
    for item in load_dataset("folder", root=photos):
        for part in (json.dumps([item.name, [], []]).encode(), Path(item.picture).read_bytes()):
            digest.update(len(part).to_bytes(8, "little") + part)
    assert load_dataset("folder", root=photos).fingerprint() == digest.hexdigest()


def test_fingerprint_changes_with_the_items_only(photos, tmp_path_factory):
    def fingerprint(where=photos, **options):
        return load_dataset("folder", root=where, **options).fingerprint()

    first = fingerprint()
    assert fingerprint() == fingerprint(limit=9) == first
    copy = tmp_path_factory.mktemp("copy")
    for path in photos.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    assert fingerprint(copy) == first
    (photos / "labels.csv").write_text("file,class_index\n0.png,1\n1.png,2\n")
    seen = {first, fingerprint(limit=2), fingerprint(labels="labels.csv"), fingerprint(shuffle=1)}
    (photos / "labels.csv").write_text("file,class_index\n0.png,1\n1.png,3\n")
    seen.add(fingerprint(labels="labels.csv"))
    Image.fromarray(np.eye(4, 6, dtype=np.uint8)).save(photos / "m.png")
    (photos / "labels.csv").write_text("file,class_index,mask\n0.png,1,m.png\n1.png,3,\n")
    seen.add(fingerprint(labels="labels.csv"))
    Image.fromarray(np.eye(4, 6, 1, dtype=np.uint8)).save(photos / "m.png")
    seen.add(fingerprint(labels="labels.csv"))
    Image.new("RGB", (6, 4), (1, 1, 1)).save(photos / "0.png")
    seen.add(fingerprint(limit=2))
    assert len(seen) == 8


def test_masks_are_made_when_asked_for_and_shared():
    made = []

    def make(source):
        made.append(source)
        return np.full((2, 2), source > 1)

    masks = Masks({7: 1, 8: 1, 3: 2}, make)
    assert (list(masks), len(masks), 7 in masks, 9 in masks, made) == ([7, 8, 3], 3, True, False, [])
    assert masks[7] is masks[8]
    assert masks[3].all()
    assert made == [1, 2]
    with pytest.raises(KeyError):
        masks[9]
    assert masks.get(9) is None


def test_a_damaged_picture_is_found_when_it_is_loaded(photos):
    (photos / "2.png").write_bytes(b"not a picture")
    items = list(load_dataset("folder", root=photos))
    with pytest.raises(sal.InputError, match=r"2\.png is not an image that can be read: give a JPEG, PNG or similar file\.$"):
        sal.load_images(items[2].picture)


def test_fingerprint_of_a_picture_that_has_gone(photos):
    data = load_dataset("folder", root=photos)
    (photos / "2.png").unlink()
    with pytest.raises(sal.InputError, match=rf"^{re.escape(str(photos / '2.png'))} cannot be read \(No such file or directory\): check the path\.$"):
        data.fingerprint()


def test_refused(photos):
    assert said("foldr", root=photos) == "Unknown data set 'foldr': did you mean folder?"
    assert said("folder", rot=photos) == "Unknown option of folder: 'rot': did you mean root?"
    assert said("folder", root=photos, limit=0) == "folder: limit must be at least 1, not 0."
    assert said("folder", root=photos, limit="few") == "folder: limit must be a whole number, not 'few'."
    assert said("mnist", root=photos, split="tset") == "Unknown value for mnist: split: 'tset': did you mean test?"
    with pytest.raises(sal.InputError, match=r"^A data set is a specification such as 'folder:root=photos', or what sal\.load_dataset returns, not int\.$"):
        Dataset.from_value(3)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared photographs are not here")
def test_real_folders():
    plain = load_dataset("folder", root=SHARED / "photos")
    assert "chelsea.png" in [item.name for item in plain]
    labelled = load_dataset("folder", root=SHARED / "imagenet_photos", labels="labels.csv")
    assert len(labelled) == 500
    assert [item.labels for item in labelled][:3] == [(0,), (2,), (4,)]
    assert len({item.name for item in labelled}) == 500
    assert len(labelled.fingerprint()) == 64
