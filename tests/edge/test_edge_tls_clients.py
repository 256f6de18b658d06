"""Client certificates, several server certificates, required networks, links that are swapped, what TLS offers."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gatepost.core.configuration import Configuration, ListenerPolicy
from gatepost.core.configuration_tls import CertificateRights
from gatepost.core.manifest.settings import CertificatePair, ListenerTls, Role
from gatepost.edge.tls import TlsContext, TlsError
from gatepost.telemetry import metrics
from testbed.tls import Authority, Certificate

if TYPE_CHECKING:
    from conftest import Client, Edge, MakeEdge

HOSTNAME = "mx.example.test"
FRIEND = "friend@elsewhere.example"
Issue = Callable[[], tuple[Authority, Certificate]]


def fingerprint(issued: Certificate) -> str:
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(issued.certificate.read_text())).hexdigest()


def showing(authority: Authority, issued: Certificate | None) -> ssl.SSLContext:
    context = authority.client_context()
    if issued is not None:
        context.load_cert_chain(issued.certificate, issued.key)
    return context


def files(
    authority: Authority, server: Certificate, *, ca: Path | None = None, implicit: bool = False
) -> ListenerTls:
    return ListenerTls(
        str(server.certificate), str(server.key), implicit, client_ca_file=str(ca or authority.certificate)
    )


async def encrypted(edge: Edge, context: ssl.SSLContext) -> Client:
    client = await edge.client()
    assert (await client.ask("STARTTLS")).startswith("220")
    await client.start_tls(context)
    assert (await client.ask("EHLO client.example.org")).startswith("250")
    return client


async def relays(client: Client) -> bool:
    assert (await client.ask("MAIL FROM:<anyone@anywhere.example>")).startswith("250")
    reply = await client.ask(f"RCPT TO:<{FRIEND}>")
    assert reply.startswith(("250", "550 5.7.1"))
    return reply.startswith("250")


@pytest.mark.requirement("S4-73")
async def test_a_pinned_certificate_or_a_verified_name_may_relay(make_edge: MakeEdge, certificate: Issue) -> None:
    """By a CA's certificate, or by a print that was handed over. Fails without relay.clientCertificates."""
    authority, server = certificate()
    pinned = authority.issue("one.partner.example", file="pinned")
    named = authority.issue("other.partner.example", "MTA.partner.example", file="named")
    neither = authority.issue("third.partner.example", file="neither")
    rights = CertificateRights((fingerprint(pinned),), ("mta.partner.example",))
    edge = await make_edge(files=files(authority, server), role=Role.INTERNAL, client_certificates=rights)
    for shown, allowed in ((pinned, True), (named, True), (neither, False), (None, False)):
        client = await encrypted(edge, showing(authority, shown))
        assert await relays(client) is allowed, shown
    # A changed policy takes the right away, and ends a session that uses it.
    client = await encrypted(edge, showing(authority, pinned))
    assert await relays(client)
    edge.configure(client_certificates=CertificateRights((), ("mta.partner.example",)))
    assert (await client.ask("NOOP")).startswith("421 4.7.0")


async def test_a_resumed_session_keeps_its_certificate(make_edge: MakeEdge, certificate: Issue) -> None:
    authority, server = certificate()
    pinned = authority.issue("one.partner.example", file="resumed")
    edge = await make_edge(
        files=files(authority, server, implicit=True),
        role=Role.INTERNAL,
        client_certificates=CertificateRights((fingerprint(pinned),)),
    )
    context = showing(authority, pinned)

    def dialogue(session: ssl.SSLSession | None) -> tuple[ssl.SSLSession | None, bool, bytes]:
        with (
            socket.create_connection(("127.0.0.1", edge.port), timeout=20) as plain,
            context.wrap_socket(plain, server_hostname=HOSTNAME, session=session) as tls,
        ):
            replies = tls.makefile("rb")
            heard = replies.readline()
            for line in (b"HELO x.example", b"MAIL FROM:<a@b.example>", f"RCPT TO:<{FRIEND}>".encode(), b"QUIT"):
                tls.sendall(line + b"\r\n")
                heard = replies.readline() if line != b"QUIT" else heard
            return tls.session, bool(tls.session_reused), heard

    loop = asyncio.get_running_loop()
    session, reused, heard = await loop.run_in_executor(None, dialogue, None)
    assert (reused, heard[:3]) == (False, b"250")
    _, reused, heard = await loop.run_in_executor(None, dialogue, session)
    assert (reused, heard[:3]) == (True, b"250")


