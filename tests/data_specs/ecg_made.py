"""One synthetic twelve-lead recording, written in every format that the readers know."""

from __future__ import annotations

import base64
import io
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np

from data_specs.ecg.files import group_recordings, read_recording
from data_specs.ecg.posted import PostedFile
from data_specs.ecg.recording import LEADS, Recording
from tests.data_specs.cxr_made import set_tags

FS = 500
EIGHT = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
MDC = dict(zip(LEADS, (1, 2, 61, 62, 63, 64, 3, 4, 5, 6, 7, 8), strict=True))


def counts(fs: int = FS, seconds: float = 10.0) -> np.ndarray:
    """``(12, n) int16``, 5 µV per count: P, QRS and T of one beat per 0.8 s; limb leads obey Einthoven to the count."""
    t = np.arange(round(fs * seconds)) / fs % 0.8
    beat = sum(
        a * np.exp(-(((t - c) / w) ** 2)) for a, c, w in ((0.12, 0.2, 0.025), (1.0, 0.36, 0.012), (0.3, 0.6, 0.05))
    )
    noise = np.random.default_rng(7).normal(0, 0.005, (8, t.size))
    eight = np.array([0.6, 1.1, -0.5, 0.3, 0.8, 1.3, 1.2, 0.9])[:, None] * beat + noise
    one, two = 2 * np.rint(eight[0] * 100), 2 * np.rint(eight[1] * 100)
    limb = [one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2]
    return np.vstack([limb, np.rint(eight[2:] * 200)]).astype(np.int16)


def millivolts(made: np.ndarray) -> np.ndarray:
    return made.astype(np.float64) * 0.005


def read(files: dict[str, bytes] | bytes, *, ecg_unit: str | None = None) -> Recording:
    """The one recording of ``files`` (name to content, or one content under a name that says nothing)."""
    named = {"recording": files} if isinstance(files, bytes) else files
    posted = [PostedFile(k, name, content) for k, (name, content) in enumerate(named.items())]
    (group,) = group_recordings(posted)
    return read_recording(group, ecg_unit=ecg_unit)


def on_disk(paths: Sequence[Path]) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in paths}


def wfdb16(
    made: np.ndarray, *, record: str = "rec", gain: str = "200/mV", fs: object = FS, file: str = ""
) -> dict[str, bytes]:
    lines = [f"{record} 12 {fs} {made.shape[1]}"]
    lines += [
        f"{file or record + '.dat'} 16 {gain} 16 0 {lead[0]} 0 0 {name}" for name, lead in zip(LEADS, made, strict=True)
    ]
    return {
        f"{record}.hea": "\n".join([*lines, "#Age: 54", "#Sex: Female"]).encode(),
        f"{record}.dat": made.T.tobytes(),
    }


def csv(
    made: np.ndarray, *, delimiter: str = ",", unit: str = " (mV)", head: str = "", time: str = "time (s)"
) -> bytes:
    rows = [delimiter.join([*([time] if time else []), *(name + unit for name in LEADS)])]
    factor = 1e3 if time.endswith("(ms)") else 1.0
    for n, row in enumerate(millivolts(made).T):
        cells = [*([f"{n / FS * factor:.6g}"] if time else []), *(f"{value:.4f}" for value in row)]
        rows.append(delimiter.join(cell.replace(".", ",") if delimiter == ";" else cell for cell in cells))
    return (head + "\n".join(rows) + "\n").encode()


