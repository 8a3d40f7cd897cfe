"""Small networks for the methods that look at layers."""

import torch
import torch.nn.functional as F
from torch import nn

import salience as sal


def seeded(make, seed: int = 0) -> nn.Module:
    """A network with random weights, and batch norms as after training; the global random state is left alone."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = make()
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 1.5)
                nn.init.uniform_(module.weight, -0.5, 1.5)
                nn.init.normal_(module.bias, 0, 0.3)
    return net.eval()


class Plain(nn.Module):
    """Convolutions, ReLUs as modules, pooling, a linear layer: what other libraries can explain."""

    def __init__(self, classes: int = 4, bias: bool = True) -> None:
        super().__init__()
        self.conv1, self.relu1 = nn.Conv2d(3, 6, 3, padding=1, bias=bias), nn.ReLU()
        self.pool = nn.MaxPool2d(2)
        self.conv2, self.relu2 = nn.Conv2d(6, 8, 3, padding=1, bias=bias), nn.ReLU()
        self.mean = nn.AvgPool2d(2)
        self.conv3, self.relu3 = nn.Conv2d(8, 8, 3, padding=1, bias=bias), nn.ReLU()
        self.average, self.flatten, self.head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes, bias=bias)

    def forward(self, x):
        x = self.pool(self.relu1(self.conv1(x)))
        x = self.relu3(self.conv3(self.mean(self.relu2(self.conv2(x)))))
        return self.head(self.flatten(self.average(x)))


class Functional(nn.Module):
    """`Plain`, with every operation called as a function: the same weights give the same scores."""

    def __init__(self, plain: Plain) -> None:
        super().__init__()
        self.plain = plain

    def forward(self, x):
        net = self.plain
        x = F.max_pool2d(torch.relu(F.conv2d(x, net.conv1.weight, net.conv1.bias, padding=1)), 2)
        x = F.avg_pool2d(F.conv2d(x, net.conv2.weight, net.conv2.bias, padding=1).clamp(min=0), 2)
        x = F.relu(F.conv2d(x, net.conv3.weight, net.conv3.bias, padding=1), inplace=True)
        return F.linear(x.mean((2, 3)), net.head.weight, net.head.bias)


class Residual(nn.Module):
    """Batch norm, in-place ReLUs, functional sums, and a shortcut that drops pixels and adds zero channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.conv2, self.bn2 = nn.Conv2d(6, 10, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(10)
        self.conv3, self.bn3 = nn.Conv2d(10, 10, 3, padding=1, groups=2), nn.BatchNorm2d(10)
        self.head = nn.Linear(10, 4)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        shortcut = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))
        x = self.bn2(self.conv2(x))
        x += shortcut
        x = F.relu(x, inplace=True)
        x = x + self.bn3(self.conv3(x))
        return self.head(F.adaptive_avg_pool2d(torch.relu_(x), 1).flatten(1))


def model(net: nn.Module, **options) -> sal.Model:
    return sal.Model(net, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3), name=type(net).__name__.lower(), **options)


def pictures(n: int = 2, height: int = 16, width: int = 20) -> torch.Tensor:
    return torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(5))


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """Relative L2 distance."""
    return ((a - b).norm() / b.norm().clamp_min(1e-12)).item()


def vit(size=(16, 24), **options) -> nn.Module:
    import timm

    def make():
        net = timm.models.VisionTransformer(img_size=size, patch_size=8, embed_dim=16, depth=2, num_heads=2, num_classes=5, **options)
        nn.init.normal_(net.head.weight, 0, 1.0)
        return net

    return seeded(make)
