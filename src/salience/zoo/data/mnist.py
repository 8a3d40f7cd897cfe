"""MNIST: handwritten digits."""

from salience.core.registry import register
from salience.zoo.data._arrays import Arrays


@register("dataset", "mnist", cites="LeCun et al. 1998")
class MNIST(Arrays):
    """Handwritten digits, 28 x 28, grey: 60,000 to train with and 10,000 to test.

    `root` holds torchvision's ``MNIST/raw``, or ``mnist.npz`` with ``x_train``, ``y_train``, ``x_test``, ``y_test``.
    """

    source = "MNIST"
    layout = "MNIST/raw"
    files = ("mnist.npz",)

    @property
    def classes(self) -> list[str]:
        """The ten digits."""
        return [str(digit) for digit in range(10)]
