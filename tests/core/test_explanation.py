"""What an explanation offers: reductions, intervals, slices, files."""

import copy
import dataclasses
import math
import pickle

import numpy as np
import pytest
import torch
from scipy import stats

import salience as sal


@pytest.fixture
def smooth(conv, photos):
    return sal.explain("smoothgrad:samples=12", conv, photos, targets=1)


def test_reductions(smooth):
    maps = smooth.maps
    assert torch.equal(smooth.saliency("sum"), maps.sum(1))
    assert torch.equal(smooth.saliency(), maps.abs().sum(1))
    assert torch.equal(smooth.saliency("abs_max"), maps.abs().amax(1))
    assert torch.allclose(smooth.saliency("l2"), maps.norm(dim=1))
    with pytest.raises(sal.InputError, match=r"^Unknown reduction 'sums': did you mean sum, abs_sum\?$"):
        smooth.saliency("sums")


def test_jackknife_of_a_linear_reduction_is_the_error_of_block_means(smooth):
    by_block = smooth.blocks.sum(2)
    assert torch.allclose(smooth.saliency_stderr("sum"), by_block.std(0) / len(by_block) ** 0.5, rtol=1e-3)


def test_interval_is_students(smooth):
    low, high = smooth.interval(0.8)
    factor = stats.t.ppf(0.9, 11)
    assert torch.allclose(high - smooth.maps, factor * smooth.stderr, rtol=1e-3, atol=1e-6)
    assert torch.allclose(smooth.maps - low, factor * smooth.stderr, rtol=1e-3, atol=1e-6)
    with pytest.raises(sal.InputError, match=r"^level must lie between 0 and 1, not 95\.$"):
        smooth.interval(95)


def test_deterministic_methods_have_no_error(conv, photos):
    e = sal.explain("gradient", conv, photos)
    assert e.stderr is e.df is e.relative_error is None
    assert e.samples.tolist() == [0, 0]
    with pytest.raises(sal.InputError, match=r"^gradient is deterministic, so its map has no confidence interval\.$"):
        e.interval()
    with pytest.raises(sal.InputError, match=r"^gradient is deterministic, so its saliency has no standard error\.$"):
        e.saliency_stderr()
    with pytest.raises(sal.InputError, match=r"^There are no scores of other classes here: gradient computes one class at a time, or .*: call explain again with targets=3\.$"):
        e.for_target(3)


def test_slices(smooth):
    second = smooth[1]
    assert len(second) == 1
    assert torch.equal(second.maps, smooth.maps[1:])
    assert torch.allclose(second.saliency_stderr(), smooth.saliency_stderr()[1:])
    assert second.record["images"]["prediction"] == smooth.record["images"]["prediction"][1:]
    assert torch.equal(smooth[-1].maps, second.maps)
    with pytest.raises(IndexError, match=r"^There are 2 images, so no image 2\.$"):
        smooth[2]


def test_numpy_numbers_are_numbers_and_lists_are_refused(smooth):
    second = smooth[np.int64(1)]
    assert torch.equal(second.maps, smooth[1].maps)
    assert second.record["images"] == smooth[1].record["images"]
    for index, kind in (([0, 1], "list"), (True, "bool"), ("0", "str")):
        with pytest.raises(sal.InputError, match=rf"^Images are taken by number or slice, not by {kind}: write e\[1\], or e\[1:3\] for several\.$"):
            smooth[index]


@pytest.fixture
def masked(conv, photos):
    return sal.explain("rise:samples=20,grid=3", conv, photos, targets=0)


@pytest.mark.parametrize(
    ("target", "found"),
    [(3, [3, 3]), ("3", [3, 3]), (np.int64(3), [3, 3]), (torch.tensor(3), [3, 3]), ([1, 2.0], [1, 2]), (("1", 2), [1, 2]), (torch.tensor([1, 2]), [1, 2]), (np.array([1, 2]), [1, 2])],
)
def test_other_targets_in_every_form(masked, conv, photos, target, found):
    e = masked.for_target(target)
    assert e.targets.tolist() == found
    assert torch.allclose(e.maps, sal.explain("rise:samples=20,grid=3", conv, photos, targets=found).maps, atol=1e-6)


def test_none_is_the_predicted_class_as_in_explain(masked):
    assert masked.for_target(None).targets.tolist() == masked.record["images"]["prediction"]


def test_other_targets_by_name(masked):
    assert masked.for_target("dog").targets.tolist() == [3, 3]
    assert masked.for_target(["bee", 2]).targets.tolist() == [1, 2]
    with pytest.raises(sal.InputError, match=r"^Unknown class 'dig': did you mean dog\?$"):
        masked.for_target("dig")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (3.7, r"^A target is the index or the name of a class, not 3\.7\.$"),
        (True, r"^A target is the index or the name of a class, not True\.$"),
        ([1, None], r"^A target is the index or the name of a class, not None\.$"),
        ([1, 2, 3], r"^3 targets were given for 2 images: give one, or one per image\.$"),
        (5, r"^Target 5 is out of range: .*classes 0 to 4\.$"),
        (-1, r"^Target -1 is out of range: .*\.$"),
    ],
)
def test_targets_that_are_none(masked, target, message):
    with pytest.raises(sal.InputError, match=message):
        masked.for_target(target)


def test_parts_and_files_have_no_other_targets(masked, conv, photos, tmp_path):
    masked.save(tmp_path / "map.npz")
    for e in (masked[0], sal.Explanation.load(tmp_path / "map.npz")):
        with pytest.raises(sal.InputError, match=r"^There are no scores of other classes here: .* or this is a part of an explanation, or from a file: call explain again with targets=3\.$"):
            e.for_target(3)
    own = sal.explain("rise:samples=20,grid=3", conv, photos, score=lambda outputs, targets: outputs[:, 0])
    with pytest.raises(sal.InputError, match=r"^There are no scores of other classes here: rise:.* computes one class at a time, or .*: call explain again with targets=3\.$"):
        own.for_target(3)


