"""Agreement of two readers beyond chance."""

from __future__ import annotations

from service.followup.screening import interval


def kappa(both: int, first_only: int, second_only: int, neither: int) -> tuple[float, float, float] | None:
    """Cohen's kappa with its 95 % interval; ``None`` where both say the same one thing of every case.

    The interval is that of the agreement, with the agreement by chance as it is. It has a width also where two readers
    agree in all of a few cases, which one by the standard error has not.

    References
    ----------
    Cohen J., A coefficient of agreement for nominal scales, Educ Psychol Meas 1960;20:37-46, equation 1.
    """
    n = both + first_only + second_only + neither
    if not n:
        return None
    chance = ((both + first_only) * (both + second_only) + (neither + first_only) * (neither + second_only)) / n**2
    if chance == 1:
        return None
    low, high = interval(both + neither, n)
    value, low, high = (round((share - chance) / (1 - chance), 3) for share in ((both + neither) / n, low, high))
    return value, max(-1.0, low), high
