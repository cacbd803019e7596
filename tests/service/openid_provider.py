"""A small OpenID provider of the tests, served over HTTP: the other party of a sign-in, which can also be hostile.

It keeps the rules of OpenID Connect Core 1.0, section 3.1, on its side: registered redirect addresses, codes that are
used once, the client's secret, PKCE. What a test sets on it makes it break them.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import secrets
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote_plus, urlencode, urlsplit

from joserfc import jws, jwt
from joserfc.jwk import RSAKey

CLIENT_ID, CLIENT_SECRET = "sàng lọc", "s3cret: with + and %"
PAGE = {"content_type": "text/html; charset=utf-8"}


class OpenIDProvider:
    """The provider: ``person`` is who is signed in there, as the claims of the ID token.

    Everything else may be set by a test: ``claims`` go over the right ones, ``header`` over the token's, ``sign`` signs
    in another way, ``answers`` replace what an address answers, ``described`` goes over the description.
    """

    def __init__(self, host="127.0.0.1"):
        self.key = RSAKey.generate_key(2048, {"kid": "first", "use": "sig", "alg": "RS256"}, private=True)
        self.redirects = set()
        self.person = None
        self.asked = []
        """Paths in the order in which they were asked for."""
        self._codes = {}
        self.server = ThreadingHTTPServer((host, 0), _handler(self))
        self.issuer = f"http://{host}:{self.server.server_address[1]}"
        self.reset()

    def reset(self):
        self.claims, self.header, self.described, self.answers = {}, {}, {}, {}
        self.sign = self.signed
        self.slow_s = 0.0
        self.shows_a_page = False
        """Whether a person presses a button there, as they do in a browser."""
        self.asked.clear()

    # ------------------------------------------------------------------ what it answers
    def description(self):
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/jwks",
            "end_session_endpoint": f"{self.issuer}/end",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "code_challenge_methods_supported": ["S256"],
            **self.described,
        }

    def authorize(self, asked):
        """Where the browser is sent back to; it is refused without a registered address (RFC 6749, section 4.1.2.1)."""
        if asked.get("redirect_uri") not in self.redirects or asked.get("client_id") != CLIENT_ID:
            return None
        assert asked["response_type"] == "code"
        assert asked["code_challenge_method"] == "S256"
        back = {"state": asked["state"]}
        if self.person is None:
            back["error"] = "access_denied"
        else:
            back["code"] = secrets.token_urlsafe(16)
            self._codes[back["code"]] = {**asked, "person": dict(self.person)}
        return f"{asked['redirect_uri']}?{urlencode(back)}"

    def token(self, form, authorization):
        shown = base64.b64encode(f"{quote_plus(CLIENT_ID)}:{quote_plus(CLIENT_SECRET)}".encode()).decode()
        in_form = (form.get("client_id"), form.get("client_secret")) == (CLIENT_ID, CLIENT_SECRET)
        if authorization != f"Basic {shown}" and not in_form:
            return 401, {"error": "invalid_client"}
        begun = self._codes.pop(form.get("code"), None)
        challenge = _encoded(hashlib.sha256(form.get("code_verifier", "").encode()).digest())
        if begun is None or begun["redirect_uri"] != form.get("redirect_uri") or begun["code_challenge"] != challenge:
            return 400, {"error": "invalid_grant"}
        now = int(time.time())
        right = {"iss": self.issuer, "aud": CLIENT_ID, "iat": now, "exp": now + 300, "nonce": begun["nonce"]}
        claims = {
            name: value for name, value in {**right, **begun["person"], **self.claims}.items() if value is not None
        }
        return 200, {"access_token": "unused", "token_type": "Bearer", "id_token": self.sign(claims)}

    # ------------------------------------------------------------------ signatures, right and wrong
    def signed(self, claims):
        return jwt.encode({"alg": "RS256", "kid": "first", **self.header}, claims, self.key, algorithms=["RS256"])

    def signed_by_another(self, claims):
        other = RSAKey.generate_key(2048, private=True)
        return jwt.encode({"alg": "RS256", "kid": "first"}, claims, other, algorithms=["RS256"])

    def unsigned(self, claims):
        return f"{_encoded({'alg': 'none'})}.{_encoded(claims)}."

    def signed_with_the_public_key(self, claims):
        """By HMAC, with what everybody knows as the secret (RFC 8725, section 2.1)."""
        content = f"{_encoded({'alg': 'HS256', 'kid': 'first'})}.{_encoded(claims)}"
        secret = self.key.as_pem(private=False)
        return f"{content}.{_encoded(hmac.digest(secret, content.encode(), 'sha256'))}"

    def another_algorithm_named(self, claims):
        _, body, signature = self.signed(claims).split(".")
        return f"{_encoded({'alg': 'ES256', 'kid': 'first'})}.{body}.{signature}"

    def with_a_critical_extension(self, claims):
        """RFC 7515, section 4.1.11: who does not understand one refuses the token."""
        content = f"{_encoded({'alg': 'RS256', 'kid': 'first', 'crit': ['x'], 'x': 1})}.{_encoded(claims)}"
        algorithm = jws.JWSRegistry.algorithms["RS256"]
        return f"{content}.{_encoded(algorithm.sign(content.encode(), self.key))}"

    def changed_after_signing(self, claims):
        head, _, signature = self.signed(claims).split(".")
        return f"{head}.{_encoded({**claims, 'groups': ['xray-admins']})}.{signature}"


def _encoded(part):
    content = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def _handler(provider):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self._answer({name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()})

        def do_POST(self):
            form = self.rfile.read(int(self.headers["content-length"])).decode()
            self._answer({name: values[0] for name, values in parse_qs(form).items()})

        def _answer(self, asked):
            path = urlsplit(self.path).path
            provider.asked.append(path)
            time.sleep(provider.slow_s)
            if path in provider.answers:
                provider.answers[path](self)
            elif path == "/.well-known/openid-configuration":
                self.say(200, provider.description())
            elif path == "/jwks":
                self.say(200, {"keys": [provider.key.as_dict(private=False)]})
            elif path == "/token":
                self.say(*provider.token(asked, self.headers.get("authorization")))
            elif path == "/authorize" and provider.shows_a_page:
                hidden = "".join(
                    f'<input type="hidden" name="{name}" value="{value}">' for name, value in asked.items()
                )
                self.send(200, f'<form action="/go">{hidden}<button>Sign in</button></form>'.encode(), **PAGE)
            elif path in ("/authorize", "/go") and (back := provider.authorize(asked)) is not None:
                self.send(303, b"", location=back)
            elif path == "/favicon.ico":
                self.send(204, b"")
            elif path == "/end":
                self.send(200, b"<h1>Signed out</h1>", **PAGE)
            else:
                self.say(400, {"error": "invalid_request"})

        def say(self, status, document):
            self.send(status, json.dumps(document).encode(), content_type="application/json")

        def send(self, status, content, **headers):
            self.send_response(status)
            for name, value in {**headers, "content_length": str(len(content))}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(content)

        def handle_one_request(self):
            with contextlib.suppress(ConnectionError):
                super().handle_one_request()

        def log_message(self, *_):
            pass

    return Handler


def send_megabytes(handler):
    """An answer without an end that is of use to anybody."""
    handler.send_response(200)
    handler.send_header("content-type", "application/json")
    handler.send_header("content-length", "500000000")
    handler.end_headers()
    with contextlib.suppress(OSError):
        for _ in range(500):
            handler.wfile.write(b" " * 1_000_000)
    handler.close_connection = True


def send_slowly(handler):
    """A byte at a time, each soon enough for a limit on single reads."""
    handler.send_response(200)
    handler.send_header("content-length", "100000")
    handler.end_headers()
    with contextlib.suppress(OSError):
        for _ in range(40):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.1)
    handler.close_connection = True


@contextlib.contextmanager
def openid_provider(host="127.0.0.1"):
    """The provider, in a thread."""
    provider = OpenIDProvider(host)
    thread = threading.Thread(target=provider.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield provider
    finally:
        provider.server.shutdown()
        provider.server.server_close()
        thread.join(10)
