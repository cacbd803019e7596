"""HTML, PDF and JSON show every fact of the report with its numbers, and are safe to open."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import unicodedata
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pypdf import PdfReader

from data_specs.problems import Problem
from data_specs.visit.report import Report, ReportOrgan
from data_specs.vocabulary import LANGUAGES, Language, display
from inference.render.paper import PRINT_PX_PER_MM
from service.language.texts import opening, text, verdict
from service.language.zone import zone_named
from service.report import as_json, html, pdf, words
from service.report.sheet import code_text, make_sheet, result_text
from tests.browser import chromium
from tests.conftest import ROOT
from tests.service.report_fixture import DOCTOR, NAME, SPECIALIST, VISIT, code, judged, report

VERSIONS = (1, 2, 3)
LUNG = (
    *("abnormal", "pneumonia", "effusion", "cardiomegaly", "pneumothorax", "consolidation", "atelectasis", "edema"),
    *("infiltration", "mass", "nodule", "emphysema", "fibrosis", "pleural_thickening", "hernia", "tuberculosis"),
)
HOSTILE = "<script>alert(1)</script>&\"'<img src=x onerror=y> {{ 7*7 }} %s\x00\x07\u202egnp.cod 漢字 🫁"


def picture(width: int = 240, height: int = 300) -> bytes:
    into = io.BytesIO()
    Image.linear_gradient("L").resize((width, height)).save(into, "PNG")
    return into.getvalue()


def with_findings(positive: int, version: int = 1) -> Report:
    """Sixteen findings of the lung, of which the first ``positive`` ones are positive."""
    made = report(version)
    findings = tuple(judged(name, "lung", 0.9 if n < positive else 0.1, 0.5) for n, name in enumerate(LUNG))
    return made.model_copy(
        update={"organs": {**made.organs, "lung": made.organs["lung"].model_copy(update={"findings": findings})}}
    )


def long_opinions() -> Report:
    made = with_findings(16, 3)
    told = [
        opinion.model_copy(update={"number": n, "text": " ".join(f"ý{n}-{word}ặ" for word in range(600))[:4000]})
        for n, opinion in enumerate((*made.opinions, made.opinions[0]), 1)
    ]
    assert all(len(each.text) == 4000 for each in told)
    return made.model_copy(update={"opinions": tuple(told), "version": 4})


def hostile() -> Report:
    made = report(3)
    opinion = made.opinions[0].model_copy(update={"text": HOSTILE + "\n" + "w" * 3000})
    return made.model_copy(
        update={
            "site": HOSTILE,
            "person": made.person.model_copy(update={"name": HOSTILE, "id": "i" * 200}),
            "inputs": tuple(each.model_copy(update={"filename": HOSTILE * 20}) for each in made.inputs),
            "opinions": (opinion,),
        }
    )


def empty() -> Report:
    """The report of a visit without any usable file."""
    organs = {
        name: ReportOrgan(status="not_assessed", code=code(name), reasons=(Problem(why, "reject"),))
        for name, why in (("lung", "no_image"), ("cardiac", "no_ecg"), ("kidney", "sex_unknown"))
    }
    nothing = dict.fromkeys(("referrer", "order", "visited_on", "conditions"))
    return report().model_copy(
        update={
            **nothing,
            **dict.fromkeys(("inputs", "labs", "models", "next_steps", "priority_reasons"), ()),
            "organs": organs,
            "priority": "unassessed",
            "person": report().person.model_copy(
                update=dict.fromkeys(("id", "name", "birth_date", "age_years", "sex"))
            ),
        }
    )


# ---------------------------------------------------------------- JSON


@pytest.mark.parametrize("language", LANGUAGES)
def test_json_is_the_report_with_sentences(language: Language) -> None:
    made = report(3)
    told = json.loads(as_json.render(made, language))
    assert told["language"] == language
    assert told["conclusions"] == list(made.conclusions)
    assert told["sentences"]["conclusion"] == words.conclusion(made, language)
    for finding in made.findings:
        (row,) = [row for row in told["organs"][finding.organ]["findings"] if row["name"] == finding.name]
        assert row["sentence"].startswith(words.finding_sentence(finding, language))
    assert told["organs"]["kidney"]["reasons"][0]["sentence"] == words.organ_reasons(made, "kidney", language)[0]
    assert told["inputs"][2]["problems"][0]["sentence"] == words.input_problems(made.inputs[2], language)[0]
    assert told["next_steps"][0]["sentence"] == words.next_step(made.next_steps[0], language)
    assert told["opinions"][1]["sentences"] == words.opinion_sentences(made.opinions[1], language)


@pytest.mark.parametrize("made", [report(1), report(3), empty(), hostile()], ids=["one", "three", "empty", "hostile"])
def test_json_without_its_sentences_is_the_reports_own_json(made: Report) -> None:
    def stripped(part: Any) -> Any:
        if isinstance(part, dict):
            said = ("sentence", "sentences", "language", "conclusions")
            return {key: stripped(value) for key, value in part.items() if key not in said}
        return [stripped(each) for each in part] if isinstance(part, list) else part

    assert Report.model_validate(stripped(json.loads(as_json.render(made, "vi")))) == made


# ---------------------------------------------------------------- HTML


def spaced(said: str) -> str:
    """Text with every run of spaces, also non-breaking ones, as one plain space."""
    return " ".join(said.split())


class ParsedPage(HTMLParser):
    """A parsed page: its elements with their attributes, and its visible text. Every element has to be closed."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self, page: bytes) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(page.decode())
        assert self.open == []
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "title"} & set(self.open):
            self.words.append(data)

    def having(self, attribute: str) -> list[dict[str, str]]:
        return [attributes for _, attributes in self.elements if attribute in attributes]


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("version", VERSIONS)
def test_html_carries_every_fact_of_the_report(language: Language, version: int) -> None:
    made = report(version)
    page = ParsedPage(html.render(made, language))
    assert ("html", {"lang": language}) in page.elements
    (article,) = page.having("data-visit")
    assert (article["data-visit"], article["data-version"]) == (VISIT, str(version))
    assert (article["data-status"], article["data-priority"]) == (made.status, made.priority)
    rows = {row["data-finding"]: row for row in page.having("data-finding")}
    assert list(rows) == [finding.name for finding in made.findings]
    for finding in made.findings:
        row = rows[finding.name]
        assert (row["data-system"], row["data-code"]) == (finding.code.system, finding.code.code)
        assert row.get("data-probability") == (None if finding.probability is None else repr(finding.probability))
        assert row.get("data-positive") == (None if finding.positive is None else str(finding.positive).lower())
        assert row.get("data-value") == (None if finding.value is None else repr(finding.value))
        assert row.get("data-unit") == finding.unit
        if finding.operating_point:
            assert row["data-threshold"] == repr(finding.operating_point.threshold)
            assert row["data-cohort"] == finding.operating_point.cohort
        assert f"{opening(display(finding.name, language))} {code_text(finding.code)}" in page.text
        assert " ".join(result_text(finding, language).split()) in page.text
    assert [each["data-reason"] for each in page.having("data-reason")] == ["labs_missing"]
    assert [each["data-problem"] for each in page.having("data-problem")] == ["wrong_view"]
    assert [each["data-rule"] for each in page.having("data-rule")] == ["pneumonia_adult"]
    assert [each["data-opinion"] for each in page.having("data-opinion")] == [str(n) for n in range(version - 1, 0, -1)]
    assert [each["data-sha256"] for each in page.having("data-model")] == [each.sha256 for each in made.models]
    for said in (NAME, DOCTOR, *(one for each in made.opinions for one in words.opinion_sentences(each, language))):
        assert spaced(said) in page.text
    assert words.say("decision_support", language) in page.text
    assert page.text.index(spaced(words.say(f"status_{made.status}", language))) < page.text.index(NAME)
    findings = words.say("section_findings", language)
    assert page.text.index(spaced(words.findings_that_hold(made, language))) < page.text.index(findings)


