"""Similarities of maps, against scipy, scikit-image and numbers known beforehand."""

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.spatial import distance
from skimage.metrics import structural_similarity

import salience as sal
from salience.core import registry
from salience.core.metric import UndefinedError
from salience.core.similarity import VALUES_AT_ONCE, Similarity, list_similarities, similarity
from salience.perturbations.rotation import Rotation
from salience.similarities._rows import average_ranks
from salience.similarities.cosine import Cosine
from salience.similarities.ssim import SSIM

ENTRIES = registry.entries("similarity")
OF_MAPS = [name for name, entry in ENTRIES.items() if entry.facts["of"] == "maps"]
SHAPES = [(2, 3, 11, 13), (1, 64, 8, 8), (1, 3, 3, 3), (3, 3, 2, 64), (2, 1, 1, 5)]


def pair(shape, seed=0, kind=torch.float64):
    draws = torch.randn(2, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return draws[0].to(kind), (draws[0] + draws[1]).to(kind)


def reference(name, a, b):
    """One pair of flat NumPy rows."""
    return {
        "cosine": lambda: 1 - distance.cosine(a, b),
        "cosine_distance": lambda: distance.cosine(a, b),
        "mse": lambda: ((a - b) ** 2).mean(),
        "pearson": lambda: stats.pearsonr(a, b).statistic,
        "spearman": lambda: stats.spearmanr(a, b).statistic,
    }[name]()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["cosine", "cosine_distance", "mse", "pearson", "spearman"])
def test_same_as_scipy(name, shape):
    a, b = pair(shape)
    expected = [reference(name, x.flatten().numpy(), y.flatten().numpy()) for x, y in zip(a, b, strict=True)]
    assert similarity(name, a, b).tolist() == pytest.approx(expected, abs=1e-12)
    tied = [(each * 2).round() for each in (a, b)]
    if not any((each == each.flatten(1)[:, :1, None, None]).flatten(1).all(1).any() for each in tied):
        expected = [reference(name, x.flatten().numpy(), y.flatten().numpy()) for x, y in zip(*tied, strict=True)]
        assert similarity(name, *tied).tolist() == pytest.approx(expected, abs=1e-12)


def test_spearman_with_more_ties_than_sixteen_bits_can_count():
    generator = torch.Generator().manual_seed(0)
    a = torch.randint(0, 3, (2, 1, 300, 301), generator=generator).float()
    b = a + torch.randint(0, 2, a.shape, generator=generator)
    assert (a[0] == 0).sum() < 65536 < a[0].numel()
    a[1] = 0
    a[1, 0, 0, :100] = 1
    assert (a[1] == 0).sum() > 65536
    expected = [stats.spearmanr(x.flatten().numpy(), y.flatten().numpy()).statistic for x, y in zip(a.double(), b.double(), strict=True)]
    assert similarity("spearman", a, b).tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ranks_of_values_of_every_kind(dtype):
    """Both signs, both zeros, the smallest and largest numbers, and ties, beside scipy's."""
    source = np.random.default_rng(0)
    limits = np.finfo(np.float32)
    odd = np.array([0.0, -0.0, limits.tiny, -limits.tiny, limits.smallest_subnormal, -limits.smallest_subnormal, limits.max, limits.min, 1.0, -1.0])
    values = np.stack([np.concatenate([odd, odd, source.normal(size=500), source.integers(-5, 5, 500)]) for _ in range(3)]).astype(dtype)
    values = source.permuted(values, axis=1)
    assert (average_ranks(torch.from_numpy(values)).numpy() == stats.rankdata(values, axis=1)).all()


