"""The pages as they leave the server: words, order, honesty about what was not assessed, and nothing inline."""

from __future__ import annotations

import asyncio
import re
import string
from collections.abc import Iterator
from datetime import UTC, datetime
from html import unescape

import httpx
import pytest

from data_specs.problems import message
from data_specs.visit.contract import InputProblem, Visit, VisitInput
from data_specs.vocabulary import LANGUAGES, Language
from service.keys import Key
from service.language.texts import age, ago, measured, number, opening, percent, text, texts
from service.pages.pictures import films
from service.storage.cursor import write_cursor
from tests.conftest import ROOT
from tests.service.page_fixture import SECRET, Site, running_site, store_visits

SERVICE = ROOT / "service"
TEMPLATES = sorted((SERVICE / "pages" / "templates").glob("*.html"))
FILLER = 60


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(tmp_path_factory.mktemp("pages"), filler=FILLER) as running:
        yield running


@pytest.fixture
def reader(site: Site) -> Iterator[httpx.Client]:
    """A browser without script, signed in, reading English."""
    with httpx.Client(
        base_url=site.url, timeout=30, follow_redirects=True, headers={"Accept-Language": "en"}
    ) as client:
        answer = client.post("/login", data={"key": SECRET, "next": "/worklist"}, headers={"Origin": site.url})
        assert answer.status_code == 200
        assert answer.url.path == "/worklist"
        yield client


# ------------------------------------------------------------------ words
def test_every_text_has_the_same_placeholders_in_every_language() -> None:
    for key, row in texts().items():
        assert set(row) == set(LANGUAGES), key
        blanks = {
            language: {name for _, name, _, _ in string.Formatter().parse(row[language])} for language in LANGUAGES
        }
        assert blanks["vi"] == blanks["fr"] == blanks["en"], key


def test_templates_use_every_text_of_the_table_and_no_other() -> None:
    """Every text that a page asks for is in the table, and nothing in the table goes unread."""
    source = "".join(path.read_text("utf-8") for path in [*TEMPLATES, *SERVICE.rglob("*.py")])
    asked = set(re.findall(r"""\b(?:t|text)\(\s*'(\w+)'(?!\s*~)""", source))
    asked |= set(re.findall(r"""(?<![.\w])text\(\s*"(\w+)\"""", source))
    places = re.findall(r"""\bPlace\("/[\w-]*", ("\w+"(?: if \w+ else "\w+")?)""", source)
    asked |= {name for words in places for name in re.findall(r'"(\w+)"', words)}
    prefixes = (
        set(re.findall(r"""\bt\('(\w+_)'\s*~""", source))
        | set(re.findall(r"""\btext\(f"(\w+_)\{""", source))
        | {"value_"}
    )
    assert asked - texts().keys() == set()
    for prefix in prefixes:
        assert any(key.startswith(prefix) for key in texts()), prefix
    unread = {key for key in texts() if key not in asked and not any(key.startswith(p) for p in prefixes)}
    assert unread == set()


def test_vietnamese_letters_are_composed() -> None:
    """Decomposed diacritics fall apart in some fonts and are not found by a search."""
    import unicodedata

    for path in (SERVICE / "language" / "texts.toml", *TEMPLATES):
        written = path.read_text("utf-8")
        assert unicodedata.is_normalized("NFC", written), path.name


def test_french_punctuation_stays_on_its_line() -> None:
    """A space that does not break stands before : ; ? ! and %, and within « »; vi and en set none before %."""
    tables = (
        SERVICE / "language" / "texts.toml",
        SERVICE / "report" / "words.toml",
        SERVICE.parent / "data_specs/next_steps/next_steps.toml",
    )
    for path in tables:
        for line in path.read_text("utf-8").splitlines():
            if line.startswith("fr = "):
                assert not re.search(r" [:;?!%»]|« ", line), line
            elif line.startswith(("vi = ", "en = ")):
                assert " %" not in line, line


@pytest.mark.parametrize(
    ("share", "vi", "fr", "en"),
    [
        (0.834, "83%", "83\u202f%", "83%"),
        (0.064, "6,4%", "6,4\u202f%", "6.4%"),
        (0.0, "<0,1%", "<0,1\u202f%", "<0.1%"),
        (0.9999, ">99%", ">99\u202f%", ">99%"),
        (0.05, "5%", "5\u202f%", "5%"),
    ],
)
def test_probabilities_are_written_by_the_rules_of_the_language(share: float, vi: str, fr: str, en: str) -> None:
    assert (percent(share, "vi"), percent(share, "fr"), percent(share, "en")) == (vi, fr, en)