def test_html_has_no_scripts_and_no_outside_resources() -> None:
    content = html.render(report(3), "vi", pictures={0: picture(), 1: picture(400, 160)})
    page = ParsedPage(content)
    assert not {"script", "link", "iframe", "form", "object", "base", "a"} & {tag for tag, _ in page.elements}
    assert not [
        name for _, attributes in page.elements for name in attributes if name.startswith("on") or name == "style"
    ]
    sources = [each["src"] for each in page.having("src")]
    assert len(sources) == 2
    assert base64.b64decode(sources[0].removeprefix("data:image/png;base64,")) == picture()
    style = re.search(rb"<style>(.*?)</style>", content, re.DOTALL)
    assert style
    assert not re.search(rb"url\(|@import|expression", style[1])
    (policy,) = [each["content"] for each in page.having("http-equiv")]
    assert policy == html.content_security_policy()
    digest = base64.b64encode(hashlib.sha256(style[1]).digest()).decode()
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}'")
    assert all(each["alt"] for each in page.having("src"))


def test_html_has_the_structure_that_screen_readers_need() -> None:
    page = ParsedPage(html.render(report(3), "fr"))
    assert [tag for tag, _ in page.elements if tag == "h1"] == ["h1"]
    assert {"header", "main", "footer", "table"} <= {tag for tag, _ in page.elements}
    headers = [attributes.get("scope") for tag, attributes in page.elements if tag == "th"]
    assert set(headers) == {"col", "row", "rowgroup"}