def test_files_hold_map_stderr_record_and_no_pickle(smooth, tmp_path):
    smooth.save(tmp_path / "deep" / "map.npz")
    with np.load(tmp_path / "deep" / "map.npz", allow_pickle=False) as file:
        assert set(file.files) == {"map", "stderr", "df", "record"}
        assert file["map"].dtype == np.float32
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["map.npz"]
    again = sal.Explanation.load(tmp_path / "deep" / "map.npz")
    assert torch.equal(again.stderr, smooth.stderr)
    assert again.record["images"]["prediction"] == smooth.record["images"]["prediction"]
    with pytest.raises(sal.InputError, match=r"^This explanation was saved without its blocks, which this error needs: save it with e\.save\(path, blocks=True\)\.$"):
        again.saliency_stderr()


def test_one_draw_has_no_error_yet(conv, photos, tmp_path):
    e = sal.explain("smoothgrad:samples=1", conv, photos)
    assert e.stderr.isnan().all()
    e.save(tmp_path / "one.npz")
    assert sal.Explanation.load(tmp_path / "one.npz").samples.tolist() == [1, 1]


def test_stopped_explanations_keep_their_counts(conv, photos, tmp_path):
    e = sal.explain("smoothgrad:samples=400,noise_level=0.01", conv, photos, tolerance=0.5)
    assert e.converged.all()
    assert e.samples.tolist() == [50, 50]
    e.save(tmp_path / "map.npz")
    assert sal.Explanation.load(tmp_path / "map.npz").converged.tolist() == [True, True]


def test_missing_files(tmp_path):
    with pytest.raises(sal.InputError, match=r"none\.npz does not exist: check the path\.$"):
        sal.Explanation.load(tmp_path / "none.npz")


@pytest.mark.parametrize("content", [b"", b"not a zip"])
def test_damaged_files(tmp_path, content):
    path = tmp_path / "bad.npz"
    path.write_bytes(content)
    with pytest.raises(sal.InputError, match=r"bad\.npz is not an explanation saved by salience \(\w+\): give a file written by e\.save\(\)\.$"):
        sal.Explanation.load(path)


def test_arrays_of_other_shapes_are_refused(smooth, tmp_path):
    """Maps of two dimensions were loaded, and ended in a traceback later."""
    path = tmp_path / "map.npz"
    smooth.save(path)
    with np.load(path) as file:
        arrays = dict(file)
    for changed in ({"map": arrays["map"][0, 0]}, {"stderr": arrays["stderr"][:, :1]}, {"df": arrays["df"][:0]}):
        np.savez(path, **arrays | changed)
        with pytest.raises(sal.InputError, match=r"map\.npz is not an explanation saved by salience \(ValueError\)"):
            sal.Explanation.load(path)


def test_maps_are_no_pictures(smooth, tmp_path):
    """A file of maps was written under the name of a picture, over one that was there."""
    with pytest.raises(sal.InputError, match=r"^Maps are kept as \.npz, not as map\.png: e\.save\('map\.npz'\) keeps the maps, e\.show\(\)\.savefig\('map\.png'\) a picture of them\.$"):
        smooth.save(tmp_path / "map.png")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("blocks", [False, True])
def test_the_relative_error_is_the_same_from_a_file(conv, tmp_path, blocks):
    """Without blocks it cannot be computed: what all values of a map share is not known then."""
    e = sal.explain("rise:samples=40,grid=3", conv, torch.rand(3, 3, 12, 12))
    e.save(tmp_path / "map.npz", blocks=blocks)
    loaded = sal.Explanation.load(tmp_path / "map.npz")
    assert torch.allclose(loaded.relative_error, e.relative_error)
    assert torch.equal(loaded[1].relative_error, loaded.relative_error[1:2])
    lost = dataclasses.replace(e, maps=torch.zeros_like(e.maps), blocks=torch.zeros_like(e.blocks))
    lost.save(tmp_path / "lost.npz", blocks=blocks)
    assert sal.Explanation.load(tmp_path / "lost.npz").relative_error.tolist() == [math.inf] * 3


def test_an_error_that_one_draw_does_not_tell_is_unknown_from_a_file_too(conv, photos, tmp_path):
    """It came back as infinite, which is said of maps without a signal."""
    e = sal.explain("smoothgrad:samples=1", conv, photos, targets=1)
    e.save(tmp_path / "map.npz")
    assert e.relative_error.isnan().all()
    assert sal.Explanation.load(tmp_path / "map.npz").relative_error.isnan().all()


def test_a_failed_save_leaves_the_old_file(smooth, tmp_path, monkeypatch):
    path = tmp_path / "map.npz"
    smooth.save(path)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(sal.InputError, match=r"map\.npz: No space left on device\. Choose a folder you can write to, with space left\.$"):
        smooth.save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_pickles_and_copies(conv):
    """Of everything but the way back to the model."""
    photographs = sal.load_images([np.zeros((20, 24, 3), np.uint8), np.ones((20, 24, 3), np.uint8)], conv)
    made = sal.explain("rise:samples=20", conv, photographs, 1)
    for again in (pickle.loads(pickle.dumps(made)), copy.deepcopy(made)):
        assert torch.equal(again.maps, made.maps)
        assert torch.equal(again.stderr, made.stderr)
        assert again.images.names == photographs.names
        with pytest.raises(sal.InputError):
            again.for_target(2)
    assert made.for_target(2).targets.tolist() == [2, 2]
