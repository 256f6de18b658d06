"""Certificates of the test authority, tried in a handshake by OpenSSL through Python's ssl."""

import ssl
from pathlib import Path

import pytest

from testbed.tls import Authority, server_context


def handshake(authority: Authority, server: ssl.SSLContext, name: str) -> None:
    """Both ends of one handshake in memory; raises what the client raises."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client_end = authority.client_context().wrap_bio(to_client, to_server, server_hostname=name)
    server_end = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(3):
        for end in (client_end, server_end):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    assert client_end.version() == "TLSv1.3"


def test_a_certificate_is_good_for_its_names_and_addresses(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server = server_context(authority.issue("mx.example.test", "127.0.0.1"))
    handshake(authority, server, "mx.example.test")
    handshake(authority, server, "127.0.0.1")
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        handshake(authority, server, "other.example.test")


def test_another_authority_is_not_trusted(tmp_path: Path) -> None:
    server = server_context(Authority(tmp_path / "theirs").issue("mx.example.test"))
    with pytest.raises(ssl.SSLCertVerificationError, match="unable to get local issuer"):
        handshake(Authority(tmp_path / "ours"), server, "mx.example.test")


def test_an_expired_certificate(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server = server_context(authority.issue("mx.example.test", days=0))
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        handshake(authority, server, "mx.example.test")