def test_free_text_is_shown_and_not_executed() -> None:
    page = ParsedPage(html.render(hostile(), "en"))
    assert "script" not in {tag for tag, _ in page.elements}
    assert "img" not in {tag for tag, _ in page.elements}
    assert "<script>alert(1)</script>" in page.text
    assert "{{ 7*7 }}" in page.text
    assert not {"\x00", "\x07", "\u202e"} & set(page.text)


def test_colours_of_the_page_have_enough_contrast() -> None:
    """At least 4.5 to 1 in the light and in the dark style (WCAG 2.2, 1.4.3)."""
    style = (ROOT / "service/report/report.css").read_text()
    light, dark = (dict(re.findall(r"--([\w-]+): (#\w{6})", part)) for part in style.split("@media screen", 2)[:2])
    assert light.keys() == dark.keys()

    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for palette in (light, dark):
        pairs = [(ink, "ground") for ink in ("ink", "muted", "alarm", "care")] + [("ink", "soft"), ("muted", "soft")]
        pairs += [(each, f"{each}-ground") for each in ("care", "calm", "signed")]
        for ink, ground in pairs:
            low, high = sorted((luminance(palette[ink]), luminance(palette[ground])))
            assert (high + 0.05) / (low + 0.05) >= 4.5, (ink, ground)


# ---------------------------------------------------------------- PDF


def pages_of(content: bytes) -> list[str]:
    return [page.extract_text() for page in PdfReader(io.BytesIO(content)).pages]


def text_of(content: bytes) -> str:
    """The text of all pages, with every run of spaces and line breaks as one space."""
    return " ".join(" ".join(pages_of(content)).split())


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("version", VERSIONS)
def test_pdf_is_one_page_with_every_fact_of_the_report(language: Language, version: int) -> None:
    made = report(version)
    content = pdf.render(made, language, pictures={0: picture()})
    assert len(pages_of(content)) == 2  # the film has a page of its own
    text_ = text_of(content)
    for finding in made.findings:
        said = f"{verdict(finding, language)} {result_text(finding, language)}"
        row = f"{opening(display(finding.name, language))} {code_text(finding.code)} {said}"
        assert " ".join(row.split()) in text_
        if finding.operating_point:
            assert " ".join(words.percent(finding.operating_point.threshold, language).split()) in text_
            assert finding.operating_point.cohort in text_
    told = [words.findings_that_hold(made, language), *words.organ_reasons(made, "kidney", language)]
    told += [words.next_step(step, language) for step in made.next_steps]
    told += [one for opinion in made.opinions for one in words.opinion_sentences(opinion, language)]
    told += words.input_problems(made.inputs[2], language)
    told += [words.say("decision_support", language), words.say(f"status_{made.status}", language)]
    told += [NAME, DOCTOR, VISIT, "lung 1.2.0 (dddddddddddd)", text(f"priority_{made.priority}", language)]
    for said in told:
        assert " ".join(said.split()) in text_, said


