"""Limb leads: whether they are what their names say, whether their gains agree, and which electrodes were exchanged.

Einthoven and Goldberger: the six limb leads are sums of two of them. Exchanged electrodes change all six together, so
that the sums still hold, and only the shape of the waves shows them. A lead with the wrong sign or name breaks the
sums. So do leads that were each scaled by a factor of their own, as a display or a normalisation does; but then each
lead is still a sum of positive shares with the right signs, and one ratio of the gains of I and II explains all sums.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from data_specs.ecg.filters import Signal
from data_specs.ecg.recording import LEADS
from data_specs.problems import Problem
from inference.ecg.beats import FS_HZ, RepresentativeBeat, smooth
from inference.ecg.delineate import Marks

LAWS = {
    2: (-1.0, 1.0, "III = II − I"),
    3: (-0.5, -0.5, "aVR = −(I + II)/2"),
    4: (1.0, -0.5, "aVL = I − II/2"),
    5: (-0.5, 1.0, "aVF = II − I/2"),
}
"""Einthoven and Goldberger: index of the derived lead, its shares of I and of II, the law as shown to users
(Kligfield et al., Circulation 2007;115:1306)."""

SMOOTHED = 25
"""Samples (50 ms) over which the leads are averaged before they are added: a delay of some milliseconds between leads,
or filters of their own, change the steep QRS most. All sums stay as they are."""

MAX_LAW_RESIDUAL = 0.15
"""Root mean square of III - (II - I), and of the augmented leads likewise, relative to the leads themselves. Real
recordings, rounded and filtered as they are, stay below 0.08 (113 of six hospitals, 12 files of machines)."""

COMPUTED_RESIDUAL = 0.05
"""A lead nearer than this to its law was computed from I and II as they are stored, and says nothing of their gains."""

MIN_CORRELATION = 0.35
"""Least correlation of a lead with its sum in an arrangement that is believed. Factors alone leave 1, and with delays
of 4 ms between leads 1 of 215 recordings has less; a lead of another recording has 0.33 at most (113 for each lead)."""

CLEARLY = 2.0
"""Another arrangement of the leads is believed where it leaves less than half (root mean square) of what the right one
leaves. With a factor for each lead, and with filters, delays of 4 ms, drift, noise or rounding to 8 bits on top, none
does in 296 recordings (113 of six hospitals, PTB-XL fold 9); with factors alone every inverted lead is named."""

ROUNDING = 0.03
"""What rounding and filters leave, relative to I and II; the largest of the same recordings with factors alone."""

MIN_SHARE = 0.06
"""Of II and III, over the largest of I, II and III. The two legs have almost one potential: with the right arm's cable
on the right leg II becomes flat, with the left arm's III (Batchvarov et al., Europace 2007;9:1081). In PTB-XL folds 1
to 9 and the development recordings (1,738) neither is below 0.08. Lead I is not looked at: it is small in emphysema."""

SIZE_RATIOS = np.geomspace(0.05, 20.0, 121)
"""Size of I over that of II, free of gains, as tried. In the same recordings: 0.13 to 5."""

MIN_SPREAD = 0.15
"""Largest less smallest deviation, or range, of the independent leads over their mean. Recordings of six hospitals have
0.41 at least (113); 95 % of recordings that were normalised lead by lead and then cut to 7.3 s have 0.10 at most."""

MIN_P_CONSISTENCY = 0.7
"""As in :mod:`inference.ecg.measure`: with less, there is no P wave to look at."""

REVERSED_QRS, REVERSED_QRST = -0.2, -0.5
"""Correlation with V6: over the QRS where the P wave is inverted too (of II over QRS and T as well); where there is no
P wave, of I over the QRS, and over QRS and T.

