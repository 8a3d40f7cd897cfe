"""Digits on photographs."""

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import binary_dilation

import salience as sal
from salience.core.draws import streams
from salience.zoo.datasets import load_dataset

SHARED = Path(__file__).parents[4] / "shared" / "data"
RANDOM = np.random.default_rng(0)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Digits with a white bar, photographs each of one dark colour of its own."""
    where = tmp_path_factory.mktemp("data")
    digits = np.zeros((300, 28, 28), np.uint8)
    digits[:, 5:23, 11:17] = 255
    photos = np.broadcast_to(np.arange(40, dtype=np.uint8)[:, None, None, None], (40, 32, 32, 3))
    np.savez(where / "mnist.npz", x_test=digits, y_test=np.arange(300) % 10, x_train=digits[:3], y_train=np.arange(3))
    np.savez(where / "cifar10.npz", x_test=photos, y_test=np.arange(40) % 10, x_train=photos, y_train=np.arange(40) % 10)
    return where


def cmnist(root, **options):
    return load_dataset("cmnist", root=root, **options)


def test_an_item_is_what_the_paper_says(root):
    """Made again, step by step, from the same draws."""
    data = cmnist(root, seed=3, noise=0.2)
    item = data[7]
    stream = streams(3, 1)[0].at("cmnist", "test")
    digit = Image.fromarray(np.load(root / "mnist.npz")["x_test"][7]).resize((16, 16), Image.Resampling.BILINEAR)
    ink = np.asarray(digit.rotate(stream.generator(7, "angle").uniform(-15, 15), Image.Resampling.BILINEAR)) / 255
    picture = np.full((32, 32, 3), stream.generator(7, "background").integers(40) / 255)
    for row in range(16):
        for column in range(16):
            for channel in range(3):
                picture[8 + row, 8 + column, channel] = ink[row, column] + (1 - ink[row, column]) * picture[8 + row, 8 + column, channel]
    picture += 0.2 * stream.generator(7, "sd").random() * stream.generator(7, "noise").standard_normal((32, 32, 3))
    assert (item.picture == np.round(np.clip(picture, 0, 1) * 255)).all()
    assert (item.name, item.labels, data.classes) == ("test-00007", (7,), list("0123456789"))
    assert item.picture.shape == (32, 32, 3)
    assert sal.load_images(item.picture).shape == (1, 3, 32, 32)


def test_the_draws_depend_on_seed_split_and_item_only(root):
    whole, few = cmnist(root, noise=0), cmnist(root, noise=0, limit=4)
    assert all((few[i].picture == whole[i].picture).all() for i in range(4))
    mixed = cmnist(root, noise=0, shuffle=5)
    assert all((item.picture == whole.item(int(item.name[-5:])).picture).all() for item in mixed)
    backgrounds = [item.picture[0, 0, 0] for item in whole]
    for options in ({"position": "random"}, {"paste": "max"}, {"mask": "digit"}):
        assert [item.picture[0, 31, 0] for item in cmnist(root, noise=0, **options)][:40] == [item.picture[0, 31, 0] for item in whole][:40]
    assert [item.picture[0, 0, 0] for item in cmnist(root, noise=0, seed=1)] != backgrounds
    assert cmnist(root, noise=0, split="train")[0].picture[0, 0, 0] != backgrounds[0] or cmnist(root, noise=0, split="train")[1].picture[0, 0, 0] != backgrounds[1]
    assert cmnist(root).fingerprint() == cmnist(root).fingerprint() != cmnist(root, seed=1).fingerprint()


def test_photographs_are_uniform_and_say_nothing_of_the_digit(root):
    backgrounds = np.array([item.picture[0, 0, 0] for item in cmnist(root, noise=0)])
    counts = np.bincount(backgrounds, minlength=40)
    assert len(counts) == 40
    assert ((counts - 7.5) ** 2 / 7.5).sum() < 39 + 5 * math.sqrt(2 * 39)
    assert abs(np.corrcoef(backgrounds, np.arange(300) % 10)[0, 1]) < 5 / math.sqrt(300)


def test_angles_reach_fifteen_degrees_and_no_more(root):
    """The bar's slant, from its second moments."""
    slants = []
    for item in cmnist(root, noise=0):
        rows, columns = np.mgrid[:32, :32]
        ink = item.picture[..., 0] - item.picture[0, 0, 0].astype(float)
        y, x = (rows * ink).sum() / ink.sum(), (columns * ink).sum() / ink.sum()
        yy, xx, xy = (((rows - y) ** 2 * ink).sum(), ((columns - x) ** 2 * ink).sum(), ((rows - y) * (columns - x) * ink).sum())
        slants.append(math.degrees(0.5 * math.atan2(2 * xy, yy - xx)))
    assert 13.5 < max(slants) < 16
    assert -16 < min(slants) < -13.5
    assert np.std(slants) == pytest.approx(30 / math.sqrt(12), rel=0.12)


