"""Files that come in pieces while servers are harmed: resumable uploads, and studies whose objects come one by one.

Each request comes from another address, so that the proxy gives it to another server.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from benchmarks.chaos.asking import Answer, Client, Lost, all_closed
from benchmarks.chaos.audit import rows
from benchmarks.chaos.beside import beside
from benchmarks.chaos.record import Figures
from benchmarks.chaos.visits import ADULT, ASK_AGAIN_S, FILM_PX, GIVE_UP_S, Accepted, Load
from benchmarks.files import EXPLICIT, MARK, dicom, numbered, png
from benchmarks.report import Line

PIECE_BYTES = 24_000
FIRST_NUMBER = 10**9
"""Beyond the numbers of posted visits, so that no two files have the same bytes."""
TUS = {"Tus-Resumable": "1.0.0"}
DICOM_BOUNDARY = b"an-object"


class _GaveUp(Exception):
    """The service refused it, which was counted, or the work was at its end."""


@dataclass
class Arriving:
    """Uploads and studies that are sent to a proxy.

    Parameters
    ----------
    load
        What becomes a visit under an ``Idempotency-Key`` is added to what this load had accepted.
    clients
        One from each address.
    """

    load: Load
    clients: Callable[[], Sequence[Client]]
    uploaded: dict[str, bytes] = field(default_factory=dict)
    stored: list[str] = field(default_factory=list)
    _numbers: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def going_on(self, n_uploaders: int, n_archives: int) -> Iterator[None]:
        """Send meanwhile; what was begun is brought to its end."""
        ended = threading.Event()

        def repeat(send: Callable[[Sequence[Client], random.Random, int], None], first: int) -> None:
            number = first
            with all_closed(*self.clients()) as clients:
                while not ended.is_set():
                    try:
                        send(clients, random.Random(self.load.seed << 32 | number), number)  # noqa: S311
                    except _GaveUp:
                        time.sleep(ASK_AGAIN_S)
                    number += 1

        sends = [self._upload] * n_uploaders + [self._send_study] * n_archives
        works = [partial(repeat, send, FIRST_NUMBER * (k + 1)) for k, send in enumerate(sends)]
        with beside(ended, *works):
            yield

    # ------------------------------------------------------------------ resumable uploads
    def _upload(self, clients: Sequence[Client], chance: random.Random, number: int) -> None:
        """One film in pieces, then a visit of it."""
        kind = chance.choice(("PNG", "DICOM"))
        content = numbered(png(FILM_PX) if kind == "PNG" else dicom(EXPLICIT, FILM_PX), number)
        begun = self._until(
            clients, chance, 201, "POST", "/v1/uploads", b"", {**TUS, "Upload-Length": str(len(content))}
        )
        where, at = begun.headers["location"], 0
        while at < len(content):
            at = self._send_piece(clients, chance, where, at, content[at : at + PIECE_BYTES])
        asked = json.dumps({"uploads": [where.rpartition("/")[2]], "context": ADULT}).encode()
        key = f"{self.load.seed}-upload-{number}"
        headers = {"Content-Type": "application/json", "Idempotency-Key": key, "Prefer": "respond-async"}
        made = self._until(clients, chance, (201, 202), "POST", "/v1/uploads/visit", asked, headers)
        self.uploaded[made.json["id"]] = content
        self.load.accepted[key] = Accepted(kind, made.json["id"])

    def _send_piece(self, clients: Sequence[Client], chance: random.Random, where: str, at: int, piece: bytes) -> int:
        """Where the upload ends then. What a server has said to have is not sent again."""
        headers = {**TUS, "Content-Type": "application/offset+octet-stream", "Upload-Offset": str(at)}
        try:
            answer = chance.choice(clients).ask("PATCH", where, piece, headers)
            self._note(answer)
        except Lost:
            answer = None
        self.load.figures.counts["pieces"] += 1
        if answer is not None and answer.status == 204:
            return int(answer.headers["upload-offset"])
        time.sleep(ASK_AGAIN_S)
        there = int(self._until(clients, chance, 200, "HEAD", where, b"", TUS).headers["upload-offset"])
        self.load.figures.counts["uploads lost"] += there < at
        return there

    # ------------------------------------------------------------------ objects of studies
    def _send_study(self, clients: Sequence[Client], chance: random.Random, number: int) -> None:
        """Two films of one study, each in a request of its own."""
        film = dicom(EXPLICIT, FILM_PX)
        for made in (film, film.replace(MARK + b".3", MARK + b".4")):
            content = numbered(made, number)
            body = b"--%b\r\nContent-Type: application/dicom\r\n\r\n%b\r\n--%b--\r\n" % (
                DICOM_BOUNDARY, content, DICOM_BOUNDARY,
            )  # fmt: skip
            kind = f'multipart/related; type="application/dicom"; boundary={DICOM_BOUNDARY.decode()}'
            answer = self._until(clients, chance, 200, "POST", "/dicomweb/studies", body, {"Content-Type": kind})
            (item,) = answer.json["00081199"]["Value"]  # Referenced SOP Sequence (PS3.18, table I.2-1)
            self.stored.append(item["00081155"]["Value"][0])  # Referenced SOP Instance UID

    # ------------------------------------------------------------------ asking
    def _until(
        self,
        clients: Sequence[Client],
        chance: random.Random,
        wanted: int | tuple[int, ...],
        method: str,
        path: str,
        body: bytes,
        headers: Mapping[str, str],
    ) -> Answer:
        """Ask again after a lost answer and a temporary refusal, until one of the ``wanted`` statuses comes.

        Raises
        ------
        _GaveUp
            Another status came, or none in time.
        """
        counts = self.load.figures.counts
        end = time.monotonic() + GIVE_UP_S
        while time.monotonic() < end:
            try:
                answer = chance.choice(clients).ask(method, path, body, headers)
            except Lost:
                counts["answers lost"] += 1
            else:
                self._note(answer)
                if answer.status in (wanted if isinstance(wanted, tuple) else (wanted,)):
                    return answer
                if answer.status < 500 and answer.status != 429:
                    name = "uploads lost" if answer.status in (404, 410) else "refused wrongly"
                    counts[name] += 1
                    self.load.figures.note(f"{method} {path.partition('/uploads/')[0]}: {answer.status}")
                    raise _GaveUp
            time.sleep(ASK_AGAIN_S)
        counts["never accepted"] += 1
        raise _GaveUp

    def _note(self, answer: Answer) -> None:
        counts = self.load.figures.counts
        counts[f"arriving answer {answer.status}"] += 1
        if answer.fault:
            counts[f"wrong answer: {answer.fault}"] += 1
            counts["wrong answers"] += 1

    # ------------------------------------------------------------------ what came of it
    def audit(self, figures: Figures, database_url: str, admin: Client, limit_s: float) -> None:
        """Count what was uploaded or stored, and of it what is not there, or in no visit."""
        counts = figures.counts
        waits = "SELECT count(*) FROM arrivals WHERE visit_id IS NULL"
        end = time.monotonic() + limit_s
        while rows(database_url, waits)[0][0] and time.monotonic() < end:
            time.sleep(0.2)
        visits = dict(rows(database_url, "SELECT sop_uid, visit_id FROM arrivals"))
        counts["objects"] += len(self.stored)
        counts["objects lost"] += sum(visits.get(uid) is None for uid in self.stored)
        counts["uploads"] += len(self.uploaded)
        for visit, content in self.uploaded.items():
            answer = admin.ask("GET", f"/v1/visits/{visit}/inputs/0")
            counts["uploads lost"] += answer.body != content


def lines_of_arriving(figures: Figures) -> list[Line]:
    """What was kept of uploads and studies, as rows of the table."""
    counts, none = figures.counts, figures.none
    return [
        none(
            "uploads lost, or other bytes than were sent",
            "uploads lost",
            f"of {counts['uploads']}, in {counts['pieces']} pieces",
        ),
        none("DICOM objects lost, or in no visit", "objects lost", f"of {counts['objects']}"),
    ]
