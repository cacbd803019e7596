"""The ``context`` document of a posted visit: person, referring doctor, order, labs, vitals, conditions."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Literal, Self

from pydantic import Field, FiniteFloat, field_validator

from data_specs.person import MAX_AGE_YEARS, UNKNOWN_DAYS, Sex, age_at_examination
from data_specs.schema import Day, Schema

Text = Annotated[str, Field(max_length=200)]


class Residence(Schema):
    """Where a person lives: in words, and the codes of province and commune as the country's register has them."""

    address: Text | None = None
    province: Annotated[str, Field(max_length=20)] | None = None
    commune: Annotated[str, Field(max_length=20)] | None = None


class Person(Schema):
    """The person of a visit.

    Parameters
    ----------
    id
        Number of the person at the site.
    national_id
        Number of the person in the country's register, such as the Vietnamese CCCD. A national health book needs it.
    """

    id: Text | None = None
    national_id: Annotated[str, Field(max_length=30)] | None = None
    name: Text | None = None
    birth_date: Day | None = None
    age_years: Annotated[FiniteFloat, Field(ge=0, le=MAX_AGE_YEARS)] | None = None
    sex: Sex | None = None
    residence: Residence | None = None

    @field_validator("birth_date")
    @classmethod
    def _known(cls, born: date | None) -> date | None:
        """Nothing for the day that programs write where they know none."""
        return None if born in UNKNOWN_DAYS else born


class Referrer(Schema):
    id: Text | None = None
    name: Text | None = None
    facility: Text | None = None


class Order(Schema):
    """What the visit answers: an order of the hospital's system, named as that system names it.

    Parameters
    ----------
    placer
        The orderer's own number: HL7 v2 ORC-2, FHIR ServiceRequest.identifier, DICOM (0040,2016).
    accession_number
        DICOM AccessionNumber (0008,0050).
    request
        Reference of the FHIR ServiceRequest that the report answers, as it was posted (``ServiceRequest/…`` or a URN).
    reason
        Why the visit was asked for, in the orderer's words.
    """

    placer: Text | None = None
    accession_number: Annotated[str, Field(max_length=64)] | None = None
    request: Text | None = None
    reason: Annotated[str, Field(max_length=1000)] | None = None


class Lab(Schema):
    """A laboratory value as the laboratory wrote it; units are converted by :mod:`data_specs.labs`."""

    name: Annotated[str, Field(min_length=1, max_length=60)]
    value: FiniteFloat
    unit: Annotated[str, Field(max_length=30)]


class Vitals(Schema):
    systolic_mmHg: Annotated[FiniteFloat, Field(ge=40, le=320)] | None = None
    diastolic_mmHg: Annotated[FiniteFloat, Field(ge=20, le=220)] | None = None
    heart_rate_per_min: Annotated[FiniteFloat, Field(ge=15, le=350)] | None = None
    spo2_percent: Annotated[FiniteFloat, Field(ge=30, le=100)] | None = None
    temperature_celsius: Annotated[FiniteFloat, Field(ge=25, le=45)] | None = None
    weight_kg: Annotated[FiniteFloat, Field(ge=0.5, le=400)] | None = None
    height_cm: Annotated[FiniteFloat, Field(ge=20, le=260)] | None = None
    bmi_kg_per_m2: Annotated[FiniteFloat, Field(ge=8, le=100)] | None = None


class Context(Schema):
    person: Person = Person()
    referrer: Referrer | None = None
    order: Order | None = None
    visited_on: Day | None = None
    labs: Annotated[tuple[Lab, ...], Field(max_length=200)] = ()
    vitals: Vitals = Vitals()
    conditions: Annotated[tuple[Text, ...], Field(max_length=100)] | None = None
    ecg_unit: Literal["uV", "mV"] | None = None

    def with_age(self) -> Self:
        """The context with the age on the day of the visit, where a birth date and no age is stated."""
        age = age_at_examination(self.person.age_years, self.person.birth_date, self.visited_on)
        if age == self.person.age_years:
            return self
        return self.model_copy(update={"person": self.person.model_copy(update={"age_years": age})})


def known_members(**members: Any) -> dict[str, Any]:
    """The members that are known: an unknown one is left out of a context, not set to ``None``."""
    return {name: member for name, member in members.items() if member is not None}
