"""Translation."""

import numpy as np
import torch

from salience.perturbations.translation import Translation


def test_shift_repeats_the_edge():
    image = np.arange(20 * 10, dtype=np.float32).reshape(20, 10) / 200
    found = Translation(right=0.3, down=-0.1)(torch.from_numpy(image)[None, None])[0, 0].numpy()
    expected = np.pad(image, ((0, 2), (3, 0)), mode="edge")[2:, :10]
    assert np.array_equal(found, expected)


def test_exactly_undone_where_visible():
    shift, images = Translation(right=-0.25, down=0.2), torch.rand(2, 3, 11, 13)
    visible = shift.visible((11, 13))
    back = shift.undo(shift(images))
    assert torch.equal(back[..., visible], images[..., visible])
    assert (back[..., ~visible] == 0).all()
    assert visible.sum() == (11 - 2) * (13 - 3)
    assert not visible[:, :3].any()
    assert not visible[-2:].any()


def test_what_comes_from_inside():
    inside = Translation(right=0.3, down=-0.2).inside((10, 10))
    assert inside[:8, 3:].all()
    assert inside.sum() == 56
