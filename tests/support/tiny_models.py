"""Small models for the command line: ``python:tiny_models:NAME``."""

import os
import time
import warnings
from pathlib import Path

import torch
from torch import nn

import salience as sal
from salience.core.errors import CollapseWarning

LABELS = ["ant", "bee", "Egyptian cat", "dog", "eel"]


class Net(nn.Module):
    """Two convolutions; any size."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.first, self.second, self.head = nn.Conv2d(3, 6, 3, stride=2), nn.Conv2d(6, 8, 3), nn.Linear(8, 5)
            nn.init.normal_(self.head.weight, 0, 3.0)

    def forward(self, x):
        return self.head(torch.relu(self.second(torch.relu(self.first(x)))).mean((2, 3)))


class Raises(Net):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def forward(self, x):
        raise self.error


class Slow(Net):
    """Tells through a file that it has begun; then takes its time."""

    def forward(self, x):
        Path(os.environ["BEGUN"]).touch()
        time.sleep(0.05)
        return super().forward(x)


class Worried(Net):
    def forward(self, x):
        warnings.warn_explicit("the networks\nno longer see the class", CollapseWarning, __file__, 1, module="salience.core.explainer")
        return super().forward(x)


class Nan(Net):
    def forward(self, x):
        return super().forward(x) * float("nan")


class Shapeless(Net):
    def forward(self, x):
        return super().forward(x).mean(0)


def _model(net, size=(24, 32), **options):
    return sal.Model(net, mean=(0.5,) * 3, std=(0.25,) * 3, size=size, labels=LABELS, **options)


def net():
    return _model(Net())


def by_process():
    """Other weights in each process, whatever torch's generator is set to."""
    model = net()
    with torch.no_grad():
        model.module.head.bias += os.getpid()
    return model


def any_size():
    return _model(Net(), size=None)


def black_box():
    return sal.BlackBox(lambda images: Net()(images).softmax(1).detach(), size=(24, 32), labels=LABELS, name="box")


def nan():
    return _model(Nan(), name="nan")


def shapeless():
    return _model(Shapeless(), name="shapeless")


def slow():
    return _model(Slow())


def worried():
    return _model(Worried())


def broken():
    return _model(Raises(TypeError("no such\nluck")))


def hungry():
    return _model(Raises(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")))


def not_a_model():
    return 7