def edf(
    made: np.ndarray, *, dimension: str = "uV", labels: Sequence[str] = LEADS, record_s: int = 1, kind: str = "EDF+C"
) -> bytes:
    """Whole seconds; physical -163840..163835 µV over the digital range, which is 5 µV per count."""
    n = len(labels) + 1
    records = made.shape[1] // (FS * record_s)
    patient = "MCH-0234567 F 02-MAY-1951 X"
    widths = (8, 80, 80, 16, 8, 44, 8, 8, 4)
    fields = (
        "0",
        patient,
        "Startdate 02-MAR-2002 X X X",
        "02.03.0212.00.00",
        256 * (n + 1),
        kind,
        records,
        record_s,
        n,
    )
    head = "".join(f"{field:<{width}}" for field, width in zip(fields, widths, strict=True))
    columns = [(16, [*labels, "EDF Annotations"]), (80, [""] * n), (8, [dimension] * (n - 1) + [""])]
    columns += [
        (8, ["-163840"] * (n - 1) + ["-1"]),
        (8, ["163835"] * (n - 1) + ["1"]),
        (8, ["-32768"] * n),
        (8, ["32767"] * n),
    ]
    columns += [(80, [""] * n), (8, [str(FS * record_s)] * (n - 1) + ["8"]), (32, [""] * n)]
    text = head + "".join(f"{cell:<{width}}" for width, cells in columns for cell in cells)
    body = b""
    for k in range(records):
        body += made[: n - 1, k * FS * record_s : (k + 1) * FS * record_s].tobytes()
        body += f"+{k * record_s}\x14\x14\0".encode().ljust(16, b"\0")
    return text.encode() + body


def cpsc2018(made: np.ndarray) -> bytes:
    from scipy.io import savemat

    file = io.BytesIO()
    savemat(file, {"ECG": {"sex": "Female", "age": 54, "data": millivolts(made)}}, do_compression=True)
    return file.getvalue()


def dicom(
    made: np.ndarray,
    *,
    unit: str | None = "uV",
    median: bool = True,
    split: bool = False,
    big: bool = False,
    **tags: str | None,
) -> bytes:
    """A 12-lead ECG object: the median beat first, then the rhythm in one group or in two; ``tags`` are set last."""
    from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, TwelveLeadECGWaveformStorage, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = TwelveLeadECGWaveformStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["sangloc"])
    meta.TransferSyntaxUID = ExplicitVRBigEndian if big else ExplicitVRLittleEndian
    dataset = FileDataset(
        None, {}, file_meta=meta, preamble=b"\0" * 128, is_implicit_VR=False, is_little_endian=not big
    )
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3.7", "1.2.3.7.5"
    dataset.Modality, dataset.PatientID, dataset.PatientSex, dataset.PatientAge = "ECG", "P-1", "F", "054Y"
    dataset.AcquisitionDateTime = "20261121101500"

    def code(value: str, scheme: str, meaning: str) -> Dataset:
        item = Dataset()
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
        return item

    def group(label: str, names: Sequence[str], values: np.ndarray) -> Dataset:
        item = Dataset()
        item.MultiplexGroupTimeOffset, item.WaveformOriginality = "0", "ORIGINAL"
        item.NumberOfWaveformChannels, item.NumberOfWaveformSamples = len(names), values.shape[1]
        item.SamplingFrequency, item.MultiplexGroupLabel = str(FS), label
        channels = []
        for name in names:
            channel = Dataset()
            channel.ChannelSourceSequence = [code(f"2:{MDC[name]}", "MDC", f"Lead {name}")]
            if unit is not None:
                channel.ChannelSensitivity, channel.ChannelSensitivityCorrectionFactor = "2.5", "2"
                channel.ChannelBaseline = "0"
                channel.ChannelSensitivityUnitsSequence = [code(unit, "UCUM", unit)]
            channel.WaveformBitsStored = 16
            channels.append(channel)
        item.ChannelDefinitionSequence = channels
        item.WaveformBitsAllocated, item.WaveformSampleInterpretation = 16, "SS"
        item.WaveformData = values.T.astype(">i2" if big else "<i2").tobytes()
        return item

    groups = [group("MEDIAN BEAT", LEADS, made[:, :600])] if median else []
    groups += (
        [group("RHYTHM", LEADS[:6], made[:6]), group("RHYTHM", LEADS[6:], made[6:])]
        if split
        else [group("RHYTHM", LEADS, made)]
    )
    dataset.WaveformSequence = groups
    set_tags(dataset, tags)
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


# ---------------------------------------------------------------- XML


