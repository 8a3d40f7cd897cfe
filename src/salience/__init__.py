"""Explain what an image classifier saw, with an error bar on the map.

import salience as sal

model = sal.load_model("efficientnet-lite0")
images = sal.load_images(["cat.jpg"], model)
e = sal.explain("rise:samples=500", model, images)
e.maps, e.stderr, e.show()
"""

from typing import Any

import lazy_loader

from salience.core.imports import same_random_numbers

__version__ = "0.1.0"
_imported, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    """A name of the public face, imported when it is first used."""
    with same_random_numbers():
        return _imported(name)
