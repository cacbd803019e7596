"""``cardiac``: findings of a twelve-lead recording; in the shipped bundle five superclasses and atrial fibrillation.

Every other statement of the shipped recordings is a further task, in training only.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from data_specs.bundle import EcgInput
from data_specs.ecg.recording import LEADS
from models.earlier_networks import EARLIER
from models.networks import RecordingNet
from training.bundle import golden
from training.cohorts.cohort import Cohort
from training.cohorts.shipped_recordings import PTBXL_MAIN, cinc2021, ptbxl
from training.figures.machine_intervals import machine_intervals
from training.figures.short_recordings import short_recordings
from training.learning import augment
from training.learning.batches import Recipe
from training.learning.task import Task

INPUT = EcgInput(fs_hz=100, n_samples=1000, leads=LEADS, max_windows=6)
RECIPE = Recipe(epochs=30, batch_size=64, learning_rate=3e-3, weight_decay=0.05, mixup=0.3)
INIT = "none"
SUPERCLASSES = tuple(PTBXL_MAIN)[:5]
MEASUREMENTS = (short_recordings, machine_intervals)
"""What ``python -m training measure`` puts into the card, in this order."""

SHIPPED_LIMITS = (
    "One network of 1,819 recordings of one institution's machines (PTB-XL subset: chosen to hold NORM, STTC or CD; "
    "MI and HYP only beside those; no age or sex in the copy at hand, so no figures by age or sex).",
    "PTB-XL's persons are 0 to 95 years old, median 62 (Wagner et al. 2020); nothing is offered for minors, too few.",
    "The recording is normalised lead by lead: absolute voltage is not seen, and so hypertrophy is not offered.",
    "`myocardial_infarction` does not tell an old infarction from an acute one.",
    "No set of recordings at hand is untouched: the 71 of three other collections chose this network among five, and "
    "that all findings decide at the screening point was decided after figures of fold 10 had been seen. Expect "
    "somewhat less of recordings that no choice has seen.",
    "Atrial fibrillation: 122 of the recordings; validation holds few, so its thresholds are coarse.",
    "Superclasses are the cardiologists' report coded by likelihood, not an outcome. Adults only.",
)


WITHHELD = {
    "hypertrophy": "its criteria are voltages, and this copy of PTB-XL is normalised lead by lead: the voltage is lost",
}


def shipped(data: Path, _: EcgInput = INPUT) -> tuple[Cohort, ...]:
    """The cohorts of the shipped bundle."""
    return (ptbxl(data),)


def task(cohorts: Sequence[Cohort], data: Path, takes: EcgInput = INPUT) -> Task:
    """The task for these cohorts; ``data`` is the folder of the cohort for evaluation only."""
    is_shipped = {cohort.name for cohort in cohorts} == {"ptbxl"}
    return Task(
        name="cardiac",
        organ="cardiac",
        purpose="Twelve-lead ECG of adults: normal, ST/T change, conduction disturbance, infarction, atrial "
        "fibrillation."
        if is_shipped
        else f"Twelve-lead ECG, trained on {', '.join(c.title for c in cohorts)}.",
        input=takes,
        network=RecordingNet,
        earlier=EARLIER["cardiac"],
        recipe=RECIPE,
        augment=augment.recordings,
        golden=golden.recordings(INPUT.n_samples),
        limits=SHIPPED_LIMITS if is_shipped else (),
        macro=SUPERCLASSES if is_shipped else (),
        withheld=WITHHELD if is_shipped else {},
        elsewhere=(cinc2021(data, takes),) if is_shipped else (),
    )
