"""``screening.json``: what a model bundle states beyond the MONAI Bundle layout.

A bundle is a folder ``NAME-VERSION/`` with ``configs/metadata.json``, ``models/model.onnx``, ``docs/README.md``,
``LICENSE`` (the MONAI Bundle layout), ``golden.npz`` and ``screening.json``, which is described here. Every threshold
and every constant of calibration that serving uses stands in it.
"""

from __future__ import annotations

from itertools import pairwise
from math import isfinite
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from data_specs.cxr.lungs import READ_AT
from data_specs.ecg.recording import BAND_HZ, Filling, Normalisation, Recording, conform
from data_specs.person import BinarySex
from data_specs.schema import Schema
from data_specs.visit.contract import OperatingPoint, Organ, Use


class CxrInput(Schema):
    """``(n, 1, size_px, size_px) uint8``; normalisation is in the graph.

    Parameters
    ----------
    shows
        ``film``: the whole film by :func:`data_specs.cxr.image.conform`. ``lungs``: the film upright, cut to its lung
        fields and equalised (:mod:`data_specs.cxr.lungs`).
    least_px
        A larger film may be read at a lower resolution, with its shorter side at least so long: the figures of the
        bundle say what that changes. ``None``: every film is read in full.
    """

    modality: Literal["cxr"] = "cxr"
    size_px: int
    shows: Literal["film", "lungs"] = "film"
    least_px: Annotated[int, Field(gt=0)] | None = None

    @property
    def read_px(self) -> int:
        """Side of the whole film that the input is made from."""
        return self.size_px if self.shows == "film" else round(READ_AT * self.size_px)


class EcgInput(Schema):
    """``(n, 12, n_samples) float32``, made by :func:`data_specs.ecg.recording.conform`.

    Parameters
    ----------
    leads
        Order of the leads as the graph takes them; a network with another order sorts them in its graph.
    band_hz, normalisation, filling
        As :func:`data_specs.ecg.recording.conform` takes them; left out, those of the shipped networks. With a
        normalisation of ``none`` the values are millivolts; what else a network was trained with is in its graph.
    """

    modality: Literal["ecg"] = "ecg"
    fs_hz: int
    n_samples: int
    leads: tuple[str, ...]
    max_windows: int
    band_hz: tuple[float, float] | None = BAND_HZ
    normalisation: Normalisation = "lead"
    filling: Filling = "continue"

    @property
    def form(self) -> tuple[tuple[float, float] | None, Normalisation, Filling]:
        """Filter, normalisation and filling."""
        return self.band_hz, self.normalisation, self.filling

    def conform(self, recording: Recording, *, max_windows: int | None = None) -> NDArray[np.float32]:
        """Windows of a recording as this network takes them; at most ``max_windows``, if that is given."""
        return conform(
            recording,
            fs_hz=self.fs_hz,
            n_samples=self.n_samples,
            max_windows=max_windows or self.max_windows,
            band_hz=self.band_hz,
            normalisation=self.normalisation,
            filling=self.filling,
        )


class Feature(Schema):
    """One column of a tabular input."""

    name: str
    unit: str


class TabularInput(Schema):
    """``(n, n_features) float32``, NaN where a value is unknown; each finding lists the features that it requires."""

    modality: Literal["labs"] = "labs"
    features: tuple[Feature, ...]


class Calibration(Schema):
    """From a logit to a probability.

    Parameters
    ----------
    kind
        ``platt``: probability = 1 / (1 + exp(-(slope · logit + intercept))); temperature scaling is the case
        intercept = 0. ``isotonic``: linear between ``knots``, constant beyond the first and the last.
    knots
        ``isotonic`` only: (logit, probability), logits rising, probabilities never falling.
    prevalence
        Share of people with the finding that the probabilities assume: that of the cases that the calibration was
        fitted to, or a stated one; ``None``: not recorded.
    """

    kind: Literal["platt", "isotonic"] = "platt"
    slope: Annotated[float, Field(allow_inf_nan=False)] = 1.0
    intercept: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    knots: tuple[tuple[float, float], ...] = ()
    prevalence: Annotated[float, Field(gt=0, lt=1)] | None = None

    @model_validator(mode="after")
    def _has_what_its_kind_needs(self) -> Self:
        if self.kind == "platt":
            if not {"slope", "intercept"} <= self.model_fields_set or self.knots:
                raise ValueError("platt calibration is a slope and an intercept, and no knots")
            return self
        logits, probabilities = [k[0] for k in self.knots], [k[1] for k in self.knots]
        if len(self.knots) < 2 or not all(isfinite(x) for x in (*logits, *probabilities)):
            raise ValueError("isotonic calibration is two or more finite knots")
        if any(a >= b for a, b in pairwise(logits)) or any(a > b for a, b in pairwise(probabilities)):
            raise ValueError("knots: logits must rise, probabilities must not fall")
        if not 0 <= probabilities[0] <= probabilities[-1] <= 1:
            raise ValueError("knots: probabilities lie between 0 and 1")
        return self


