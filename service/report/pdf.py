"""The report as PDF: one page of A4 for an ordinary visit, more pages where one would be too small to read, and a page
for each film, and a page across for each recording, which is printed to scale.

The content and its order are those of :mod:`service.report.sheet`. If it does not fit on one page, smaller sizes of
:data:`~service.report.pdf_elements.SIZES` are tried, then the findings below their thresholds are put on one line for
each organ. If it still does not fit, it continues on further pages in a normal size. No positive finding, no reason, no
next step and no opinion is ever shortened.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, tzinfo
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

from data_specs.visit.report import Report
from data_specs.vocabulary import Language
from service.report.pdf_elements import (
    ALARM,
    CALM,
    CARE,
    INK,
    LINE,
    MUTED,
    SIGNED,
    SIZES,
    SOFT,
    Elements,
    register_fonts,
)
from service.report.sheet import FindingLine, LabelledText, Sheet, make_sheet, picture_caption, plain
from service.report.words import say

if TYPE_CHECKING:
    from reportlab.pdfgen.canvas import Canvas
    from reportlab.platypus import Flowable, Paragraph

AUTHOR = "Sàng Lọc"
NBSP = "\u00a0"

STATUS = {"preliminary": (CARE, "#fff1d6"), "final": (SIGNED, "#e5f4ea"), "amended": (SIGNED, "#e5f4ea")}
"""Colours of text and background by the report's status."""
STEPS = {"refer": ALARM, "ask": CARE, "manage": CALM}
PRIORITY = {"urgent": ALARM, "soon": CARE, "routine": CALM, "unassessed": MUTED}

LINES_PER_PARAGRAPH = 40
"""Of free text: the time that reportlab needs for a paragraph grows with the square of its lines."""

ONE_AT_A_TIME = threading.Lock()
"""All documents share reportlab's font objects, so only one document is made at a time."""


def render(
    report: Report,
    language: Language,
    *,
    pictures: Mapping[int, bytes] | None = None,
    traces: Mapping[int, bytes] | None = None,
    zone: tzinfo = UTC,
) -> bytes:
    """The PDF. The same report gives the same bytes.

    Parameters
    ----------
    pictures
        PNG or JPEG by index of the posted file: the film with numbered outlines.
    traces
        PNG by index of a recording's first file, :data:`~inference.render.paper.PRINT_PX_PER_MM` to the millimetre.
    zone
        Of its times.
    """
    sheet = make_sheet(report, language, zone)
    shown = _Shown(report, sheet, language, pictures or {}, traces or {})
    one_page = 1 + len(shown.pictures) + len(shown.traces)
    with ONE_AT_A_TIME:
        for size, brief in [*((size, False) for size in SIZES), (SIZES[-1], True)]:
            document, pages = _Layout(shown, size, brief).build(one_page)
            if pages == one_page:
                return document
        several_pages = _Layout(shown, SIZES[1], brief=False)
        _, pages = several_pages.build(one_page)
        return several_pages.build(pages)[0]


@dataclass(frozen=True)
class _Shown:
    """What is laid out."""

    report: Report
    sheet: Sheet
    language: Language
    pictures: Mapping[int, bytes]
    traces: Mapping[int, bytes]


