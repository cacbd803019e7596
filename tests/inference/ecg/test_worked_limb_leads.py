"""Laws of the limb leads, arrangements and exchanged electrodes on made leads, worked out by hand.

Leads are sums of waves of no correlation and a power of 1 each. So the products of leads follow from these shares.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray

from data_specs.ecg.recording import LEADS
from data_specs.problems import Problem
from inference.ecg.beats import RepresentativeBeat
from inference.ecg.delineate import Marks
from inference.ecg.limb_leads import (
    Fit,
    _better,
    _fit,
    arrangements,
    electrodes_exchanged,
    laws_broken,
    normalised,
)

Signal = NDArray[np.float64]

T = np.arange(5000) / 500
WAVES = np.sqrt(2) * np.stack([np.sin(np.pi * T), np.cos(np.pi * T), np.sin(2 * np.pi * T), np.cos(2 * np.pi * T)])
"""Of 0.5 and 1 Hz, which a mean over 50 ms leaves as they are."""

NONE_FLAT = np.zeros(12, dtype=bool)
GAINS = Problem("gains_inconsistent", "warn")

SHARES = {"III": (-1.0, 1.0), "aVR": (-0.5, -0.5), "aVL": (1.0, -0.5), "aVF": (-0.5, 1.0)}
"""Of I and II in each derived lead."""

LAW = {"III": "III = II − I", "aVR": "aVR = −(I + II)/2", "aVL": "aVL = I − II/2", "aVF": "aVF = II − I/2"}


def limb(one: tuple[float, ...], two: tuple[float, ...], **other: tuple[float, ...]) -> Signal:
    """``(6, 4)``: shares of the four waves in each limb lead; leads that are not given are what the laws say."""
    of = np.zeros((6, 4))
    of[0, : len(one)], of[1, : len(two)] = one, two
    for name, (a, b) in SHARES.items():
        of[LEADS.index(name)] = a * of[0] + b * of[1]
    for name, shares in other.items():
        of[LEADS.index(name)] = np.pad(shares, (0, 4 - len(shares)))
    return of


def told(of: Signal, *flat: str) -> Problem | None:
    filtered = np.concatenate([of @ WAVES, np.zeros((6, 5000))])
    return laws_broken(filtered, np.isin(LEADS, flat))


def scaled(of: Signal, *factors: float) -> Signal:
    return of * np.array(factors)[:, None]


# The laws.


def test_leads_from_three_electrodes_keep_all_laws() -> None:
    right_arm, left_arm, left_leg = np.array([[0.3, 0.2, 1.0, 0], [1.0, -0.4, 0.1, 0], [0.2, 0.9, -0.5, 0]])
    of = np.stack(
        [
            left_arm - right_arm,
            left_leg - right_arm,
            left_leg - left_arm,
            right_arm - (left_arm + left_leg) / 2,
            left_arm - (right_arm + left_leg) / 2,
            left_leg - (right_arm + left_arm) / 2,
        ]
    )
    assert told(of) is None


def off(share: float, other: float, residual: float, sign: float) -> float:
    """By how much one share of a lead is off where this residual is left, relative to lead and sum together.

    With I and II of no correlation, ``d² = residual² (share² + other² + (share + d)² + other²)``.
    """
    r2 = residual**2
    root = np.sqrt(r2**2 * share**2 + 2 * r2 * (1 - r2) * (share**2 + other**2))
    return float((r2 * share + sign * root) / (1 - r2))


@pytest.mark.parametrize(("residual", "broken"), [(0.149, False), (0.151, True)])
@pytest.mark.parametrize("sign", [-1.0, 1.0])
@pytest.mark.parametrize("of", [0, 1])
@pytest.mark.parametrize("name", SHARES)
def test_a_law_is_broken_where_more_than_15_percent_are_left(
    name: str, of: int, sign: float, residual: float, broken: bool
) -> None:
    shares = list(SHARES[name])
    shares[of] += off(shares[of], shares[1 - of], residual, sign)
    leads = limb((1, 0), (0, 1), **{name: tuple(shares)})
    assert (told(leads) is not None) is broken
    assert told(leads, name) is None  # a flat lead breaks none


def test_what_a_mean_over_50_ms_takes_out_is_not_looked_at() -> None:
    """A sharp deflection every 50 ms in one lead."""
    filtered = np.concatenate([limb((1, 0), (0, 1)) @ WAVES, np.zeros((6, 5000))])
    filtered[LEADS.index("aVF")] += 3 * np.tile([-1.0] * 12 + [24.0] + [-1.0] * 12, 200)
    assert laws_broken(filtered, NONE_FLAT) is None


def test_a_lead_and_a_sum_of_nothing_keep_the_law() -> None:
    """I equal to II: III is nothing, which is an arm on the right leg and no division by zero."""
    assert told(limb((1,), (1,))) == Problem("leads_reversed", "reject", "LA ↔ RL, III 0 %", "III ≥ 6 %")


# Inverted leads, exchanged names, leads of nobody.

NORMAL = limb((0.8, 0.3, 0.2), (0.5, 1.0, -0.3))
GAINS_OF_THEIR_OWN = (1.0, 2.0, 0.5, 1.5, 0.8, 1.2)


@pytest.mark.parametrize("factors", [(1.0,) * 6, GAINS_OF_THEIR_OWN])
@pytest.mark.parametrize("lead", range(6))
def test_an_inverted_lead_is_named_with_the_first_law_that_it_breaks(lead: int, factors: tuple[float, ...]) -> None:
    of = scaled(NORMAL, *factors)
    of[lead] *= -1
    law = LAW["III"] if lead < 2 or factors != (1.0,) * 6 else LAW[LEADS[lead]]
    assert told(of) == Problem("leads_reversed", "reject", f"−{LEADS[lead]}", law)


@pytest.mark.parametrize("factors", [(1.0,) * 6, GAINS_OF_THEIR_OWN])
@pytest.mark.parametrize(("a", "b"), [*combinations(range(6), 2)])
def test_leads_with_exchanged_names_are_named(a: int, b: int, factors: tuple[float, ...]) -> None:
    of = scaled(NORMAL, *factors)
    of[[a, b]] = of[[b, a]]
    problem = told(of)
    assert problem is not None
    assert (problem.code, problem.severity, problem.found) == ("leads_reversed", "reject", f"{LEADS[a]} ↔ {LEADS[b]}")


def test_arrangements_are_the_right_one_then_inverted_leads_then_exchanged_names() -> None:
    right, *others = arrangements()
    assert (right.name, right.places, right.signs, right.moved) == ("", tuple(range(6)), (1.0,) * 6, ())
    assert [a.moved for a in others] == [*((i,) for i in range(6)), *combinations(range(6), 2)]
    assert [a.signs for a in others[:6]] == [tuple(1.0 - 2.0 * (k == i) for k in range(6)) for i in range(6)]
    assert {a.signs for a in others[6:]} == {(1.0,) * 6}


def test_a_flat_lead_is_neither_inverted_nor_exchanged() -> None:
    """Without aVF, what is left of its exchange with aVL is an aVL of nobody."""
    of = NORMAL.copy()
    of[[4, 5]] = of[[5, 4]]
    found = told(of, "aVF")
    assert found is not None
    assert "aVF" not in found.found


@pytest.mark.parametrize("name", ["aVR", "aVL"])
@pytest.mark.parametrize(
    ("correlation", "problem"), [(0.36, GAINS), (0.34, Problem("leads_reversed", "reject", "I / II / {}", "{}"))]
)
def test_a_lead_that_is_not_like_its_sum_is_of_another_recording(
    name: str, correlation: float, problem: Problem
) -> None:
    """Its shares: of its sum, whose power is 1.25 or 0.5, and of a wave that no other lead has."""
    a, b = SHARES[name]
    own = np.sqrt(a**2 + b**2) * np.sqrt(1 / correlation**2 - 1)
    expected = Problem(problem.code, problem.severity, problem.found.format(name), problem.expected.format(LAW[name]))
    assert told(limb((1, 0), (0, 1), **{name: (a, b, own)})) == expected


def test_of_two_leads_of_another_recording_the_first_is_named() -> None:
    problem = told(limb((1, 0), (0, 1), aVR=(0.0, 0.0, 1.0), aVF=(0.0, 0.0, 0.0, 1.0)))
    assert problem == Problem("leads_reversed", "reject", "I / II / aVR", LAW["aVR"])


def test_gains_of_their_own_are_a_reserve() -> None:
    assert told(scaled(NORMAL, *GAINS_OF_THEIR_OWN)) == GAINS


# An arm's electrode on the right leg.


@pytest.mark.parametrize(
    ("size", "problem"),
    [(0.0595, Problem("leads_reversed", "reject", "RA ↔ RL, II 6 %", "II ≥ 6 %")), (0.0605, None)],
)
def test_two_needs_six_percent_of_the_largest(size: float, problem: Problem | None) -> None:
    """The largest is III, of the power of both."""
    two = size / np.sqrt(1 - size**2)
    assert told(limb((1, 0), (0, two))) == problem


@pytest.mark.parametrize(
    ("size", "problem"),
    [(0.0595, Problem("leads_reversed", "reject", "LA ↔ RL, III 6 %", "III ≥ 6 %")), (0.0605, None)],
)
def test_three_needs_six_percent_of_the_largest(size: float, problem: Problem | None) -> None:
    three = size / np.sqrt(1 - size**2)
    assert told(limb((1, 0), (1, three))) == problem


@pytest.mark.parametrize(
    ("leads", "found"),
    [
        (limb((1, 0), (0, 0.0549)), "II 5 %"),
        (limb((1, 0), (0, 0.0551)), "II 6 %"),
        (limb((1, 0), (1, 0.0148)), "III 1 %"),
        (limb((1, 0), (1, 0.0152)), "III 2 %"),
    ],
)
def test_the_size_is_told_in_percent(leads: Signal, found: str) -> None:
    problem = told(leads)
    assert problem is not None
    assert problem.found.split(", ")[1] == found


def test_an_arm_on_the_right_leg_is_noticed_whatever_the_gains() -> None:
    """II is 1 where I is 20; once scaled to one size, only the other leads tell."""
    of = scaled(limb((1, 0), (0, 0.05)), 1.0, 20.0, 1.0, 1.0, 1.0, 2.0)
    assert told(of) == Problem("leads_reversed", "reject", "RA ↔ RL, II 5 %", "II ≥ 6 %")


# What the laws leave, by products of shares.

LIVE = np.zeros(6, dtype=bool)


def products(of: Signal) -> Signal:
    return of @ of.T


def test_nothing_is_left_where_all_laws_hold() -> None:
    """I of 3 and II of 4, of no correlation, make III of 5."""
    fit = _fit(products(limb((3, 0), (0, 4))), LIVE)
    assert (fit.as_stored, fit.rescaled, fit.correlation) == (0.0, 0.0, 1.0)
    assert fit.sizes == pytest.approx((0.6, 0.8, 1.0))


def test_what_is_left_of_one_lead_with_a_wave_of_its_own() -> None:
    """Of III, whose parts have a power of 9 and 16, 25 is another wave.

    As stored 25 of 25 is left of one of four leads: sqrt(1/4). With a factor of a half, 12.5 of 25: sqrt(1/2) of this
    lead, the only one that says something; its correlation with the sum is sqrt(25 / 50).
    """
    fit = _fit(products(limb((3, 0), (0, 4), III=(-3, 4, 5))), LIVE)
    assert fit.as_stored == pytest.approx(0.5)
    assert fit.rescaled == pytest.approx(np.sqrt(0.5), abs=0.002)
    assert fit.correlation == pytest.approx(np.sqrt(0.5), abs=0.002)


def test_what_is_left_of_a_flat_lead_does_not_count() -> None:
    """Of three leads one is left as a whole."""
    flat = np.array([False, False, False, False, False, True])
    of = limb((3, 0), (0, 4), III=(-3, 4, 5), aVF=(0.0,))
    fit = _fit(products(of), flat)
    assert fit.as_stored == pytest.approx(np.sqrt(1 / 3))
    assert fit.correlation == pytest.approx(np.sqrt(0.5), abs=0.002)


def test_of_two_leads_with_waves_of_their_own_the_least_correlation_counts() -> None:
    """Of III a sum of 25 with 25 of another wave; of aVR, a sum of 6.25, with 3 times as much."""
    fit = _fit(products(limb((3, 0), (0, 4), III=(-3, 4, 5), aVR=(-1.5, -2.0, 0.0, np.sqrt(18.75)))), LIVE)
    assert fit.correlation == pytest.approx(np.sqrt(1 / 4), abs=0.002)


@pytest.mark.parametrize(("residual", "telling"), [(0.049, False), (0.051, True)])
def test_a_lead_within_five_percent_of_its_law_was_computed(residual: float, telling: bool) -> None:
    """A wave of its own: ``own² = residual² (2 law² + own²)``."""
    own = np.sqrt(2 * 25 * residual**2 / (1 - residual**2))
    fit = _fit(products(limb((3, 0), (0, 4), III=(-3, 4, own))), LIVE)
    assert (fit.rescaled > 0) is telling
    assert (fit.correlation < 1) is telling


def test_without_a_derived_lead_nothing_is_left() -> None:
    flat = np.array([False, False, True, True, True, True])
    assert _fit(products(limb((3, 0), (0, 4))), flat) == Fit(0.0, 0.0, 1.0, pytest.approx((0.6, 0.8, 1.0)))


@pytest.mark.parametrize("ratio", [0.05, 1.0, 20.0])
@pytest.mark.parametrize("gain", [0.001, 1.0, 2.0])
def test_one_ratio_of_i_and_ii_explains_gains(ratio: float, gain: float) -> None:
    """Sizes are those before the gains: I of ``ratio``, II of 1, and III of both."""
    of = limb((ratio, 0), (0, 1))
    fit = _fit(products(scaled(of, 3 * gain, gain, 0.5, 2 * gain, gain, 0.2)), LIVE)
    assert fit.rescaled == pytest.approx(0, abs=1e-6)
    assert fit.correlation == pytest.approx(1)
    three = np.sqrt(ratio**2 + 1)
    assert fit.sizes == pytest.approx((ratio / three, 1 / three, 1.0))


def test_a_lead_that_is_inverted_explains_nothing() -> None:
    """Whatever the gains, all of its sum is left; as stored, twice the lead, which is one of four."""
    of = limb((3, 0), (0, 4))
    of[2] *= -1
    fit = _fit(products(of), LIVE)
    assert fit.rescaled == pytest.approx(1)
    assert fit.correlation < 0
    assert fit.as_stored == pytest.approx(1.0)


def fit(rescaled: float, as_stored: float = 1.0, correlation: float = 1.0) -> Fit:
    return Fit(as_stored, rescaled, correlation, (1.0, 1.0, 1.0))


@pytest.mark.parametrize(
    ("right", "others", "name"),
    [
        # with gains of their own: less than half of what the right one leaves, if that is more than rounding
        (fit(0.2), [fit(0.0999)], "−I"),
        (fit(0.2), [fit(0.1)], None),
        (fit(0.2), [fit(0.09), fit(0.08), fit(0.085)], "−II"),
        (fit(0.0301), [fit(0.01)], "−I"),
        (fit(0.03), [fit(0.01)], None),
        (fit(0.2), [fit(0.01, correlation=0.349)], None),
        (fit(0.2), [fit(0.01, correlation=0.35)], "−I"),
        (fit(0.2), [fit(0.01, correlation=0.349), fit(0.09)], "−II"),
        # as stored: less than half, and less than what the right one leaves with gains, or than rounding
        (fit(0.0, 0.05), [fit(0.0, 0.0249)], "−I"),
        (fit(0.0, 0.05), [fit(0.0, 0.025)], None),
        (fit(0.0, 0.2), [fit(0.0, 0.0299)], "−I"),
        (fit(0.0, 0.2), [fit(0.0, 0.03)], None),
        (fit(0.05, 0.2), [fit(0.04, 0.0499)], "−I"),
        (fit(0.05, 0.2), [fit(0.04, 0.05)], None),
        (fit(0.0, 0.2), [fit(0.0, 0.02), fit(0.0, 0.01), fit(0.0, 0.015)], "−II"),
        (fit(0.0, 0.2), [fit(0.0, 0.01, 0.349)], None),
    ],
)
def test_another_arrangement_has_to_be_clearly_better(right: Fit, others: list[Fit], name: str | None) -> None:
    assert _better(list(arrangements()), [right, *others]) == name


# Normalised leads.


def sizes(*factors: float, form: Signal = WAVES[0]) -> NDArray[np.float32]:
    return (np.array(factors)[:, None] * form).astype(np.float32)


@pytest.mark.parametrize(("spread", "problem"), [(0.149, GAINS), (0.151, None)])
@pytest.mark.parametrize("mean", [0.5, 1.0, 2.0])
def test_leads_of_one_size_were_normalised(mean: float, spread: float, problem: Problem | None) -> None:
    """Largest less smallest over the mean, of the leads that are named."""
    leads = mean * sizes(1 - spread / 2, 1.0, 9.0, 1 + spread / 2)
    leads[:, 7] = np.nan
    assert normalised(leads, [0, 1, 3]) == problem


def test_one_deviation_is_enough_and_so_is_one_range() -> None:
    """A wave, and a pulse of the same deviation but a wider range; the same with one range."""
    pulse = np.where(np.arange(5000) % 50 == 0, 1.0, 0.0)
    of_one_deviation = np.concatenate([sizes(1 / WAVES[0].std()), sizes(1 / pulse.std(), form=pulse)])
    of_one_range = np.concatenate([sizes(1 / np.ptp(WAVES[0])), sizes(1.0, form=pulse)])
    assert normalised(of_one_deviation, [0, 1]) == GAINS
    assert normalised(of_one_range, [0, 1]) == GAINS
    assert normalised(np.concatenate([of_one_deviation[:1], of_one_range[1:]]), [0, 1]) is None


# Exchanged electrodes: P, QRS and T of I, II and V6 on a beat whose marks are known.

MARKS = Marks(230, 280, 0.0, t_offset=400, p_onset=150, p_offset=190, p_consistency=0.9)
NO_P = Marks(230, 280, 0.0, t_offset=400)
QRS, ST_T = np.zeros((2, 650)), np.zeros((2, 650))
"""Two waves in each that have no product; the first of each has a mean."""
QRS[0, 230:280], QRS[1, 230:280] = 1.0, np.tile([1.0, -1.0], 25)
ST_T[0, 280:400], ST_T[1, 280:400] = 0.5, np.tile([0.5, -0.5], 60)
WAVE_P = np.zeros(650)
WAVE_P[155:186] = 0.2


def like(r: float, waves: Signal) -> Signal:
    """Of the power of the first wave, and of this correlation with it."""
    return np.asarray(r * waves[0] + np.sqrt(1 - r**2) * waves[1])


def beat(
    one: float, two: float, *, p: tuple[float, float] = (1, 1), t: tuple[float | None, float | None] = (None, None)
) -> RepresentativeBeat:
    """A beat of these correlations of I and II with V6 over the QRS, and over T (as over the QRS without one).

    V6 has 50 samples of 1 and 120 of 0.5. Where I correlates alike with both it does so over all.
    """
    samples = np.zeros((12, 650))
    samples[11] = QRS[0] + ST_T[0]
    for lead, r, p_share, r_t in ((0, one, p[0], t[0]), (1, two, p[1], t[1])):
        samples[lead] = like(r, QRS) + like(r if r_t is None else r_t, ST_T) + p_share * WAVE_P
    samples += np.arange(12.0)[:, None]  # a constant of each lead is no wave
    return RepresentativeBeat(samples, np.zeros((1, 8, 650)), 0.8)


def exchanged(pair: str, found: str, expected: str) -> Problem:
    return Problem("leads_reversed", "reject", f"{pair}, {found}", expected)


ARMS = exchanged("RA ↔ LA", "P(I) < 0, r(I, V6) = -0.21", "r(I, V6) ≥ -0.2")
ARM_AND_LEG = exchanged("RA ↔ LL", "P(II) < 0, r(II, V6) = -0.21", "r(II, V6) ≥ -0.2")


@pytest.mark.parametrize(
    ("made", "problem"),
    [
        (beat(-0.21, 0.9, p=(-1, 1)), ARMS),
        (beat(-0.19, 0.9, p=(-1, 1)), None),
        (beat(-0.21, 0.9, p=(1, 1)), None),
        (beat(-0.21, 0.9, p=(-1, 1), t=(0.9, None)), ARMS),  # the T wave of I is not looked at
        (beat(0.9, -0.21, p=(1, -1)), ARM_AND_LEG),
        (beat(0.9, -0.19, p=(1, -1)), None),
        (beat(0.9, -0.21, p=(1, 1)), None),
        (beat(0.9, 0.9, p=(-1, -1)), None),
        # both are turned: the one that is less like V6 is named
        (beat(-0.21, -0.205, p=(-1, -1)), ARMS),
        (beat(-0.205, -0.21, p=(-1, -1)), ARM_AND_LEG),
        (beat(-0.21, -0.21, p=(-1, -1)), ARMS),
        # II has to be turned over QRS and T as well: powers of 50 and 30, so 5/8 and 3/8 of the correlations
        (beat(0.9, -0.3, p=(1, -1), t=(None, -0.03)), None),
        (beat(0.9, -0.21, p=(1, -1), t=(None, -0.19)), ARM_AND_LEG),
        (beat(0.9, -0.21, p=(1, -1), t=(None, -0.18)), None),
        (beat(-0.21, -0.5, p=(-1, -1), t=(None, 0.9)), ARMS),
        # II is named where I is less like V6 but its P wave is upright
        (beat(-0.5, -0.21, p=(1, -1)), ARM_AND_LEG),
    ],
)
def test_electrodes_by_p_wave_and_qrs(made: RepresentativeBeat, problem: Problem | None) -> None:
    assert electrodes_exchanged(made, MARKS) == problem


@pytest.mark.parametrize(
    ("made", "problem"),
    [
        # I has to be turned over the QRS, and over QRS and T; both by more than half, and more below than above
        (beat(-0.51, 0.9), exchanged("RA ↔ LA", "r(I, V6) = -0.51", "r(I, V6) ≥ -0.5")),
        (beat(-0.49, 0.9), None),
        (beat(-0.49, 0.9, t=(-0.9, None)), None),
        (beat(-0.53, 0.9, t=(-0.46, None)), exchanged("RA ↔ LA", "r(I, V6) = -0.50", "r(I, V6) ≥ -0.5")),
        (beat(-0.53, 0.9, t=(-0.43, None)), None),
        (beat(-0.6, 0.9, p=(-1, 1)), exchanged("RA ↔ LA", "r(I, V6) = -0.60", "r(I, V6) ≥ -0.5")),
        (beat(0.9, -0.9, p=(1, -1)), None),
    ],
)
@pytest.mark.parametrize(
    "marks",
    [
        NO_P,
        replace(MARKS, p_onset=None),
        replace(MARKS, p_offset=None),
        replace(MARKS, p_consistency=0.7),  # the limit of inference.ecg.measure
    ],
)
def test_electrodes_without_a_p_wave(made: RepresentativeBeat, marks: Marks, problem: Problem | None) -> None:
    assert electrodes_exchanged(made, marks) == problem


def test_p_waves_that_are_just_alike_count() -> None:
    assert electrodes_exchanged(beat(-0.21, 0.9, p=(-1, 1)), replace(MARKS, p_consistency=0.71)) == ARMS


@pytest.mark.parametrize(("above", "exchanged"), [(0.95, True), (1.0, False), (1.05, False)])
def test_without_a_p_wave_i_has_to_be_more_below_than_above(above: float, exchanged: bool) -> None:
    """Of fifty samples, a high one changes the correlation little."""
    made = beat(-0.9, 0.9)
    made.samples[0, 230] = -above * made.samples[0, 231:280].min()
    assert (electrodes_exchanged(made, NO_P) is not None) is exchanged


@pytest.mark.parametrize(
    "marks",
    [
        replace(MARKS, qrs_onset=None, qrs_offset=None),
        replace(MARKS, qrs_onset=None),
        replace(MARKS, qrs_offset=None),
        replace(MARKS, restlessness=0.1),
    ],
)
def test_without_a_clear_qrs_nothing_is_said(marks: Marks) -> None:
    assert electrodes_exchanged(beat(-0.9, 0.9, p=(-1, 1)), marks) is None


@pytest.mark.parametrize(("at", "turned"), [(149, False), (150, True)])
def test_a_t_wave_without_an_end_is_looked_at_for_300_ms_after_qrs(at: int, turned: bool) -> None:
    """II is turned over the QRS; a high wave in II and V6 behind it outweighs that where it is within 150 samples."""
    made = beat(0.9, -0.3, p=(1, -1))
    made.samples[1, 280:], made.samples[11, 280:] = 1.0, 11.0
    made.samples[[1, 11], 280 + at] += 9.0
    assert (electrodes_exchanged(made, replace(MARKS, t_offset=None)) is not None) is turned


@pytest.mark.parametrize(("r", "problem"), [(-0.21, ARMS), (-0.19, None)])
def test_the_baseline_is_the_mean_of_12_ms_before_qrs(r: float, problem: Problem | None) -> None:
    """Six samples of which the mean is that of the lead; the one before them is another wave's end."""
    made = beat(r, 0.9, p=(-1, 1))
    made.samples[0, 223:230] += [5.0, 1.0, -0.2, -0.2, -0.2, -0.2, -0.2]
    assert electrodes_exchanged(made, MARKS) == problem


