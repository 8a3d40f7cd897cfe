"""Explain what an image classifier saw, with an error bar on the map.

    import salience as sal

    model = sal.load_model("efficientnet-lite0")
    images = sal.load_images(["cat.jpg"], model)
    e = sal.explain("rise:samples=500", model, images)
    e.maps, e.stderr, e.show()
"""

__version__ = "0.1.0"

from salience.core.classifier import Classifier
from salience.core.errors import InputError
from salience.core.explainer import Explainer, explain, list_methods
from salience.core.explanation import Explanation
from salience.core.model import BlackBox, Model
from salience.core.montecarlo import Attribution
from salience.core.options import option
from salience.core.registry import register
from salience.explainers.beta_smoothing import BetaSmoothing
from salience.explainers.fusiongrad import FusionGrad
from salience.explainers.gradient import Gradient
from salience.explainers.gradient_shap import GradientShap
from salience.explainers.input_x_gradient import InputXGradient
from salience.explainers.integrated_gradients import IntegratedGradients
from salience.explainers.noisegrad import NoiseGrad
from salience.explainers.smoothgrad import SmoothGrad
from salience.explainers.smoothgrad_squared import SmoothGradSquared
from salience.explainers.uniformgrad import UniformGrad
from salience.explainers.vargrad import VarGrad
from salience.zoo.images import load_images
from salience.zoo.models import list_models, load_model

__all__ = [
    # the main job
    "explain",
    "load_images",
    "load_model",
    "list_methods",
    "list_models",
    # what goes in and comes out
    "BlackBox",
    "Classifier",
    "Explanation",
    "InputError",
    "Model",
    # methods: gradients
    "Gradient",
    "InputXGradient",
    "IntegratedGradients",
    # methods: averages over noise
    "FusionGrad",
    "GradientShap",
    "NoiseGrad",
    "SmoothGrad",
    "SmoothGradSquared",
    "UniformGrad",
    "VarGrad",
    # methods: changed networks
    "BetaSmoothing",
    # to write a method
    "Attribution",
    "Explainer",
    "option",
    "register",
]
