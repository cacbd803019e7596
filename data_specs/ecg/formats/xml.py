"""Safe reading of XML, and the small functions that all XML readers use.

Entities are refused, external DTDs (MUSE files name one) are never fetched, size and number of elements are limited.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import re
import string
from xml.etree.ElementTree import Element, ParseError

import numpy as np
from defusedxml import DefusedXmlException
from defusedxml import ElementTree as SafeElementTree
from numpy.typing import NDArray

from data_specs.numbers import number as number_of
from data_specs.problems import Refused
from data_specs.reading import require_memory

MAX_XML_BYTES, MAX_ELEMENTS = 48 << 20, 100_000
"""Enough for ten minutes of twelve leads at 1000 Hz, not for an hour. A full report has some 5,000 elements."""
MAX_ATTRIBUTES = MAX_ELEMENTS
XML_COPIES = 4
"""How often a document is in memory: as pieces of text, joined, and one lead as numbers (measured: 3 to 4 times)."""

TEXT_ENCODINGS = ("ascii", "big5", "cp", "euc", "gb", "iso", "koi8", "mac", "shift_jis", "utf")
"""Beginnings of Python's names of the encodings of documents. Others, as punycode, take quadratic time."""
_ENCODING = re.compile(rb"\s{0,99}<\?xml[^>]{0,99}?encoding\s{0,9}=\s{0,9}[\"']([\w.-]{1,40})[\"'][^>]{0,99}\?>")
"""The encoding that a document declares (XML 1.0, section 2.8)."""
_BLANK = re.compile(r"\s")
_NUMBERS_AT_ONCE = 1 << 20


def is_xml(content: bytes) -> bool:
    if content.startswith((codecs.BOM_UTF16_LE + b"<", codecs.BOM_UTF16_BE + b"\0<")):
        return True
    return content[:256].removeprefix(codecs.BOM_UTF8).lstrip()[:1] == b"<"


def parse(content: bytes) -> Element:
    """Root element, without the namespaces of tags and attributes.

    Raises
    ------
    Refused
        ``unreadable``
    """
    if len(content) > MAX_XML_BYTES:
        raise Refused("unreadable", found=f"XML {len(content) >> 20} MB", expected=f"≤ {MAX_XML_BYTES >> 20} MB")
    require_memory(XML_COPIES * len(content))
    if content.count(b"=") > MAX_ATTRIBUTES:
        raise Refused("unreadable", found=f"XML = > {MAX_ATTRIBUTES}", expected=f"≤ {MAX_ATTRIBUTES}")
    if content.count(b"<") > 2 * MAX_ELEMENTS:
        raise Refused("unreadable", found=f"XML > {MAX_ELEMENTS}", expected=f"≤ {MAX_ELEMENTS}")
    try:
        root: Element = SafeElementTree.fromstring(content)
    except ParseError as error:
        root = _parse_again(content, error)
    except DefusedXmlException as error:
        raise Refused("unreadable", found="XML <!ENTITY>", expected="XML") from error
    except (ValueError, LookupError) as error:
        raise Refused("unreadable", found="XML", expected="XML") from error
    for element in root.iter():
        element.tag = element.tag.rsplit("}", 1)[-1]
        if any("}" in key for key in element.attrib):
            element.attrib = {key.rsplit("}", 1)[-1]: value for key, value in element.attrib.items()}
    return root


def _parse_again(content: bytes, error: ParseError) -> Element:
    """Parse with another encoding: some files name one that expat does not know, or are written in another one."""
    declared = _ENCODING.match(content)
    if declared is None:
        raise _malformed(content, error) from error
    body = content[declared.end() :]
    for name in (declared[1].decode("ascii", "replace"), "utf-8", "latin-1"):
        try:
            if not codecs.lookup(name).name.startswith(TEXT_ENCODINGS):
                continue
            root: Element = SafeElementTree.fromstring(body.decode(name))
            return root
        except (LookupError, UnicodeError):
            continue
        except (ParseError, ValueError) as again:
            raise _malformed(content, error) from again
        except DefusedXmlException as again:
            raise Refused("unreadable", found="XML <!ENTITY>", expected="XML") from again
    raise _malformed(content, error) from error


def _malformed(content: bytes, error: ParseError) -> Refused:
    """``truncated`` for a document that does not end with a tag, else ``unreadable``."""
    line, column = error.position
    if not content.rstrip(b"\0 \r\n\t").endswith(b">"):
        return Refused("truncated", found=f"XML {line}:{column}", expected="</…>")
    return Refused("unreadable", found=f"XML {line}:{column}", expected="XML")


# ---------------------------------------------------------------- for all readers


def text(element: Element | None, path: str = "") -> str:
    """Trimmed text at ``path``; empty where there is none."""
    if element is None:
        return ""
    found = element.findtext(path) if path else element.text
    return (found or "").strip()


def attribute(element: Element | None, path: str, name: str) -> str:
    found = element.find(path) if element is not None else None
    return found.get(name, "").strip() if found is not None else ""


def number(value: str) -> float:
    """A number, or NaN for an empty text.

    Raises
    ------
    Refused
        As :func:`data_specs.numbers.number`.
    """
    return number_of(value, "XML") if value else float("nan")


def numbers(value: str, at_most: int) -> NDArray[np.float64]:
    """Numbers between blanks or commas.

    Raises
    ------
    ValueError
        Where one is not a number.
    Refused
        ``too_long``: there are more of them.
    """
    value = value.replace(",", " ")
    parts: list[NDArray[np.float64]] = []
    at = n = 0
    while at < len(value):  # Python's words take sixty bytes each
        blank = _BLANK.search(value, at + _NUMBERS_AT_ONCE)
        end = blank.start() if blank else len(value)
        parts.append(np.array(value[at:end].split(), dtype=np.float64))
        at, n = end, n + parts[-1].size
        if n > at_most:
            raise Refused("too_long", found=f"> {at_most}", expected=f"≤ {at_most}")
    return np.concatenate(parts) if parts else np.empty(0)


def decoded(value: str) -> bytes:
    """Base64, lines and blanks ignored.

    Raises
    ------
    Refused
        ``unreadable``
    """
    try:
        return base64.b64decode(value.encode("ascii").translate(None, string.whitespace.encode()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refused("unreadable", found="Base64", expected="Base64") from error
