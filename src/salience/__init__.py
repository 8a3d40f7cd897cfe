"""Explain what an image classifier saw, with an error bar on the map.

import salience as sal

model = sal.load_model("efficientnet-lite0")
images = sal.load_images(["cat.jpg"], model)
e = sal.explain("rise:samples=500", model, images)
e.maps, e.stderr, e.show()
"""

import lazy_loader

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
