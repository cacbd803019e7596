"""``lung``: one network for films of children and adults, with a column for each label of each cohort.

The two shipped cohorts share the network but no column: each finding is learnt from one hospital, and offered only for
the ages that it was evaluated in.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from data_specs.bundle import CxrInput
from models.earlier_networks import EARLIER
from models.networks import FilmNet
from training.bundle import golden
from training.cohorts.cohort import Cohort
from training.cohorts.shipped_films import kermany, nih, tb
from training.learning import augment
from training.learning.batches import Recipe
from training.learning.task import Task

INPUT = CxrInput(size_px=224, shows="lungs", least_px=448)
RECIPE = Recipe(epochs=6, batch_size=32, learning_rate=5e-4, weight_decay=0.05, average_decay=0.998)
INIT = "imagenet"
ADULT_SHARE = 0.2
"""Share of adults' films among the draws for the shipped bundle; there are seven times fewer of them."""

SHIPPED_LIMITS = (
    "Children: one hospital in Guangzhou, films of one to five years, squeezed to 224 x 224 before publication. "
    "Good for telling pneumonia from a normal film there; not evaluated elsewhere.",
    "Adults: 958 films of one hospital in two draws, 60 % of the persons to learn from; labels mined from reports, "
    "with known errors (second opinions call many films without a label abnormal). The findings of adults do not "
    "hold well enough to decide and are for information. A screening population will look different: recalibrate, "
    "and accept the bundle on local cases, before it decides anything.",
    "In the first draw every abnormal film carries the label pneumonia and in the second hardly one: pneumonia of "
    "adults is not offered.",
    "A linear model on 16 x 16 thumbnails tells the abnormal films of the first draw from its normal ones with an "
    "AUROC of 0.83, cross-validated by person: much of a figure at home may be the look of a film (portable, "
    "exposure, lines and electrodes) and need not carry over. A network of the same making that never saw the "
    "second draw has figures on it beside those at home.",
    "In the first draw 66 % of the normal films are AP and 45 % of the abnormal ones: views were balanced in "
    "training, and the figures are given by view.",
    "The figures at home are not untouched: that both draws were learnt from was decided on the validation and test "
    "persons together, with 68 second opinions among them, and that all findings decide at the screening point was "
    "decided after such figures had been seen. Expect somewhat less of persons whom no choice has seen.",
    "No finding is offered from 6 to 17 years, or under 1. Pneumothorax, masses, nodules and tuberculosis are not "
    "offered: too few films to evaluate, or none.",
)


def shipped(data: Path, takes: CxrInput = INPUT) -> tuple[Cohort, ...]:
    """The cohorts of the shipped bundle."""
    return kermany(data, takes), nih(data, takes)


def task(cohorts: Sequence[Cohort], data: Path, takes: CxrInput = INPUT) -> Task:
    """The task for these cohorts; ``data`` is the folder of the cohorts for evaluation only."""
    names = {cohort.name for cohort in cohorts}
    is_shipped = names == {"kermany", "nih"}
    return Task(
        name="lung",
        organ="lung",
        purpose="Frontal chest X-ray: pneumonia in children of 1 to 5 years; abnormal films and more in adults."
        if is_shipped
        else f"Frontal chest X-ray, trained on {', '.join(c.title for c in cohorts)}.",
        input=takes,
        network=FilmNet,
        earlier=EARLIER["lung"],
        recipe=RECIPE,
        augment=augment.films,
        golden=golden.films(takes.size_px),
        limits=SHIPPED_LIMITS if is_shipped else (),
        shares={"nih": ADULT_SHARE} if is_shipped else {},
        elsewhere=(tb(data, takes),) if is_shipped else (),
    )