def aecg(made: np.ndarray, *, unit: str = "uV", names: Sequence[str] = EIGHT, step: str = "0.002") -> bytes:
    def series(tag: str, code: str, values: np.ndarray) -> str:
        leads = "".join(
            f'<component><sequence><code code="MDC_ECG_LEAD_{name}"/><value xsi:type="SLIST_PQ">'
            f'<origin value="0" unit="{unit}"/><scale value="2.5" unit="{unit}"/>'
            f"<digits>{' '.join(map(str, values[LEADS.index(name)] * 2))}</digits></value></sequence></component>"
            for name in names
        )
        return (
            f'<{tag}><code code="{code}"/><component><sequenceSet><component><sequence>'
            '<code code="TIME_ABSOLUTE"/><value xsi:type="GLIST_TS"><head value="20261121101500"/>'
            f'<increment value="{step}" unit="s"/></value></sequence></component>'
            f"{leads}</sequenceSet></component></{tag}>"
        )

    beat = f"<derivation>{series('derivedSeries', 'REPRESENTATIVE_BEAT', made[:, :600])}</derivation>"
    rhythm = series("series", "RHYTHM", made).replace("</series>", beat + "</series>")
    return (
        '<?xml version="1.0" encoding="UTF-8"?><AnnotatedECG xmlns="urn:hl7-org:v3" '
        'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">'
        '<effectiveTime><center value="20261121101500"/></effectiveTime>'
        '<componentOf><timepointEvent><componentOf><subjectAssignment><subject><trialSubject><id extension="S-1"/>'
        '<subjectDemographicPerson><administrativeGenderCode code="F"/>'
        '<birthTime value="19720301"/></subjectDemographicPerson>'
        "</trialSubject></subject></subjectAssignment></componentOf></timepointEvent></componentOf>"
        f"<component>{rhythm}</component></AnnotatedECG>"
    ).encode()


def muse(made: np.ndarray, *, unit: str = "MICROVOLTS", names: Sequence[str] = EIGHT) -> bytes:
    def waveform(kind: str, values: np.ndarray) -> str:
        leads = "".join(
            f"<LeadData><LeadSampleCountTotal>{values.shape[1]}</LeadSampleCountTotal>"
            f"<LeadAmplitudeUnitsPerBit>5</LeadAmplitudeUnitsPerBit><LeadAmplitudeUnits>{unit}</LeadAmplitudeUnits>"
            f"<LeadID>{name}</LeadID><LeadSampleSize>2</LeadSampleSize>"
            f"<WaveFormData>{base64.encodebytes(values[LEADS.index(name)].tobytes()).decode()}</WaveFormData></LeadData>"
            for name in names
        )
        return (
            f"<Waveform><WaveformType>{kind}</WaveformType><SampleBase>50</SampleBase>"
            f"<SampleExponent>1</SampleExponent>{leads}</Waveform>"
        )

    return (
        '<?xml version="1.0" encoding="ISO-8859-1"?><!DOCTYPE RestingECG SYSTEM "restecg.dtd"><RestingECG>'
        "<PatientDemographics><PatientID>P-1</PatientID><PatientAge>54</PatientAge><AgeUnits>YEARS</AgeUnits>"
        "<Gender>FEMALE</Gender></PatientDemographics>"
        "<TestDemographics><AcquisitionDate>11-21-2026</AcquisitionDate></TestDemographics>"
        f"{waveform('Median', made[:, :600])}{waveform('Rhythm', made)}</RestingECG>"
    ).encode("latin-1")


def cardiosoft(made: np.ndarray, *, resolution: str = 'units="uVperLsb"') -> bytes:
    waves = "".join(
        f'<WaveformData lead="{n}">{",".join(map(str, v))}</WaveformData>' for n, v in zip(LEADS, made, strict=True)
    )
    return (
        '<?xml version="1.0" encoding="ISO8859-1" ?><CardiologyXML><ObservationDateTime><Day>21</Day><Month>11</Month>'
        "<Year>2026</Year></ObservationDateTime><PatientInfo><PID>P-1</PID><Gender>FEMALE</Gender>"
        '<Age units="years">54</Age></PatientInfo><StripData><NumberOfLeads>12</NumberOfLeads>'
        f'<SampleRate units="Hz">{FS}</SampleRate><ChannelSampleCountTotal>{made.shape[1]}</ChannelSampleCountTotal>'
        f"<Resolution {resolution}>5</Resolution>{waves}</StripData></CardiologyXML>"
    ).encode("latin-1")


