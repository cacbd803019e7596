"""``cohort.yaml``: the description of a cohort of one's own, and the one function that reads it.

A cohort is a table (CSV or Parquet, one row per film, recording or person) and a small YAML document that says what
each column is. Nothing is guessed: a column that the document does not name is not used.

    name: district-hospital-2026
    modality: cxr                     # cxr, ecg or labs
    table: films.csv                  # relative to this document
    files: films                      # folder that the file column's paths start from
    columns: {person: patient, file: image, age_years: age, sex: sex, site: hospital, view: view, split: part}
    labels: {pneumonia: Pneumonia}    # term of the vocabulary: column, holding 0, 1 or nothing (unknown)
    source: {citation: "…", licence: "…"}
    age_years: [18, 86]
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from data_specs.conditions import CONDITIONS
from data_specs.labs import standard_labs
from data_specs.person import MAX_AGE_YEARS, Sex
from data_specs.schema import Schema
from data_specs.visit.context import Lab
from data_specs.vocabulary import terms

MAX_YAML_BYTES = 1 << 20
"""A manifest is a page of text; a larger file is refused unread."""

Part = Literal["train", "validation", "test", "unused"]
VITALS = {
    "systolic_mmHg": "mmHg",
    "diastolic_mmHg": "mmHg",
    "heart_rate_per_min": "/min",
    "spo2_percent": "%",
    "temperature_celsius": "Cel",
    "weight_kg": "kg",
    "height_cm": "cm",
    "bmi_kg_per_m2": "kg/m2",
}
"""Vital signs that may be features of ``labs``, each in the unit (UCUM) of the visit's context."""

Name = Annotated[str, Field(min_length=1, max_length=200)]
Split = Annotated[float, Field(gt=0, lt=1)]


class _YamlSchema(Schema):
    """YAML reads ``1`` as a number where a name or a word of the table is meant."""

    model_config = ConfigDict(coerce_numbers_to_str=True)


class Columns(_YamlSchema):
    """Names of the table's columns, as its first line writes them."""

    person: Name = Field(description="column with the person's identifier; a person is never in two parts")
    file: Name | None = Field(
        default=None, description="column with the file's path, relative to `files` (cxr and ecg)"
    )
    age_years: Name | None = Field(default=None, description="column with the age in years")
    sex: Name | None = Field(default=None, description="column with female or male, or what `values.sex` translates")
    site: Name | None = Field(default=None, description="column with the hospital or collection that a case comes from")
    device: Name | None = Field(default=None, description="column with the device or its model")
    view: Name | None = Field(default=None, description="column with the view (PA, AP)")
    made_on: Name | None = Field(default=None, description="column with the day of the film or recording (YYYY-MM-DD)")
    split: Name | None = Field(
        default=None, description="column with train, validation, test or unused, or `values.split`"
    )


class Values(_YamlSchema):
    """What the table's own words mean: ``{"1": "female"}``, ``{"fold9": "validation"}``."""

    sex: dict[str, Sex] = Field(default={}, description="the table's word for each sex: female, male, other or unknown")
    split: dict[str, Part] = Field(
        default={}, description="the table's word for each part: train, validation, test, unused"
    )


class FeatureColumn(_YamlSchema):
    """A laboratory value of a ``labs`` cohort."""

    column: Name = Field(description="column that holds the value")
    unit: Name = Field(description="unit that the column is written in")


class Source(_YamlSchema):
    """Where the cases come from; repeated in the model card."""

    citation: Annotated[str, Field(min_length=1, max_length=2000)] = Field(description="who is to be cited, and how")
    licence: Annotated[str, Field(min_length=1, max_length=500)] = Field(description="terms under which it is used")


class Shares(_YamlSchema):
    """Shares of persons in each part where the table has no split; drawn by a hash of the person's identifier."""

    train: Split = Field(default=0.6, description="share of persons to train on")
    validation: Split = Field(default=0.2, description="share of persons for calibration, thresholds and choices")
    test: Split = Field(default=0.2, description="share of persons for the one evaluation")

    @model_validator(mode="after")
    def _add_up_to_one(self) -> Self:
        if abs(self.train + self.validation + self.test - 1) > 1e-6:
            raise ValueError(f"shares add up to {self.train + self.validation + self.test:g}, not to 1")
        return self