def test_numbers_ages_and_times() -> None:
    from datetime import UTC, datetime, timedelta

    assert number(52.44, "vi") == "52,4"
    assert number(118.0, "en") == "118"
    assert number(4.0, "fr") == "4"
    assert measured(52.44, "mL/min/1.73 m2", "en") == ("52.4", "mL/min/1.73 m²")
    assert measured("G3a", None, "vi") == ("G3a", "")
    assert measured("very high", None, "vi") == ("rất cao", "")
    assert age(0.5, "vi") == "6 tháng"
    assert age(67.9, "fr") == "67 ans"
    now = datetime(2026, 11, 22, 12, tzinfo=UTC)
    assert ago(now - timedelta(hours=5), now, "vi") == "5 giờ trước"
    assert ago(now + timedelta(minutes=5), now, "en") == "just now"  # two clocks disagree
    assert ago(now - timedelta(days=3), now, "fr") == "il y a 3 j"


# ------------------------------------------------------------------ what the policy and the eye need
def test_templates_hold_nothing_inline() -> None:
    for path in TEMPLATES:
        written = path.read_text("utf-8")
        assert not re.search(r"\sstyle=|<style|\son[a-z]+=|javascript:|<script(?![^>]*\bsrc=)", written), path.name
        assert "|safe" not in written, path.name


def _schemes() -> dict[str, dict[str, str]]:
    css = (SERVICE / "pages" / "static" / "page.css").read_text("utf-8")
    blocks = re.findall(r":root \{(.*?)\}", css, re.DOTALL)[:2]
    light, dark = (dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block)) for block in blocks)
    return {"light": light, "dark": dark}


def _luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    ("ink", "ground"),
    [
        *(("ink", ground) for ground in ("ground", "card", "soft")),
        *(("muted", ground) for ground in ("ground", "card", "soft")),
        *(("accent", ground) for ground in ("ground", "card")),
        ("on-accent", "accent"),
        ("card", "urgent"),
        ("urgent", "card"),
        ("soon", "card"),
        *((name, f"{name}-ground") for name in ("urgent", "soon", "routine", "unassessed")),
        ("unassessed", "hatch"),
    ],
)
def test_contrast_reaches_wcag_aa(scheme: str, ink: str, ground: str) -> None:
    """WCAG 2.2, success criterion 1.4.3: 4.5 to 1 for text."""
    colours = _schemes()[scheme]
    lighter, darker = sorted((_luminance(colours[ink]), _luminance(colours[ground])), reverse=True)
    assert (lighter + 0.05) / (darker + 0.05) >= 4.5


# ------------------------------------------------------------------ signing in
@pytest.mark.parametrize("address", ["/worklist", "/visits/00000000-0000-0000-0000-000000000000"])
def test_a_visitor_without_a_key_is_asked_for_it_and_sent_back(site: Site, address: str) -> None:
    with httpx.Client(base_url=site.url, timeout=30) as client:
        answer = client.get(address)
        assert answer.status_code == 303
        assert answer.headers["location"] == f"/login?next={address.replace('/', '%2F')}"
        form = client.get(answer.headers["location"])
        assert f'name="next" value="{address}"' in form.text


def test_a_wrong_key_is_refused_with_a_sentence(site: Site) -> None:
    with httpx.Client(
        base_url=site.url, timeout=30, follow_redirects=True, headers={"Accept-Language": "vi"}
    ) as client:
        answer = client.post("/login", data={"key": "nobody's"}, headers={"Origin": site.url})
    assert answer.url.path == "/login"
    assert text("key_not_known", "vi") in answer.text
    assert "nobody" not in answer.text


def test_signing_out_ends_the_session(site: Site, reader: httpx.Client) -> None:
    reader.post("/logout", headers={"Origin": site.url})
    assert reader.get("/worklist", follow_redirects=False).status_code == 303


# ------------------------------------------------------------------ worklist
def _order(html: str) -> list[str]:
    return re.findall(r'href="/visits/([0-9a-f-]{36})"', html)


