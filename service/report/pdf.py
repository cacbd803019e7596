"""The report on paper: one sheet of A4 for an ordinary visit, more where that could not be read.

The content is that of :mod:`service.report.sheet`, in its order. What does not fit is first set smaller, down to
:data:`SIZES`'s last; then the findings below their thresholds share one line; what is still too long goes on on a
further page at full size. No positive finding, no reason, no step and no opinion is ever shortened.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

from data_specs.visit.report import Report
from data_specs.vocabulary import Language
from service.report.sheet import FindingRow, Sheet, plain, sheet
from service.report.words import say

if TYPE_CHECKING:
    from reportlab.lib.styles import ParagraphStyle
    from reportlab.pdfgen.canvas import Canvas
    from reportlab.platypus import Flowable, Paragraph, Table

AUTHOR = "Sàng Lọc"
NBSP = "\u00a0"
SIZES = (9.5, 9.0, 8.5, 8.0, 7.5)
"""Sizes of the text in points; the small print is a point smaller, and 6.5 is as small as print may be read."""

INK, MUTED, LINE, SOFT = "#16202b", "#4f5b69", "#cfd6de", "#f2f4f7"
ALARM, CARE, CALM, SIGNED = "#a61b1b", "#7d4b00", "#1d4f7a", "#14532d"
STATUS = {"preliminary": (CARE, "#fff1d6"), "final": (SIGNED, "#e5f4ea"), "amended": (SIGNED, "#e5f4ea")}
STEPS = {"refer": ALARM, "ask": CARE, "manage": CALM}
PRIORITY = {"urgent": ALARM, "soon": CARE, "routine": CALM, "unassessed": MUTED}

LINES_TOGETHER = 40
"""Of what somebody wrote: setting a paragraph takes time with the square of its lines."""

_ONE_AT_A_TIME = threading.Lock()
"""reportlab keeps its fonts' subsets in objects that all documents share."""


def render(report: Report, language: Language, *, pictures: Mapping[int, bytes] | None = None) -> bytes:
    """A PDF, the same bytes whenever the same report is rendered again.

    Parameters
    ----------
    pictures
        PNG by index of the input that it shows: the film with its heatmap, the trace with its evidence.
    """
    told = sheet(report, language)
    shown = pictures or {}
    with _ONE_AT_A_TIME:
        for size, brief in [*((size, False) for size in SIZES), (SIZES[-1], True)]:
            document, pages = _Layout(report, told, language, shown, size, brief).build(pages=1)
            if pages == 1:
                return document
        long = _Layout(report, told, language, shown, SIZES[1], brief=False)
        _, pages = long.build(pages=1)
        return long.build(pages=pages)[0]


