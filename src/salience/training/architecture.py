"""What an architecture is: a frozen set of options that builds an untrained network."""

from dataclasses import dataclass

from torch import nn

from salience.core import registry
from salience.core.options import Options, option


@dataclass(frozen=True, repr=False)
class Architecture(Options):
    """Base of all architectures. One is a frozen dataclass with a docstring and `build`.

    The networks are those of the papers, for images of 32 x 32, except where the docstring says otherwise; the
    default width is the papers'. No operation works in place, and none has options that attribution cannot follow.
    """

    kind = "architecture"
    expected = "An architecture is a specification such as 'resnet9:width=16'"

    width: int = option(64, "channels of the first convolution; all others follow", at_least=1)
    classes: int = option(10, "classes; salience train takes them from the data", at_least=1)
    channels: int = option(3, "channels of an image", at_least=1)

    def build(self) -> nn.Module:
        """An untrained network from normalised images (n, channels, h, w) to logits (n, classes)."""
        raise NotImplementedError

    def begin(self) -> nn.Module:
        """The network that training begins with: untrained, unless an option brings weights."""
        return self.build()


def list_architectures() -> list[str]:
    """The names of all architectures."""
    return list(registry.entries("architecture"))
