"""stunnel with the file that ships, before the DICOM and the HL7 listener: the certificate decides the site."""

from __future__ import annotations

import contextlib
import gc
import os
import re
import shutil
import socket
import ssl
import subprocess
import threading
import warnings
from types import SimpleNamespace

import pytest

from benchmarks.serving import free_port
from service.protocols import mllp
from service.storage.tables import OrderRow
from tests.conftest import ROOT
from tests.deploy.certificates import Authority
from tests.service.receive.dicom.arriving import rows, visits_of
from tests.service.receive.dicom.made import film, parsed
from tests.service.receive.hl7.made import order
from tests.service.serving import serving, settings_for, until

CONF = ROOT / "deploy" / "stunnel.conf"
# a caller that has gone before it is spoken to leaves a socket that Python's ssl module does not close itself
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
OURS = "sangloc.example"
SITES = {"lao-cai": "127.0.1.1", "ha-giang": "127.0.1.2"}
"""Sites, and the address of this machine that stands for each."""


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def stunnel(folder, **ports):
    """stunnel with the file that ships, as an operator fills it in, and a second site as that of the file."""
    executable = shutil.which("stunnel4") or shutil.which("stunnel")
    if executable is None:
        pytest.skip("stunnel4 is not installed: DICOM and HL7 are not tried over TLS in this run")
    authority = Authority(folder, "hospitals")
    ours = folder / "sangloc.pem"
    ours.write_bytes(b"".join(file.read_bytes() for file in authority.issue(OURS)))
    text = CONF.read_text("utf-8")
    sections = re.findall(r"^\[lao-cai-.*?(?=^; Reports)", text, re.MULTILINE | re.DOTALL)
    assert len(sections) == 1
    second = sections[0].replace("lao-cai", "ha-giang").replace("127.0.1.1", "127.0.1.2")
    second = second.replace("accept = 2762", "accept = 2763").replace("accept = 2576", "accept = 2577")
    text = text.replace(sections[0], f"{sections[0]}{second}")
    accepted = {}
    for port in ("2762", "2576", "2763", "2577"):
        accepted[port] = free_port()
        text = text.replace(f"accept = {port}\n", f"accept = 127.0.0.1:{accepted[port]}\n")
    for given, placed in {
        "/etc/stunnel/sangloc.pem": str(ours),
        "/etc/stunnel/hospitals.pem": str(authority.certificate),
        "127.0.0.1:11112": f"127.0.0.1:{ports['dicom']}",
        "127.0.0.1:2575": f"127.0.0.1:{ports['hl7']}",
        # the hospital is this service itself, by the tunnel that leads in; its name resolves to nothing here
        "127.0.0.1:12576": f"127.0.0.1:{ports['out']}",
        "connect = his.lao-cai.example:2576": f"connect = 127.0.0.1:{ports['hospital']}",
    }.items():
        assert given in text
        text = text.replace(given, placed)
    if os.getuid() != 0:
        text = re.sub(r"^set[ug]id = .*\n", "", text, flags=re.MULTILINE)
    conf = folder / "stunnel.conf"
    conf.write_text(text, "utf-8")
    folder.chmod(0o755)
    with (folder / "log").open("w") as log, subprocess.Popen([executable, conf], stderr=log, stdout=log) as process:
        try:
            waited = [*accepted.values(), ports["out"]]
            until(lambda: all(map(listens, waited)) or process.poll() is not None, 20)
            assert process.poll() is None, (folder / "log").read_text()
            yield SimpleNamespace(authority=authority, log=folder / "log", **{f"at{k}": v for k, v in accepted.items()})
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def tunnelled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tunnel")
    ports = {name: free_port() for name in ("dicom", "hl7", "out", "hospital")}
    settings = settings_for(
        folder / "data",
        dicom_port=ports["dicom"],
        dicom_peers=", ".join(f"XRAY1@{address}={site}" for site, address in SITES.items()),
        dicom_gather_seconds=0.4,
        hl7_port=ports["hl7"],
        hl7_peers=", ".join(f"{address}={site}" for site, address in SITES.items()),
    )
    (folder / "stunnel").mkdir()
    with serving(settings) as served, stunnel(folder / "stunnel", **ports) as tunnel:
        tunnel.served, tunnel.ports = served, ports
        yield tunnel
    with warnings.catch_warnings():  # what such sockets say when they are collected: here, not in another module
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def context_of(tunnel, name=None, authority=None):
    """What a hospital's program offers: the certificate of ``name``, or none."""
    context = ssl.create_default_context(cafile=tunnel.authority.certificate)
    if name:
        context.load_cert_chain(*(authority or tunnel.authority).issue(name))
    return context


def associated(port, context):
    from pynetdicom import AE

    entity = AE("XRAY1")
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 20
    sent = parsed(film())
    entity.add_requested_context(sent.SOPClassUID, sent.file_meta.TransferSyntaxUID)
    return entity.associate("127.0.0.1", port, ae_title="SANGLOC", tls_args=(context, OURS)), sent