async def test_a_certificate_that_nobody_vouches_for(
    make_edge: MakeEdge, certificate: Issue, tmp_path: Path
) -> None:
    """Where certificates are asked for it cannot connect; elsewhere nobody looks at it."""
    authority, server = certificate()
    stranger = Authority(tmp_path / "stranger").issue("one.partner.example")
    rights = CertificateRights((fingerprint(stranger),), (), ("192.0.2.0/24",))
    edge = await make_edge(files=files(authority, server), role=Role.INTERNAL, client_certificates=rights)
    client = await encrypted(edge, showing(authority, stranger))
    assert not await relays(client), "this network is not asked, so nothing is known of the certificate"
    edge.configure(client_certificates=CertificateRights((fingerprint(stranger),)))
    before = metrics.TLS_HANDSHAKES.values.get(("mx", "failed"), 0)
    with pytest.raises((OSError, asyncio.IncompleteReadError)):
        await encrypted(edge, showing(authority, stranger))
    await edge.until(lambda: metrics.TLS_HANDSHAKES.values.get(("mx", "failed"), 0) == before + 1)
    # The pinned certificate itself in the bundle is enough, whoever issued it.
    pinned = await make_edge(
        files=files(authority, server, ca=stranger.certificate),
        role=Role.INTERNAL,
        client_certificates=CertificateRights((fingerprint(stranger),)),
    )
    assert await relays(await encrypted(pinned, showing(authority, stranger)))


async def test_networks_that_must_encrypt(make_edge: MakeEdge) -> None:
    edge = await make_edge(tls=True, tls_required_for=("127.0.0.0/8",))
    client = await edge.client()
    assert (await client.ask("MAIL FROM:<a@example.org>")).startswith("530 5.7.0")
    assert edge.authority is not None
    client = await encrypted(edge, edge.authority.client_context())
    assert (await client.ask("MAIL FROM:<a@example.org>")).startswith("250")
    other = await make_edge(tls=True, tls_required_for=("192.0.2.0/24",))
    assert (await (await other.client()).ask("MAIL FROM:<a@example.org>")).startswith("250")


# -- without a network: a handshake in memory


def handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    there, here = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(here, there, server_hostname=HOSTNAME),
        server.wrap_bio(there, here, server_side=True),
    )
    for _ in range(4):
        for end in ends:
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
    return ends


def rsa_certificate(folder: Path) -> Certificate:
    issued = Certificate(folder / "rsa.crt", folder / "rsa.key")
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", f"/CN={HOSTNAME}"]
    words += ["-keyout", str(issued.key), "-out", str(issued.certificate)]
    subprocess.run(words, check=True, capture_output=True, timeout=60)
    return issued


def anybody() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def shown(context: ssl.SSLContext, client: ssl.SSLContext) -> bytes | None:
    return handshake(context, client)[0].getpeercert(binary_form=True)


async def test_ecdsa_first_and_rsa_for_those_who_need_it(
    make_edge: MakeEdge, certificate: Issue, tmp_path: Path
) -> None:
    _, ecdsa = certificate()
    rsa = rsa_certificate(tmp_path)
    settings = ListenerTls(
        str(rsa.certificate), str(rsa.key), certificates=(CertificatePair(str(ecdsa.certificate), str(ecdsa.key)),)
    )
    edge = await make_edge(files=settings)
    (listener,) = edge.server._listeners.values()
    assert listener.tls is not None
    context = listener.tls.context
    ecdsa_bytes, rsa_bytes = (ssl.PEM_cert_to_DER_cert(one.certificate.read_text()) for one in (ecdsa, rsa))
    assert shown(context, anybody()) == ecdsa_bytes
    old = anybody()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    assert shown(context, old) == ecdsa_bytes
    old.set_ciphers("ECDHE-RSA-AES128-GCM-SHA256")
    assert shown(context, old) == rsa_bytes


