"""Settings, keys on first start, and the entry point."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from service.settings import BadSettings, Settings, read_settings
from tests.conftest import ROOT
from tests.service.forked import Forked, server
from tests.service.serving import serving, settings_for

SERVER = ROOT / "server.py"


@pytest.fixture
def environment(monkeypatch):
    for name in list(os.environ):
        if name.startswith("SANGLOC_"):
            monkeypatch.delenv(name)

    def given(**values):
        for name, value in values.items():
            monkeypatch.setenv(name, value)
        return read_settings()

    return given


def test_defaults_are_the_contracts(environment, monkeypatch):
    settings = environment()
    assert (settings.host, settings.port, settings.max_upload_mb) == ("127.0.0.1", 8080, 64)
    assert (settings.data_dir, settings.bundles) == (Path("var"), Path("models/bundles"))
    assert settings.database.startswith("sqlite:////")
    assert settings.database.endswith("/var/sangloc.db")


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("SANGLOC_PROT", "1", "did you mean SANGLOC_PORT"),
        ("SANGLOC_QQQ", "1", "known:"),
        ("sangloc_prot", "1", "not a setting"),
        ("SANGLOC_PORT", "http", "SANGLOC_PORT"),
        ("SANGLOC_PORT", "70000", "SANGLOC_PORT"),
        ("SANGLOC_DATABASE_URL", "mysql://secret@x", "SANGLOC_DATABASE_URL"),
        ("SANGLOC_BOOTSTRAP_KEY", "se cret-that-is-long-enough", "visible ASCII"),
        ("SANGLOC_BOOTSTRAP_KEY", "a-short-secret-key1", "at least 20 characters"),
        ("SANGLOC_DEVICE", "abacus", "SANGLOC_DEVICE"),
        ("SANGLOC_MAX_UPLOAD_MB", "0", "SANGLOC_MAX_UPLOAD_MB"),
        ("SANGLOC_UPSTREAM_SIGNER", "c2hvcnQ=", "public keys of 32 bytes"),
        ("SANGLOC_UPSTREAM_SIGNER", "no base64!", "public keys of 32 bytes"),
        ("SANGLOC_UPSTREAM_HOURS", "22", "two different hours"),
    ],
)
def test_an_unusable_setting_is_named_in_one_line(environment, name, value, says):
    with pytest.raises(BadSettings) as caught:
        environment(**{name: value})
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "cret" not in str(caught.value)


PROVIDER = {
    "SANGLOC_OIDC_ISSUER": "https://login.example/realms/hospital",
    "SANGLOC_OIDC_CLIENT_ID": "sangloc",
    "SANGLOC_OIDC_CLIENT_SECRET": "s3cret",
    "SANGLOC_OIDC_ROLES": "roles.toml",
}


def test_a_provider_needs_all_its_settings(environment):
    assert environment(**PROVIDER).oidc_client_id == "sangloc"


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"SANGLOC_OIDC_ISSUER": "http://login.example/"}, "OIDC_ISSUER cannot be used: it has to begin with https://"),
        ({"SANGLOC_OIDC_ISSUER": "https://login.example/?x=1"}, "OIDC_ISSUER cannot be used: it may not have a query"),
        ({"SANGLOC_OIDC_CLIENT_ID": ""}, "OIDC_CLIENT_ID cannot be used: SANGLOC_OIDC_ISSUER is set"),
        ({"SANGLOC_OIDC_CLIENT_SECRET": ""}, "OIDC_CLIENT_SECRET_FILE cannot be used: SANGLOC_OIDC_ISSUER is set"),
        ({"SANGLOC_OIDC_CLIENT_SECRET_FILE": "secret"}, "needs either it or SANGLOC_OIDC_CLIENT_SECRET"),
        ({"SANGLOC_OIDC_ROLES": ""}, "OIDC_ROLES cannot be used: SANGLOC_OIDC_ISSUER is set"),
    ],
)
def test_half_a_provider_is_named_in_one_line(environment, changed, says):
    with pytest.raises(BadSettings) as caught:
        environment(**{**PROVIDER, **changed})
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_a_table_of_roles_or_a_secret_that_cannot_be_read_stops_the_start(tmp_path, run_server):
    here = {**PROVIDER, "SANGLOC_DATA_DIR": str(tmp_path), "SANGLOC_PORT": "0"}
    code, err = run_server(**{**here, "SANGLOC_OIDC_ROLES": str(tmp_path / "none.toml")})
    assert (code, err) == (
        2,
        "server.py: SANGLOC_OIDC_ROLES cannot be used: it cannot be read: No such file or directory\n",
    )
    roles = tmp_path / "roles.toml"
    roles.write_text('claim = "groups"\nidentifier = "id"\nname = "name"\n')
    code, err = run_server(**{**here, "SANGLOC_OIDC_ROLES": str(roles)})
    assert (code, err) == (2, "server.py: SANGLOC_OIDC_ROLES cannot be used: role: Field required\n")
    with roles.open("a") as file:
        file.write('[[role]]\nvalue = "doctors"\nrole = "doctor"\nsite = "xa"\n')
    in_file = {**here, "SANGLOC_OIDC_ROLES": str(roles), "SANGLOC_OIDC_CLIENT_SECRET": ""}
    code, err = run_server(**in_file, SANGLOC_OIDC_CLIENT_SECRET_FILE=str(tmp_path / "none"))
    assert (code, err.count("\n")) == (2, 1)
    assert "SANGLOC_OIDC_CLIENT_SECRET_FILE cannot be used: No such file" in err


def test_every_setting_can_be_set(environment):
    settings = environment(SANGLOC_HOST="0.0.0.0", SANGLOC_DATA_DIR="/tmp/x", SANGLOC_LANGUAGE="vi", SANGLOC_PORT="")
    assert (settings.host, settings.data_dir, settings.language, settings.port) == (
        "0.0.0.0",
        Path("/tmp/x"),
        "vi",
        8080,
    )
    assert settings.store == "file:///tmp/x/files"


@pytest.fixture
def run_server(tmp_path_factory):
    """Starts the service and waits until it has stopped by itself; its exit code, and what it said."""

    def run(**environment):
        plain = {name: value for name, value in os.environ.items() if not name.startswith("SANGLOC_")}
        log = tmp_path_factory.mktemp("said") / "log"
        code = Forked(server, plain | environment, log).wait(60)
        return code, log.read_text()

    return run


def test_server_stops_with_one_clear_line(tmp_path, run_server):
    code, err = run_server(SANGLOC_DATA_DIR=str(tmp_path), SANGLOC_PROT="1")
    assert code == 2
    assert err.count("\n") == 1
    assert "SANGLOC_PROT" in err
    occupied = tmp_path / "file"
    occupied.write_text("not a folder")
    code, err = run_server(SANGLOC_DATA_DIR=str(occupied))
    assert code == 2
    assert err.count("\n") == 1
    code, err = run_server(SANGLOC_DATA_DIR=str(tmp_path), SANGLOC_STORE_URL="nope://user:secret@x")
    assert code == 2
    assert err.count("\n") == 1
    assert "SANGLOC_STORE_URL" in err
    assert "secret" not in err


def test_a_database_out_of_reach_stops_the_start_without_a_stack_trace(tmp_path, run_server):
    here = {"SANGLOC_DATA_DIR": str(tmp_path), "SANGLOC_PORT": "0"}
    for url in ("sqlite:////nonexistent/x.db", "postgresql+psycopg://user:secret@127.0.0.1:1/x"):
        code, err = run_server(**here, SANGLOC_DATABASE_URL=url)
        assert code == 1
        assert "SANGLOC_DATABASE_URL" in err
        assert "Traceback" not in err
        assert "secret" not in err


def test_a_port_that_is_taken_stops_the_start(tmp_path, run_server):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, err = run_server(SANGLOC_DATA_DIR=str(tmp_path), SANGLOC_PORT=str(port))
    assert code == 1
    assert str(port) in err


def test_help_loads_no_heavy_module():
    helped = subprocess.run([sys.executable, SERVER, "--help"], capture_output=True, check=True, text=True)
    assert "SANGLOC_DATA_DIR" in helped.stdout
    probe = "import sys, service.run; sys.exit(bool({'fastapi', 'sqlalchemy', 'numpy', 'uvicorn'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", probe], cwd=SERVER.parent, check=False).returncode == 0


def test_first_start_makes_an_admin_key_once(tmp_path):
    settings = settings_for(tmp_path, bootstrap_key=None)
    file = tmp_path / "admin.key"
    with serving(settings) as served:
        secret = file.read_text().strip()
        assert file.stat().st_mode & 0o777 == 0o600
        assert len(secret) >= 43
        with served.client(secret) as client:
            assert client.get("/v1/keys").status_code == 200
            stored = client.get("/v1/keys").json()["items"]
            assert [each["role"] for each in stored] == ["admin"]
    assert secret.encode() not in (tmp_path / "sangloc.db").read_bytes()
    with serving(settings) as served, served.client(secret) as client:
        assert file.read_text().strip() == secret
        other = served.app.state.service.keys
        assert other is not None
        assert len(client.get("/v1/keys").json()["items"]) == 1
        assert client.delete(f"/v1/keys/{stored[0]['id']}").status_code == 204
    with serving(settings) as served, served.client(secret) as client:
        assert client.get("/v1/keys").status_code == 401, "a revoked key came back with the next start"


def test_bootstrap_key_holds_as_long_as_it_is_set(tmp_path):
    first, second = "the-first-of-two-keys", "the-second-of-two-keys"
    with serving(settings_for(tmp_path, bootstrap_key=first)) as served, served.client(first) as client:
        assert client.get("/v1/keys").json() == {"items": []}
        assert not (tmp_path / "admin.key").exists()
    with serving(settings_for(tmp_path, bootstrap_key=second)) as served, served.client(first) as client:
        assert client.get("/v1/keys").status_code == 401


def test_only_the_owner_can_read_the_data_folder(tmp_path):
    folder = tmp_path / "new"
    with serving(settings_for(folder)):
        assert folder.stat().st_mode & 0o077 == 0


def test_settings_take_no_unknown_field():
    with pytest.raises(ValueError, match="nonsense"):
        Settings(nonsense=1)