def test_the_worklist_is_ordered_by_priority_then_by_waiting_time(site: Site, reader: httpx.Client) -> None:
    order = _order(reader.get("/worklist").text)
    assert order[0] == site.ids["urgent"]
    assert order[1] == site.ids["soon"]
    assert order[2] == site.ids[f"filler-{FILLER - 1}"]  # the routine visit that waits longest


def test_the_next_page_begins_where_the_last_one_ended(site: Site, reader: httpx.Client) -> None:
    seen: list[str] = []
    address: str | None = "/worklist"
    for _ in range(5):
        if address is None:
            break
        page = reader.get(address)
        assert len(page.content) < 100_000
        seen += _order(page.text)
        following = re.search(r'href="([^"]+)" rel="next"', page.text)
        address = following[1].replace("&amp;", "&") if following else None
    assert address is None
    assert len(seen) == len(set(seen)) == len(site.ids)
    assert seen[-2:] == [site.ids["unassessed"], site.ids["accepted"]]


def test_filters_narrow_and_counts_stay(site: Site, reader: httpx.Client) -> None:
    urgent = reader.get("/worklist?priority=urgent")
    assert _order(urgent.text) == [site.ids["urgent"]]
    assert f"<b>{FILLER + 1}</b>" in urgent.text
    assert _order(reader.get("/worklist?status=accepted").text) == [site.ids["accepted"]]
    assert _order(reader.get("/worklist?status=failed").text) == []
    assert text("no_visits_filtered", "en") in reader.get("/worklist?status=failed").text


SOME_ID = "0b7ecb2e-6a0f-4f2c-9d3b-3a6c1f0e2d11"
ODD_CURSORS = [
    write_cursor("9" * 30, "2026-11-22T08:00:00+00:00", SOME_ID),
    write_cursor(1, "0001-01-01T00:00:00+23:59", SOME_ID),
    write_cursor(1, "9999-12-31T23:59:59-23:59", SOME_ID),
    write_cursor(1, "2026-11-22T08:00:00", SOME_ID),
    write_cursor(1, "2026-11-22T08:00:00+00:00", "\0"),
]


@pytest.mark.parametrize(
    "query",
    ["priority=worst", "status=%00", "cursor=zzz", "cursor=MSAy", "period=x", "cursor=é"]
    + [f"cursor={cursor}" for cursor in ODD_CURSORS],
)
def test_an_unknown_filter_is_ignored(reader: httpx.Client, query: str) -> None:
    answer = reader.get(f"/worklist?{query}")
    assert answer.status_code == 200
    assert len(_order(answer.text)) == 40


def test_a_site_sees_its_own_visits_only(site: Site) -> None:
    key = Key("k", "site", "elsewhere")
    own = asyncio.run(store_visits(site.service, key))
    row, secret = asyncio.run(site.service.keys.create("site", "elsewhere", None, "page tests"))
    try:
        with httpx.Client(base_url=site.url, timeout=30, headers={"Authorization": f"Bearer {secret}"}) as client:
            assert set(_order(client.get("/worklist").text)) == set(own.values())
            assert client.get(f"/visits/{own['urgent']}").status_code == 200
            answer = client.get(f"/visits/{site.ids['urgent']}")
            assert answer.status_code == 404
            assert text("not_found_note", "en") in answer.text
    finally:
        asyncio.run(site.service.keys.revoke(row.id))
        _forget(site, own)


def _forget(site: Site, ids: dict[str, str]) -> None:
    from sqlalchemy import delete

    from service.storage.tables import InputRow, ReportRow, VisitRow

    def remove(session: object) -> None:
        session.execute(delete(ReportRow).where(ReportRow.visit_id.in_(ids.values())))  # type: ignore[attr-defined]
        session.execute(delete(InputRow).where(InputRow.visit_id.in_(ids.values())))  # type: ignore[attr-defined]
        session.execute(delete(VisitRow).where(VisitRow.id.in_(ids.values())))  # type: ignore[attr-defined]

    asyncio.run(site.service.database.write(remove))