class _Layout:
    """One way to set a report: at a size, and with or without the negative findings in one line."""

    def __init__(
        self,
        report: Report,
        told: Sheet,
        language: Language,
        pictures: Mapping[int, bytes],
        size: float,
        brief: bool,
    ) -> None:
        self.report, self.told, self.language, self.pictures = report, told, language, pictures
        self.size, self.brief = size, brief
        self.small = size - 1

    def build(self, pages: int) -> tuple[bytes, int]:
        """The document with ``pages`` in its footers, and how many it has."""
        from reportlab.lib.pagesizes import A4  # noqa: PLC0415  reportlab is loaded where a PDF is asked for
        from reportlab.lib.units import mm  # noqa: PLC0415
        from reportlab.platypus import BaseDocTemplate, Frame, PageTemplate  # noqa: PLC0415

        _register_fonts()
        into = io.BytesIO()
        document = BaseDocTemplate(
            into,
            pagesize=A4,
            title=f"{self.told.title} · {self.told.footer}",
            author=AUTHOR,
            creator=AUTHOR,
            producer=AUTHOR,
            subject=self.told.status,
            lang=self.language,
            invariant=1,
            displayDocTitle=True,
        )
        self.width = A4[0] - 24 * mm
        frame = Frame(12 * mm, 15 * mm, self.width, A4[1] - 25 * mm, 0, 0, 0, 0)
        document.addPageTemplates(
            PageTemplate(frames=[frame], onPage=lambda canvas, _: self._footer(canvas, 12 * mm, 8 * mm, pages))
        )
        document.build(self._story())
        return into.getvalue(), document.page

    def _footer(self, canvas: Canvas, left: float, bottom: float, pages: int) -> None:
        canvas.setFillColor(MUTED)
        canvas.setFont("Report-Bold", 7)
        canvas.drawString(left, bottom + 9, self.told.decision_support)
        canvas.setFont("Report", 7)
        number = canvas.getPageNumber()
        whose = [self.report.person.name, self.report.person.id] if number > 1 else []
        canvas.drawString(left, bottom, plain(" · ".join((self.told.footer, *(each[:60] for each in whose if each)))))
        page = say("page_of", self.language, page=number, pages=pages)
        canvas.drawRightString(left + self.width, bottom, page)

    def _story(self) -> list[Flowable]:
        return [
            *self._head(),
            *self._first(),
            *self._opinions(),
            *self._findings(),
            *self._shown(),
            *self._reserves(),
            *self._looked_at(),
        ]

    def _head(self) -> list[Flowable]:
        ink, ground = STATUS[self.report.status]
        banner = self._table(
            [
                [
                    self._text(f"<b>{escape(self.told.status)}</b>", ink=ink),
                    self._text(escape(self.told.version), small=True, ink=ink, right=True),
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
            self._text(f"<b>{escape(self.told.title)}</b>", grown=4, after=3),
            banner,
            *(self._labelled(each) for each in (self.told.person, self.told.asked) if each),
        ]

    def _labelled(self, pairs: tuple[Any, ...]) -> Paragraph:
        told = (f'<font color="{MUTED}">{escape(each.label)}</font> <b>{escape(each.text)}</b>' for each in pairs)
        return self._text(f"{NBSP}{NBSP}{NBSP} ".join(told), before=3)

    def _first(self) -> list[Flowable]:
        ground = PRIORITY[self.report.priority]
        chip = f'<font color="#ffffff" backColor="{ground}"><b>{NBSP}{escape(self.told.priority)}{NBSP}</b></font>'
        reasons = escape(" ".join(self.told.priority_reasons))
        story: list[Flowable] = [
            self._text(f"{escape(say('priority', self.language))}{self.told.colon} {chip} {reasons}", before=6),
            self._text(f"<b>{escape(plain(self.told.conclusion))}</b>", grown=1, before=2),
        ]
        if self.told.steps:
            story.append(self._heading("section_next_steps"))
        for each in self.told.steps:
            source = f'<font color="{MUTED}" size="{self.small}">{escape(each.source)}</font>'
            ink = STEPS[each.step.step]
            said = f'<font color="{ink}"><b>{escape(each.lead)}</b></font> {escape(each.rest)} {source}'
            story.append(self._text(said, after=1, indent=7))
        return story

    def _opinions(self) -> list[Flowable]:
        if not self.told.opinions:
            return []
        story: list[Flowable] = [self._heading("section_opinions")]
        for each in reversed(self.told.opinions):
            signature = f'<font color="{SIGNED}"><b>{escape(each.signature)}</b></font>'
            lines = [signature, *escape(" · ".join(each.said)).split("\n")]
            for start in range(0, len(lines), LINES_TOGETHER):
                together = lines[start : start + LINES_TOGETHER]
                is_last = start + LINES_TOGETHER >= len(lines)
                story.append(self._text("<br/>".join(together), after=2 if is_last else 0, indent=7))
        return story

    def _findings(self) -> list[Flowable]:
        from reportlab.platypus import CondPageBreak  # noqa: PLC0415

        if not self.told.organs:
            return []
        # Kept with its heading, a table would go to the next page as a whole.
        story: list[Flowable] = [CondPageBreak(8 * self.size), self._heading("section_findings", keep=False)]
        columns = ("page_column_finding", "page_column_result", "page_column_meaning")
        rows: list[list[Any]] = [[self._text(escape(say(key, self.language)), small=True) for key in columns]]
        style: list[tuple[Any, ...]] = [("LINEBELOW", (0, 0), (-1, -1), 0.4, LINE)]
        for organ in self.told.organs:
            category = f' <font color="{MUTED}">{escape(organ.category)}</font>' if organ.category else ""
            style += [("SPAN", (0, len(rows)), (-1, len(rows))), ("BACKGROUND", (0, len(rows)), (-1, len(rows)), SOFT)]
            rows.append([self._text(f"<b>{escape(organ.title)}</b>{category}"), "", ""])
            short = [row for row in organ.rows if self.brief and row.mark == "below"]
            rows += [self._row(row) for row in organ.rows if row not in short]
            if short:
                style.append(("SPAN", (0, len(rows)), (-1, len(rows))))
                rows.append([self._short(short), "", ""])
        return [*story, self._table(rows, [0.32, 0.17, 0.51], *style, repeat=1)]

    def _row(self, row: FindingRow) -> list[Paragraph]:
        ink = ALARM if row.stands_out else INK
        name, result = escape(row.name), escape(row.result)
        if row.stands_out:
            name, result = f"<b>{name}</b>", f"<b>{result}</b>"
        code = f'<font color="{MUTED}" size="{self.small}">{escape(row.code.replace(" ", NBSP))}</font>'
        verdict = f' <font size="{self.small}">{escape(row.verdict)}</font>' if row.verdict else ""
        return [
            self._text(f"{name} {code}"),
            self._text(f"{result}{verdict}", ink=ink),
            self._text("<br/>".join(map(escape, row.notes)), small=True),
        ]

    def _short(self, rows: list[FindingRow]) -> Paragraph:
        """Negative findings in one line: name, code and number stay, what is said of the threshold goes."""
        said = ", ".join(f"{row.name} ({row.code}) {row.result}" for row in rows)
        return self._text(escape(say("page_below_thresholds", self.language, findings=said)), small=True)

    def _shown(self) -> list[Flowable]:
        from reportlab.lib.units import mm  # noqa: PLC0415
        from reportlab.platypus import Image  # noqa: PLC0415

        told = [each for each in self.told.inputs if each.posted.index in self.pictures]
        if not told:
            return []
        most = (46 if self.size >= SIZES[1] else 20 if self.brief else 34) * mm
        images = [
            Image(io.BytesIO(self.pictures[each.posted.index]), self.width / len(told) - 8, most, kind="proportional")
            for each in told
        ]
        captions = [self._text(escape(f"{each.what}, {each.filename}"), small=True) for each in told]
        shares = [max(image.drawWidth + 8, self.width / (2 * len(told))) / self.width for image in images]
        return [self._heading("page_section_pictures"), self._table([images, captions], shares)]

    def _reserves(self) -> list[Flowable]:
        if not self.told.reserves:
            return []
        story: list[Flowable] = [self._heading("section_not_assessed")]
        for each in self.told.reserves:
            ink = INK if each.assessed else CARE
            title = f'<font color="{ink}"><b>{escape(each.title)}.</b></font>'
            story.append(self._text(f"{title} {escape(' '.join(said for _, said in each.reasons))}"))
        return story

    def _looked_at(self) -> list[Flowable]:
        story: list[Flowable] = [self._heading("section_inputs")] if self.told.inputs else []
        colon = self.told.colon
        for each in self.told.inputs:
            said = " ".join((f"({each.what}){colon} {each.use}.", *each.reserves))
            story.append(self._text(f"<b>{escape(each.filename)}</b> {escape(said)}", small=True))
        if self.told.values:
            story.append(self._heading("page_section_values"))
            story.append(
                self._text(escape("; ".join(f"{v.label}{colon} {v.text}" for v in self.told.values)), small=True)
            )
        if self.told.models:
            story.append(self._heading("section_models"))
            story.append(self._text(escape("; ".join(each.text for each in self.told.models)), small=True))
        return story

    def _heading(self, key: str, keep: bool = True) -> Paragraph:
        return self._text(
            f"<b>{escape(say(key, self.language))}</b>", grown=0.5, before=self.size - 4, after=1.5, keep=keep
        )

    def _text(
        self,
        markup: str,
        *,
        small: bool = False,
        grown: float = 0,
        before: float = 0,
        after: float = 0,
        indent: float = 0,
        ink: str | None = None,
        right: bool = False,
        keep: bool = False,
    ) -> Paragraph:
        from reportlab.platypus import Paragraph  # noqa: PLC0415

        size = (self.small if small else self.size) + grown
        ink = ink or (MUTED if small else INK)
        return Paragraph(markup, _style(size, before, after, indent, ink, right, keep))

    def _table(self, rows: list[list[Any]], shares: list[float], *style: tuple[Any, ...], repeat: int = 0) -> Table:
        from reportlab.platypus import Table  # noqa: PLC0415

        pad = 1.6 if self.size > SIZES[2] else 1.0
        common = [
            ("VALIGN", (0, 0), (-1, -1), "TOP"),
            ("LEFTPADDING", (0, 0), (-1, -1), 2),
            ("RIGHTPADDING", (0, 0), (-1, -1), 4),
            ("TOPPADDING", (0, 0), (-1, -1), pad),
            ("BOTTOMPADDING", (0, 0), (-1, -1), pad + 0.4),
        ]
        widths = [share * self.width for share in shares]
        return Table(rows, widths, style=[*common, *style], repeatRows=repeat, hAlign="LEFT")


@cache
def _style(
    size: float, before: float, after: float, indent: float, ink: str, right: bool, keep: bool
) -> ParagraphStyle:
    from reportlab.lib.colors import HexColor  # noqa: PLC0415
    from reportlab.lib.enums import TA_LEFT, TA_RIGHT  # noqa: PLC0415
    from reportlab.lib.styles import ParagraphStyle  # noqa: PLC0415

    return ParagraphStyle(
        "report",
        fontName="Report",
        fontSize=size,
        leading=size * 1.25,
        spaceBefore=before,
        spaceAfter=after,
        leftIndent=indent,
        textColor=HexColor(ink),
        alignment=TA_RIGHT if right else TA_LEFT,
        keepWithNext=keep,
        splitLongWords=1,
    )


@cache
def _register_fonts() -> None:
    """Roboto, which has every letter of Vietnamese; what a document uses of it is embedded in the document."""
    from reportlab.pdfbase.pdfmetrics import registerFont, registerFontFamily  # noqa: PLC0415
    from reportlab.pdfbase.ttfonts import TTFont  # noqa: PLC0415

    fonts = files("font_roboto") / "files"
    for name, file in (("Report", "Roboto-Regular.ttf"), ("Report-Bold", "Roboto-Bold.ttf")):
        registerFont(TTFont(name, io.BytesIO((fonts / file).read_bytes())))
    registerFontFamily("Report", normal="Report", bold="Report-Bold", italic="Report", boldItalic="Report-Bold")