class RocPoint(Schema):
    """Validation cases on either side of one threshold (positive: probability ≥ threshold)."""

    threshold: float
    true_positives: Annotated[int, Field(ge=0)]
    false_negatives: Annotated[int, Field(ge=0)]
    true_negatives: Annotated[int, Field(ge=0)]
    false_positives: Annotated[int, Field(ge=0)]

    @model_validator(mode="after")
    def _has_both_classes(self) -> Self:
        if not (self.true_positives + self.false_negatives and self.true_negatives + self.false_positives):
            raise ValueError("a point of a ROC needs positives and negatives")
        return self

    @property
    def sensitivity(self) -> float:
        """Share of the positives at or above the threshold."""
        return self.true_positives / (self.true_positives + self.false_negatives)

    @property
    def specificity(self) -> float:
        """Share of the negatives below the threshold."""
        return self.true_negatives / (self.true_negatives + self.false_positives)


class Estimate(Schema):
    """A figure with its 95 % interval (bootstrap by person) and the number of cases behind it."""

    value: float
    low: float
    high: float
    n: int
    n_positive: int | None = None


class Evaluation(Schema):
    """One finding on one cohort part, evaluated once."""

    cohort: str
    subgroup: str = "all"
    metric: str
    estimate: Estimate


class Undecided(Schema):
    """Where both answers are plausible for a group of persons: a probability from ``low`` to below ``high``.

    Of the group's cases with the finding at most ``1 - coverage`` lie below ``low``, and of those without it at most
    ``1 - coverage`` at or above ``high``, in the long run (:mod:`training.figures.undecided`).

    Parameters
    ----------
    age_years, sex, view
        Whom it holds for; ``None``: everybody. Lower bound of the ages included, upper bound not.
    n_positive, n_negative
        Cases that the two bounds come from.
    """

    coverage: Annotated[float, Field(gt=0.5, lt=1)]
    low: Annotated[float, Field(ge=0, le=1)]
    high: Annotated[float, Field(ge=0, le=1)]
    age_years: tuple[float, float] | None = None
    sex: BinarySex | None = None
    view: Literal["PA", "AP"] | None = None
    n_positive: Annotated[int, Field(ge=0)]
    n_negative: Annotated[int, Field(ge=0)]


class FindingSpec(Schema):
    """One offered finding: the column it is read from, for whom it is valid, how its number becomes an answer.

    Parameters
    ----------
    column
        Column of the graph's first output.
    kind
        ``probability``: a logit, calibrated here. ``risk``: already a probability (a published equation).
        ``measured``: a value with a unit.
    age_years, sexes
        For whom it was evaluated; ``None``: any.
    requires
        Tabular features that must be known.
    applies_when
        Conditions on features, or on findings earlier in the list, e.g. ``{"egfr": [0, 60]}``: lower bound included,
        upper bound not.
    labels
        ``measured`` only: the number is an index into these names (stages).
    digits
        Decimals that a measured value is reported with.
    decides_at
        Operating point at which the finding is called positive.
    risk
        ``direct``: the organ's risk is this probability. ``complement``: it is one minus it (``normal_ecg``).
    roc, roc_by_group
        The cases that the operating points were chosen on, at each threshold, for planning; and those of each group
        with enough cases (``sex F``, ``age 41-60``).
    use, use_because
        ``triage``: it is called positive or negative. ``information``: its probability is shown and decides nothing,
        for the reason in ``use_because``, a sentence with figures for the card.
    undecided
        For whom and where it is called neither.
    """

    name: str
    column: int
    kind: Literal["probability", "risk", "measured"] = "probability"
    unit: str | None = None
    labels: tuple[str, ...] = ()
    digits: int = 3
    age_years: tuple[float, float] | None = None
    requires: tuple[str, ...] = ()
    applies_when: dict[str, tuple[float, float]] = Field(default={})
    calibration: Calibration | None = None
    decides_at: str = "screening"
    risk: Literal["direct", "complement"] | None = None
    operating_points: tuple[OperatingPoint, ...] = ()
    evaluation: tuple[Evaluation, ...] = ()
    roc: tuple[RocPoint, ...] = ()
    roc_by_group: dict[str, tuple[RocPoint, ...]] = Field(default={})
    use: Use = "triage"
    use_because: str = ""
    undecided: tuple[Undecided, ...] = ()