I and V6 both look at the heart from the left: opposite complexes with an inverted P mean exchanged arm electrodes,
while in mirror-image dextrocardia V6 is inverted with I (Batchvarov et al., Europace 2007;9:1081). II and V6 both look
from below and the left: with an inverted P as well, right arm and left leg are exchanged, which turns II round; a P
wave from below the atria alone leaves the QRS as it is. On PTB-XL folds 1 to 9 and the development recordings (1,738):
no false alarm; with right arm and left arm exchanged in the data 96 % of those with a P wave are noticed, with right
arm and left leg 96 %. Exchanged left arm and left leg, and an exchange of the two legs, change too little to be held.
"""


@dataclass(frozen=True, slots=True)
class Arrangement:
    """How the six limb leads may be stored: ``places[i]`` has lead ``i`` of the standard order, times ``signs[i]``."""

    name: str
    places: tuple[int, ...]
    signs: tuple[float, ...]

    @property
    def moved(self) -> tuple[int, ...]:
        """Leads that are not where, or not as, they should be."""
        return tuple(i for i in range(6) if self.places[i] != i or self.signs[i] < 0)

    def undone(self, products: Signal) -> Signal:
        """Mean products ``(6, 6)`` of the leads in the standard order and with the right signs."""
        signs = np.array(self.signs)
        return np.asarray(products[np.ix_(self.places, self.places)] * np.outer(signs, signs))


@cache
def arrangements() -> tuple[Arrangement, ...]:
    """The right one first, then one lead inverted, then two leads with exchanged names."""
    order = tuple(range(6))
    found = [Arrangement("", order, (1.0,) * 6)]
    for i in order:
        found.append(Arrangement(f"−{LEADS[i]}", order, tuple(-1.0 if k == i else 1.0 for k in order)))
    for a, b in combinations(order, 2):
        places = tuple({a: b, b: a}.get(k, k) for k in order)
        found.append(Arrangement(f"{LEADS[a]} ↔ {LEADS[b]}", places, (1.0,) * 6))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Fit:
    """What the laws leave unexplained of the derived leads, relative to their parts in I and II (root mean squares).

    Parameters
    ----------
    as_stored
        With the gains as they are stored.
    rescaled
        With the positive factor for each lead that fits best, over the leads that say something of it.
    correlation
        Least of these leads with their sums, as they are then.
    sizes
        I, II and III, freed of these factors, over the largest of them.
    """

    as_stored: float
    rescaled: float
    correlation: float
    sizes: tuple[float, float, float]


def laws_broken(filtered: Signal, flat: NDArray[np.bool_]) -> Problem | None:
    """A lead that is inverted or has another's name, gains that disagree, or an arm's cable on the right leg.

    Parameters
    ----------
    filtered
        ``(12, n_samples) float64, mV`` at 500 Hz, baseline removed.
    flat
        ``(12,) bool``; neither I nor II is flat.

    Returns
    -------
    ``leads_reversed`` (reject), ``gains_inconsistent`` (warn), or ``None``.
    """
    limb, flat = smooth(filtered[:6], SMOOTHED), flat[:6]
    products = limb @ limb.T / limb.shape[1]  # the power of any sum of leads follows from these
    broken = [i for i in LAWS if not flat[i] and _residual(products, i) > MAX_LAW_RESIDUAL]
    if not broken:
        return _arm_on_the_right_leg(_sizes(products, 1.0))
    possible = [a for a in arrangements() if not flat[list(a.moved)].any()]
    fits = [_fit(a.undone(products), flat) for a in possible]
    other = _better(possible, fits)
    if other is None and fits[0].correlation < MIN_CORRELATION:
        other = f"I / II / {LEADS[broken[0]]}"
    if other is not None:
        return Problem("leads_reversed", "reject", other, LAWS[broken[0]][2])
    return _arm_on_the_right_leg(fits[0].sizes) or Problem("gains_inconsistent", "warn")


def _better(possible: list[Arrangement], fits: list[Fit]) -> str | None:
    """Name of the arrangement that clearly explains the leads better than the right one, which is the first."""
    right, others = fits[0], [k for k in range(1, len(fits)) if fits[k].correlation >= MIN_CORRELATION]
    if not others:
        return None
    rescaled = min(others, key=lambda k: fits[k].rescaled)
    if right.rescaled > ROUNDING and fits[rescaled].rescaled < right.rescaled / CLEARLY:
        return possible[rescaled].name
    # with gains that agree another one explains what the right one explains with no choice of gains
    as_stored = min(others, key=lambda k: fits[k].as_stored)
    if fits[as_stored].as_stored < min(right.as_stored / CLEARLY, max(right.rescaled, ROUNDING)):
        return possible[as_stored].name
    return None


def _arm_on_the_right_leg(sizes: tuple[float, float, float]) -> Problem | None:
    for pair, lead in (("RA ↔ RL", 1), ("LA ↔ RL", 2)):
        if sizes[lead] < MIN_SHARE:
            found = f"{pair}, {LEADS[lead]} {100 * sizes[lead]:.0f} %"
            return Problem("leads_reversed", "reject", found, f"{LEADS[lead]} ≥ {100 * MIN_SHARE:.0f} %")
    return None


def _sizes(products: Signal, factor_of_two: float) -> tuple[float, float, float]:
    """Root mean squares of I, of II times a factor, and of their difference, over the largest."""
    one, two, both = products[0, 0], products[1, 1] * factor_of_two**2, products[0, 1] * factor_of_two
    sizes = np.sqrt(np.maximum([one, two, one + two - 2 * both], 0.0))
    first, second, third = (sizes / sizes.max()).tolist()
    return first, second, third


def _residual(products: Signal, lead: int) -> float:
    """Of the law for ``lead``, relative to the lead and the sum together; 0 where both are."""
    law = np.array(LAWS[lead][:2])
    power = float(law @ products[:2, :2] @ law) + products[lead, lead]
    residual = power - 2 * float(law @ products[:2, lead])
    return float(np.sqrt(max(residual, 0.0) / power)) if power > 0 else 0.0


def _fit(products: Signal, flat: NDArray[np.bool_]) -> Fit:
    """``products`` ``(6, 6)`` and ``flat`` ``(6,)`` of limb leads in the standard order."""
    own = np.diagonal(products)
    laws = np.array([law[:2] for law in LAWS.values()])
    sums, with_lead, parts = _summed(laws[None], products)
    live = ~flat[2:]
    as_stored = (np.maximum(sums - 2 * with_lead + own[2:], 0.0) / parts)[0, live]
    telling = live & np.array([_residual(products, i) > COMPUTED_RESIDUAL for i in LAWS])
    if not telling.any():
        return Fit(_root_mean(as_stored), 0.0, 1.0, _sizes(products, 1.0))
    factors_of_two = np.sqrt(own[0] / own[1]) / SIZE_RATIOS
    shares = laws * np.stack([np.ones_like(factors_of_two), factors_of_two], axis=1)[:, None, :]
    sums, with_lead, parts = _summed(shares, products)
    explained = np.maximum(with_lead, 0.0) ** 2 / np.maximum(own[2:], 1e-12)
    left = (np.maximum(sums - explained, 0.0) / parts)[:, telling]
    best = int(left.mean(axis=1).argmin())
    correlation = (with_lead[best] / np.sqrt(np.maximum(sums[best] * own[2:], 1e-15)))[telling]
    sizes = _sizes(products, float(factors_of_two[best]))
    return Fit(_root_mean(as_stored), _root_mean(left[best]), float(correlation.min()), sizes)


def _summed(shares: Signal, products: Signal) -> tuple[Signal, Signal, Signal]:
    """Power of the sums of I and II by ``shares`` ``(n, 4, 2)``, their product with the lead, power of their parts."""
    sums = np.einsum("nki,ij,nkj->nk", shares, products[:2, :2], shares)
    with_lead = np.einsum("nki,ik->nk", shares, products[:2, 2:])
    parts = np.einsum("nki,i->nk", shares**2, np.diagonal(products)[:2])
    return sums, with_lead, parts


def _root_mean(squares: Signal) -> float:
    return float(np.sqrt(squares.mean())) if squares.size else 0.0


def normalised(samples: NDArray[np.float32], leads: list[int]) -> Problem | None:
    """``gains_inconsistent`` where each of several independent leads was scaled to the same deviation or range.

    Of such a file with I and II only the laws say nothing: III and the augmented leads are computed here.
    """
    with_values = samples[leads]
    for size in (np.nanstd(with_values, axis=1), np.nanmax(with_values, axis=1) - np.nanmin(with_values, axis=1)):
        if np.ptp(size) < MIN_SPREAD * size.mean():
            return Problem("gains_inconsistent", "warn")
    return None


def electrodes_exchanged(beat: RepresentativeBeat, marks: Marks) -> Problem | None:
    """The right arm's electrode exchanged with the left arm's or the left leg's, by the waves in I, II and V6."""
    if marks.qrs_onset is None or marks.qrs_offset is None or marks.qrs_ms is None:
        return None
    onset, offset = marks.qrs_onset, marks.qrs_offset
    one, two, six = (beat.samples[i] - beat.samples[i, onset - 6 : onset].mean() for i in (0, 1, LEADS.index("V6")))
    end = marks.t_offset or offset + int(0.3 * FS_HZ)
    over_qrs = [_correlation(lead[onset:offset], six[onset:offset]) for lead in (one, two)]
    over_qrst = [_correlation(lead[onset:end], six[onset:end]) for lead in (one, two)]
    if marks.p_onset is None or marks.p_offset is None or marks.p_consistency <= MIN_P_CONSISTENCY:
        net = float(one[onset:offset].max() + one[onset:offset].min())
        if net < 0 and over_qrs[0] < REVERSED_QRST and over_qrst[0] < REVERSED_QRST:
            return _exchanged("RA ↔ LA", f"r(I, V6) = {over_qrst[0]:.2f}", f"r(I, V6) ≥ {REVERSED_QRST:g}")
        return None
    p = [_above_chord(lead[marks.p_onset : marks.p_offset + 1]) for lead in (one, two)]
    turned = [p[k] < 0 and over_qrs[k] < REVERSED_QRS for k in (0, 1)]
    turned[1] &= over_qrst[1] < REVERSED_QRS
    if not any(turned):
        return None
    k = 1 if turned[1] and (not turned[0] or over_qrs[1] < over_qrs[0]) else 0  # names 99 % of the pairs right
    pair, lead = (("RA ↔ LA", "I"), ("RA ↔ LL", "II"))[k]
    found = f"P({lead}) < 0, r({lead}, V6) = {over_qrs[k]:.2f}"
    return _exchanged(pair, found, f"r({lead}, V6) ≥ {REVERSED_QRS:g}")


def _exchanged(pair: str, found: str, expected: str) -> Problem:
    return Problem("leads_reversed", "reject", f"{pair}, {found}", expected)


def _above_chord(wave: Signal) -> float:
    """Largest deviation, with its sign, of a wave from the straight line between its ends."""
    above = smooth(wave - np.linspace(wave[0], wave[-1], len(wave)), 5)
    return float(above[np.abs(above).argmax()])


def _correlation(a: Signal, b: Signal) -> float:
    return float(a @ b / np.sqrt((a @ a) * (b @ b) + 1e-12))