def test_pdf_metadata_name_the_report_and_not_the_person() -> None:
    content = pdf.render(report(3), "vi")
    reader = PdfReader(io.BytesIO(content))
    assert reader.metadata is not None
    assert reader.metadata.title == f"{words.say('title', 'vi')} · {make_sheet(report(3), 'vi').footer}"
    assert reader.metadata.author == "Sàng Lọc"
    assert reader.trailer["/Root"]["/Lang"] == "vi"
    assert NAME not in str(dict(reader.metadata))
    box = reader.pages[0].mediabox
    assert (round(float(box.width)), round(float(box.height))) == (595, 842)
    fonts = [font.get_object() for font in reader.pages[0]["/Resources"]["/Font"].get_object().values()]
    embedded = [font for font in fonts if "Roboto" in font["/BaseFont"]]
    assert len(embedded) >= 2
    assert all("/FontFile2" in font["/FontDescriptor"] and "/ToUnicode" in font for font in embedded)


def test_the_same_report_gives_the_same_pdf() -> None:
    first = pdf.render(report(2), "fr", pictures={0: picture()})
    pdf.render(report(1), "vi")
    assert pdf.render(report(2), "fr", pictures={0: picture()}) == first


def test_decomposed_accents_are_composed() -> None:
    apart = unicodedata.normalize("NFD", SPECIALIST + " Ộ ễ ự ỡ Đ")
    made = report(1).model_copy(update={"site": apart})
    assert SPECIALIST + " Ộ ễ ự ỡ Đ" in text_of(pdf.render(made, "vi"))


@pytest.mark.parametrize("positive", [0, 3, 16])
@pytest.mark.parametrize("version", [1, 3])
def test_sixteen_findings_fit_one_page_and_none_is_lost(positive: int, version: int) -> None:
    made = with_findings(positive, version)
    shown = {} if positive == 16 else {0: picture(), 1: picture(500, 200)}
    content = pdf.render(made, "fr", pictures=shown)
    assert len(pages_of(content)) == 1 + len(shown)
    text_ = text_of(content)
    for finding in made.findings:
        assert code_text(finding.code) in text_
        assert opening(display(finding.name, "fr")) in text_
        assert " ".join(result_text(finding, "fr").split()) in text_
        if finding.positive and finding.operating_point:
            point = words.percent(finding.operating_point.threshold, "fr")
            assert " ".join(point.split()) in text_
    assert smallest_print(content) >= 6.5


def test_a_long_report_continues_on_further_pages_without_loss() -> None:
    made = long_opinions()
    content = pdf.render(made, "vi", pictures={0: picture()})
    pages = pages_of(content)
    assert len(pages) > 1
    text_ = text_of(content)
    for opinion in made.opinions:
        assert all(word in text_ for word in opinion.text.split()[:-1])
        assert words.opinion_sentences(opinion, "vi")[0] in text_
    for finding in made.findings:
        assert code_text(finding.code) in text_
    for number, page in enumerate(pages, 1):
        assert words.say("page_of", "vi", page=number, pages=len(pages)) in page
        assert NAME in page
        assert VISIT in page
    assert words.say(f"status_{made.status}", "vi") in pages[0]
    assert words.next_step(made.next_steps[0], "vi") in " ".join(pages[0].split())
    assert smallest_print(content) >= 7


def sheet_of(width_mm: int, height_mm: int) -> bytes:
    into = io.BytesIO()
    Image.new("P", (PRINT_PX_PER_MM * width_mm, PRINT_PX_PER_MM * height_mm), 1).save(into, "PNG")
    return into.getvalue()


