"""The study file: what is compared on what. Every mistake in it is named with its line."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from salience.core.errors import InputError, unknown
from salience.core.registry import entries
from salience.core.robustness import Variant
from salience.core.spec import build
from salience.zoo.datasets import Dataset, load_dataset
from salience.zoo.models import FAMILIES, elsewhere, list_models


def _specification(*kinds: str) -> Callable[[str], str]:
    """A check that a text is a specification of one of some kinds; the text in its shortest form."""

    def check(text: str) -> str:
        name = text.strip().partition(":")[0]
        known = [kind for kind in kinds if name in entries(kind) or f"{name}:*" in entries(kind)]
        if not known and "=" in name:
            raise InputError(f"{name!r} is no name: in a list in square brackets put what has commas of its own in quotes, such as ['rise:samples=500,grid=4'].")
        if not known:
            raise unknown("method" if "explainer" in kinds else kinds[0], name, [each.replace("*", "NAME") for kind in kinds for each in entries(kind)])
        return str(build(known[0], text))

    return check


def _model(name: str) -> str:
    """Check the name of a model without loading it; in other libraries, folders and modules there may be anything."""
    kind, colon, _ = name.partition(":")
    if not (colon and kind in FAMILIES) and name not in list_models():
        raise unknown("model", name, [*list_models(), *elsewhere(name)])
    return name


def _several(value: Any) -> Any:
    """One text where a list is expected."""
    return [value] if isinstance(value, str) else value


def _number(value: Any) -> Any:
    """No true or false, which would be 1 or 0, where a number is expected."""
    if isinstance(value, bool):
        raise PydanticCustomError("number", "input should be a whole number, not {given}", {"given": str(value).lower()})
    return value


Whole = Annotated[int, BeforeValidator(_number)]
Method = Annotated[str, AfterValidator(_specification("explainer"))]
Network = Annotated[str, AfterValidator(_model)]
Measured = Annotated[str, AfterValidator(_specification("metric", "similarity"))]
Perturbed = Annotated[str, AfterValidator(_specification("perturbation"))]
Several = BeforeValidator(_several)


class Data(BaseModel):
    """Which pictures: a data set by name and its options, and which classes are explained.

    Attributes:
        dataset: Name of the data set; ``folder: DIR`` is short for ``dataset: folder`` with ``root: DIR``.
        targets: ``predicted`` (by each model), ``labels`` (the first label), or ``all_labels``.
        limit: Pictures at most; a study may be resumed with a larger one.
        options: The data set's own options.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: str
    targets: Literal["predicted", "labels", "all_labels"] = "predicted"
    limit: Whole | None = Field(None, ge=1)
    options: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _sorted_out(cls, given: Any) -> Any:
        if isinstance(given, cls) or (isinstance(given, dict) and "options" in given and set(given) <= set(cls.model_fields)):
            return given
        given = {str(key): value for key, value in given.items()} if isinstance(given, dict) else {}
        if "folder" in given:
            if "dataset" in given:
                raise InputError("data has a folder and a dataset: give folder: DIR, or dataset: NAME and root: DIR.")
            given |= {"dataset": "folder", "root": given.pop("folder")}
        own = {key: given.pop(key) for key in ("dataset", "targets", "limit") if key in given}
        if "dataset" not in own:
            raise InputError("data needs a folder (folder: DIR) or a data set (dataset: NAME, root: DIR).")
        return own | {"options": given}

    @model_validator(mode="after")
    def _exists(self) -> "Data":
        known = entries("dataset")
        own = [field.name for field in fields(known[self.dataset].cls)] if self.dataset in known else list(self.options)
        for key in self.options:
            if key not in own:
                raise unknown(f"option of {self.dataset}:", key, dict.fromkeys([*own, "targets", "limit"]))
        self.load()
        return self

    def load(self) -> Dataset:
        """The data set."""
        return load_dataset(self.dataset, **self.options)


