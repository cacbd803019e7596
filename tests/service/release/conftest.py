"""Folders of bundles, keys, and releases that are signed with them by the command."""

from __future__ import annotations

import pytest

from service.release.__main__ import main
from tests.models.versions import shipped, version


class Signer:
    """A person who promotes: a private key in a file, and its public key as the setting takes it."""

    def __init__(self, path, capsys):
        self.key = path
        assert main(["keys", str(path)]) == 0
        said = capsys.readouterr().out
        self.public = said.split("SANGLOC_UPSTREAM_SIGNER=")[1].split()[0]

    def sign(self, bundles, *more, code=0, why="a test"):
        signed = ["sign", "--key", str(self.key), "--bundles", str(bundles), "--who", "the lead", "--why", why, *more]
        assert main(list(map(str, signed))) == code


@pytest.fixture
def signer(tmp_path, capsys):
    return Signer(tmp_path / "release.key", capsys)


@pytest.fixture
def kidneys(tmp_path):
    """The folders of a centre and of a node: the smallest bundle as 1.0.0, and at the centre a 1.1.0 too."""
    folders = [tmp_path / name / "bundles" for name in ("centre", "node")]
    for folder in folders:
        folder.mkdir(parents=True)
        shipped(folder, "kidney")
    version(folders[0], "kidney", "1.1.0")
    return folders