def philips(made: np.ndarray, *, version: str = "1.04", kind: str = "PhilipsECG", plain: bool = False) -> bytes:
    """UTF-16 as TraceMaster writes it; XLI by an encoder whose LZW dictionary is never used."""
    body = made.tobytes() if plain else b"".join(_xli(row) for row in _residuals(made))
    labels = f'numberofleads="12" leadlabels="{" ".join(LEADS)}"' if version != "1.03" else ""
    method = 'compression="Uncompressed"' if plain else 'compressflag="True" compressmethod="XLI"'
    text = (
        '<?xml version="1.0" encoding="utf-16"?><restingecgdata xmlns="http://www3.medical.philips.com"><documentinfo>'
        f"<documenttype>{kind}</documenttype><documentversion>{version}</documentversion></documentinfo>"
        '<dataacquisition date="2026-11-21"><signalcharacteristics><samplingrate>500</samplingrate>'
        "<signalresolution>5</signalresolution><acquisitiontype>STD-12</acquisitiontype>"
        "<numberchannelsallocated>12</numberchannelsallocated></signalcharacteristics></dataacquisition>"
        "<patient><generalpatientdata><patientid>P-1</patientid><age><dateofbirth>1972-03-01</dateofbirth></age>"
        "<sex>Female</sex></generalpatientdata></patient>"
        f'<waveforms><parsedwaveforms dataencoding="Base64" {method} durationperchannel="{made.shape[1] * 2}" {labels}>'
        f"{base64.encodebytes(body).decode()}</parsedwaveforms></waveforms></restingecgdata>"
    )
    return text.encode("utf-16")


