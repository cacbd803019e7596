"""What the gateway's answers mean: a 200 says nothing, result codes do, wherever they stand."""

from __future__ import annotations

import json
import tomllib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.delivery.health_book.answer import MAX_CODES, MAX_KEPT, expect_arrival, member, read_answer
from service.delivery.health_book.table import EXAMPLE, Book
from service.delivery.message import NotDelivered

BOOK = Book.model_validate(tomllib.loads(EXAMPLE.read_text("utf-8").replace('"?"', '"x"')))


def body(*codes):
    return json.dumps(
        {"a": [{"b": {"status": code}} for code in codes], "note": "lower case CM_ and CM SUCCESS"}
    ).encode()


@pytest.mark.parametrize(
    ("codes", "stage"),
    [
        (["CM_SUCCESS"], "sent"),
        (["CM_SUCCESS", "PS_DS_VERIFY_SUCCESS"], "verified"),
        (["PS_DS_SAVE_SUCCESS", "CM_SUCCESS"], "saved"),
    ],
)
def test_how_far_it_has_come(codes, stage):
    answer = read_answer(BOOK, body(*codes))
    assert (answer.stage, answer.codes) == (stage, tuple(codes))


@pytest.mark.parametrize(
    ("codes", "problem", "permanent", "stage"),
    [
        (["CM_SUCCESS", "PS_DS_VERIFY_FAIL"], "book_validation", True, "validation"),
        (["PS_DS_CA_SIGNATURE_INVALID", "PS_DS_SAVE_SUCCESS"], "book_signature", True, "signature"),
        (["PS_DS_SAVE_FAIL"], "book_again", False, "refused"),
        (["PS_DS_SAVE_FAIL", "CM_INVALID_REQUEST"], "book_validation", True, "validation"),
        (["CM_SUCCESS", "CM_NOBODY_KNOWS"], "book_refused", True, "refused"),
    ],
)
def test_one_failing_code_is_a_failure(codes, problem, permanent, stage):
    with pytest.raises(NotDelivered) as failed:
        read_answer(BOOK, body(*codes))
    assert (failed.value.code, failed.value.permanent, failed.value.answer.stage) == (problem, permanent, stage)
    assert failed.value.answer.codes == tuple(codes)


@pytest.mark.parametrize(
    "content", [b"", b"ok", b"{}", b"[[[]]]", b'{"code": 200}', b"\xff", b'"' + b"x" * 9999 + b'"']
)
def test_an_answer_without_a_code_is_no_success(content):
    assert read_answer(BOOK, content) is None
    with pytest.raises(NotDelivered, match="answer_unreadable"):
        expect_arrival(BOOK, None)


def test_where_saved_is_asked_for_less_is_not_enough():
    clock = BOOK.clock.model_copy(update={"arrived": "saved"})
    strict = BOOK.model_copy(update={"clock": clock})
    with pytest.raises(NotDelivered) as failed:
        expect_arrival(strict, read_answer(strict, body("CM_SUCCESS", "PS_DS_VERIFY_SUCCESS")))
    assert (failed.value.code, failed.value.permanent, failed.value.answer.stage) == (
        "book_not_arrived",
        False,
        "verified",
    )
    assert expect_arrival(strict, read_answer(strict, body("PS_DS_SAVE_SUCCESS"))).stage == "saved"


def test_a_long_answer_is_cut_and_deep_nesting_is_not_followed():
    answer = read_answer(BOOK, body("CM_SUCCESS", *["CM_SUCCESS"] * 2000))
    assert len(answer.body) == MAX_KEPT
    assert read_answer(BOOK, b"[" * 100_000) is None
    assert read_answer(BOOK, b"[" * 50 + b'"CM_SUCCESS"' + b"]" * 50) is None


def test_no_failing_code_is_overlooked_however_far_it_stands():
    deep = "CM_INVALID_REQUEST"
    for _ in range(50):
        deep = [deep]
    assert read_answer(BOOK, json.dumps(["CM_SUCCESS", deep]).encode()) is None, "it was not read to its end"
    many = [f"CM_{n}" for n in range(MAX_CODES)]
    lenient = BOOK.model_copy(update={"codes": {**BOOK.codes, **dict.fromkeys(many, "sent")}})
    with pytest.raises(NotDelivered, match="book_validation") as failed:
        read_answer(lenient, body(*many, "PS_DS_VERIFY_FAIL"))
    assert failed.value.answer.codes[0] == "PS_DS_VERIFY_FAIL", "what failed is what is kept"
    assert len(failed.value.answer.codes) == MAX_CODES


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.text(max_size=8) | st.sampled_from(["CM_SUCCESS", "PS_DS_VERIFY_FAIL", "CM_"]),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(max_size=4), each, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(ANY_JSON)
def test_no_answer_is_a_fault(content):
    written = json.dumps(content).encode()
    member(written, ("token",))
    try:
        answer = read_answer(BOOK, written)
    except NotDelivered:
        return
    assert answer is None or answer.codes