def test_two_keys_of_one_kind_are_refused(certificate: Issue) -> None:
    authority, one = certificate()
    other = authority.issue(HOSTNAME, file="other")
    with pytest.raises(TlsError, match="same kind of key"):
        TlsContext("mx", [(one.certificate, one.key), (other.certificate, other.key)])


def test_a_secret_that_the_kubelet_swaps(certificate: Issue, tmp_path: Path) -> None:
    """Files are links to ..data/, which is a link to the version's folder and is replaced in one step."""
    authority, first = certificate()
    second = authority.issue(HOSTNAME, "second.example.test", file="swapped")
    for version, issued in (("..v1", first), ("..v2", second)):
        (tmp_path / version).mkdir()
        shutil.copy(issued.certificate, tmp_path / version / "tls.crt")
        shutil.copy(issued.key, tmp_path / version / "tls.key")
    (tmp_path / "..data").symlink_to("..v1")
    live = tmp_path / "tls.crt", tmp_path / "tls.key"
    for file in live:
        file.symlink_to(f"..data/{file.name}")
    tls = TlsContext("mx", [live])
    client = anybody()
    before = shown(tls.context, client)
    (tmp_path / "..data_tmp").symlink_to("..v2")
    os.replace(tmp_path / "..data_tmp", tmp_path / "..data")
    shutil.rmtree(tmp_path / "..v1")
    assert shown(tls.context, client) == before
    tls.refresh()
    assert shown(tls.context, client) == ssl.PEM_cert_to_DER_cert(second.certificate.read_text())


def test_client_cas_are_read_again(certificate: Issue, tmp_path: Path) -> None:
    """One that is taken out of the bundle vouches for nobody any more."""
    authority, server = certificate()
    stranger = Authority(tmp_path / "stranger")
    bundle = tmp_path / "clients.pem"
    shutil.copy(stranger.certificate, bundle)
    tls = TlsContext("mx", [(server.certificate, server.key)], bundle)
    client = showing(authority, stranger.issue("one.partner.example"))
    assert tls.asking is not None
    assert handshake(tls.asking, client)[1].getpeercert()
    bundle.write_bytes(authority.certificate.read_bytes() + b"\n")
    tls.refresh()
    with pytest.raises(ssl.SSLError):
        handshake(tls.asking, client)
    bundle.write_text("nothing")
    tls.refresh()
    with pytest.raises(ssl.SSLError):
        handshake(tls.asking, client)


def test_nothing_weak_is_offered(certificate: Issue) -> None:
    """No version below 1.2, no NULL, export, RC4, DES or anonymous cipher, no compression, no ALPN."""
    _, issued = certificate()
    context = TlsContext("mx", [(issued.certificate, issued.key)]).context
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    names = [cipher["name"] for cipher in context.get_ciphers()]
    assert names
    for weak in ("NULL", "EXP", "RC4", "DES", "ADH", "AECDH", "MD5", "PSK", "anon"):
        assert not [name for name in names if weak in name], weak
    client = anybody()
    client.set_alpn_protocols(["smtp", "h2"])
    ours = handshake(context, client)[1]
    assert ours.selected_alpn_protocol() is None
    assert ours.compression() is None


@pytest.mark.parametrize("verified", [True, False])
async def test_a_policy_is_met_when_it_comes(make_edge: MakeEdge, certificate: Issue, verified: bool) -> None:
    """An edge that starts without a configuration asks nobody, and asks as soon as a policy wants it."""
    authority, server = certificate()
    pinned = authority.issue("one.partner.example", file=f"later-{verified}")
    edge = await make_edge(files=files(authority, server), role=Role.INTERNAL)
    assert not await relays(await encrypted(edge, showing(authority, pinned)))
    rights = CertificateRights((fingerprint(pinned) if verified else "0" * 64,))
    edge.configure(client_certificates=rights)
    assert await relays(await encrypted(edge, showing(authority, pinned))) is verified
    assert ListenerPolicy("mx").client_certificates == CertificateRights()
    assert b"clientCertificates" not in Configuration(1, (), (ListenerPolicy("mx"),)).encode()