class _Layout(Elements):
    """A report laid out in one size of text. ``brief``: the negative findings of an organ share one line."""

    def __init__(self, shown: _Shown, size: float, brief: bool) -> None:
        super().__init__(size)
        self.report, self.sheet, self.language = shown.report, shown.sheet, shown.language
        self.pictures, self.traces = shown.pictures, shown.traces
        self.brief = brief

    def build(self, pages: int) -> tuple[bytes, int]:
        """The document, and how many pages it has. Its footers say that it has ``pages``."""
        from reportlab.lib.pagesizes import A4  # noqa: PLC0415  reportlab is loaded where a PDF is asked for
        from reportlab.lib.units import mm  # noqa: PLC0415
        from reportlab.platypus import BaseDocTemplate, Frame, PageTemplate  # noqa: PLC0415

        register_fonts()
        into = io.BytesIO()
        document = BaseDocTemplate(
            into,
            pagesize=A4,
            title=f"{self.sheet.title} · {self.sheet.footer}",
            author=AUTHOR,
            creator=AUTHOR,
            producer=AUTHOR,
            subject=self.sheet.status,
            lang=self.language,
            invariant=1,
            displayDocTitle=True,
        )
        for name, (width, height) in (("upright", A4), ("across", (A4[1], A4[0]))):
            frame = Frame(12 * mm, 15 * mm, width - 24 * mm, height - 25 * mm, 0, 0, 0, 0)

            def footer(canvas: Canvas, _: object, right: float = width - 12 * mm) -> None:
                self._footer(canvas, 12 * mm, right, 8 * mm, pages)

            document.addPageTemplates(PageTemplate(name, [frame], onPage=footer, pagesize=(width, height)))
        document.build(self._story())
        return into.getvalue(), document.page

    def _footer(self, canvas: Canvas, left: float, right: float, bottom: float, pages: int) -> None:
        canvas.setFillColor(MUTED)
        canvas.setFont("Report-Bold", 7)
        canvas.drawString(left, bottom + 9, self.sheet.decision_support)
        canvas.setFont("Report", 7)
        number = canvas.getPageNumber()
        person = [self.report.person.name, self.report.person.id] if number > 1 else []
        footer = " · ".join((self.sheet.footer, *(each[:60] for each in person if each)))
        canvas.drawString(left, bottom, plain(footer))
        page = say("page_of", self.language, page=number, pages=pages)
        canvas.drawRightString(right, bottom, page)

    def _story(self) -> list[Flowable]:
        return [
            *self._head(),
            *self._summary(),
            *self._limitations(),
            *self._opinions(),
            *self._findings(),
            *self._sources(),
            *self._films(),
            *self._recordings(),
        ]

    def _head(self) -> list[Flowable]:
        ink, ground = STATUS[self.report.status]
        banner = self.table(
            [
                [
                    self.text(f"<b>{escape(self.sheet.status)}</b>", ink=ink),
                    self.text(escape(self.sheet.version), small=True, ink=ink, right=True),
                ]
            ],
            [0.68, 0.32],
            ("BACKGROUND", (0, 0), (-1, -1), ground),
            ("LINEBEFORE", (0, 0), (0, -1), 3, ink),
            ("VALIGN", (0, 0), (-1, -1), "MIDDLE"),
            ("LEFTPADDING", (0, 0), (0, -1), 6),
            ("RIGHTPADDING", (-1, 0), (-1, -1), 6),
        )
        return [
            self.text(f"<b>{escape(self.sheet.title)}</b>", grown=4, after=3),
            banner,
            *(self._labelled(texts) for texts in (self.sheet.person, self.sheet.order) if texts),
        ]

    def _labelled(self, texts: tuple[LabelledText, ...]) -> Paragraph:
        pairs = (f'<font color="{MUTED}">{escape(each.label)}</font> <b>{escape(each.text)}</b>' for each in texts)
        return self.text(f"{NBSP}{NBSP}{NBSP} ".join(pairs), before=3)

    def _summary(self) -> list[Flowable]:
        """Priority, conclusion and next steps."""
        ground = PRIORITY[self.report.priority]
        priority = f'<font color="#ffffff" backColor="{ground}"><b>{NBSP}{escape(self.sheet.priority)}{NBSP}</b></font>'
        reasons = escape(" ".join(self.sheet.priority_reasons))
        label = escape(say("priority", self.language))
        story: list[Flowable] = [
            self.text(f"{label}{self.sheet.colon} {priority} {reasons}", before=6),
            self.text(f"<b>{escape(plain(self.sheet.conclusion))}</b>", grown=1, before=2),
        ]
        if self.sheet.steps:
            story.append(self._heading("section_next_steps"))
        for line in self.sheet.steps:
            source = f'<font color="{MUTED}" size="{self.small}">{escape(line.source)}</font>'
            ink = STEPS[line.step.step]
            markup = f'<font color="{ink}"><b>{escape(line.lead)}</b></font> {escape(line.rest)} {source}'
            story.append(self.text(markup, after=1, indent=7))
        return story

    def _opinions(self) -> list[Flowable]:
        if not self.sheet.opinions:
            return []
        story: list[Flowable] = [self._heading("section_opinions")]
        for opinion in reversed(self.sheet.opinions):
            signature = f'<font color="{SIGNED}"><b>{escape(opinion.signature)}</b></font>'
            lines = [signature, *escape(" · ".join(opinion.sentences)).split("\n")]
            for start in range(0, len(lines), LINES_PER_PARAGRAPH):
                some = lines[start : start + LINES_PER_PARAGRAPH]
                is_last = start + LINES_PER_PARAGRAPH >= len(lines)
                story.append(self.text("<br/>".join(some), after=2 if is_last else 0, indent=7))
        return story

    def _findings(self) -> list[Flowable]:
        from reportlab.platypus import CondPageBreak  # noqa: PLC0415

        if not self.sheet.organs:
            return []
        # A table that is kept with its heading would go to the next page as a whole.
        story: list[Flowable] = [CondPageBreak(8 * self.size), self._heading("section_findings", keep=False)]
        columns = ("page_column_finding", "page_column_result", "page_column_meaning")
        rows: list[list[Any]] = [[self.text(escape(say(key, self.language)), small=True) for key in columns]]
        style: list[tuple[Any, ...]] = [("LINEBELOW", (0, 0), (-1, -1), 0.4, LINE)]
        for organ in self.sheet.organs:
            category = f' <font color="{MUTED}">{escape(organ.category)}</font>' if organ.category else ""
            style += [("SPAN", (0, len(rows)), (-1, len(rows))), ("BACKGROUND", (0, len(rows)), (-1, len(rows)), SOFT)]
            basis = f' <font size="{self.small}">{escape(organ.basis)}</font>' if organ.basis else ""
            rows.append([self.text(f"<b>{escape(organ.title)}</b>{category}{basis}"), "", ""])
            negative = [line for line in organ.findings if self.brief and line.mark == "below"]
            rows += [self._finding(line) for line in organ.findings if line not in negative]
            if negative:
                style.append(("SPAN", (0, len(rows)), (-1, len(rows))))
                rows.append([self._negative(negative), "", ""])
            if organ.sought:
                style.append(("SPAN", (0, len(rows)), (-1, len(rows))))
                rows.append([self.text(escape(" ".join(organ.sought)), small=True), "", ""])
        return [*story, self.table(rows, [0.31, 0.23, 0.46], *style, repeat=1)]

    def _finding(self, line: FindingLine) -> list[Paragraph]:
        ink = ALARM if line.stands_out else INK
        name, result = escape(line.name), escape(line.result)
        if line.stands_out:
            name = f"<b>{name}</b>"
        code = f'<font color="{MUTED}" size="{self.small}">{escape(line.code.replace(" ", NBSP))}</font>'
        number = f' <font size="{self.small}">{result}</font>' if line.verdict else ""
        return [
            self.text(f"{name} {code}"),
            self.text(f"{escape(line.verdict) or result}{number}", ink=ink),
            self.text("<br/>".join(map(escape, line.notes)), small=True),
        ]

    def _negative(self, lines: list[FindingLine]) -> Paragraph:
        """Negative findings on one line: name, code and number, without the threshold."""
        findings = ", ".join(f"{line.name} ({line.code}) {line.result}" for line in lines)
        return self.text(escape(say("page_below_thresholds", self.language, findings=findings)), small=True)

    def _films(self) -> list[Flowable]:
        """Each film on a page of its own."""
        from reportlab.lib.pagesizes import A4  # noqa: PLC0415
        from reportlab.lib.units import mm  # noqa: PLC0415
        from reportlab.platypus import Image, NextPageTemplate, PageBreak  # noqa: PLC0415

        story: list[Flowable] = []
        for line in self.sheet.inputs:
            if line.posted.index in self.pictures:
                caption = escape(picture_caption(self.report, line, self.language))
                film = io.BytesIO(self.pictures[line.posted.index])
                room = A4[1] - 40 * mm
                story += [NextPageTemplate("upright"), PageBreak(), self.text(caption, after=4)]
                story.append(Image(film, self.width, room, kind="proportional", hAlign="LEFT"))
        return story

    def _recordings(self) -> list[Flowable]:
        """Each recording on a page of its own, to scale; smaller, which is said, where its signal is too high."""
        from reportlab.lib.pagesizes import A4  # noqa: PLC0415
        from reportlab.lib.units import mm  # noqa: PLC0415
        from reportlab.lib.utils import ImageReader  # noqa: PLC0415
        from reportlab.platypus import Image, NextPageTemplate, PageBreak  # noqa: PLC0415

        from inference.render.paper import PRINT_PX_PER_MM  # noqa: PLC0415

        story: list[Flowable] = []
        for line in self.sheet.inputs:
            if line.posted.index not in self.traces:
                continue
            content = self.traces[line.posted.index]
            width, height = (px / PRINT_PX_PER_MM * mm for px in ImageReader(io.BytesIO(content)).getSize())
            room = A4[0] - 25 * mm - 4 * self.size
            shrink = min(1.0, room / height)
            caption = [f"{line.kind}, {line.filename}"]
            if shrink < 1:
                caption.append(say("page_recording_scaled", self.language))
            story += [
                NextPageTemplate("across"),
                PageBreak(),
                self.text(escape(". ".join(caption)), small=True, after=3),
            ]
            story.append(Image(io.BytesIO(content), shrink * width, shrink * height, hAlign="LEFT"))
        return story

    def _limitations(self) -> list[Flowable]:
        if not self.sheet.limitations:
            return []
        story: list[Flowable] = [self._heading("section_not_assessed")]
        for limitation in self.sheet.limitations:
            ink = INK if limitation.assessed else CARE
            title = f'<font color="{ink}"><b>{escape(limitation.title)}.</b></font>'
            reasons = " ".join(sentence for _, sentence in limitation.reasons)
            story.append(self.text(f"{title} {escape(reasons)}"))
        return story

    def _sources(self) -> list[Flowable]:
        """Posted files, posted values, and models."""
        story: list[Flowable] = [self._heading("section_inputs")] if self.sheet.inputs else []
        colon = self.sheet.colon
        for line in self.sheet.inputs:
            words = " ".join((f"({line.kind}){colon} {line.use}.", *line.problems))
            story.append(self.text(f"<b>{escape(line.filename)}</b> {escape(words)}", small=True))
        if self.sheet.values:
            values = "; ".join(f"{value.label}{colon} {value.text}" for value in self.sheet.values)
            story += [self._heading("page_section_values"), self.text(escape(values), small=True)]
        if self.sheet.models:
            models = "; ".join(line.text for line in self.sheet.models)
            story += [self._heading("section_models"), self.text(escape(models), small=True)]
        return story

    def _heading(self, key: str, keep: bool = True) -> Paragraph:
        return self.heading(say(key, self.language), keep)
