"""HTTP over checked addresses: real TLS, to the address that was found, verified by the name that was asked for."""

from __future__ import annotations

import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from service.delivery.message import NotDelivered
from service.delivery.outside import NotOutside
from service.delivery.senders.http import new_client, status_of
from service.delivery.senders.outside_http import OutsideBlockingTransport

NAME = "hospital.example"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate of :data:`NAME` that it signed itself, and its key, in one file."""
    file = tmp_path_factory.mktemp("tls") / "server.pem"
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, NAME)])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    made = made.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
    made = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    written = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    file.write_bytes(
        made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM) + key.private_bytes(*written)
    )
    return file


class Hospital:
    """A web server under :data:`NAME` at 127.0.0.1; remembers the names that it was called by."""

    def __init__(self, certificate):
        self.called = []
        hospital = self

        class Answer(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                self.rfile.read(int(self.headers["content-length"]))
                hospital.called.append(self.headers["host"])
                self.send_response(307)
                self.send_header("Location", "https://elsewhere.example/")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        context.sni_callback = lambda _socket, name, _context: self.called.append(name)
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None  # a client that does not trust us
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_port


@pytest.fixture
def hospital(certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    it = Hospital(certificate)
    thread = threading.Thread(target=it.server.serve_forever, args=(0.02,))
    thread.start()
    yield it
    it.server.shutdown()
    thread.join()
    it.server.server_close()


class Names:
    """A resolver whose answer changes with every question."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []

    def blocking(self, host):
        self.asked.append(host)
        found = self.answers.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    async def look_up(self, host):
        return self.blocking(host)


async def sent(names, address):
    async with new_client(2, names.look_up) as client:
        return await status_of(client, "POST", address, headers={}, content=b"x", timeout_s=10)


async def test_the_name_is_verified_and_the_found_address_is_called(hospital):
    names = Names(["127.0.0.1"], NotOutside())
    status, _ = await sent(names, f"https://{NAME}:{hospital.port}/in")
    assert status == 307, "and the redirect is not followed"
    assert hospital.called == [NAME, f"{NAME}:{hospital.port}"]
    assert names.asked == [NAME]


async def test_another_name_at_the_same_address_is_not_trusted(hospital):
    with pytest.raises(NotDelivered, match=r"^tls$"):
        await sent(Names(["127.0.0.1"]), f"https://other.example:{hospital.port}/in")


async def test_a_second_address_is_tried_where_the_first_does_not_answer(hospital):
    status, _ = await sent(Names(["127.0.0.2", "127.0.0.1"]), f"https://{NAME}:{hospital.port}/in")
    assert status == 307


@pytest.mark.parametrize(
    ("answer", "code"), [(NotOutside(), "inside"), (OSError(), "unreachable"), (["127.0.0.2"], "unreachable")]
)
async def test_what_cannot_be_connected_to(hospital, answer, code):
    with pytest.raises(NotDelivered) as raised:
        await sent(Names(answer), f"https://{NAME}:{hospital.port}/in")
    assert (raised.value.code, raised.value.permanent) == (code, False)
    assert hospital.called == []


def test_a_client_that_blocks_does_the_same(hospital):
    address = f"https://{NAME}:{hospital.port}/in"
    names = Names(["127.0.0.2", "127.0.0.1"], NotOutside(), socket.gaierror())
    context = ssl.create_default_context()
    for _ in range(2):
        with httpx.Client(transport=OutsideBlockingTransport(context, names.blocking)) as client:
            if len(names.asked) == 0:
                assert client.post(address, content=b"x").status_code == 307
            else:
                with pytest.raises(httpx.ConnectError):
                    client.post(address, content=b"x")
    assert hospital.called == [NAME, f"{NAME}:{hospital.port}"]
