"""A double of the health book's gateway: a real HTTP server that checks what third parties say that the gateway checks.

It knows the certificates of the facility and the doctor, and nothing else of the service. It was never held against the
real one.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import json
import secrets
import threading
import time
import traceback
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID
from lxml import etree
from signxml import XMLVerifier
from signxml.exceptions import InvalidInput
from signxml.exceptions import InvalidSignature as InvalidXmlSignature

from service.delivery.health_book.table import EXAMPLE

USER, PASSWORD = "a-user", "a-password-of-the-gateway"
SAVED = ("CM_SUCCESS", "PS_DS_VERIFY_SUCCESS", "PS_DS_SAVE_SUCCESS")
REQUIRED = ("MA_LK", "HO_TEN", "NGAY_SINH", "GIOI_TINH", "SO_CCCD", "MA_CSKCB")


# ---------------------------------------------------------------- keys and the table
@dataclass
class Pair:
    """Files of a key and a certificate of one holder."""

    key: rsa.RSAPrivateKey
    certificate: x509.Certificate
    key_file: str = ""
    certificate_file: str = ""
    passphrase_file: str | None = None

    @property
    def pem(self):
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()


def new_pair(folder, name, passphrase=None, bits=2048):
    key = rsa.generate_private_key(public_exponent=65537, key_size=bits)
    holder = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    begins = datetime.now(UTC) - timedelta(days=1)
    certificate = (
        x509.CertificateBuilder(holder, holder, key.public_key(), x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + timedelta(days=365))
        .sign(key, SHA256())
    )
    encryption = serialization.NoEncryption()
    pair = Pair(key, certificate)
    if passphrase:
        encryption = serialization.BestAvailableEncryption(passphrase.encode())
        pair.passphrase_file = str(private(folder / f"{name}.pass", f"{passphrase}\n"))
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    pair.key_file = str(private(folder / f"{name}.key", pem.decode()))
    pair.certificate_file = str(private(folder / f"{name}.crt", pair.pem))
    return pair


def private(path, text):
    path.write_text(text)
    path.chmod(0o600)
    return path


def new_table(folder, facility, doctor, **changes):
    """The shipped example, filled in for one facility and one doctor; ``changes`` are replaced texts."""
    username = private(folder / "username", USER)
    password = private(folder / "password", f"{PASSWORD}\n")
    text = EXAMPLE.read_text("utf-8").split(
        "# ---------------------------------------------------------------- who sends"
    )[0]
    filled = {
        'username_file = "?"': f'username_file = "{username}"',
        'password_file = "?"': f'password_file = "{password}"',
        'codes = { no = "?", yes = "?" }': 'codes = { no = "NEW", yes = "REPLACE" }',
        '{ male = "?", female = "?" }': '{ male = "1", female = "2" }',
        '{ under_6 = "?", 6_to_17 = "?", 18_and_over = "?" }': '{ under_6 = "1", 6_to_17 = "2", 18_and_over = "3" }',
        'of = "film"\nservice = "?"': 'of = "film"\nservice = "XQ"',
        'of = "ecg"\nservice = "?"': 'of = "ecg"\nservice = "DT"',
        'service = "?"\nindicator = "?"': 'service = "XN"\nindicator = "CREA"',
        **changes,
    }
    for old, new in filled.items():
        assert old in text, old
        text = text.replace(old, new)
    text += f"""
[[facility]]
site = "xa"
code = "01234"
gln = "8931234567890"
key_file = "{facility.key_file}"
certificate_file = "{facility.certificate_file}"
{f'passphrase_file = "{facility.passphrase_file}"' if facility.passphrase_file else ""}