class Withheld(Schema):
    """A finding that was trained and is not offered; ``reason`` is a sentence, with figures, for the model card."""

    name: str
    cohort: str
    reason: str


class TrainingData(Schema):
    """A cohort that the bundle was trained or recalibrated on.

    Parameters
    ----------
    digest
        sha256 of its cases (files, labels, persons); empty where it was not recorded.
    """

    name: str
    citation: str
    licence: str
    n_persons: int
    n_items: int
    digest: str = ""


class Predecessor(Schema):
    """Another version on the cases of this one's evaluation, so that a promotion compares both on the same cases.

    Parameters
    ----------
    sha256
        Of its ``screening.json``.
    evaluation
        By the finding and its ages (``pneumonia (18-85)``), at its own calibration and operating points.
    """

    name: str
    version: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    evaluation: dict[str, tuple[Evaluation, ...]]


class Ancestor(Schema):
    """A bundle that this one was made from; ``sha256`` is that of its ``screening.json``, which names its weights."""

    name: str
    version: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    weights_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Imported(Schema):
    """Where imported weights came from.

    Parameters
    ----------
    source
        Whose conventions they follow: ``torchxrayvision``, ``chexnet``, ``torchvision``.
    architecture
        Name of the torchvision classifier that they belong to.
    file, sha256
        The checkpoint as it was read.
    found_in, not_taken
        Where in the file the weights were; the other sets of weights in it.
    ignored_keys
        Keys of the file that do not belong to the network.
    classes, left_out
        Outputs in the order of the checkpoint; those that are offered as no finding.
    licence, trained_on, citation
        As stated by the person who imported them.
    """

    source: str
    architecture: str
    file: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    found_in: str
    not_taken: tuple[str, ...] = ()
    ignored_keys: tuple[str, ...] = ()
    classes: tuple[str, ...]
    left_out: tuple[str, ...]
    licence: str
    trained_on: str
    citation: str


class Golden(Schema):
    """``golden.npz``: ``tensor``, ``logits`` (or ``values``), ``probability``, one row per case."""

    path: str = "golden.npz"
    sha256: str
    tolerance: float


class Agreement(Schema):
    """How far a lower precision is from fp32 over the evaluation set; only what is recorded here may be served.

    Parameters
    ----------
    auc_difference, probability_difference
        Largest absolute difference over findings, and over findings and cases.
    n
        Cases compared.
    part
        Which cases, such as ``test``.
    """

    runtime: Literal["onnxruntime", "openvino"]
    precision: Literal["fp16", "bf16"]
    auc_difference: Annotated[float, Field(ge=0, le=1)]
    probability_difference: Annotated[float, Field(ge=0, le=1)]
    n: Annotated[int, Field(ge=1)]
    part: str


class MeasuredTable(Schema):
    """Something that was measured on a bundle beyond its evaluation: a section of the card.

    Parameters
    ----------
    title, text
        Heading, and what was measured on what.
    columns, rows
        As they are shown; every row has a cell for each column.
    """

    title: str
    text: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    @model_validator(mode="after")
    def _has_a_cell_for_each_column(self) -> Self:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError(f"{self.title}: every row needs {len(self.columns)} cells")
        return self


class Weights(Schema):
    """The ONNX file of the graph and its weights."""

    path: str = "models/model.onnx"
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class BundleManifest(Schema):
    """The whole document ``screening.json``."""

    schema_version: Literal[1] = 1
    name: str
    version: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]
    organ: Organ | None
    purpose: str
    weights: Weights
    input: Annotated[CxrInput | EcgInput | TabularInput, Field(discriminator="modality")]
    outputs: tuple[str, ...]
    findings: tuple[FindingSpec, ...]
    thresholds: dict[str, float] = Field(default={})
    training_data: tuple[TrainingData, ...]
    golden: Golden
    limits: tuple[str, ...]
    imported: Imported | None = None
    from_bundle: tuple[Ancestor, ...] = ()
    """Oldest first."""
    recalibrated_on: TrainingData | None = None
    """Cases of the calibration and the operating points, where the weights are those of the last ancestor."""
    withheld: tuple[Withheld, ...] = ()
    recipe: dict[str, str | int | Annotated[float, Field(allow_inf_nan=False)]] = Field(default={})
    """How it was trained: epochs, batch size, learning rate, seed and so on, as the card lists them."""
    agreement: tuple[Agreement, ...] = ()
    """Lower precisions that were compared with fp32 when it was exported."""
    measured: tuple[MeasuredTable, ...] = ()
    predecessors: tuple[Predecessor, ...] = ()
    """Versions that were evaluated on the same cases as this one: the one in service, and the one it was made from."""
