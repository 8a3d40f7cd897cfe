"""Draws depend on the seed, the stream and the number, and on nothing else."""

import numpy as np
import pytest
import torch

from salience.core.draws import Stream, stack, streams
from salience.core.errors import InputError


def one(seed: int) -> Stream:
    return streams(seed, 1)[0]


def test_a_draw_is_made_alone():
    in_order = [one(3).normal((4, 5), "noise", i) for i in range(6)]
    assert torch.equal(one(3).normal((4, 5), "noise", 5), in_order[5])
    assert len({tuple(draw.flatten().tolist()) for draw in in_order}) == 6


def test_every_part_of_the_key_matters():
    keys = [(one(3), "noise", 1), (one(4), "noise", 1), (one(3), "masks", 1), (one(3), "noise", 2), (one(3).at(1), "noise", 1)]
    draws = {tuple(stream.normal((3,), *parts).tolist()) for stream, *parts in keys}
    assert len(draws) == 5


def test_all_of_the_seed_counts():
    """torch's CPU generator keeps 32 bits of a seed; two seeds that differ above must not agree."""
    assert not torch.equal(one(1).normal((4,), "noise", 0), one(1 + 2**32).normal((4,), "noise", 0))
    assert not torch.equal(one(-1).normal((4,), "noise", 0), one(1).normal((4,), "noise", 0))


def test_the_global_state_is_neither_used_nor_changed():
    torch.manual_seed(0)
    first = one(0).uniform((3,), "x", 0)
    state = torch.get_rng_state()
    torch.manual_seed(1)
    assert torch.equal(first, one(0).uniform((3,), "x", 0))
    torch.manual_seed(0)
    assert torch.equal(state, torch.get_rng_state())


def test_moments():
    normal, uniform = one(0).normal((200_000,), "n", 0), one(0).uniform((200_000,), "u", 0)
    assert abs(normal.mean()) < 5 / 200_000**0.5
    assert abs(normal.var() - 1) < 5 * (2 / 200_000) ** 0.5
    assert abs(uniform.mean() - 0.5) < 5 * (1 / 12 / 200_000) ** 0.5
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert normal.dtype == uniform.dtype == torch.float32


def test_seeds_per_image():
    assert streams([1, 2], 2)[1] == streams(2, 1)[0]
    own, shared = streams([(1, 9), (2, 9)], 2)
    assert own.key != shared.key
    assert own.weights == shared.weights == (9,)
    assert streams(np.int64(5), 1) == streams(5, 1)


@pytest.mark.parametrize(
    ("seed", "message"),
    [([1, 2, 3], r"3 seeds were given for 2 images: give one int, or one int per image\."), ([1.5, 2], r"A seed is an int, one int per image, or one pair of ints \(image, weights\) per image\.")],
)
def test_bad_seeds(seed, message):
    with pytest.raises(InputError, match=message):
        streams(seed, 2)


def test_stack_draws_equal_streams_once():
    calls = []

    def draw(stream: Stream) -> torch.Tensor:
        calls.append(stream)
        return stream.normal((2,), "x", 0)

    assert stack(streams(1, 3), draw).shape == (1, 2)
    assert len(calls) == 1
    stacked = stack(streams([1, 2, 1], 3), draw)
    assert len(calls) == 3
    assert torch.equal(stacked[0], stacked[2])
    assert not torch.equal(stacked[0], stacked[1])