[[doctor]]
id = "D-7"
code = "000123/CCHN"
key_file = "{doctor.key_file}"
certificate_file = "{doctor.certificate_file}"
"""
    path = folder / f"health-book-{secrets.token_hex(4)}.toml"
    path.write_text(text, "utf-8")
    return path


# ---------------------------------------------------------------- the gateway
@dataclass
class Push:
    """One request that the gateway got with a token that counts."""

    body: bytes
    codes: tuple[str, ...]
    header: dict = field(default_factory=dict)
    envelope: etree._Element | None = None
    files: dict = field(default_factory=dict)

    def text(self, kind, name):
        return self.files[kind].findtext(f".//{name}")

    def rows(self, name):
        return [row.findtext(name) for row in self.files["XML11"].findall("CHI_TIET_CLS")]


class BookGateway:
    """Answers pushes; ``scripted`` are what it does with the next ones instead of looking at them.

    ``("status", 500)``, ``("slow", seconds)``, ``("codes", …)`` are answers; ``("lost", seconds)`` takes the push as
    usual, and says so too late.
    """

    def __init__(self, facility, doctor, token_s=1800):
        self.facility, self.doctor, self.token_s = facility, doctor, token_s
        self.pushes, self.records, self.logins, self.tokens = [], {}, [], {}
        self.scripted, self.faults = deque(), []
        self.on_push = lambda push: None
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(n := int(self.headers.get("content-length", 0)))
                if len(body) < n:
                    self.close_connection = True
                    return
                try:
                    status, answer = gateway.answer(self.path, self.headers, body)
                except Exception:
                    gateway.faults.append(traceback.format_exc())
                    status, answer = 500, {"message": "fault"}
                content = json.dumps(answer).encode()
                compressed = "gzip" in self.headers.get("Accept-Encoding", "")
                content = gzip.compress(content) if compressed else content
                with contextlib.suppress(OSError):
                    self.send_response(status)
                    self.send_header("Content-Type", "application/json")
                    if compressed:  # as gateways do for a client that asks for it
                        self.send_header("Content-Encoding", "gzip")
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)

            def log_message(self, *_):
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_):
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()

    def forget(self):
        self.pushes.clear()
        self.records.clear()
        self.logins.clear()
        self.scripted.clear()

    # ------------------------------------------------------------ requests
    def answer(self, path, headers, body):
        if path == "/api/auth/login":
            return self.log_in(json.loads(body))
        if path != "/api/platform/data-sync/push":
            return 404, {"code": "CM_NOT_FOUND"}
        if self.tokens.get(headers.get("Authorization", "").removeprefix("Bearer "), 0) < time.monotonic():
            return 401, {"message": "token"}
        if headers.get("service-type") != "100":
            return 400, {"code": "CM_INVALID_REQUEST", "message": "service-type"}
        what, *how = self.scripted.popleft() if self.scripted else ("look",)
        if what == "status":
            return how[0], {"message": "scripted"}
        push = Push(body, tuple(how) if what == "codes" else ())
        if what not in ("codes", "slow"):
            push.codes = tuple(self.look(push))
        self.pushes.append(push)
        self.on_push(push)
        if what in ("slow", "lost"):
            time.sleep(how[0])
        return 200, {"code": next(iter(push.codes), None), "data": {"details": [{"status": c} for c in push.codes[1:]]}}

    def log_in(self, given):
        self.logins.append(given.get("username"))
        if (given.get("username"), given.get("password")) != (USER, PASSWORD):
            return 401, {"code": "CM_LOGIN_FAILED", "message": "no such user"}
        token = secrets.token_urlsafe(24)
        self.tokens[token] = time.monotonic() + self.token_s
        return 200, {"token": token, "refresh_token": "x", "duration": self.token_s, "role": "FACILITY"}

    def end_tokens(self):
        self.tokens = dict.fromkeys(self.tokens, 0.0)

    # ------------------------------------------------------------ what it checks
    def look(self, push):
        """Result codes of a push, and what is in it."""
        text = push.body.decode()
        assert text.startswith('{"header":'), "the header comes first"
        decoder = json.JSONDecoder()
        push.header, end = decoder.raw_decode(text, len('{"header":'))
        header = text[len('{"header":') : end]
        assert text[end:].startswith(',"data":')
        begin = end + len(',"data":')
        data, end = decoder.raw_decode(text, begin)
        raw = text[begin:end]
        signature = json.loads(push.body).get("signature")
        for part in (header, raw):
            assert part == json.dumps(json.loads(part), separators=(",", ":"), ensure_ascii=False), "no white space"
        if not signature:
            return ["PS_DS_RSA_SIGNATURE_MISSING"]
        hashes = ".".join(hashlib.sha256(part.encode()).hexdigest().upper() for part in (header, raw))
        try:
            self.facility.key.public_key().verify(
                base64.b64decode(signature, validate=True), hashes.encode(), padding.PKCS1v15(), SHA256()
            )
        except InvalidSignature:
            return ["PS_DS_RSA_SIGNATURE_INVALID"]
        assert data["data_type"] == "xml/base64"
        return self.look_into(push, base64.b64decode(data["file_content"], validate=True))

    def look_into(self, push, content):
        push.envelope = etree.fromstring(content)
        if (refused := signature_refused(content, self.facility, "CHUKYDONVI")) is not None:
            return [refused]
        assert push.envelope.tag == "KHAMSUCKHOE"
        for holder in push.envelope.findall("THONGTINHOSO/DANHSACHHOSO/HOSO/FILEHOSO"):
            inner = base64.b64decode(holder.findtext("NOIDUNGFILE"), validate=True)
            kind = holder.findtext("LOAIHOSO")
            push.files[kind] = etree.fromstring(inner)
            if kind == "XML11" and (refused := signature_refused(inner, self.doctor, "CKDT_KET_QUA_CLS")) is not None:
                return [refused]
        person = push.files["XML1"]
        if any(not person.findtext(name) for name in REQUIRED) or len(person.findtext("SO_CCCD")) != 12:
            return ["CM_SUCCESS", "PS_DS_VERIFY_FAIL"]
        record = person.findtext("MA_LK")
        known = self.records.get(record)
        if known is not None and known != push.body and push.header["action"] != "REPLACE":
            return ["CM_INVALID_REQUEST"]  # a double
        self.records[record] = push.body
        return list(SAVED)


def signature_refused(content, holder, place):
    """The code with which the gateway refuses a signature, if it does."""
    root = etree.fromstring(content)
    found = root.findall(f"{place}/{{http://www.w3.org/2000/09/xmldsig#}}Signature")
    if not found:
        return "PS_DS_CA_SIGNATURE_MISSING"
    try:
        verified = XMLVerifier().verify(content, x509_cert=holder.pem)
    except (InvalidXmlSignature, InvalidInput, InvalidSignature):
        return "PS_DS_CA_SIGNATURE_INVALID"
    covers_all = verified.signed_xml is not None and verified.signed_xml.tag == root.tag
    return None if covers_all else "PS_DS_CA_SIGNATURE_INVALID"
