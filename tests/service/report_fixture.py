"""A report for the tests: all kinds of findings, an organ that was not assessed, Vietnamese names, two opinions.

All values are made up, and no person is real.
"""

from __future__ import annotations

from datetime import UTC, date, datetime

from data_specs.dicom.reference import DicomReference
from data_specs.problems import Problem
from data_specs.visit.assessment import EvidenceMap
from data_specs.visit.context import Lab, Order, Person, Referrer
from data_specs.visit.contract import Code, ModelUsed, OperatingPoint
from data_specs.visit.next_step import NextStep
from data_specs.visit.opinion import Author, Judgement, Opinion
from data_specs.visit.report import Report, ReportFinding, ReportInput, ReportOrgan
from data_specs.vocabulary import terms

VISIT = "11111111-2222-4333-8444-555555555555"
STUDY = "1.2.840.99999.1"
NAME = "Người Được Khám Thử Nghiệm Ẵặ"
DOCTOR = "BS. Thử Nghiệm Tuyến Dưới"
SPECIALIST = "BS. Thử Nghiệm Tuyến Trên"


def code(name: str) -> Code:
    term = terms()[name]
    return Code(system=term.system, code=term.code)


def point(threshold: float, name: str = "balanced") -> OperatingPoint:
    return OperatingPoint(name=name, threshold=threshold, sensitivity=0.912, specificity=0.745, cohort="made up, n=100")


def judged(name: str, organ: str, probability: float, threshold: float, *maps: EvidenceMap) -> ReportFinding:
    return ReportFinding(
        name=name,
        organ=organ,  # type: ignore[arg-type]
        code=code(name),
        probability=probability,
        calibrated=True,
        positive=probability >= threshold,
        operating_point=point(threshold),
        evidence=maps,
    )


def measured(name: str, organ: str, value: float | str) -> ReportFinding:
    unit = terms()[name].unit
    return ReportFinding(name=name, organ=organ, code=code(name), value=value, unit=unit)  # type: ignore[arg-type]


def report(version: int = 1) -> Report:
    """Version 1: by the machine only. 2: signed by the referring doctor. 3: with the specialist's opinion."""
    heatmap = EvidenceMap(kind="heatmap", input=0, values=[[0, 128, 30], [255, 64, 10], [5, 5, 200]])
    trace = EvidenceMap(kind="trace", input=1, span=(0.0, 10.0), values=[[0, 20, 255, 130, 0]])
    at = datetime(2026, 11, 21, 8, 30, tzinfo=UTC)
    opinions = (
        Opinion(
            number=1,
            author=Author(id="D-7", name=DOCTOR, facility="Trạm y tế thử nghiệm", role="referrer"),
            signed_at=at.replace(hour=10),
            judgements=(Judgement(finding="pneumonia", verdict="agree"),),
            text="Ho khạc đờm 5 ngày, sốt nhẹ. Đề nghị hội chẩn.",
            advice="ask",
        ),
        Opinion(
            number=2,
            author=Author(id="S-1", name=SPECIALIST, facility="Bệnh viện thử nghiệm", role="specialist"),
            signed_at=at.replace(hour=13),
            judgements=(
                Judgement(finding="pneumonia", verdict="disagree", note="xẹp phổi dải"),
                Judgement(finding="atelectasis", verdict="add"),
            ),
            text="Không thấy đông đặc.",
            advice="manage",
            referral="99999999-2222-4333-8444-555555555555",
            blind=True,
        ),
    )[: version - 1]
    return Report(
        visit=VISIT,
        version=version,
        status=("preliminary", "final", "amended")[version - 1],
        issued_at=opinions[-1].signed_at if opinions else at,
        received_at=at,
        completed_at=at.replace(second=2),
        visited_on=date(2026, 11, 21),
        site="lao-cai",
        person=Person(id="VN-0042", name=NAME, birth_date=date(1961, 5, 30), age_years=65, sex="female"),
        referrer=Referrer(id="D-7", name=DOCTOR, facility="Trạm y tế thử nghiệm"),
        order=Order(placer="ORD-1", accession_number="ACC-1", request="ServiceRequest/77", reason="Khám sức khỏe"),
        study_instance_uid=STUDY,
        priority="urgent",
        priority_reasons=(Problem("finding_urgent", "warn", found="pneumonia"),),
        organs={
            "lung": ReportOrgan(
                status="assessed",
                code=code("lung"),
                risk=0.883,
                category="high",
                category_basis=Problem("basis_strong", "warn", found="pneumonia"),
                looked_for=("abnormal", "pneumonia", "effusion"),
                not_looked_for=("pneumothorax", "tuberculosis"),
                findings=(
                    judged("abnormal", "lung", 0.882, 0.154),
                    judged("pneumonia", "lung", 0.883, 0.547, heatmap),
                    judged("effusion", "lung", 0.021, 0.053),
                ),
            ),
            "cardiac": ReportOrgan(
                status="assessed",
                code=code("cardiac"),
                risk=0.951,
                category="high",
                findings=(
                    judged("st_t_change", "cardiac", 0.951, 0.318, trace),
                    judged("atrial_fibrillation", "cardiac", 0.026, 0.048),
                    measured("heart_rate", "cardiac", 104.0),
                    measured("qtc_interval", "cardiac", 387.0),
                ),
            ),
            "kidney": ReportOrgan(
                status="not_assessed",
                code=code("kidney"),
                reasons=(Problem("labs_missing", "reject", found="creatinine"),),
            ),
        },
        inputs=(
            ReportInput(
                index=0,
                field="image",
                filename="phổi.dcm",
                sha256="a" * 64,
                format="dicom",
                accepted=True,
                dicom=DicomReference(
                    StudyInstanceUID=STUDY,
                    SeriesInstanceUID=f"{STUDY}.2",
                    SOPInstanceUID=f"{STUDY}.2.1",
                    SOPClassUID="1.2.840.10008.5.1.4.1.1.1.1",
                    Modality="DX",
                    Rows=512,
                    Columns=400,
                    StudyDate="20261121",
                    StudyTime="081500",
                    StudyID="S1",
                    AccessionNumber="ACC-1",
                    ReferringPhysicianName="BS.^Thử Nghiệm Tuyến Dưới",
                    PatientID="VN-0042",
                    PatientName="Người^Được Khám Thử Nghiệm Ẵặ",
                    PatientBirthDate="19610530",
                    PatientSex="F",
                ),
            ),
            ReportInput(index=1, field="ecg", filename="ecg.dat", sha256="b" * 64, format="wfdb", accepted=True),
            ReportInput(
                index=2,
                field="image",
                filename="nghieng.png",
                sha256="c" * 64,
                format="png",
                accepted=False,
                problems=(Problem("wrong_view", "reject", found="LATERAL", expected="PA, AP"),),
            ),
        ),
        labs=(Lab(name="potassium", value=4.4, unit="mmol/L"),),
        conditions=("diabetes",),
        models=(
            ModelUsed(name="lung", version="1.2.0", sha256="d" * 64),
            ModelUsed(name="cardiac", version="1.0.1", sha256="e" * 64),
        ),
        next_steps=(
            NextStep(
                step="refer",
                rule="pneumonia_adult",
                because=("pneumonia",),
                within_days=0,
                text={
                    "vi": "Đánh giá viêm phổi trong ngày.",
                    "fr": "Évaluer la pneumonie le jour même.",
                    "en": "Assess for pneumonia the same day.",
                },
                source="made up",
            ),
        ),
        opinions=opinions,
    )
