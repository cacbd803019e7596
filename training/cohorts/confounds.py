"""Labels that something other than the disease predicts: the view, the device, the site, or the look of the source.

What the look of the source may explain
---------------------------------------
A linear model on thumbnails tells the tuberculosis films of one collection from the normal ones of another at an AUC
of 0.97 and more, and tells children's pneumonia from normal films of one hospital just as well. Thumbnails, borders,
spectra and grey levels were tried: nothing in the pixels separates the two cases, since a disease that fills a lung
is visible at a glance too. What separates them is not in the pixels but in where the films come from:

* Positives and negatives come from different sites (``columns.site``): the label *is* the site, whatever the disease
  looks like, and no part of the cohort can show otherwise. Unusable; the AUC at which thumbnails tell the sites apart
  is reported beside the share of the label that the site explains.
* Every case comes from one stated site (``site``, or one value in its column): the site explains nothing. A label
  that thumbnails predict is then reported, with its AUC, as doubtful: it may be the disease, or the ward's portable
  device. It is not stopped.
* Nobody said where the cases come from: the two cannot be told apart, so a label that the look predicts stops the
  cohort until the site is stated. The statement is the researcher's; a wrong one cannot be found out here.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu

from training.cohorts.cohort import MIN_CASES
from training.cohorts.files import CohortTable, Inputs
from training.cohorts.likeness import cramers_v, looks, told_by
from training.cohorts.verdicts import Check, Index, Verdict, about, known_rows

V_STOP, V_DOUBT, P_DOUBT = 0.7, 0.1, 0.001
"""Cramér's V with a tag: above 0.7 half of the label's variance is the tag's. 'No finding' of NIH ChestX-ray14 has
0.2 with the view, which is worth saying and no reason to stop."""
LOOK_STOP, LOOK_DOUBT, SITES_STOP = 0.93, 0.85, 0.9
"""AUC of a linear model on thumbnails: for a label of unknown origin, worth saying, and for the sites themselves."""
LOOK_MIN_PERSONS = 30
"""With fewer positive or negative persons, the AUC of a look is too uncertain to stop a cohort."""
AGE_AUC_DOUBT = 0.75


def label_by_tag(table: CohortTable, inputs: Inputs) -> Iterable[Check]:
    """Labels that one tag predicts: view, site, device (which stop beyond ``V_STOP``), sex and age (which do not)."""
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
            # Of two values that differ alike, the one that marks the negatives.
            most = max(shares, key=lambda t: (round(abs(shares[t][1] - shares[t][0]), 9), shares[t][0]))
            text = (
                f"{finding} is predicted by the {name}: {most} in {shares[most][0]:.0%} of the negatives and "
                f"{shares[most][1]:.0%} of the positives; Cramér's V {v:.2f}, {v * v:.0%} of the label explained. "
                f"A network can learn the {name} instead"
            )
            stops = v >= V_STOP and name != "sex"
            if stops:
                text += f": add cases that break the tie (positives and negatives of each {name}), or drop the label"
            giving = known[(tag == most) & (y == float(shares[most][1] > shares[most][0]))]
            verdict: Verdict = "unusable" if stops else "doubtful"
            yield about(table, f"label by {name}", verdict, text, giving, figure=round(v, 3))
        yield from _age_tells(table, finding, known, y)


def _age_tells(table: CohortTable, finding: str, known: Index, y: NDArray[np.float64]) -> Iterable[Check]:
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
    """Labels that the mere look predicts, judged by what is known of the sites (see the top of this module)."""
    if table.manifest.modality == "labs":
        return
    look, person, site = looks(inputs.x), table.person, table.site
    for finding in table.labels:
        known = known_rows(table, inputs, finding)
        y = table.labels[finding].to_numpy()[known]
        auc = told_by(look[known], y, person[known])
        if auc is None:
            continue
        where = np.array(["(unknown)" if s is None else str(s) for s in site[known]], dtype=object)
        stated = [s for s in sorted(set(where)) if s != "(unknown)"]
        what = "thumbnails of 16 × 16" if table.manifest.modality == "cxr" else "spectra"
        told = f"{finding}: a linear model on {what} predicts it with AUC {auc:.2f}"
        few = min(len(set(person[known][y == v])) for v in (0, 1)) < LOOK_MIN_PERSONS
        verdict: Verdict = "ok"
        figure = auc
        if len(set(where)) > 1:
            v, _ = cramers_v(y, where)
            between = _between_sites(look[known], y, where, person[known])
            told += f"; the sites explain {v * v:.0%} of the label"
            if between is not None:
                told += f", and {what} tell them apart with AUC {between:.2f}"
            if v >= V_STOP and between is not None and between >= SITES_STOP:
                verdict, figure = "unusable", between
                told += ". Positives and negatives come from different places: a network would learn the place"
            elif auc >= LOOK_DOUBT:
                verdict = "doubtful"
        elif stated and auc >= LOOK_DOUBT:
            verdict = "doubtful"
            told += (
                f". All cases come from {stated[0]}: it may be the disease, or how the sick are examined there. "
                "Evaluate at another site before use"
            )
        elif not stated and auc >= LOOK_DOUBT:
            stops = auc >= LOOK_STOP and not few and table.manifest.modality == "cxr"
            verdict = "unusable" if stops else "doubtful"
            told += (
                ". Nothing says which site each case comes from, so this may be the disease or the source. Name the "
                "column (columns: {site: …}), or, only if every case comes from one hospital, that one (site: …)"
            )
        yield about(
            table,
            "label by look",
            verdict,
            told,
            known[y == 1] if verdict == "unusable" else known[:0],
            figure=round(figure, 3),
        )


def _between_sites(
    look: NDArray[np.float64], y: NDArray[np.float64], site: NDArray[np.object_], person: NDArray[np.str_]
) -> float | None:
    """AUC at which looks tell the sites with more positives than the whole from those with fewer."""
    richer = {s for s in set(site) if y[site == s].mean() > y.mean()}
    return told_by(look, np.isin(site.astype(str), sorted(map(str, richer))).astype(float), person)