def ordered(port, context, message):
    """The acknowledgement of an order by a plain socket over TLS; empty where the connection is ended."""
    with (
        contextlib.suppress(OSError),
        socket.create_connection(("127.0.0.1", port), 20) as plain,
        context.wrap_socket(plain, server_hostname=OURS, do_handshake_on_connect=False) as peer,
    ):
        peer.do_handshake()
        peer.sendall(mllp.framed(message))
        return peer.recv(4096)
    return b""


# ---------------------------------------------------------------- in
@pytest.mark.parametrize(("port", "site"), [("at2762", "lao-cai"), ("at2763", "ha-giang")])
def test_a_film_over_tls_belongs_to_the_site_of_its_certificate(tunnelled, port, site):
    context = context_of(tunnelled, f"xray1.{site}.example")
    association, sent = associated(getattr(tunnelled, port), context)
    assert association.is_established, tunnelled.log.read_text()[-2000:]
    assert association.send_c_store(sent).Status == 0
    association.release()
    (visit,) = visits_of(tunnelled.served, sent.StudyInstanceUID)
    assert visit.site == site


@pytest.mark.parametrize(("port", "site"), [("at2576", "lao-cai"), ("at2577", "ha-giang")])
def test_an_order_over_tls_belongs_to_the_site_of_its_certificate(tunnelled, port, site):
    number = f"ACC-{site}"
    context = context_of(tunnelled, f"his.{site}.example")
    answer = ordered(getattr(tunnelled, port), context, order(accession=number))
    assert b"MSA|AA|1" in answer, tunnelled.log.read_text()[-2000:]
    assert [row.site for row in rows(tunnelled.served, OrderRow, accession_number=number)] == [site]


def test_who_has_not_the_certificate_of_the_site_is_not_let_in(tunnelled, tmp_path):
    strangers = Authority(tmp_path, "strangers")
    for context in (
        context_of(tunnelled),
        context_of(tunnelled, "his.ha-giang.example"),
        context_of(tunnelled, "xray1.lao-cai.example"),
        context_of(tunnelled, "his.lao-cai.example", strangers),
    ):
        assert ordered(tunnelled.at2576, context, order(accession="ACC-stranger")) == b""
    association, _ = associated(tunnelled.at2762, context_of(tunnelled, "xray1.ha-giang.example"))
    assert not association.is_established
    assert rows(tunnelled.served, OrderRow, accession_number="ACC-stranger") == []


def test_nothing_older_than_tls_1_2_and_nothing_in_the_clear(tunnelled):
    for old in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
        context = context_of(tunnelled, "his.lao-cai.example")
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning, match="deprecated"):
            context.minimum_version = context.maximum_version = old
        assert ordered(tunnelled.at2576, context, order(accession="ACC-old")) == b""
    with (
        contextlib.suppress(ConnectionResetError),
        socket.create_connection(("127.0.0.1", tunnelled.at2576), 20) as plain,
    ):
        plain.sendall(mllp.framed(order(accession="ACC-old")))
        assert b"MSA" not in plain.recv(4096)
    assert rows(tunnelled.served, OrderRow, accession_number="ACC-old") == []


# ---------------------------------------------------------------- out
def test_a_report_goes_out_over_tls_to_the_hospital_that_has_the_certificate(tunnelled):
    with hospital(tunnelled, "his.lao-cai.example") as received:
        with tunnelled.served.client() as client:
            address = f"127.0.0.1:{tunnelled.ports['out']}"
            made = client.post("/v1/destinations", json={"kind": "hl7", "address": address})
            assert made.status_code == 201, made.text
            client.post("/v1/visits", files=[("image", ("film.png", b"an image", "image/png"))])
        until(lambda: received, 30)
        assert b"|ORU^R01" in received[0]
        with tunnelled.served.client() as client:
            client.delete(f"/v1/destinations/{made.json()['id']}")


async def test_nothing_goes_out_to_somebody_with_another_certificate(tunnelled):
    with hospital(tunnelled, "his.ha-giang.example") as received:
        with pytest.raises(mllp.SendFailed):
            await mllp.send("127.0.0.1", tunnelled.ports["out"], order(), timeout_s=10)
        assert received == []


@contextlib.contextmanager
def hospital(tunnel, name):
    """A receiver of HL7 over TLS that proves to be ``name`` and asks who calls; gives what it received."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*tunnel.authority.issue(name))
    context.load_verify_locations(tunnel.authority.certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    received, ending = [], threading.Event()

    def serve(listener):
        listener.settimeout(0.2)
        while not ending.is_set():
            with contextlib.suppress(OSError):
                plain, _ = listener.accept()
                plain.settimeout(10)
                with plain, context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False) as peer:
                    peer.do_handshake()
                    message = b""
                    while not message.endswith(b"\x1c\r") and (piece := peer.recv(65536)):
                        message += piece
                    if message:
                        received.append(message)
                        control = message.split(b"|")[9]
                        peer.sendall(mllp.framed(b"MSH|^~\\&|HIS|BV|SL|SL|2026||ACK|1|P|2.5.1\rMSA|AA|" + control))

    with socket.create_server(("127.0.0.1", tunnel.ports["hospital"])) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        try:
            yield received
        finally:
            ending.set()
            thread.join(20)
