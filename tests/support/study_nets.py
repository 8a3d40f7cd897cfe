"""A small network whose predictions differ from picture to picture: ``python:study_nets:balanced``."""

import torch
from torch import nn

import salience as sal

HEIGHT, WIDTH = 24, 32


def balanced():
    """Two convolutions on 24 x 32 and five classes, each of which is the likeliest of some colours."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)).eval()
        with torch.no_grad():
            colours = 2 * torch.rand(200, 3, 1, 1).expand(-1, -1, HEIGHT, WIDTH) - 1
            scores = net(colours)
            net[-1].weight /= scores.std(0)[:, None]
            net[-1].bias /= scores.std(0)
            net[-1].bias -= net(colours).mean(0)
    model = sal.Model(net, mean=(0.5,) * 3, std=(0.5,) * 3, size=(HEIGHT, WIDTH), labels=["ant", "bee", "cat", "dog", "eel"], name="balanced")
    model.crop_fraction = 1.0  # pictures of this size are seen as they are
    return model