# The P wave: the largest deviation from the line between its ends, of a mean over 10 ms.


def with_p(wave: Signal) -> RepresentativeBeat:
    made = beat(-0.21, 0.9, p=(0, 1))
    made.samples[0, 150:191] += wave
    return made


def test_a_p_wave_of_nothing_is_not_turned() -> None:
    assert electrodes_exchanged(with_p(np.zeros(41)), MARKS) is None


FLAT_TOP = np.concatenate([np.zeros(5), np.full(31, 0.2), np.zeros(5)])


@pytest.mark.parametrize("slope", [-1.0, 0.0, 1.0])
@pytest.mark.parametrize(("sign", "problem"), [(-1, ARMS), (1, None)])
def test_a_p_wave_on_a_sloping_line(slope: float, sign: int, problem: Problem | None) -> None:
    """From the first sample of P to its last one, which is included."""
    made = with_p(sign * FLAT_TOP + np.linspace(0, slope, 41))
    made.samples[0, 191] += 9.0
    made.samples[0, 149] += 9.0
    assert electrodes_exchanged(made, MARKS) == problem


@pytest.mark.parametrize("at", [0, 40])
def test_the_line_goes_through_the_first_and_the_last_sample_of_p(at: int) -> None:
    """An upright wave whose first or last sample is high: the line from or to there passes above the wave."""
    wave = FLAT_TOP.copy()
    wave[at] = 1.0
    assert electrodes_exchanged(with_p(wave), MARKS) == ARMS


def test_voltage_does_not_change_a_correlation() -> None:
    """A hundredth: a QRS of 10 µV."""
    made = beat(-0.21, 0.9, p=(-1, 1))
    assert electrodes_exchanged(replace(made, samples=made.samples / 100), MARKS) == ARMS


def test_a_lead_of_nothing_is_like_no_other() -> None:
    made = beat(-0.21, 0.9, p=(-1, 1))
    made.samples[11] = 0.0
    assert electrodes_exchanged(made, MARKS) is None


@pytest.mark.parametrize(("spike", "problem"), [(-1.7, None), (-1.9, ARMS)])
def test_one_sample_is_no_p_wave(spike: float, problem: Problem | None) -> None:
    """Of five, four at 0.2 and one at -1.8 make -0.2."""
    wave = FLAT_TOP.copy()
    wave[20] = spike
    assert electrodes_exchanged(with_p(wave), MARKS) == problem