def test_a_recording_is_printed_to_scale_on_a_page_across() -> None:
    made = report()
    content = pdf.render(made, "vi", pictures={0: picture()}, traces={1: sheet_of(270, 140)})
    upright, film, across = PdfReader(io.BytesIO(content)).pages
    assert film.mediabox == upright.mediabox
    assert (round(float(across.mediabox.width)), round(float(across.mediabox.height))) == (842, 595)
    assert float(upright.mediabox.height) > float(upright.mediabox.width)
    drawn = re.findall(rb"([\d.]+) 0 0 ([\d.]+) [\d.]+ [\d.]+ cm", across.get_contents().get_data())
    points_per_mm = 72 / 25.4
    assert (270, 140) in [(round(float(w) / points_per_mm), round(float(h) / points_per_mm)) for w, h in drawn]
    assert words.say("page_of", "vi", page=3, pages=3) in across.extract_text()


def test_a_recording_that_is_too_high_is_printed_smaller_and_says_so() -> None:
    made = report()
    content = pdf.render(made, "en", traces={1: sheet_of(270, 400)})
    across = PdfReader(io.BytesIO(content)).pages[1]
    assert words.say("page_recording_scaled", "en") in spaced(across.extract_text())


def test_times_are_those_of_the_zone_and_refusals_stand_apart_from_the_conclusion() -> None:
    made = report(3)
    zone = zone_named("Asia/Ho_Chi_Minh")
    for page in (text_of(pdf.render(made, "vi", zone=zone)), html.render(made, "vi", zone=zone).decode()):
        assert "Asia/Ho_Chi_Minh" in page
        assert " UTC" not in page
    sheet = make_sheet(made, "vi")
    reasons = " ".join(words.organ_reasons(made, "kidney", "vi"))
    assert reasons not in sheet.conclusion
    page = text_of(pdf.render(made, "vi"))
    assert page.index(sheet.conclusion) < page.index(reasons)


def smallest_print(content: bytes) -> float:
    sizes: set[float] = set()
    for page in PdfReader(io.BytesIO(content)).pages:
        stream = page.get_contents()
        assert stream is not None
        sizes |= {float(size) for size in re.findall(rb"/F\S+ ([\d.]+) Tf", stream.get_data())}
    return min(sizes)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("made", [empty(), hostile()], ids=["empty", "hostile"])
def test_any_report_can_be_printed(made: Report, language: Language) -> None:
    text_ = text_of(pdf.render(made, language))
    assert spaced(words.say(f"status_{made.status}", language)) in text_
    assert ParsedPage(html.render(made, language)).having("data-visit")
    for name, organ in made.organs.items():
        if organ.status == "not_assessed":
            assert all(spaced(reason) in text_ for reason in words.organ_reasons(made, name, language))
    if made.person.name:
        assert "<script>alert(1)</script>&\"'<img src=x onerror=y> {{ 7*7 }} %s" in text_
    else:
        assert text("no_person_id", language) in text_


# ---------------------------------------------------------------- in a browser


def test_the_page_in_a_browser(tmp_path: Path) -> None:
    """It fits the screen of a phone, prints on one sheet, logs no error, and axe finds no serious fault."""
    axe = pytest.importorskip("axe_core_python.sync_playwright", reason="axe is not installed: no page is checked")
    path = tmp_path / "report.html"
    with chromium() as browser:
        for made, scheme in ((report(3), "light"), (with_findings(3), "dark")):
            path.write_bytes(html.render(made, "vi", pictures={0: picture(), 1: picture(500, 200)}))
            page = browser.new_page(viewport={"width": 390, "height": 800}, color_scheme=scheme, bypass_csp=False)
            said: list[str] = []
            page.on("console", lambda message, said=said: said.append(message.text))
            page.goto(path.as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") <= 390
            assert page.evaluate("getComputedStyle(document.querySelector('.banner')).borderLeftWidth") == "5px"
            assert page.evaluate("document.images[0].naturalWidth") == 240
            assert said == []
            if made.version == 3:  # a browser does not reduce the text of a longer report
                assert len(PdfReader(io.BytesIO(page.pdf(prefer_css_page_size=True))).pages) == 1
            page.close()
            context = browser.new_context(bypass_csp=True, color_scheme=scheme)
            checked = context.new_page()
            checked.goto(path.as_uri())
            violations = axe.Axe().run(checked)["violations"]
            assert [each["id"] for each in violations if each["impact"] in ("serious", "critical")] == []
            context.close()
