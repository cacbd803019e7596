"""Names as they are typed and as they are stored meet in one form."""

from __future__ import annotations

import pytest

from data_specs.visit.context import Context
from service.storage.folding import MAX_FOLDED, fold, listed


@pytest.mark.parametrize(
    ("typed", "folded"),
    [
        ("NGUYỄN Thị Đào", "nguyen thi dao"),
        ("Nguyễn Thị Đào", "nguyen thi dao"),  # decomposed
        ("  Bùi^Văn^Ấn ", "bui van an"),
        ("Bœuf Noël", "boeuf noel"),
        ("Straße", "strasse"),
        ("VN-0042", "vn-0042"),
        ("\0\n\t", ""),
    ],
)
def test_case_and_diacritics_do_not_matter(typed: str, folded: str) -> None:
    assert fold(typed) == folded
    assert fold(folded) == folded


def test_the_longest_names_fit_the_index() -> None:
    """``ﷺ`` becomes eighteen letters."""
    context = Context.model_validate({"person": {"name": "ﷺ" * 200, "id": "x" * 200}})
    assert MAX_FOLDED - 4 < len(listed(context, "A" * 64)["folded"].encode()) <= MAX_FOLDED
