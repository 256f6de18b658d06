"""`gatepost quickstart`: makes what examples/quickstart wants in the state folder, once: users, certificate."""

from __future__ import annotations

import argparse
import datetime
import ipaddress
import os
import secrets
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gatepost.core.password import SALT_BYTES, make_password

DOMAIN: Final = "example.test"
USERS: Final = ("alice", "bob")
CERTIFICATE_DAYS: Final = 365
_PASSWORD_BYTES: Final = 9  # 12 characters, 72 bits


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--state", type=Path, default=Path("var"), metavar="DIR", help="where it goes (var)")


def run(options: argparse.Namespace) -> int:
    state: Path = options.state
    state.mkdir(parents=True, exist_ok=True)
    if not (state / "tls.crt").exists():
        _make_certificate(state)
    if not (state / "users.ldif").exists():
        passwords = {user: secrets.token_urlsafe(_PASSWORD_BYTES) for user in USERS}
        _write_private(state / "users.ldif", _ldif(passwords))
        print("First start: these logins were made (their passwords are not shown again):")
        for user, password in passwords.items():
            print(f"  {user}@{DOMAIN}  password {password}")
        print(f"To make new ones delete {state / 'users.ldif'} and start again.\n", flush=True)
    return 0


def _ldif(passwords: dict[str, str]) -> str:
    parts = ["version: 1\n"]
    for user, password in passwords.items():
        parts.append(
            f"\ndn: uid={user},dc=example,dc=test\n"
            "objectClass: inetOrgPerson\nobjectClass: inetLocalMailRecipient\n"
            f"uid: {user}\ncn: {user.title()}\nsn: {user.title()}\n"
            f"mailLocalAddress: {user}@{DOMAIN}\nuserPassword: {make_password(password, os.urandom(SALT_BYTES))}\n"
        )
    return "".join(parts)


def _make_certificate(state: Path) -> None:
    """A self-signed ECDSA certificate for this machine; a real one takes its place by the same file names."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    start = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)
    names = [
        x509.DNSName("localhost"),
        x509.DNSName(f"mx.{DOMAIN}"),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
    ]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=CERTIFICATE_DAYS))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    form = serialization.Encoding.PEM
    private = key.private_bytes(form, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    _write_private(state / "tls.key", private.decode("ascii"))
    (state / "tls.crt").write_bytes(certificate.public_bytes(form))


def _write_private(path: Path, text: str) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