def _residuals(made: np.ndarray) -> np.ndarray:
    """Rows as XLI stores them: III, aVR, aVL, aVF against what I and II predict."""
    rows = made.astype(np.int64)
    one, two, three = rows[0], rows[1], rows[2]
    rows[3:6] = -((one + two) // 2) - rows[3], (one - three) // 2 - rows[4], (two + three) // 2 - rows[5]
    rows[2] = two - one - three
    return rows


def _xli(row: np.ndarray) -> bytes:
    """One chunk: x[n] = 2x[n-1] - x[n-2] - e[n-1], stored as e + 64 one place later; codes 0-255 of ten bits."""
    errors = 2 * row[1:-1] - row[:-2] - row[2:]
    stored = np.concatenate([row[:2], errors[1:] + 64, [64]]).astype(np.int16)
    halves = (stored.view(np.uint16) >> 8).astype(np.uint8).tobytes() + (stored.view(np.uint16) & 255).astype(
        np.uint8
    ).tobytes()
    bits = "".join(f"{byte:010b}" for byte in halves) + "1" * 10
    bits += "0" * (-len(bits) % 8)
    packed = int(bits, 2).to_bytes(len(bits) // 8, "big")
    return struct.pack("<IHh", len(packed), 0, int(errors[0])) + packed


# ---------------------------------------------------------------- SCP-ECG


def scp(
    made: np.ndarray,
    *,
    differences: int = 0,
    huffman: bool = False,
    beats: Sequence[int] = (),
    names: Sequence[str] = EIGHT,
    codes: Sequence[int] = (),
    lengths_short: int = 0,
    said: Mapping[int, bytes] = MappingProxyType({}),
) -> bytes:
    """Sections 0, 1, 3, 6, and 2, 4, 5 where asked for.

    ``beats``: samples at which a reference beat is taken out. ``said``: further tags of section 1.
    """
    rows = [made[LEADS.index(name)].astype(np.int64) for name in names]
    reference_ms, fiducial = 200, 50
    n_reference = reference_ms * FS // 1000
    bodies: dict[int, bytes] = {}
    if beats:
        first = beats[0]
        reference = [row[first - fiducial + 1 : first - fiducial + 1 + n_reference].copy() for row in rows]
        zones = b""
        for centre in beats:
            begin = centre - fiducial + 1
            for row, beat in zip(rows, reference, strict=True):
                row[begin : begin + n_reference] -= beat
            zones += struct.pack("<HIII", 0, begin + 1, centre + 1, begin + n_reference)
        bodies[4] = struct.pack("<HHH", reference_ms, fiducial, len(beats)) + zones
        bodies[5] = _scp_coded(reference, differences, huffman)
    if huffman:
        bodies[2] = struct.pack("<H", 19999)
    tags = {2: b"P-1\0", 4: struct.pack("<HB", 54, 1), 8: b"\2", 25: struct.pack("<HBB", 2026, 11, 21), **said}
    bodies[1] = b"".join(struct.pack("<BH", t, len(v)) + v for t, v in tags.items()) + b"\xff\0\0"
    lead_codes = codes or [MDC[name] for name in names]
    bodies[3] = bytes([len(names), (8 * len(names) + 4) & 0xFF | bool(beats)]) + b"".join(
        struct.pack("<IIB", 1, made.shape[1] + lengths_short, code) for code in lead_codes
    )
    bodies[6] = _scp_coded(rows, differences, huffman)
    pointers, sections, at = b"", b"", 6 + 16 + 120 + 1
    for number, body in sorted(bodies.items()):
        size = len(body) + 16
        pointers += struct.pack("<HII", number, size, at)
        sections += struct.pack("<HHIBB6x", 0, number, size, 20, 20) + body
        at += size
    zero = struct.pack("<HHIBB", 0, 0, 136, 20, 20) + b"SCPECG" + pointers.ljust(120, b"\0")
    return struct.pack("<HI", 0, 6 + len(zero) + len(sections)) + zero + sections


def _scp_coded(rows: Sequence[np.ndarray], differences: int, huffman: bool) -> bytes:
    coded = []
    for row in rows:
        values = row
        if differences:
            values = np.concatenate([row[:differences], np.diff(row, differences)])
        coded.append(_huffman(values) if huffman else values.astype("<i2").tobytes())
    head = struct.pack("<HHBB", 5000, 1_000_000 // FS, differences, 0)
    return head + struct.pack(f"<{len(coded)}H", *map(len, coded)) + b"".join(coded)


def _huffman(values: np.ndarray) -> bytes:
    """Annex C codes: 0; n ones, zero, sign; nine ones and 0 or 1, then 8 or 16 plain bits."""
    bits = []
    for value in values.tolist():
        if value == 0:
            bits.append("0")
        elif abs(value) <= 8:
            bits.append("1" * abs(value) + "0" + str(int(value < 0)))
        elif -128 <= value < 128:
            bits.append(f"1111111110{value & 0xFF:08b}")
        else:
            bits.append(f"1111111111{value & 0xFFFF:016b}")
    joined = "".join(bits)
    joined += "0" * (-len(joined) % 16)
    return int(joined, 2).to_bytes(len(joined) // 8, "big")


def every_format() -> dict[str, dict[str, bytes]]:
    """Files of the synthetic recording by format, for what must hold for all of them."""
    made = counts()
    return {
        "wfdb": wfdb16(made),
        "dicom": {"a.dcm": dicom(made)},
        "mat": {"a.mat": cpsc2018(made)},
        "csv": {"a.csv": csv(made)},
        "edf": {"a.edf": edf(made)},
        "scp": {"a.scp": scp(made, differences=2, huffman=True)},
        "aecg": {"a.xml": aecg(made)},
        "muse": {"a.xml": muse(made)},
        "cardiosoft": {"a.xml": cardiosoft(made)},
        "philips": {"a.xml": philips(made)},
    }
