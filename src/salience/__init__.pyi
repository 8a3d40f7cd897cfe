"""The public face, in sections. `__init__.py` imports each name from here when it is first used."""

__version__: str

from .core.classifier import Classifier
from .core.errors import InputError
from .core.explainer import Explainer, MonteCarlo, explain, list_methods
from .core.explanation import Explanation
from .core.metric import Judgement, Metric, list_metrics, measure
from .core.model import BlackBox, Model
from .core.montecarlo import Attribution, Draws
from .core.options import option
from .core.registry import register
from .explainers.attention_rollout import AttentionRollout
from .explainers.beta_smoothing import BetaSmoothing
from .explainers.cam import CAM
from .explainers.centre import Centre
from .explainers.contrastive_excitation_backprop import ContrastiveExcitationBackprop
from .explainers.deconvnet import DeconvNet
from .explainers.edges import Edges
from .explainers.excitation_backprop import ExcitationBackprop
from .explainers.fusiongrad import FusionGrad
from .explainers.gradcam import GradCAM
from .explainers.gradient import Gradient
from .explainers.gradient_shap import GradientShap
from .explainers.guided_backprop import GuidedBackprop
from .explainers.input_x_gradient import InputXGradient
from .explainers.integrated_gradients import IntegratedGradients
from .explainers.lime import Lime
from .explainers.lrp import LRP
from .explainers.noisegrad import NoiseGrad
from .explainers.occlusion import Occlusion
from .explainers.peers_captum import Captum
from .explainers.peers_gradcam import PytorchGradCAM
from .explainers.peers_zennit import Zennit
from .explainers.random import Random
from .explainers.rise import Rise
from .explainers.smoothgrad import SmoothGrad
from .explainers.smoothgrad_squared import SmoothGradSquared
from .explainers.uniformgrad import UniformGrad
from .explainers.vargrad import VarGrad
from .interop import quantus_explain_func
from .metrics.deletion import Deletion
from .metrics.insertion import Insertion
from .zoo.images import load_images
from .zoo.models import list_models, load_model

__all__ = [
    # the main job
    "explain",
    "load_images",
    "load_model",
    "measure",
    "list_methods",
    "list_metrics",
    "list_models",
    # what goes in and comes out
    "BlackBox",
    "Classifier",
    "Explanation",
    "InputError",
    "Judgement",
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
    # methods: changed networks and backward passes
    "BetaSmoothing",
    "ContrastiveExcitationBackprop",
    "DeconvNet",
    "ExcitationBackprop",
    "GuidedBackprop",
    "LRP",
    # methods: layers
    "AttentionRollout",
    "CAM",
    "GradCAM",
    # methods: scores only
    "Lime",
    "Occlusion",
    "Rise",
    # controls, which ignore the model
    "Centre",
    "Edges",
    "Random",
    # metrics: faithfulness
    "Deletion",
    "Insertion",
    # other libraries
    "Captum",
    "PytorchGradCAM",
    "Zennit",
    "quantus_explain_func",
    # to write a method or a metric
    "Attribution",
    "Draws",
    "Explainer",
    "Metric",
    "MonteCarlo",
    "option",
    "register",
]
