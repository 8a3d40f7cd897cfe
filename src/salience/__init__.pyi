"""The public face, in sections. `__init__.py` imports each name from here when it is first used."""

__version__: str

from .attacks.attack import Attack, attack
from .attacks.attacked import Attacked
from .attacks.centre_of_mass import CentreOfMass
from .attacks.delta import Delta
from .attacks.recolor import ReColor
from .attacks.stadv import StAdv
from .attacks.target_map import TargetMap
from .attacks.top_k import TopK
from .core.black_box import BlackBox
from .core.classifier import Classifier
from .core.errors import InputError, UndefinedError
from .core.explainer import Explainer, MonteCarlo, explain, list_methods
from .core.explanation import Explanation
from .core.metric import Judgement, Metric, list_metrics, measure
from .core.model import Model
from .core.montecarlo import Attribution, Draws
from .core.objective import Objective, list_objectives
from .core.options import option
from .core.perturbation import Perturbation, list_perturbations
from .core.registry import register
from .core.similarity import Similarity, list_similarities, similarity
from .core.threat import Threat, list_threats
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
from .metrics.entropy import Entropy
from .metrics.faithfulness_correlation import FaithfulnessCorrelation
from .metrics.gini import Gini
from .metrics.grid_pointing_game import GridPointingGame
from .metrics.infidelity import Infidelity
from .metrics.insertion import Insertion
from .metrics.localisation_auc import LocalisationAUC
from .metrics.max_sensitivity import MaxSensitivity
from .metrics.parameter_randomisation import ParameterRandomisation
from .metrics.pointing_game import PointingGame
from .metrics.random_logit import RandomLogit
from .metrics.relevance_mass_accuracy import RelevanceMassAccuracy
from .metrics.relevance_rank_accuracy import RelevanceRankAccuracy
from .metrics.road import Road
from .metrics.sensitivity_n import SensitivityN
from .metrics.top_k_in_mask import TopKInMask
from .perturbations.brightness import Brightness
from .perturbations.gaussian_blur import GaussianBlur
from .perturbations.gaussian_noise import GaussianNoise
from .perturbations.horizontal_flip import HorizontalFlip
from .perturbations.jpeg import Jpeg
from .perturbations.rotation import Rotation
from .perturbations.translation import Translation
from .perturbations.uniform_noise import UniformNoise
from .show.figures import contact_sheet
from .similarities.cosine import Cosine
from .similarities.cosine_distance import CosineDistance
from .similarities.lpips import LPIPS
from .similarities.mse import MSE
from .similarities.pearson import Pearson
from .similarities.spearman import Spearman
from .similarities.ssim import SSIM
from .studies.audit import audit
from .studies.report import write_report
from .studies.report_card import Finding
from .studies.run import run_study
from .studies.store import Store
from .studies.study import Study, read_study
from .studies.tuned import Tuning
from .studies.tuning import tune
from .training.architecture import Architecture, list_architectures
from .training.loop import train
from .training.pgd import pgd
from .training.pictures import Pictures
from .training.recipe import Recipe, list_recipes
from .zoo.data.cifar10 import CIFAR10
from .zoo.data.cmnist import CMNIST
from .zoo.data.coco import Coco
from .zoo.data.folder import Folder
from .zoo.data.imagenet import ImageNet
from .zoo.data.mnist import MNIST
from .zoo.data.mosaic import Mosaic
from .zoo.data.voc import Voc
from .zoo.datasets import Dataset, Item, list_datasets, load_dataset
from .zoo.images import load_images
from .zoo.models import list_models, load_model
from .zoo.tensors import read_pictures

__all__ = [
    # the main job
    "explain",
    "load_images",
    "load_model",
    "measure",
    "audit",
    "attack",
    "similarity",
    "contact_sheet",
    "load_dataset",
    "list_datasets",
    "list_methods",
    "list_metrics",
    "list_models",
    "list_objectives",
    "list_perturbations",
    "list_similarities",
    "list_threats",
    # what goes in and comes out
    "BlackBox",
    "Classifier",
    "Explanation",
    "InputError",
    "Judgement",
    "Model",
    "UndefinedError",
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
    # attacks
    "Attack",
    "Attacked",
    "CentreOfMass",
    "Delta",
    "Objective",
    "ReColor",
    "StAdv",
    "TargetMap",
    "Threat",
    "TopK",
    # metrics: faithfulness
    "Deletion",
    "FaithfulnessCorrelation",
    "Infidelity",
    "Insertion",
    "Road",
    "SensitivityN",
    # metrics: localisation
    "GridPointingGame",
    "LocalisationAUC",
    "PointingGame",
    "RelevanceMassAccuracy",
    "RelevanceRankAccuracy",
    "TopKInMask",
    # metrics: robustness
    "MaxSensitivity",
    # metrics: randomisation
    "ParameterRandomisation",
    "RandomLogit",
    # metrics: complexity
    "Entropy",
    "Gini",
    # similarities of two maps, or of two images
    "Cosine",
    "CosineDistance",
    "LPIPS",
    "MSE",
    "Pearson",
    "Spearman",
    "SSIM",
    # perturbations of images
    "Brightness",
    "GaussianBlur",
    "GaussianNoise",
    "HorizontalFlip",
    "Jpeg",
    "Rotation",
    "Translation",
    "UniformNoise",
    # data sets
    "Dataset",
    "Item",
    "CIFAR10",
    "CMNIST",
    "Coco",
    "Folder",
    "ImageNet",
    "MNIST",
    "Mosaic",
    "Voc",
    # studies
    "Finding",
    "Store",
    "Study",
    "read_study",
    "run_study",
    "write_report",
    # levels of noise
    "Tuning",
    "tune",
    # training
    "Architecture",
    "Pictures",
    "Recipe",
    "list_architectures",
    "list_recipes",
    "pgd",
    "read_pictures",
    "train",
    # other libraries
    "Captum",
    "PytorchGradCAM",
    "Zennit",
    "quantus_explain_func",
    # to write a method, a metric, a similarity or a perturbation
    "Attribution",
    "Draws",
    "Explainer",
    "Metric",
    "MonteCarlo",
    "Perturbation",
    "Similarity",
    "option",
    "register",
]
