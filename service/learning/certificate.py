"""The certificate of a trainee as PDF: who read how many cases, and the figures. Its numbers and codes are the same in
every language, and so is the digest of its figures.
"""

from __future__ import annotations

import hashlib
import io
import json
from datetime import UTC, datetime, tzinfo
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

from data_specs.vocabulary import SYSTEMS, Language, term_of
from service.language.texts import text
from service.learning.figures import Figures
from service.learning.progress import Progress
from service.learning.records import ANY
from service.learning.words import estimate, name_of, rate
from service.report.pdf import AUTHOR, ONE_AT_A_TIME
from service.report.pdf_elements import CALM, INK, LINE, MUTED, SOFT, Elements, register_fonts

if TYPE_CHECKING:
    from reportlab.pdfgen.canvas import Canvas
    from reportlab.platypus import Flowable

SIZE = 9.0
SHARES = (0.27, 0.09, 0.18, 0.18, 0.15, 0.13)
"""Widths of the columns: finding, cases, sensitivity, specificity, kappa, Brier score."""
SHORT = {SYSTEMS["sct"]: "SNOMED CT", SYSTEMS["loinc"]: "LOINC", SYSTEMS["own"]: "Sàng Lọc"}


def certificate(found: Progress, language: Language, zone: tzinfo = UTC) -> bytes:
    """The PDF. The same figures give the same bytes.

    Parameters
    ----------
    found
        With at least one case.
    zone
        Of its days.
    """
    with ONE_AT_A_TIME:
        return _Certificate(found, language, zone).build()


def digest_of(found: Progress) -> str:
    """SHA-256 of who read what with which figures, in one order and without words: the same in every language."""
    content = found.model_dump(mode="json", include={"reader", "site", "first", "last", "cases", "packages"})
    content["figures"] = [each.model_dump(mode="json", exclude={"peers"}) for each in found.figures]
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


class _Certificate(Elements):
    def __init__(self, found: Progress, language: Language, zone: tzinfo) -> None:
        super().__init__(SIZE)
        self.found, self.language, self.zone = found, language, zone

    def build(self) -> bytes:
        from reportlab.lib.pagesizes import A4  # noqa: PLC0415  reportlab is loaded where a PDF is asked for
        from reportlab.lib.units import mm  # noqa: PLC0415
        from reportlab.platypus import BaseDocTemplate, Frame, PageTemplate  # noqa: PLC0415

        register_fonts()
        into = io.BytesIO()
        document = BaseDocTemplate(
            into,
            pagesize=A4,
            title=self._say("certificate"),
            author=AUTHOR,
            creator=AUTHOR,
            producer=AUTHOR,
            lang=self.language,
            invariant=1,
            displayDocTitle=True,
        )
        frame = Frame(12 * mm, 15 * mm, A4[0] - 24 * mm, A4[1] - 27 * mm, 0, 0, 0, 0)

        def footer(canvas: Canvas, _: object) -> None:
            canvas.setFillColor(MUTED)
            canvas.setFont("Report-Bold", 7)
            canvas.drawString(12 * mm, 8 * mm, self._say("teaching_only"))

        document.addPageTemplates(PageTemplate("upright", [frame], onPage=footer, pagesize=A4))
        document.build(self._story())
        return into.getvalue()

    def _say(self, key: str, **values: object) -> str:
        return text(f"learning_{key}", self.language, **values)

    def _day(self, at: datetime | None) -> str:
        return at.astimezone(self.zone).strftime("%Y-%m-%d") if at else "—"

    def _story(self) -> list[Flowable]:
        found = self.found
        return [
            self.text(f"<b>{escape(self._say('certificate'))}</b>", grown=9, after=6, ink=CALM),
            self.text(f"<b>{escape(found.name)}</b>", grown=6, after=3),
            self.text(
                escape(
                    self._say("has_read", cases=found.cases, first=self._day(found.first), last=self._day(found.last))
                ),
                grown=1,
            ),
            self.text(escape(self._say("at_site", site=found.site)), after=4),
            self.heading(self._say("figures")),
            self._figures(),
            self.text(escape(self._say("how_counted", again=found.again)), small=True, before=4),
            self.text(escape(self._say("how_rated")), small=True, after=4),
            self.heading(self._say("packages")),
            *(self.text(each, small=True) for each in found.packages),
            self.heading(self._say("figures_digest")),
            self.text(digest_of(found), small=True),
            self.text(f"<b>{escape(self._say('teaching_only'))}</b>", before=8, ink=INK),
        ]

    def _figures(self) -> Flowable:
        heads = [
            self.text(f"<b>{escape(self._say(each))}</b>", small=True)
            for each in ("finding", "cases_present", "sensitivity", "specificity", "kappa", "brier")
        ]
        rows: list[list[Any]] = [heads, *(self._row(each) for each in self.found.figures)]
        style = [("LINEBELOW", (0, 0), (-1, -1), 0.4, LINE), ("BACKGROUND", (0, 0), (-1, 0), SOFT)]
        return self.table(rows, list(SHARES), *style, repeat=1)

    def _row(self, row: Figures) -> list[Any]:
        return [
            self.text(f"<b>{escape(name_of(row.finding, self.language))}</b>{_code(row.finding)}", small=True, ink=INK),
            self.text(f"{row.cases} / {row.present}", small=True, ink=INK),
            self._cell(rate(row.sensitivity, self.language)),
            self._cell(rate(row.specificity, self.language)),
            self._cell(estimate(row.kappa, self.language)),
            self._cell(estimate(row.brier, self.language)),
        ]

    def _cell(self, shown: tuple[str, str]) -> Flowable:
        return self.text(f"<b>{escape(shown[0])}</b><br/>{escape(shown[1])}", small=True, ink=INK)


def _code(finding: str) -> str:
    if finding == ANY:
        return ""
    term = term_of(finding)
    return f"<br/>{SHORT[term.system]} {escape(term.code)}"
