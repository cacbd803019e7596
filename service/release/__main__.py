"""``python -m service.release keys|sign|list``: make a pair of keys, sign what is in service, show what was signed.

The private key stays with the person who promotes. The release is a file, ``releases/NUMBER.json`` in the folder of the
bundles; the centre offers the one with the highest number as soon as it lies in its own folder.
"""

from __future__ import annotations

import argparse
import base64
import getpass
import hashlib
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import ValidationError

from data_specs.next_steps.table import BadTable, read_table
from inference.bundles.deciding import NotDone as NotServable
from inference.bundles.deciding import check_servable
from inference.bundles.registry import Registry, read_registry
from service.protocols.public_keys import read_public_keys
from service.release.kept import RELEASES, file_of, numbers, read_kept, write_durably
from service.release.signed import NotTaken, Release, ReleasedBundle, ReleasedFile, sign
from service.release.tables import NEXT_STEPS
from service.storage.commands import DONE, NotDone, carried_out


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out one command. Returns 0: done; 1: refused; 2: something cannot be read or written."""
    parser = argparse.ArgumentParser(prog="python -m service.release", description="What the nodes of a centre get.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: object, about: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=about, description=about)
        added.set_defaults(command=run)
        return added

    keys = command("keys", _keys, "make a pair of keys: a file to be kept, and a public key for the nodes")
    keys.add_argument("file", type=Path, help="where the private key is written, mode 0600")
    keys.add_argument("--passphrase", action="store_true", help="ask for a passphrase that the file is encrypted with")
    signing = command("sign", _sign, "sign what is in service here, as the next release")
    signing.add_argument("--key", type=Path, required=True, help="file of the private key")
    signing.add_argument("--who", required=True, help="who decides")
    signing.add_argument("--why", required=True, help="and why")
    signing.add_argument("--number", type=int, help="higher than every release before; by default the next one")
    named = os.environ.get("SANGLOC_NEXT_STEPS")
    table = Path(named) if named else None
    signing.add_argument("--next-steps", type=Path, default=table, help="the programme's table (SANGLOC_NEXT_STEPS)")
    listing = command("list", _list, "the releases in the folder of the bundles")
    listing.add_argument("--signer", default="", help="public keys, separated by commas: whether they signed")
    folder = Path(os.environ.get("SANGLOC_BUNDLES") or "models/bundles")
    for added in (signing, listing):
        added.add_argument("--bundles", type=Path, default=folder, help="folder of the bundles (SANGLOC_BUNDLES)")
    given = parser.parse_args(arguments)
    return carried_out("release", lambda: given.command(given))


def _keys(given: argparse.Namespace) -> int:
    key = Ed25519PrivateKey.generate()
    passphrase = getpass.getpass("passphrase: ").encode() if given.passphrase else b""
    if passphrase and getpass.getpass("again: ").encode() != passphrase:
        raise NotDone("the two passphrases differ")
    content = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption(),
    )
    with os.fdopen(os.open(given.file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        os.fsync(file.fileno())
    public = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    print(f"{given.file}: the private key. It stays with the person who promotes, and on no server.")
    print(f"SANGLOC_UPSTREAM_SIGNER={base64.b64encode(public).decode()}")
    return DONE


def _sign(given: argparse.Namespace) -> int:
    key = _read_key(given.key)
    here = numbers(given.bundles)
    number = given.number or (here[-1] + 1 if here else 1)
    if here and number <= here[-1]:
        raise NotDone(f"the number has to be higher than {here[-1]}")
    registry = read_registry(given.bundles)
    if not registry.versions:
        raise NotDone(f"{given.bundles}: there is no bundle")
    try:
        release = Release(
            number=number,
            signed_at=datetime.now(UTC),
            who=given.who.strip(),
            why=given.why.strip(),
            bundles=tuple(_bundle(registry, name) for name in registry.versions),
            tables={} if given.next_steps is None else {NEXT_STEPS: _table(given.next_steps)},
        )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise NotDone(f"{'.'.join(map(str, first['loc']))}: {first['msg']}: {first['input']!r}") from None
    (given.bundles / RELEASES).mkdir(exist_ok=True)
    write_durably(file_of(given.bundles, number), sign(release, key).model_dump_json().encode() + b"\n")
    print(_described(release))
    print(f"{file_of(given.bundles, number)}")
    return DONE


def _read_key(path: Path) -> Ed25519PrivateKey:
    content = path.read_bytes()
    encrypted = b"ENCRYPTED" in content
    passphrase = getpass.getpass("passphrase: ").encode() if encrypted else None
    try:
        key = serialization.load_pem_private_key(content, passphrase)
    except (ValueError, TypeError):
        raise NotDone(f"{path}: {'the passphrase is wrong' if encrypted else 'it is no private key'}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise NotDone(f"{path}: it is no key of Ed25519")
    return key


def _bundle(registry: Registry, name: str) -> ReleasedBundle:
    """The version in service with its files, after all checks that a server does at its start."""
    version = registry.in_service(name) or ""
    try:
        manifest = check_servable(registry, name, version)
    except NotServable as refusal:
        raise NotDone(str(refusal)) from None
    folder = registry.folder_of(name, version)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return ReleasedBundle(
        organ=manifest.organ,
        name=name,
        version=version,
        files=tuple(
            ReleasedFile(
                path=path.relative_to(folder).as_posix(),
                n_bytes=path.stat().st_size,
                sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            )
            for path in files
        ),
    )


def _table(path: Path) -> str:
    try:
        read_table(path)
    except BadTable as error:
        raise NotDone(str(error)) from None
    return path.read_text(encoding="utf-8")


def _list(given: argparse.Namespace) -> int:
    try:
        public_keys = read_public_keys(given.signer)
    except ValueError as error:
        raise NotDone(f"--signer: {error}") from None
    for number in numbers(given.bundles):
        kept = read_kept(given.bundles, number)
        if kept is None:
            print(f"release {number}: cannot be read")
            continue
        print(_described(kept.release))
        if public_keys:
            try:
                kept.signed.verified(public_keys)
                print("  signature: right")
            except NotTaken as refusal:
                print(f"  signature: refused ({refusal.code})")
    return DONE


def _described(release: Release) -> str:
    lines = [f"release {release.number}, {release.signed_at:%Y-%m-%d %H:%M} UTC, {release.who}: {release.why}"]
    for bundle in release.bundles:
        n_bytes = sum(file.n_bytes for file in bundle.files)
        lines.append(f"  {bundle.name} {bundle.version}: {len(bundle.files)} files, {n_bytes / 1e6:.1f} MB")
    lines += [f"  table {name}: sha256 {sha256[:12]}" for name, sha256 in release.said_of_tables().items()]
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