class CohortManifest(_YamlSchema):
    """One cohort.

    Parameters
    ----------
    site
        One name where every case comes from one hospital. A cohort should state ``site`` or ``columns.site``. Without
        them, nobody can see whether a network learns the finding or only which site a file comes from.
    features
        ``labs`` only: name of the laboratory value (as in the visit's context) to column and unit.
    age_years
        Ages that findings trained on it may be offered for: lower bound included, upper bound not.
    ecg_unit
        Unit of samples for ECG files that do not state it.
    """

    schema_version: Literal[1] = Field(default=1, description="version of this schema")
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$")] = Field(
        description="short name of the cohort: letters, digits, '.', '_' and '-'"
    )
    modality: Literal["cxr", "ecg", "labs"] = Field(description="chest films, twelve-lead ECGs or laboratory values")
    table: Name = Field(description="the table, .csv or .parquet, relative to this document")
    separator: Literal[",", ";", "\t"] = Field(default=",", description="what separates the columns of a CSV")
    files: Name = Field(
        default=".", description="folder that the paths of the file column start from, relative to this one"
    )
    columns: Columns = Field(description="which column is what")
    values: Values = Field(default=Values(), description="translations of the table's own words")
    labels: Annotated[dict[str, Name], Field(min_length=1)] = Field(
        description="finding (a term of the vocabulary) to the column that holds 0, 1 or nothing (unknown)"
    )
    features: dict[str, FeatureColumn] = Field(
        default={}, description="laboratory value, vital sign or condition to its column and unit (labs only)"
    )
    site: Name | None = Field(default=None, description="the one hospital that every case comes from")
    source: Source = Field(description="where the cases come from")
    shares: Shares = Field(default=Shares(), description="shares of persons where there is no split column")
    age_years: tuple[float, float] | None = Field(
        default=None, description="ages to offer: from (included), to (excluded)"
    )
    ecg_unit: Literal["uV", "mV"] | None = Field(
        default=None, description="unit of ECG samples where a file states none"
    )

    @field_validator("labels")
    @classmethod
    def _labels_are_findings(cls, labels: dict[str, str]) -> dict[str, str]:
        unknown = [name for name in labels if name not in terms()]
        if unknown:
            raise ValueError(f"no term of the vocabulary: {', '.join(unknown)} (add it to data_specs/vocabulary.toml)")
        return labels

    @field_validator("features")
    @classmethod
    def _features_are_read(cls, features: dict[str, FeatureColumn]) -> dict[str, FeatureColumn]:
        for name, feature in features.items():
            own = VITALS.get(name) or ("1" if name in CONDITIONS else None)
            if own is not None and feature.unit != own:
                raise ValueError(f"{name}: unit {feature.unit}; read in {own}")
            if own is not None:
                continue
            _, problems = standard_labs([Lab(name=name[:60], value=0, unit=feature.unit[:30])])
            for problem in problems:
                if problem.code in {"lab_unknown", "unit_not_accepted"}:
                    raise ValueError(f"{name}: {problem.message('en')}")
        return features

    @field_validator("age_years")
    @classmethod
    def _ages_are_a_range(cls, ages: tuple[float, float] | None) -> tuple[float, float] | None:
        if ages and not 0 <= ages[0] < ages[1] <= MAX_AGE_YEARS + 1:
            raise ValueError(f"{ages[0]:g} to {ages[1]:g} is no range of ages")
        return ages

    @model_validator(mode="after")
    def _parts_fit_the_modality(self) -> Self:
        if self.modality == "labs" and not self.features:
            raise ValueError("a cohort of laboratory values needs `features`")
        if self.modality != "labs" and self.columns.file is None:
            raise ValueError(f"a cohort of modality {self.modality} needs `columns.file`")
        if self.modality != "labs" and self.features:
            raise ValueError(f"`features` belongs to modality labs, not to {self.modality}")
        if self.site is not None and self.columns.site is not None:
            raise ValueError("say either `site` (one for all) or `columns.site`, not both")
        return self


class ManifestInvalid(ValueError):
    """A manifest that cannot be used; ``faults`` has one line for each fault."""

    def __init__(self, path: Path, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join([f"{path.name} cannot be used:", *(f"  - {fault}" for fault in faults)]))