# ------------------------------------------------------------------ a visit
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_visit_shows_findings_reasons_and_what_it_is(site: Site, reader: httpx.Client, language: str) -> None:
    reader.cookies.set("language", language)
    html = reader.get(f"/visits/{site.ids['urgent']}").text
    wire = reader.get(f"/v1/visits/{site.ids['urgent']}").json()
    assert f'<html lang="{language}">' in html
    for organ in wire["organs"].values():
        for finding in organ["findings"]:
            assert _escaped(opening(finding["display"])) in html
    for posted in wire["inputs"]:
        assert posted["filename"] in html
        for problem in posted["problems"]:
            assert _escaped(opening(problem["message"])) in html
    for reason in wire["priority_reasons"]:
        assert _escaped(opening(reason["message"])) in html
    assert _escaped(text("standing_sentence", language)) in html  # type: ignore[arg-type]
    assert text("strength_flagged", language) in html  # type: ignore[arg-type]
    assert wire["models"][0]["sha256"][:12] in html
    assert ".<b>" not in html, "two sentences run into one"


def _escaped(words: str) -> str:
    from markupsafe import escape

    return str(escape(words))


def test_an_organ_that_was_not_assessed_never_looks_like_a_result(site: Site, reader: httpx.Client) -> None:
    html = reader.get(f"/visits/{site.ids['unassessed']}").text
    assert not re.search(r'class="[^"]*\b(routine|low|intermediate|high|soon|urgent)\b', html)
    assert html.count(text("not_assessed_note", "en")) >= 3
    rows = reader.get("/worklist?priority=unassessed").text
    assert not re.search(r'class="(?:chip|badge|visit)[^"]*\b(routine|low)\b', rows)


def test_the_page_of_an_unfinished_visit_says_so_and_reloads(site: Site, reader: httpx.Client) -> None:
    html = reader.get(f"/visits/{site.ids['accepted']}").text
    assert text("in_progress", "en") in html
    assert 'hx-trigger="every 3s"' in html
    assert text("priority_unassessed", "en") not in html


def test_every_image_of_a_visit_is_served(site: Site, reader: httpx.Client) -> None:
    html = reader.get(f"/visits/{site.ids['urgent']}").text
    addresses = {a.replace("&amp;", "&") for a in re.findall(r'(?:src|value)="(/v1/[^"]+)"', html)}
    kinds = [reader.get(address).headers["content-type"] for address in addresses]
    assert kinds.count("image/svg+xml") == 4  # plain, shaded by two findings, the median beats
    assert kinds.count("image/jpeg") == 2  # a preview of each film, also of the refused one
    assert kinds.count("image/png") == 4  # overlays
    assert len(kinds) == 10


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_refused_film_is_shown_under_its_reason_with_the_original(
    site: Site, reader: httpx.Client, language: Language
) -> None:
    html = unescape(reader.get(f"/visits/{site.ids['urgent']}", headers={"Accept-Language": language}).text)
    address = f"/v1/visits/{site.ids['urgent']}/inputs/3"
    refused = html[html.index("film-refused") :]
    assert opening(message("wrong_body_part", language, found="LEG", expected="CHEST")) in refused
    assert f'src="{address}/film.jpg?max_px=768"' in refused
    assert f'<a href="{address}" download>{text("original_file", language)}</a>' in refused
    assert reader.get(f"{address}/film.png").headers["content-type"] == "image/png"
    assert reader.get(address).headers["content-disposition"].startswith("attachment")


def test_a_refused_recording_is_drawn_under_its_reason(site: Site, reader: httpx.Client) -> None:
    html = unescape(reader.get(f"/visits/{site.ids['soon']}").text)
    assert opening(message("lead_flat", "en", found="V2, V3", expected="12")) in html[html.index("film-refused") :]
    drawn = reader.get(f"/v1/visits/{site.ids['soon']}/inputs/1/trace.svg")
    assert drawn.headers["content-type"] == "image/svg+xml"
    assert "25 mm/s" in drawn.text


def test_what_cannot_be_decoded_says_so_and_offers_the_original() -> None:
    posted = VisitInput(
        index=0,
        field="image",
        filename="a.png",
        sha256="0" * 64,
        accepted=False,
        problems=[InputProblem(code="truncated", severity="reject", message="…")],
    )
    visit = Visit(id="v", status="complete", received_at=datetime.now(UTC), inputs=[posted])
    (film,) = films(visit, "vi")
    assert (film.shown, film.refused, film.address) == (False, ("…",), "/v1/visits/v/inputs/0")


