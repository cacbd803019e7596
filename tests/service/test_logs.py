"""Logs never stop the work that they tell of."""

from __future__ import annotations

from pathlib import Path

from tests.service.serving import visit_files


def test_a_service_whose_log_cannot_be_written_goes_on_working(new_process):
    """``/dev/full`` refuses each write as a full disk does; a log whose reader has ended refuses them the same way."""
    started = new_process()
    started.log = Path("/dev/full")
    started.start()
    with started.served.client(started.served.key("site", "district-7")) as site:
        made = [site.post("/v1/visits", files=visit_files(b"film %d" % n)) for n in range(3)]
        assert [each.status_code for each in made] == [201] * 3
        assert site.get("/v1/no-such-place").status_code == 404
        states = [site.get(f"/v1/visits/{each.json()['id']}").json()["status"] for each in made]
        assert states == ["complete"] * 3
    assert started.stop() == 0
