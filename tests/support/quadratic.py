"""A network whose explanations are known exactly: scores f(x) = x'Ax/2 + b'x of the flattened image."""

import torch
from torch import nn

import salience as sal


class Quadratic(nn.Module):
    """Scores (n, 2): f and -f, with weights A and b as parameters."""

    def __init__(self, size: int, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        matrix = torch.randn(size, size, generator=generator) / size**0.5
        self.matrix = nn.Parameter((matrix + matrix.T) / 2)
        self.linear = nn.Parameter(torch.randn(size, generator=generator))

    def forward(self, x):
        flat = x.flatten(1)
        score = 0.5 * ((flat @ self.matrix) * flat).sum(1) + flat @ self.linear
        return torch.stack([score, -score], 1)


def quadratic(shape: tuple[int, int, int] = (3, 2, 3), seed: int = 0) -> sal.Model:
    """The model for images of a shape, without normalisation."""
    model = sal.Model(Quadratic(shape[0] * shape[1] * shape[2], seed), name="quadratic")
    model.weight_sigma = 0.1
    return model