def read_manifest(path: Path) -> CohortManifest:
    """Read and check a cohort's YAML document.

    Raises
    ------
    ManifestInvalid
        With one line for each fault: the line, the path inside the document, and what is expected there.
    """
    import yaml  # noqa: PLC0415 (only training reads manifests; serving runs without it)

    try:
        content = path.read_bytes()
    except OSError as error:
        raise ManifestInvalid(path, [f"the file cannot be read ({type(error).__name__})"]) from error
    if len(content) > MAX_YAML_BYTES:
        raise ManifestInvalid(path, [f"{len(content)} bytes; a manifest has at most {MAX_YAML_BYTES}"])
    try:
        tree = yaml.compose(content, Loader=yaml.SafeLoader)
        if tree is not None and _has_alias(tree, yaml):
            raise ManifestInvalid(path, ["anchors and aliases (& and *) are not read: write each part out"])
        document = yaml.safe_load(content)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        raise ManifestInvalid(
            path, [f"{where}this is not YAML ({getattr(error, 'problem', None) or error})"]
        ) from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, ManifestInvalid):
            raise
        raise ManifestInvalid(path, [f"this is not YAML ({type(error).__name__})"]) from error
    if not isinstance(document, dict):
        raise ManifestInvalid(path, ["the document is no mapping of names to values (name: …, modality: …, table: …)"])
    faults = [
        f"line {line}: {name} is written twice; the earlier one would be lost" for name, line in _repeated(tree, yaml)
    ]
    try:
        manifest = CohortManifest.model_validate(document)
    except ValidationError as error:
        faults += [_fault(tree, e, yaml) for e in error.errors(include_url=False, include_context=False)]
    if faults:
        raise ManifestInvalid(path, faults)
    return manifest


def _fault(tree: Any, error: Any, yaml: Any) -> str:
    """One line: where it is, what is wrong, what is expected there."""
    location: tuple[str | int, ...] = error["loc"]
    line = _line(tree, location, yaml)
    message = str(error["msg"]).removeprefix("Value error, ")
    message = {"Field required": "missing", "Extra inputs are not permitted": "not a name that is read"}.get(
        message, message
    )
    meaning = _meaning(location)
    where = ".".join(str(step) for step in location if step != "[key]") or "the document"
    return f"line {line}: {where}: {message}" + (f" (meant: {meaning})" if meaning else "")


def _meaning(location: Sequence[str | int]) -> str:
    """Description of the last known field on the way to ``location``; the known names where one is unknown."""
    model: type[BaseModel] | None = CohortManifest
    meaning = ""
    for step in location:
        if model is None:
            break
        field = model.model_fields.get(str(step))
        if field is None:
            return "one of " + ", ".join(model.model_fields)
        meaning = field.description or ""
        annotation: Any = field.annotation
        model = annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None
    return unicodedata.normalize("NFC", meaning)


def _line(node: Any, location: Sequence[str | int], yaml: Any) -> int:
    """Line of the deepest node on the way to ``location``, from 1."""
    line = int(node.start_mark.line) + 1
    for step in location:
        if isinstance(node, yaml.MappingNode):
            found = next(((key, value) for key, value in node.value if key.value == str(step)), None)
            if found is None:
                break
            line, node = int(found[0].start_mark.line) + 1, found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
            line = int(node.start_mark.line) + 1
        else:
            break
    return line


def _repeated(node: Any, yaml: Any) -> Iterator[tuple[str, int]]:
    """Keys that stand twice in a mapping, with the line of the second."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if str(key.value) in seen:
                yield str(key.value), key.start_mark.line + 1
            seen.add(str(key.value))
            yield from _repeated(value, yaml)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _repeated(value, yaml)


def _has_alias(node: Any, yaml: Any) -> bool:
    """Whether a node is used in two places: with nested aliases a small file can fill the memory when it is built."""
    seen: set[int] = set()
    waiting = [node]
    while waiting:
        current = waiting.pop()
        if id(current) in seen:
            return True
        seen.add(id(current))
        if isinstance(current, yaml.MappingNode):
            waiting += [part for pair in current.value for part in pair]
        elif isinstance(current, yaml.SequenceNode):
            waiting += current.value
    return False
