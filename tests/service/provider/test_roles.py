"""The operator's table of roles: what it may say, and that a mistake in it stops the start with one line."""

from __future__ import annotations

import pytest

from service.errors import SignInRefused
from service.provider.roles import BadTable, Person, read_roles

TABLE = """
claim = ["realm_access", "roles"]
identifier = "https://hospital.example/staff.id"
name = ["profile", "full"]

[[role]]
value = "doctor"
role = "doctor"
site = "xa"

[[role]]
value = "post"
role = "site"
site = "xa"
"""


@pytest.fixture
def table(tmp_path):
    def written(text):
        (tmp_path / "roles.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_roles(tmp_path / "roles.toml")

    return written


def test_claims_within_claims_and_claims_with_dots(table):
    roles = table(TABLE)
    claims = {
        "realm_access": {"roles": ["doctor"]},
        "https://hospital.example/staff.id": " D-1 ",
        "profile": {"full": "BS.  Thử\nNghiệm"},
    }
    assert roles.person_of(claims) == Person("doctor", "xa", "D-1", "BS. Thử Nghiệm")
    assert roles.person_of({**claims, "realm_access": {"roles": "post"}}) == Person(
        "site", "xa", None, "BS. Thử Nghiệm"
    )
    for wrong in ({**claims, "realm_access": "doctor"}, {**claims, "realm_access": {"roles": {"doctor": 1}}}):
        with pytest.raises(SignInRefused) as refused:
            roles.person_of(wrong)
        assert refused.value.found == "no_role"
    with pytest.raises(SignInRefused) as refused:
        roles.person_of({**claims, "profile": []})
    assert (refused.value.found, refused.value.expected) == ("claim_missing", "profile.full")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("claim =", "clam ="), "claim"),
        (('role = "doctor"', 'role = "chief"'), "role.0.role"),
        (('site = "xa"', 'site = ""'), "role.0.site"),
        (('site = "xa"', f'site = "{"x" * 101}"'), "role.0.site"),
        (('identifier = "https://hospital.example/staff.id"', ""), "identifier"),
        (('["profile", "full"]', "[]"), "name"),
        (("name =", 'scopes = ["profile"]\nname ='), "openid"),
        (("name =", 'scopes = ["openid", "a b"]\nname ='), "scopes"),
        (("[[role]]", "[[roles]]"), "role"),
        (("claim = [", "claim = ["[:-1]), "no TOML"),
    ],
)
def test_a_table_that_cannot_be_used_says_where(table, change, says):
    with pytest.raises(BadTable, match=says) as error:
        table(TABLE.replace(*change))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "content", [b"\xff", b"", b"x = " + b"1" * 300_000, b'claim = "a"\nidentifier = "b"\nname = "c"\nrole = []']
)
def test_what_is_no_table_is_refused(table, content):
    with pytest.raises(BadTable):
        table(content)


def test_a_table_that_is_not_there(tmp_path):
    with pytest.raises(BadTable, match="cannot be read"):
        read_roles(tmp_path / "none.toml")
