"""CIFAR-10: small photographs."""

from salience.core.registry import register
from salience.zoo.data._arrays import Arrays


@register("dataset", "cifar10", cites="Krizhevsky 2009")
class CIFAR10(Arrays):
    """Photographs of ten classes, 32 x 32: 50,000 to train with and 10,000 to test.

    `root` holds torchvision's ``cifar-10-batches-py``; or ``cifar10.npz`` with ``x_train``, ``y_train``, ``x_test``,
    ``y_test``; or ``cifar10_jpeg.npz`` with JPEG bytes, on which networks trained on the exact pixels lose accuracy.
    """

    source = "CIFAR10"
    layout = "cifar-10-batches-py"
    files = ("cifar10.npz", "cifar10_jpeg.npz")

    @property
    def classes(self) -> list[str]:
        """The ten class names."""
        return ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
