"""Paragraphs and tables of the PDF: fonts, sizes, colours and spacing."""

from __future__ import annotations

import io
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from reportlab.lib.styles import ParagraphStyle
    from reportlab.platypus import Paragraph, Table

SIZES = (9.5, 9.0, 8.5, 8.0, 7.5)
"""Sizes of the text in points. Small print is one point smaller: 6.5 is the smallest size that can be read in print."""

INK, MUTED, LINE, SOFT = "#16202b", "#4f5b69", "#cfd6de", "#f2f4f7"
ALARM, CARE, CALM, SIGNED = "#a61b1b", "#7d4b00", "#1d4f7a", "#14532d"


class Elements:
    """Makes paragraphs and tables around one size of text.

    Parameters
    ----------
    size
        Of ordinary text, in points.
    """

    def __init__(self, size: float) -> None:
        from reportlab.lib.pagesizes import A4  # noqa: PLC0415  reportlab is loaded where a PDF is asked for
        from reportlab.lib.units import mm  # noqa: PLC0415

        self.size = size
        self.small = size - 1
        self.width = A4[0] - 24 * mm

    def heading(self, words: str, keep: bool = True) -> Paragraph:
        """A heading of a section. ``keep``: on the same page as what follows."""
        return self.text(f"<b>{escape(words)}</b>", grown=0.5, before=self.size - 4, after=1.5, keep=keep)

    def text(
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
        """A paragraph of reportlab's markup.

        Parameters
        ----------
        grown
            Points that are added to the size.
        before, after, indent
            Space around it, in points.
        right
            Aligned to the right.
        keep
            On the same page as what follows.
        """
        from reportlab.platypus import Paragraph  # noqa: PLC0415

        size = (self.small if small else self.size) + grown
        ink = ink or (MUTED if small else INK)
        return Paragraph(markup, _style(size, before, after, indent, ink, right, keep))

    def table(self, rows: list[list[Any]], shares: list[float], *style: tuple[Any, ...], repeat: int = 0) -> Table:
        """A table as wide as the text.

        Parameters
        ----------
        shares
            Width of each column as a share of the width of the text.
        style
            Commands of reportlab's table style.
        repeat
            Number of first rows that are repeated on each page.
        """
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
def register_fonts() -> None:
    """Register Roboto, which has every letter of Vietnamese. The letters that a document uses are embedded in it."""
    from reportlab.pdfbase.pdfmetrics import registerFont, registerFontFamily  # noqa: PLC0415
    from reportlab.pdfbase.ttfonts import TTFont  # noqa: PLC0415

    fonts = files("font_roboto") / "files"
    for name, file in (("Report", "Roboto-Regular.ttf"), ("Report-Bold", "Roboto-Bold.ttf")):
        registerFont(TTFont(name, io.BytesIO((fonts / file).read_bytes())))
    registerFontFamily("Report", normal="Report", bold="Report-Bold", italic="Report", boldItalic="Report-Bold")