class Study(BaseModel):
    """A study: every combination of models, methods, metrics and so on over some pictures.

    Attributes:
        name: What reports call it.
        seed: Of everything drawn; the seeds of pictures and of weights come from it.
        models: Names for `load_model`.
        data: The pictures.
        methods: Specifications of explainers.
        perturbations: What is done to the pictures.
        metrics: Specifications of metrics, and of similarities for the perturbations.
        variants: How maps of perturbed pictures are made.
        seeds: Repetitions: each gives new draws.
        score: What is explained; none takes each method's own. Methods whose maps depend on no score, such as the controls, ignore it.
        precision: ``float32`` or ``bfloat16``.
        device: For example ``cpu``.
        fit: How pictures are brought to the model's size; none takes the model's own.
        chunk: Images in one pass; none takes it from the image size.
        keep_maps: Pictures, from the first on, whose maps are stored too.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1)
    data: Data
    models: Annotated[list[Network], Several] = Field(["efficientnet-lite0"], min_length=1)
    methods: Annotated[list[Method], Several] = Field(min_length=1)
    perturbations: Annotated[list[Perturbed], Several] = []
    metrics: Annotated[list[Measured], Several] = Field([], validate_default=True)
    variants: Annotated[list[Variant], Several] = Field(["common", "as_is", "fresh", "floor"], min_length=1)
    seed: Whole = 0
    seeds: list[Annotated[int, Field(ge=-(2**63), lt=2**63), BeforeValidator(_number)]] = Field([0], min_length=1)
    score: Literal["logit", "probability", "log_probability", "sigmoid"] | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    device: str = "cpu"
    fit: Literal["crop", "squash", "pad"] | None = None
    chunk: Whole | None = Field(None, ge=1)
    keep_maps: Whole = Field(0, ge=0)

    @field_validator("models", "methods", "metrics", "perturbations", "variants", "seeds")
    @classmethod
    def _once(cls, given: list) -> list:
        twice = [each for place, each in enumerate(given) if each in given[:place]]
        if twice:
            raise InputError(f"{twice[0]} is listed twice: list each once.")
        return given

    @field_validator("metrics")
    @classmethod
    def _used(cls, given: list[str], info: Any) -> list[str]:
        """Similarities compare the maps of perturbed pictures: neither is of use without the other."""
        known = entries("similarity")
        similar = [each for each in given if each.partition(":")[0] in known]
        of_images = [each for each in similar if known[each.partition(":")[0]].facts["of"] == "images"]
        perturbations = info.data.get("perturbations")
        if of_images:
            raise InputError(f"A study cannot measure {', '.join(of_images)}, which compares images and not maps: leave it out, or take a similarity of maps such as ssim.")
        if similar and perturbations == []:
            raise InputError(f"The metrics {', '.join(similar)} compare maps of perturbed pictures, but there are no perturbations: add some, for example perturbations: [gaussian_noise].")
        if perturbations and not similar:
            raise InputError(f"The perturbations {', '.join(perturbations)} are of no use without a similarity among the metrics: add one, for example ssim.")
        return given

    @property
    def quality(self) -> list[str]:
        """The metrics of a map."""
        return [each for each in self.metrics if each.partition(":")[0] in entries("metric")]

    @property
    def similarities(self) -> list[str]:
        """The similarities of the map of a perturbed picture to that of the picture itself."""
        return [each for each in self.metrics if each.partition(":")[0] in entries("similarity")]


def read_study(path: str | Path) -> Study:
    """The study in a YAML file.

    Raises:
        InputError: If it cannot be read or something in it is wrong; the line is named.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({getattr(error, 'strerror', None) or 'not UTF-8'}): give a YAML file that describes a study.") from error
    try:
        document = YAML(typ="rt").load(text)
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InputError(f"{path}, line {line}: {error.problem or error}.") from error
    except YAMLError as error:
        raise InputError(f"{path} is not YAML: {error}.") from error
    if not isinstance(document, dict):
        raise InputError(f"{path}, line 1: a study is a list of 'key: value' lines, beginning with 'name: ...'.")
    try:
        return Study.model_validate(_plain(document))
    except ValidationError as error:
        first = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")  # a misspelt key also seems to be missing
        raise InputError(f"{path}, line {_line(document, _place(document, first))}: {_message(first)}") from error


def _plain(value: Any) -> Any:
    """YAML's own kinds of dict, list, number and text as Python's."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return value


def _place(document: Any, error: ErrorDetails) -> tuple:
    """Where in a document something is wrong; of the data as a whole, the option that the message names or quotes."""
    place, data, said = error["loc"], document.get("data"), str(error.get("ctx", {}).get("error"))
    if place != ("data",) or not isinstance(data, dict):
        return place
    named = [key for key in data if f"'{key}'" in said or f": {key}:" in said]
    quoted = sorted((said.index(value), key) for key, value in data.items() if isinstance(value, str) and value and value in said)
    return (*place, *[*named, *(key for _, key in quoted)][:1])


def _line(document: Any, place: tuple) -> int:
    """The line of the deepest part of a document on the way to a place."""
    line = 0
    for key in place:
        positions = getattr(getattr(document, "lc", None), "data", None) or {}
        if key not in positions:
            break
        line = positions[key][0]
        document = document[key]
    return line + 1


def _message(error: ErrorDetails) -> str:
    """What pydantic found, in our words."""
    place = ".".join(str(key) for key in error["loc"] if isinstance(key, str)) or "the study"
    cause = error.get("ctx", {}).get("error")
    if isinstance(cause, InputError):
        return str(cause)
    if error["type"] == "extra_forbidden":
        return str(unknown("key", str(error["loc"][-1]), Study.model_fields))
    if error["type"] == "missing":
        return f"{place} is missing: add it."
    if error["type"] == "literal_error":
        return f"{place}: {error['input']!r} is not known; give {error['ctx']['expected']}."
    if error["type"] == "string_type" and isinstance(error["input"], dict):
        key = next(iter(error["input"]), "")
        return f"{place}: a colon with a blank after it begins a value of its own: leave the blank out, as in '{key}:option=number'."
    return f"{place}: {error['msg'][0].lower()}{error['msg'][1:]}."