@pytest.mark.parametrize("shape", [(2, 3, 17, 23), (1, 1, 7, 7), (2, 2, 8, 31)])
def test_ssim_same_as_scikit_image(shape):
    generator = torch.Generator().manual_seed(0)
    a = torch.rand(shape, generator=generator)
    b = (a + 0.2 * torch.randn(shape, generator=generator)).clamp(0, 1)
    for value_range in (1.0, 3.0, 1e-3):
        expected = [structural_similarity(x.numpy(), y.numpy(), win_size=7, data_range=value_range, channel_axis=0) for x, y in zip(a.double(), b.double(), strict=True)]
        assert similarity(SSIM(data_range=value_range), a, b).tolist() == pytest.approx(expected, abs=1e-6)
    if min(shape[2:]) >= 11:
        expected = [structural_similarity(x.numpy(), y.numpy(), win_size=11, data_range=1.0, channel_axis=0) for x, y in zip(a, b, strict=True)]
        assert similarity("ssim:window=11", a, b).tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("size", "window"), [((5, 9), 5), ((6, 6), 5), ((4, 40), 3), ((3, 3), 3)])
def test_ssim_of_small_maps_takes_the_largest_odd_window(size, window):
    a, b = torch.rand(2, 1, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)[:, None]
    expected = structural_similarity(a[0, 0].numpy(), b[0, 0].numpy(), win_size=window, data_range=1.0)
    assert similarity("ssim", a, b).item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", OF_MAPS)
def test_only_visible_pixels_count(name):
    """A picture moved: what is left in view is a smaller picture, whatever lies beyond."""
    a, b = (each.abs() for each in pair((2, 2, 15, 20)))
    visible = torch.zeros(15, 20, dtype=torch.bool)
    visible[2:, :16] = True
    expected = similarity(name, a[..., 2:, :16], b[..., 2:, :16])
    for beyond in (0.0, 1e3):
        first, second = (torch.where(visible, each, beyond) for each in (a, b))
        assert torch.allclose(Similarity.from_value(name).compare_within(first, second, visible).double(), expected, atol=1e-9)
    everything = torch.ones_like(visible)
    assert torch.equal(Similarity.from_value(name).compare_within(a, b, everything).double(), similarity(name, a, b))


