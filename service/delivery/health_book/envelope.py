"""The envelope of one signed visit: its files, the signatures, and the request that brings it.

The same version of a report, table and keys give the same bytes.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from data_specs.problems import Problem
from service.delivery.health_book.facts import Facts, filled
from service.delivery.health_book.keys import Element, Signer
from service.delivery.health_book.table import CONTENT, Book, File, Filled

_NOT_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""XML 1.0, section 2.2 (Char): all other characters."""


Texts = Sequence[tuple[str, str]]
"""Paths of elements, or names of members, with their texts."""


@dataclass(frozen=True, slots=True)
class Record:
    """All texts of one visit's envelope, before it is signed."""

    files: Sequence[tuple[File, Texts, Sequence[Texts]]]
    envelope: Texts
    header: Texts


def record_of(book: Book, facts: Facts, results: Sequence[Facts]) -> tuple[Record, list[Problem]]:
    """What the envelope will say, and every reason why it cannot be sent so."""
    problems: list[Problem] = []

    def take(fields: Sequence[Filled], about: Facts) -> Texts:
        texts, found = filled(fields, about)
        problems.extend(each for each in found if each not in problems)
        return texts

    files = []
    for file in book.file:
        rows = [take(file.row_fields, {**facts, **result}) for result in results] if file.row else []
        files.append((file, take(file.fields, facts), rows))
    record = Record(files, take(book.envelope.fields, facts), take(book.header, facts))
    take([each for each in book.data if each.fact != CONTENT], facts)
    return record, problems


def sealed(book: Book, record: Record, facility: Signer, doctor: Signer | None) -> bytes:
    """The envelope as XML in UTF-8, signed by the facility; each file that asks for it, by the doctor.

    Parameters
    ----------
    doctor
        ``None``: the table asks for no doctor's signature.
    """
    from lxml import etree  # type: ignore[import-untyped]  # noqa: PLC0415  of the extra

    form = book.envelope
    root = etree.Element(form.root)
    _fill(root, record.envelope)
    for file, texts, rows in record.files:
        content = etree.Element(file.root)
        _fill(content, texts)
        for row in rows:
            _fill(_new(content, file.row or ""), row)
        if file.signed_in and doctor is not None:
            content = doctor.signed(content, _new(content, file.signed_in))
        holder = _new(root, form.file)
        encoded = base64.b64encode(etree.tostring(content, encoding="UTF-8", xml_declaration=True)).decode("ascii")
        _fill(holder, [(form.file_kind, file.kind), (form.file_content, encoded)])
    root = facility.signed(root, _new(root, form.signed_in))
    return bytes(etree.tostring(root, encoding="UTF-8", xml_declaration=True))


def request_of(book: Book, record: Record, facts: Facts, envelope: bytes, facility: Signer) -> bytes:
    """The body of the request: header and data as they were hashed, and the checksum over both."""
    content = base64.b64encode(envelope).decode("ascii")
    data, _ = filled(book.data, {**facts, CONTENT: content})
    header_text = _json(dict(record.header))
    data_text = _json(dict(data))
    signature = _json(facility.checksum(header_text, data_text))
    return b'{"header":' + header_text + b',"data":' + data_text + b',"signature":' + signature + b"}"


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _fill(root: Element, texts: Texts) -> None:
    """Write each text into an element at its path; an empty one gets no element."""
    for path, text in texts:
        if text:
            _new(root, path).text = _NOT_XML.sub("\ufffd", text)


def _new(root: Element, path: str) -> Element:
    """A new element at a path, in the parents that are there already."""
    *parents, name = path.split("/")
    parent = root
    for step in parents:
        parent = _last(parent, step)
    return _append(parent, name)


def _last(parent: Element, name: str) -> Element:
    """The last child, if it has this name, or a new one: elements stand in the order of the table."""
    last = parent[-1] if len(parent) else None
    return last if last is not None and last.tag == name else _append(parent, name)


def _append(parent: Element, name: str) -> Element:
    from lxml.etree import SubElement  # type: ignore[import-untyped]  # noqa: PLC0415  of the extra

    return SubElement(parent, name)
