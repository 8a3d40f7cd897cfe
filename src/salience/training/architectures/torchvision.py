"""torchvision's classifiers, for photographs."""

from typing import Any

from torch import nn

from salience.core.errors import InputError, unknown
from salience.core.options import option
from salience.core.registry import register
from salience.training.architecture import Architecture


@register("architecture", "torchvision:*", cites="torchvision")
class Torchvision(Architecture):
    """A network of torchvision by name, for example ``torchvision:resnet18``, for images of any size that it takes.

    Source: torchvision's documentation.

    Differs from the source: the last layer has as many outputs as there are classes; with `pretrained` it alone is new. Width
    and channels are torchvision's own.
    """

    member: str = option("resnet18", "its name in torchvision.models")
    pretrained: bool = option(False, "whether it begins with torchvision's own weights, which are then downloaded")

    @property
    def name(self) -> str:
        """The library and its network."""
        return f"torchvision:{self.member}"

    def changed(self) -> dict[str, Any]:
        """The options that differ from their defaults; the member is in the name."""
        return {key: value for key, value in super().changed().items() if key != "member"}

    def build(self) -> nn.Module:
        """An untrained network.

        Raises:
            InputError: If there is no such network.
        """
        import torchvision.models as zoo

        if self.changed().get("channels", 3) != 3 or "width" in self.changed():
            raise InputError(f"{self.name} has its own width, and 3 channels: leave these options out.")
        known = zoo.list_models(module=zoo)
        if self.member not in known:
            raise unknown("torchvision model", self.member, known)
        return zoo.get_model(self.member, weights=None, num_classes=self.classes)

    def begin(self) -> nn.Module:
        """A network with torchvision's weights wherever they fit, if `pretrained` is set.

        Raises:
            InputError: If the weights cannot be had.
        """
        import torchvision.models as zoo

        network = self.build()
        if self.pretrained:
            own = network.state_dict()
            try:
                stored = zoo.get_model_weights(self.member).DEFAULT.get_state_dict(progress=False)
            except OSError as error:
                raise InputError(f"The weights of {self.name} could not be downloaded ({error}): begin untrained with --architecture {self.name}.") from error
            network.load_state_dict(own | {key: value for key, value in stored.items() if own[key].shape == value.shape})
        return network
