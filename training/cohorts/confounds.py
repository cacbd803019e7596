"""Labels that something other than the disease predicts: the view, the device, the site, or the appearance.

Appearance
----------
A linear model on thumbnails tells the tuberculosis films of one collection from the normal ones of another at an AUC
of 0.97 and more, and tells children's pneumonia from normal films of one hospital just as well. Thumbnails, borders,
spectra and grey levels were tried: nothing in the pixels tells the two situations apart, because a disease that fills
a lung also changes a thumbnail. The site of each case does tell them apart:

* Positives and negatives come from different sites (``columns.site``): the label is then the site, and no part of the
  cohort can show that the disease was learnt. Unusable; reported are the AUC by which thumbnails tell the sites apart
  and the share of the label that the site explains.
* Every case comes from one stated site (``site``, or one value in its column): the site explains nothing. A label
  that thumbnails predict is doubtful: the reason may be the disease, or the ward's portable device.
* The site is not stated: a label that thumbnails predict makes the cohort unusable until the site is stated. A wrong
  statement of the researcher cannot be detected here.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu

from training.cohorts.cohort import MIN_CASES
from training.cohorts.inputs import Inputs
from training.cohorts.likeness import appearance, auc_of_appearance, cramers_v
from training.cohorts.table import CohortTable
from training.cohorts.verdicts import Check, Index, Verdict, check_of_rows, known_rows

V_STOP, V_DOUBT, P_DOUBT = 0.7, 0.1, 0.001
"""Cramér's V with a tag: at 0.7 the tag explains half of the label's variance (unusable). 'No finding' of NIH
ChestX-ray14 has 0.2 with the view, which is reported as doubtful."""
LOOK_STOP, LOOK_DOUBT, SITES_STOP = 0.93, 0.85, 0.9
"""AUC of a linear model on thumbnails: unusable if the site is unknown; doubtful; and the limit for the sites."""
LOOK_MIN_PERSONS = 30
"""With fewer positive or negative persons, this AUC is too uncertain to make a cohort unusable."""
AGE_AUC_DOUBT = 0.75


def label_by_tag(table: CohortTable, inputs: Inputs) -> Iterable[Check]:
    """Labels that one tag predicts: view, site, device (unusable above ``V_STOP``), sex and age (at most doubtful)."""
    tags = {name: table.frame[name].to_numpy(dtype=object) for name in ("view", "device", "sex")}
    tags["site"] = table.site
    for finding in table.labels:
        known = known_rows(table, inputs, finding)
        y = table.labels[finding].to_numpy()[known]
        if len(set(y)) < 2:
            continue
        for name, values in tags.items():
            tag = np.array(["(unknown)" if v is None else str(v) for v in values[known]], dtype=object)
            v, p = cramers_v(y, tag)
            if v < V_DOUBT or p > P_DOUBT:
                continue
            shares = {t: ((tag[y == 0] == t).mean(), (tag[y == 1] == t).mean()) for t in sorted(set(tag))}
            # Of two values with the same difference, the one that is more frequent in negatives.
            most = max(shares, key=lambda t: (round(abs(shares[t][1] - shares[t][0]), 9), shares[t][0]))
            text = (
                f"{finding} is predicted by the {name}: {most} in {shares[most][0]:.0%} of the negatives and "
                f"{shares[most][1]:.0%} of the positives; Cramér's V {v:.2f}, {v * v:.0%} of the label explained. "
                f"A network can learn the {name} instead"
            )
            stops = v >= V_STOP and name != "sex"
            if stops:
                text += f": add cases so that there are positives and negatives of each {name}, or remove the label"
            giving = known[(tag == most) & (y == float(shares[most][1] > shares[most][0]))]
            verdict: Verdict = "unusable" if stops else "doubtful"
            yield check_of_rows(table, f"label by {name}", verdict, text, giving, figure=round(v, 3))
        yield from _label_by_age(table, finding, known, y)


def _label_by_age(table: CohortTable, finding: str, known: Index, y: NDArray[np.float64]) -> Iterable[Check]:
    age = table.frame.age_years.to_numpy()[known]
    old, young = age[(y == 1) & ~np.isnan(age)], age[(y == 0) & ~np.isnan(age)]
    if min(len(old), len(young)) < MIN_CASES:
        return
    u, p = mannwhitneyu(old, young)
    auc = max(u / (len(old) * len(young)), 1 - u / (len(old) * len(young)))
    if auc >= AGE_AUC_DOUBT and p <= P_DOUBT:
        text = f"{finding}: age alone predicts it (AUC {auc:.2f}; medians {np.median(young):g} and {np.median(old):g})"
        yield Check("label by age", "doubtful", text, figure=round(float(auc), 3))


def label_by_look(table: CohortTable, inputs: Inputs) -> Iterable[Check]:
    """Labels that the appearance predicts; the verdict depends on the sites (see the docstring of this module)."""
    if table.manifest.modality == "labs":
        return
    look, person, site = appearance(inputs.x), table.person, table.site
    for finding in table.labels:
        known = known_rows(table, inputs, finding)
        y = table.labels[finding].to_numpy()[known]
        auc = auc_of_appearance(look[known], y, person[known])
        if auc is None:
            continue
        where = np.array(["(unknown)" if s is None else str(s) for s in site[known]], dtype=object)
        stated = [s for s in sorted(set(where)) if s != "(unknown)"]
        what = "thumbnails of 16 × 16" if table.manifest.modality == "cxr" else "spectra"
        text = f"{finding}: a linear model on {what} predicts it with AUC {auc:.2f}"
        few = min(len(set(person[known][y == v])) for v in (0, 1)) < LOOK_MIN_PERSONS
        verdict: Verdict = "ok"
        figure = auc
        if len(set(where)) > 1:
            v, _ = cramers_v(y, where)
            between = _between_sites(look[known], y, where, person[known])
            text += f"; the sites explain {v * v:.0%} of the label"
            if between is not None:
                text += f", and {what} tell them apart with AUC {between:.2f}"
            if v >= V_STOP and between is not None and between >= SITES_STOP:
                verdict, figure = "unusable", between
                text += ". Positives and negatives come from different sites: a network would learn the site"
            elif auc >= LOOK_DOUBT:
                verdict = "doubtful"
        elif stated and auc >= LOOK_DOUBT:
            verdict = "doubtful"
            text += (
                f". All cases are from {stated[0]}: the reason may be the disease, or how the sick are examined there. "
                "Evaluate at another site before use"
            )
        elif not stated and auc >= LOOK_DOUBT:
            stops = auc >= LOOK_STOP and not few and table.manifest.modality == "cxr"
            verdict = "unusable" if stops else "doubtful"
            text += (
                ". The site of the cases is not stated, so the reason may be the disease or the site. Name the "
                "column (columns: {site: …}), or, only if every case comes from one hospital, that hospital (site: …)"
            )
        yield check_of_rows(
            table,
            "label by look",
            verdict,
            text,
            known[y == 1] if verdict == "unusable" else known[:0],
            figure=round(figure, 3),
        )


def _between_sites(
    look: NDArray[np.float64], y: NDArray[np.float64], site: NDArray[np.object_], person: NDArray[np.str_]
) -> float | None:
    """AUC by which the appearance tells sites with an above-average share of positives from the others."""
    richer = {s for s in set(site) if y[site == s].mean() > y.mean()}
    return auc_of_appearance(look, np.isin(site.astype(str), sorted(map(str, richer))).astype(float), person)