def test_speed_gain_and_leads_are_links(site: Site, reader: httpx.Client) -> None:
    page = f"/visits/{site.ids['urgent']}"
    plain = unescape(reader.get(page).text)
    assert f'href="{page}?speed=50#cardiac"' in plain
    html = unescape(reader.get(f"{page}?speed=50&gain=20&layout=12x1").text)
    assert f'href="{page}?speed=50&layout=12x1#cardiac"' in html  # the usual gain is not asked for
    source = f"/v1{page}/inputs/1/trace.svg?speed=50&gain=20&layout=12x1"
    assert f'src="{source}"' in html
    drawn = reader.get(source)
    assert "50 mm/s   20 mm/mV" in drawn.text
    assert 'width="520mm"' in drawn.text
    assert "25 mm/s · 10 mm/mV" in unescape(reader.get(f"{page}?speed=7&gain=&layout=x").text)
    assert reader.get(f"/v1{page}/inputs/1/trace.svg?speed=30").status_code == 422


def test_the_median_beats_are_drawn_with_what_was_measured(site: Site, reader: httpx.Client) -> None:
    drawn = reader.get(f"/v1/visits/{site.ids['urgent']}/inputs/1/beats.svg")
    assert drawn.status_code == 200
    assert drawn.text.count(">QRS</text>") == 12
    assert reader.get(f"/v1/visits/{site.ids['urgent']}/inputs/0/beats.svg").status_code == 404


def test_a_film_says_its_size(site: Site, reader: httpx.Client) -> None:
    size = reader.get(f"/v1/visits/{site.ids['urgent']}/inputs/0/film.json").json()
    assert size == {"rows": 512, "columns": 512, "pixel_mm": None}


def test_a_visits_page_is_light_before_the_full_film(site: Site, reader: httpx.Client) -> None:
    """What a browser loads for the page with a film and a recording, as it passes the link: 150 kB at most."""
    page = reader.get(f"/visits/{site.ids['urgent']}")
    html = page.text
    loaded = set(re.findall(r'(?:src|href)="(/static/[^"]+)"', html)) | set(re.findall(r'src="(/v1/[^"]+)"', html))
    weights = {address: on_the_link(reader, unescape(address)) for address in loaded if "beats.svg" not in address}
    # the made film is smoother than a film is: previews of real ones have 32 to 38 kB
    weights |= {address: max(weight, 40_000) for address, weight in weights.items() if "film.jpg" in address}
    weights["page"] = int(page.headers["content-length"])
    assert any("trace.svg" in address for address in weights)
    assert any("film.jpg" in address for address in weights)
    assert sum(weights.values()) <= 150_000, weights


def on_the_link(reader: httpx.Client, address: str) -> int:
    """Bytes of an answer's body as they are sent."""
    with reader.stream("GET", address) as answer:
        assert answer.status_code == 200
        return sum(len(part) for part in answer.iter_raw())


def test_text_from_clients_is_shown_as_text(site: Site, reader: httpx.Client) -> None:
    """A file name, an identifier: whatever a client sends is text, never markup."""
    from sqlalchemy import update

    from service.storage.tables import InputRow

    change = update(InputRow).where(InputRow.visit_id == site.ids["routine"], InputRow.index == 0)
    bad = '<img src=x onerror="alert(1)">.png'
    asyncio.run(site.service.database.write(lambda session: session.execute(change.values(filename=bad))))
    html = reader.get(f"/visits/{site.ids['routine']}").text
    assert "<img src=x" not in html
    assert _escaped(bad) in html


def test_the_language_asked_for_is_remembered(site: Site, reader: httpx.Client) -> None:
    answer = reader.get("/worklist?priority=soon&lang=vi")
    assert answer.url.query == b"priority=soon"
    assert answer.headers["content-language"] == "vi"
    assert text("worklist", "vi") in reader.get("/worklist").text
    assert reader.get("/worklist?lang=xx").headers["content-language"] == "vi"


def test_pages_are_not_kept_and_static_files_are(reader: httpx.Client) -> None:
    page = reader.get("/worklist")
    assert page.headers["cache-control"] == "no-store"
    assert page.headers["content-security-policy"].startswith("default-src 'self'")
    sheet = re.search(r'href="(/static/page\.css\?v=[0-9a-f]{12})"', page.text)
    assert sheet
    kept = reader.get(sheet[1])
    assert kept.status_code == 200
    assert "max-age=31536000" in kept.headers["cache-control"]
