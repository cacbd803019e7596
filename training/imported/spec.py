"""The YAML that describes a file of weights: what its keys cannot say."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, model_validator

from data_specs.ecg.recording import LEADS, Filling
from training.imported.files import ImportRefused

Source = Literal["torchxrayvision", "chexnet", "torchvision"]

ADULT_YEARS = (18.0, 121.0)


FILMS_ONLY = ("source", "head", "input_size", "normalisation", "channels", "activation", "op_threshs")
"""Entries that a network for recordings does not have."""


class EcgValues(BaseModel):
    """Mean and deviation of all leads, in the unit of the input."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    mean: float
    std: float = Field(gt=0)


class Pixels(BaseModel):
    """Mean and deviation for pixels of 0 to 1, one value for all channels or one for each."""

    model_config = ConfigDict(extra="forbid")
    mean: tuple[float, ...] | float
    std: tuple[float, ...] | float


class Head(BaseModel):
    """A head that is not torchvision's: widths between features and classes, and what is after each of them."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    hidden: tuple[Annotated[int, Field(ge=1, le=8192)], ...]
    activation: Literal["relu", "hardswish", "silu", "gelu"] = "relu"


class EcgContract(BaseModel):
    """How a network takes a recording.

    Parameters
    ----------
    fs_hz, n_samples
        Rate and length of its input.
    unit
        Of its input, where that is a voltage; a number is a multiple of mV.
    leads
        In its order; the twelve of :data:`data_specs.ecg.recording.LEADS` if left out.
    band_hz
        Pass band of a zero-phase filter; left out, none.
    normalisation
        ``none``; ``lead`` or ``recording`` (mean 0 and deviation 1); or ``{mean: …, std: …}`` in the unit.
    filling
        What a shorter recording is filled with: ``zeros`` on both sides, or ``continue``, beats of its own.
    crops
        ``[samples, step]``: it sees crops, and the largest logit is that of the recording.
    max_windows
        Of a longer recording.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    fs_hz: int = Field(ge=50, le=1000)
    n_samples: int = Field(ge=100, le=30_000)
    unit: Literal["mV", "uV", "V"] | Annotated[float, Field(gt=0)] = "mV"
    leads: tuple[str, ...] = LEADS
    band_hz: tuple[float, float] | None = None
    normalisation: Literal["none", "lead", "recording"] | EcgValues = Field(
        "none", validation_alias=AliasChoices("normalisation", "normalization")
    )
    filling: Filling = "continue"
    crops: tuple[Annotated[int, Field(ge=50)], Annotated[int, Field(ge=1)]] | None = None
    max_windows: int = Field(6, ge=1, le=12)


class Spec(BaseModel):
    """The YAML that describes a checkpoint.

    Parameters
    ----------
    modality
        ``cxr`` (films) or ``ecg`` (recordings).
    source
        ``torchxrayvision``, ``chexnet`` (NIH's fourteen classes) or ``torchvision``; if left out, it is recognised by
        the keys where they are clear. The first two have known classes, input size and normalisation.
    architecture
        Name of a torchvision classifier, such as ``resnet50``.
    head
        ``{hidden: [256], activation: hardswish}`` where the head is not torchvision's.
    classes
        Names of the outputs in their order, ``""`` for an untrained output; or those that matter by their number from
        0, with ``outputs``.
    outputs
        How many there are, where not all are named.
    input_size
        Side of the square input, px.
    normalisation
        ``imagenet``; ``torchxrayvision`` (-1024 to 1024); ``unit`` (0 to 1); or ``{mean: [...], std: [...]}``.
    channels
        1 or 3; if left out, that of the first convolution.
    activation
        ``sigmoid`` (each class independently) or ``softmax`` (classes exclude each other).
    findings
        Class to finding of the vocabulary, for classes with other names.
    any_of
        Finding to several classes: its logit is the largest of theirs (recordings only).
    input
        How a network takes a recording (recordings only).
    op_threshs
        Threshold of each class on its sigmoid, ``null`` for none.
    age_years
        Ages that the findings are offered for, upper bound not included; adults if left out.
    weights_key, ignore_keys
        The set of weights to use if a file has several; keys that are not part of the network.
    own_class
        Class of a package that this network is held against, such as ``torchxrayvision.models.DenseNet``.
    trained_on, citation
        For the card, as stated by the authors.
    limits
        Further limits, for the card.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    modality: Literal["cxr", "ecg"] = "cxr"
    source: Source | None = None
    architecture: str | None = None
    head: Head | None = None
    outputs: int | None = Field(None, ge=1, le=10_000)
    classes: tuple[str, ...] | None = None
    input_size: int | None = Field(None, ge=32, le=1024, validation_alias=AliasChoices("input_size", "size", "size_px"))
    normalisation: Literal["imagenet", "torchxrayvision", "unit"] | Pixels | None = Field(
        None, validation_alias=AliasChoices("normalisation", "normalization")
    )
    channels: Literal[1, 3] | None = None
    activation: Literal["sigmoid", "softmax"] | None = None
    findings: dict[str, str] = {}
    any_of: dict[str, tuple[str, ...]] = {}
    input: EcgContract | None = None
    op_threshs: tuple[float | None, ...] | None = None
    age_years: tuple[float, float] = ADULT_YEARS
    weights_key: str | None = None
    ignore_keys: tuple[str, ...] = ()
    own_class: str | None = None
    trained_on: str = "not stated"
    citation: str = "not stated"
    limits: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _number_the_classes(cls, content: Any) -> Any:
        """``classes`` by their number become all of them in their order, the others without a name."""
        if not isinstance(content, dict) or not isinstance(content.get("classes"), dict):
            return content
        try:
            named, outputs = {int(k): str(v) for k, v in content["classes"].items()}, int(content.get("outputs", 0))
        except ValueError:
            raise ValueError("classes by their number: {2: Normal}, with 'outputs'") from None
        if not named or not 0 <= min(named) <= max(named) < outputs:
            raise ValueError(f"classes by their number: from 0 to one less than 'outputs' ({outputs})")
        return {**content, "classes": [named.get(i, "") for i in range(outputs)]}

    @model_validator(mode="after")
    def _belongs_together(self) -> Self:
        if self.outputs is not None and self.classes is not None and len(self.classes) != self.outputs:
            raise ValueError(f"outputs: {self.outputs}, and {len(self.classes)} classes are named")
        recording = [entry for entry in ("any_of", "input") if getattr(self, entry)]
        film = [entry for entry in FILMS_ONLY if getattr(self, entry)]
        if wrong := (film if self.modality == "ecg" else recording):
            raise ValueError(f"{', '.join(wrong)}: not for 'modality: {self.modality}'")
        return self


def read_spec(path: Path | None) -> Spec:
    if path is None:
        return Spec()
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ImportRefused(f"{path}: cannot be read as YAML: {error}") from None
    if not isinstance(content, dict):
        raise ImportRefused(f"{path}: expected entries such as 'architecture: resnet50'")
    try:
        return Spec.model_validate(content)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ImportRefused(f"{path}: {faults}. Entries are: {', '.join(Spec.model_fields)}") from None