def test_ssim_has_only_windows_that_are_wholly_in_view():
    """Against scikit-image's value at every place. Where no window fits, the largest that does is taken."""
    a, b = torch.rand(2, 14, 17, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for visible, window in ((Rotation(degrees=20).visible((14, 17)), 7), (Rotation(degrees=20).visible((14, 17)) & (torch.arange(17) < 6), 5)):
        half = window // 2
        local = structural_similarity(a.numpy(), b.numpy(), win_size=window, data_range=1.0, full=True)[1]
        whole = [(i, j) for i in range(half, 14 - half) for j in range(half, 17 - half) if visible[i - half : i + half + 1, j - half : j + half + 1].all()]
        assert whole
        found = SSIM().compare_within(a[None, None], b[None, None], visible)
        assert found.item() == pytest.approx(np.mean([local[place] for place in whole]), abs=1e-9)


def test_ssim_of_constants():
    two, five = torch.full((1, 3, 9, 9), 0.2), torch.full((1, 3, 9, 9), 0.5)
    assert similarity("ssim", two, two).item() == 1
    assert similarity("ssim", torch.zeros(1, 9, 9), torch.zeros(1, 9, 9)).item() == 1
    assert similarity("ssim", two, five).item() == pytest.approx((2 * 0.1 + 1e-4) / (0.04 + 0.25 + 1e-4), abs=1e-6)
    assert similarity("ssim", two[:, :, :1, :1], five[:, :, :1, :1]).item() == pytest.approx((2 * 0.1 + 1e-4) / (0.04 + 0.25 + 1e-4), abs=1e-6)
    with pytest.raises(sal.InputError, match=r"^ssim: window must be odd, not 8\.$"):
        SSIM(window=8)


def test_ssim_keeps_its_digits_far_from_zero():
    a, b = (1000 + 1e-3 * torch.rand(1, 1, 20, 20, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) for seed in (0, 1))
    near = similarity(SSIM(data_range=1e-3), a - 1000, b - 1000).item()
    middle = similarity(SSIM(data_range=1e-3), a - 999, b - 999).item()
    assert similarity(SSIM(data_range=1e-3), a, b).item() == pytest.approx(middle, abs=1e-4)
    assert abs(near - middle) < 0.9  # the means, not the variances, make this difference


@pytest.mark.parametrize("name", OF_MAPS)
class TestEverySimilarityOfMaps:
    def test_equal_maps_are_best(self, name):
        a, b = pair((3, 3, 9, 11), kind=torch.float32)
        best = 1.0 if ENTRIES[name].facts["higher_is_better"] else 0.0
        assert similarity(name, a, a).tolist() == pytest.approx([best] * 3, abs=1e-7)
        sign = 1 if ENTRIES[name].facts["higher_is_better"] else -1
        assert (sign * similarity(name, a, b) < sign * best - 1e-3).all()

    def test_symmetric_and_each_pair_alone(self, name):
        a, b = pair((3, 2, 9, 11))
        together = similarity(name, a, b)
        assert torch.allclose(together, similarity(name, b, a), atol=1e-12)
        alone = torch.cat([similarity(name, a[i : i + 1], b[i : i + 1]) for i in range(3)])
        assert torch.allclose(together, alone, atol=1e-12)

    def test_parts_of_a_large_batch(self, name, monkeypatch):
        a, b = pair((5, 1, 8, 9))
        whole = similarity(name, a, b)
        for values in (1, 2 * 72, 3 * 72 + 1):
            monkeypatch.setattr("salience.core.similarity.VALUES_AT_ONCE", values)
            assert torch.allclose(similarity(name, a, b), whole, atol=1e-12)
        assert VALUES_AT_ONCE >= 2**20

    def test_to_some_maps_again_and_again(self, name, monkeypatch):
        """Nothing of one comparison is left for the next; and the first maps are not looked at again."""
        monkeypatch.setattr("salience.core.similarity.VALUES_AT_ONCE", 3 * 72)
        a, b = pair((5, 1, 8, 9))
        compared = Similarity.from_value(name).to(a)
        for other in (b, a, b.flip(3), b):
            assert torch.equal(compared(other), similarity(name, a, other))
        with pytest.raises(sal.InputError, match=r"^Maps of shape \(5, 1, 8, 9\) and \(4, 1, 8, 9\) cannot be compared"):
            compared(b[:4])

    def test_forms_of_maps(self, name, conv, photos):
        e = sal.explain("gradient", conv, photos)
        other = sal.explain("gradient", conv, photos, targets=1)
        expected = similarity(name, e.maps, other.maps)
        assert expected.dtype == torch.float32
        assert torch.equal(similarity(name, e, other), expected)
        assert torch.equal(similarity(name, e.maps.numpy(), other), expected)
        assert torch.equal(similarity(name, e.saliency(), other.saliency().numpy()), similarity(name, e.saliency()[:, None], other.saliency()[:, None]))
        frozen = e.maps.numpy()[:, :, ::-1]
        frozen.flags.writeable = False
        assert torch.allclose(similarity(name, frozen, other.maps.flip(2)), expected, atol=1e-6)

    def test_the_maps_do_not_change(self, name):
        a, b = pair((2, 1, 9, 9), kind=torch.float32)
        kept = a.clone(), b.clone()
        similarity(name, a, b)
        assert torch.equal(a, kept[0])
        assert torch.equal(b, kept[1])

    def test_refusals(self, name):
        a = torch.rand(2, 1, 4, 5)
        with pytest.raises(sal.InputError, match=r"^Maps of shape \(2, 1, 4, 5\) and \(2, 1, 5, 4\) cannot be compared: give two of the same shape, \(n, c, h, w\) or \(n, h, w\)\.$"):
            similarity(name, a, a.transpose(2, 3))
        with pytest.raises(sal.InputError, match=r"^Maps to compare have shape \(n, c, h, w\) or \(n, h, w\), not \(4, 5\)\.$"):
            similarity(name, a[0, 0], a[0, 0])
        with pytest.raises(sal.InputError, match=r"^Maps to compare are an Explanation, a tensor or an array, not str\.$"):
            similarity(name, "map", a)
        for bad in (torch.nan, torch.inf):
            broken = a.clone()
            broken[1, 0, 2, 3] = bad
            for one, two in ((a, broken), (broken, a)):
                with pytest.raises(UndefinedError, match=r"^The map of image 2 holds NaN or infinity, so no similarity is defined for it\.$"):
                    similarity(name, one, two)


def test_constant_maps():
    noisy, one, two, zero = torch.rand(1, 1, 4, 5), torch.full((1, 1, 4, 5), 0.1), torch.full((1, 1, 4, 5), 0.7), torch.zeros(1, 1, 4, 5)
    for name in ("pearson", "spearman"):
        assert similarity(name, noisy, one).item() == 0
        assert similarity(name, one, noisy).item() == 0
        assert similarity(name, one, two).item() == 0
        assert similarity(name, one, one).item() == 1
        assert similarity(name, zero, zero).item() == 1
    assert similarity("cosine", zero, zero).item() == 1
    assert similarity("cosine", zero, one).item() == similarity("cosine", one, zero).item() == 0
    assert similarity("cosine_distance", zero, zero).item() == 0
    assert similarity("cosine_distance", zero, one).item() == 1
    assert similarity("cosine", one, two).item() == 1


def test_invariances():
    a, b = pair((2, 3, 9, 11))
    assert torch.allclose(similarity("cosine", a, b), similarity("cosine", 1e-9 * a, 1e9 * b), atol=1e-12)
    assert torch.allclose(similarity("pearson", a, b), similarity("pearson", 1e-9 * a + 3e-9, 1e9 * b - 7e9), atol=1e-12)
    assert torch.allclose(similarity("spearman", a, b), similarity("spearman", a.exp(), b**3), atol=1e-12)
    for scale in (1e-250, 1e250):
        assert torch.allclose(similarity("cosine", a, b), similarity("cosine", scale * a, scale * b), atol=1e-12)
        assert torch.allclose(similarity("pearson", a, b), similarity("pearson", scale * a, scale * b), atol=1e-12)


def test_small_cosine_distances_keep_their_digits():
    a = torch.zeros(1, 1, 1, 2, dtype=torch.float64)
    a[..., 0] = 1
    b = a.clone()
    b[..., 1] = 1e-7
    assert similarity("cosine_distance", a, b).item() == pytest.approx(5e-15, rel=1e-6)


def test_specifications():
    assert Similarity.from_value(Cosine) == Similarity.from_value("cosine") == Cosine()
    assert str(Similarity.from_value("ssim:window=11,data_range=2")) == "ssim:window=11,data_range=2.0"
    assert list_similarities() == sorted(ENTRIES)
    with pytest.raises(sal.InputError, match=r"^Unknown similarity 'cosin': did you mean cosine, cosine_distance\?$"):
        similarity("cosin", torch.zeros(1, 2, 2), torch.zeros(1, 2, 2))
    with pytest.raises(sal.InputError, match=r"^A similarity is a name such as 'ssim', or a similarity such as sal\.SSIM\(window=11\), not int\.$"):
        Similarity.from_value(3)


@pytest.mark.parametrize("name", ENTRIES)
def test_documented(name):
    entry = ENTRIES[name]
    assert all(part in entry.cls.__doc__ for part in ("Cost:", "Source:", "Differs from"))
    assert entry.facts["cites"]
    assert entry.facts["of"] in ("maps", "images")
    assert isinstance(entry.facts["higher_is_better"], bool)
    assert Similarity.from_value(str(entry.cls())) == entry.cls()


def test_a_users_own_similarity():
    """Anything with `compare` will do, without being registered."""

    class Agreement(Similarity):
        def compare(self, first, second):
            return (first.sign() == second.sign()).double().mean((1, 2, 3))

    a = torch.tensor([[[[1.0, -1.0, 2.0, -2.0]]]])
    assert similarity(Agreement(), a, np.array([[[[3.0, -3.0, -3.0, -3.0]]]])).item() == 0.75
