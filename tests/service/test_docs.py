"""Examples in the documents are what the service reads and writes."""

from __future__ import annotations

import json
import re

from service.receive.context import read_context
from service.report.fhir import document as fhir
from tests.conftest import ROOT
from tests.service.report_fixture import report


def test_the_order_and_the_finding_of_the_fhir_document() -> None:
    order, finding = re.findall(r"```json\n(.*?)```", (ROOT / "docs/reference/fhir.md").read_text("utf-8"), re.DOTALL)
    context = read_context(order.encode())
    assert (context.person.id, context.labs[0].name) == ("VN-0042", "creatinine")
    assert context.order is not None
    assert (context.order.placer, context.order.reason) == ("ORD-1", "Ho kéo dài")
    told = json.loads(finding)
    entries = json.loads(fhir.render(report(1), "en"))["entry"]
    (made,) = (each["resource"] for each in entries if each["resource"]["id"] == told["id"])
    del made["text"]
    assert made == told
