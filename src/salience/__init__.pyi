"""The public face, in sections. `__init__.py` imports each name from here when it is first used."""

__version__: str

from .core.classifier import Classifier
from .core.errors import InputError
from .core.explainer import Explainer, explain, list_methods
from .core.explanation import Explanation
from .core.model import BlackBox, Model
from .core.montecarlo import Attribution
from .core.options import option
from .core.registry import register
from .explainers.beta_smoothing import BetaSmoothing
from .explainers.fusiongrad import FusionGrad
from .explainers.gradient import Gradient
from .explainers.gradient_shap import GradientShap
from .explainers.input_x_gradient import InputXGradient
from .explainers.integrated_gradients import IntegratedGradients
from .explainers.noisegrad import NoiseGrad
from .explainers.smoothgrad import SmoothGrad
from .explainers.smoothgrad_squared import SmoothGradSquared
from .explainers.uniformgrad import UniformGrad
from .explainers.vargrad import VarGrad
from .zoo.images import load_images
from .zoo.models import list_models, load_model

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
