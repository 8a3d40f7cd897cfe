"""Other tools, at work on PyTorch's plain network in a process of their own, as their users have them.

In ours they would be faster than they are: what a call of ours does to the heap stays.
"""

import functools
import itertools
import multiprocessing
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import torch

import salience as sal


class Elsewhere:
    """The other process. Arguments are sent to it once, when a case is made."""

    def __init__(self) -> None:
        self.process = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
        self.numbers = itertools.count()

    def case(self, work: Callable[..., object], *arguments: object) -> Callable[[], None]:
        """Have the tool at work: ``work(network, *arguments)``.

        Tensors go there as arrays: sent as they are, a thread of torch's would stay, beside which OpenMP's threads sleep instead of waiting awake, and all of ours would be a quarter slower.
        """
        number = next(self.numbers)
        sent = [each.numpy() if isinstance(each, torch.Tensor) else each for each in arguments]
        self.process.submit(_keep, number, work, sent).result()
        return lambda: self.process.submit(_run, number).result()


CASES: dict[int, Callable[[], object]] = {}
"""Those of the other process, there."""


def _keep(number: int, work: Callable[..., object], arguments: list[object]) -> None:
    warnings.simplefilter("ignore")
    CASES[number] = functools.partial(work, plain_network(), *(torch.from_numpy(each) if isinstance(each, np.ndarray) else each for each in arguments))


def _run(number: int) -> None:
    CASES[number]()


@functools.cache
def plain_network() -> torch.nn.Module:
    """The default network as its users have it."""
    return sal.load_model().module.to(memory_format=torch.contiguous_format).eval()
