"""What a reader process does with recordings: files -> millivolts -> gate, measurements -> windows for the network.

The serving process names these jobs and does not run them. What takes it long to load is imported where it is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from data_specs.bundle import EcgInput
from data_specs.ecg.files import RecordingFiles, group_recordings, read_recording
from data_specs.ecg.posted import PostedFile, is_zip, unzip
from data_specs.ecg.recording import Recording, VoltageUnit, window_starts, zeros_before
from data_specs.problems import Problem, Refused
from data_specs.reading import require_memory
from inference.ecg.intervals import Intervals
from inference.person import Stated
from inference.readers.job import Read, job

EXAMINED = 2.5
"""Memory of a recording while it is examined and conformed, over that of its samples (measured over an hour)."""

Names = tuple[tuple[int, str], ...]
"""Files by their index among the visit's inputs, and by name: that of a zip's member where the file is a zip."""


@dataclass(frozen=True, slots=True)
class Group:
    """The files of one recording."""

    stem: str
    members: Names

    @property
    def indices(self) -> tuple[int, ...]:
        """Of the posted files; a zip once."""
        return tuple(dict.fromkeys(index for index, _ in self.members))


@dataclass(frozen=True, slots=True)
class RecordingRead:
    """A recording without its samples.

    Parameters
    ----------
    problems
        Of the gate. Where one refuses the recording, there are no windows, and nothing was measured.
    duration_s
        Of what was recorded, s; a window may be longer.
    starts_s
        Where each window begins, s.
    """

    stated: Stated
    problems: tuple[Problem, ...]
    duration_s: float
    starts_s: tuple[float, ...] = ()
    intervals: Intervals | None = None


@dataclass(frozen=True, slots=True)
class RecordingsRead:
    """How files make recordings. If they make a single one, it is read at once: ``recording``, or why it is refused."""

    groups: tuple[Group, ...]
    recording: RecordingRead | None = None
    refused: Problem | None = None


@job
def read_recordings(
    files: Sequence[bytes], names: Names, ecg_unit: VoltageUnit | None, takes: EcgInput
) -> Read[RecordingsRead]:
    """Group the files of a visit; where they are one recording, its windows ``(n, 12, n_samples) float32``."""
    found = group_recordings(_posted(files, names))
    groups = tuple(Group(g.stem, tuple((file.index, file.filename) for file in g.files)) for g in found)
    if len(found) != 1:
        return Read(RecordingsRead(groups))
    try:
        read = _read(found[0], ecg_unit, takes)
    except Refused as refusal:
        return Read(RecordingsRead(groups, refused=refusal.problem))
    return Read(RecordingsRead(groups, read.document), read.arrays)


@job
def group_files(files: Sequence[bytes], names: Names) -> Read[tuple[Group, ...]]:
    """Group the files of a visit, and read none of the recordings."""
    found = group_recordings(_posted(files, names))
    return Read(tuple(Group(g.stem, tuple((file.index, file.filename) for file in g.files)) for g in found))


@job
def read_group(
    files: Sequence[bytes], names: Names, group: Group, ecg_unit: VoltageUnit | None, takes: EcgInput
) -> Read[RecordingRead]:
    """One recording of several; ``files`` are the posted files in which its members are.

    Raises
    ------
    Refused
        As :func:`data_specs.ecg.files.read_recording`.
    """
    return _read(members(_posted(files, names), group), ecg_unit, takes)


def members(posted: Sequence[PostedFile], group: Group) -> RecordingFiles:
    """The files of a group, out of the posted files."""
    wanted = set(group.members)
    found = []
    for file in posted:
        if (file.index, file.filename) in wanted:
            found.append(file)
        elif is_zip(file.content):
            found += [member for member in unzip(file) if (member.index, member.filename) in wanted]
    return RecordingFiles(group.stem, tuple(found))


def _posted(files: Sequence[bytes], names: Names) -> list[PostedFile]:
    return [PostedFile(index, name, content) for content, (index, name) in zip(files, names, strict=True)]


def _read(files: RecordingFiles, ecg_unit: VoltageUnit | None, takes: EcgInput) -> Read[RecordingRead]:
    from inference.ecg.delineate import examine  # noqa: PLC0415
    from inference.ecg.gate import gate  # noqa: PLC0415
    from inference.ecg.measure import measure  # noqa: PLC0415
    from inference.ecg.pacing import without_spikes  # noqa: PLC0415

    recording = read_recording(files, ecg_unit=ecg_unit)
    require_memory(int(EXAMINED * recording.samples.nbytes))
    examined = examine(recording)
    problems, _ = gate(recording, examined)
    stated = Stated.of(recording)
    if any(problem.severity == "reject" for problem in (*recording.problems, *problems)):
        return Read(RecordingRead(stated, tuple(problems), recording.duration_s))
    starts_s = starts_of(recording, takes)
    recording = without_spikes(recording, examined.spikes_s)
    taken = takes.conform(recording)
    intervals = measure(recording, examined)
    return Read(RecordingRead(stated, tuple(problems), recording.duration_s, starts_s, intervals), (taken,))


def starts_of(recording: Recording, takes: EcgInput) -> tuple[float, ...]:
    """Where each window of a recording begins, s: before its first sample where zeros stand there."""
    n_have = round(recording.duration_s * takes.fs_hz)
    starts = window_starts(n_have, takes.n_samples, takes.max_windows)
    before = zeros_before(n_have, takes.n_samples) if takes.filling == "zeros" else 0
    return tuple((start - before) / takes.fs_hz for start in starts)