def test_masks(root):
    for number in range(5):
        box, digit, near = (cmnist(root, noise=0, position="random", mask=mask)[number].masks[number] for mask in ("box", "digit", "near"))
        assert box.dtype == digit.dtype == near.dtype == bool
        rows, columns = np.nonzero(box)
        assert (box.sum(), np.ptp(rows), np.ptp(columns)) == (256, 15, 15)
        assert not (digit & ~box).any()
        picture = cmnist(root, noise=0, position="random", paste="max")[number].picture[..., 0]
        assert (digit == (picture >= 64)).all()
        assert (near == binary_dilation(digit, np.ones((7, 7), bool))).all()
    centre = cmnist(root)[0].masks[0]
    assert centre[8:24, 8:24].all()


def test_random_positions_reach_every_corner(root):
    corners = {tuple(np.argwhere(item.masks[item.labels[0]])[0]) for item in cmnist(root, position="random")}
    rows, columns = zip(*corners, strict=True)
    assert (min(rows), max(rows), min(columns), max(columns)) == (0, 16, 0, 16)


def test_noise_has_an_sd_of_its_own_in_each_image(tmp_path):
    """On grey, 3072 pixels tell an sd to 1.3 %."""
    np.savez(tmp_path / "mnist.npz", x_test=np.zeros((40, 28, 28), np.uint8), y_test=np.arange(40) % 10)
    np.savez(tmp_path / "cifar10.npz", x_test=np.full((1, 32, 32, 3), 128, np.uint8), y_test=[0])
    found = np.array([item.picture.std() / 255 for item in cmnist(tmp_path, noise=0.1)])
    drawn = [0.1 * streams(0, 1)[0].at("cmnist", "test").generator(place, "sd").random() for place in range(40)]
    assert np.allclose(found, drawn, rtol=0.065, atol=0.0015)
    assert found.min() < 0.02 < 0.08 < found.max() < 0.105


def test_ink_covers_or_the_brighter_wins(tmp_path):
    digit = np.full((1, 28, 28), 100, np.uint8)
    np.savez(tmp_path / "mnist.npz", x_test=digit, y_test=[8])
    (tmp_path / "photos").mkdir()
    np.savez(tmp_path / "photos" / "cifar10.npz", x_test=np.full((1, 32, 32, 3), 150, np.uint8), y_test=[0])
    pictures = {paste: cmnist(tmp_path, cifar=tmp_path / "photos", noise=0, paste=paste)[0].picture for paste in ("max", "alpha")}
    assert pictures["max"][16, 16].tolist() == [150] * 3
    assert pictures["alpha"][16, 16].tolist() == [round(100 + (1 - 100 / 255) * 150)] * 3
    with pytest.raises(sal.InputError, match=r"holds neither cifar-10-batches-py nor cifar10\.npz nor cifar10_jpeg\.npz: "):
        cmnist(tmp_path)[0]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data are not here")
def test_real_digits():
    data = cmnist(SHARED, limit=100, mask="digit", paste="alpha", noise=0)
    assert [item.labels[0] for item in data][:5] == [7, 2, 1, 0, 4]
    for item in data:
        assert item.picture[item.masks[item.labels[0]]].mean() > item.picture[~item.masks[item.labels[0]]].mean() - 20
        assert 12 < item.masks[item.labels[0]].sum() < 130
