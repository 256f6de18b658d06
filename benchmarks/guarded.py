"""The row of a whole policy: the recommended one beside a bare one, and Postfix with what comes nearest to it.

Postfix needs programs beside it for that: policyd-spf (one Python process for each smtpd), OpenDKIM and OpenDMARC
as milters, two lists by reject_rbl_client, header_checks and mime_header_checks. They are in its control group, so
their CPU counts. Every message is signed (RSA, 2048 bits) by example.org, which publishes SPF, the key and DMARC in
one Unbound on 127.0.0.77, which both ask; its CPU is counted for nobody. Postfix and its helpers ask what
/etc/resolv.conf names, so they run in a mount namespace of their own, where that is another file.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import yaml
from control_group import ControlGroup
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from peers import Peer
from smtp_load import USERS
from systems import MANIFESTS

from gatepost.core.authentication.dkim import DkimSigner, hash_body
from gatepost.core.headers import read_header
from testbed import ports
from testbed.postfix import Postfix
from testbed.process import Server
from testbed.provision import apt

RECOMMENDED: Final = Path(__file__).resolve().parent.parent / "examples/recommended/policies.yaml"
ADDRESS: Final = "127.0.0.77"
LISTS: Final = ("first-list.example", "second-list.example")
DOMAIN: Final = "example.org"
SELECTOR: Final = "bench"
BODY_LINES: Final = 50
PROCESSES: Final = 100
BARE: Final = "bare"
GUARDED: Final = "recommended"
TXT_PIECE: Final = 250  # a character string of a TXT record has 255 octets at most (RFC 1035 3.3)

_UNBOUND = """
server:
  interface: {address}@53
  do-daemonize: no
  use-syslog: no
  logfile: ""
  username: ""
  chroot: ""
  directory: "{folder}"
  pidfile: "{folder}/unbound.pid"
  num-threads: 1
  module-config: "iterator"
  access-control: 127.0.0.0/8 allow
{zones}
remote-control:
  control-enable: no
"""

_POSTFIX = """
smtpd_recipient_restrictions = reject_unauth_destination, reject_unknown_sender_domain,
  reject_rbl_client {first}, reject_rbl_client {second}, check_policy_service unix:private/policyd-spf
policyd-spf_time_limit = 3600
smtpd_soft_error_limit = 3
smtpd_hard_error_limit = 20
smtpd_milters = inet:127.0.0.1:{dkim}, inet:127.0.0.1:{dmarc}
milter_default_action = accept
header_checks = regexp:{folder}/etc/header_checks
mime_header_checks = regexp:{folder}/etc/mime_header_checks
"""
_MASTER = (
    f"policyd-spf unix - n n - {PROCESSES} spawn user=nobody argv=/usr/bin/policyd-spf {{folder}}/etc/spf.conf\n"
)
_SPF = "debugLevel = 0\nHELO_reject = False\nMail_From_reject = False\nskip_addresses = 192.0.2.1/32\n"
_HEADER_CHECKS = r"""/^Message-ID:[^@]*$/ WARN
/^Subject: *(AD|ADV|ADVERTISEMENT):/ WARN
/^Subject:.* {8}/ WARN
"""
_MIME_HEADER_CHECKS = r"""/name[^>]*\.(exe|com|scr|pif|bat|cmd|vbs|js|jar|lnk|hta)"?$/ REJECT
/name[^>]*\.(iso|img)"?$/ HOLD
"""
_DKIM = """Mode v
Socket inet:{port}@127.0.0.1
InternalHosts {folder}/etc/nobody
UserID nobody
Syslog no
AuthservID dkim.example.test
Nameservers 127.0.0.77
"""
_DMARC = """Socket inet:{port}@127.0.0.1
IgnoreHosts {folder}/etc/nobody
AuthservID mx.example.test
TrustedAuthservIDs dkim.example.test
SPFSelfValidate true
UserID nobody
Syslog false
"""


class Sender:
    """example.org: its key, its records, and a message that it has signed, as a file."""

    def __init__(self, folder: Path) -> None:
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        der = key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self.public = base64.b64encode(der).decode()
        header = (
            f"From: sender@{DOMAIN}\r\nTo: alice@example.test\r\nDate: Sun, 1 Feb 2026 12:00:00 +0000\r\n"
            f"Message-ID: <bench@{DOMAIN}>\r\nSubject: a message of the benchmark\r\nMIME-Version: 1.0\r\n"
            'Content-Type: multipart/mixed; boundary="b"\r\n'
        ).encode()
        text = b"".join(
            b"This is line %03d of a text that somebody reads.\r\n" % number for number in range(BODY_LINES)
        )
        body = (
            b"--b\r\nContent-Type: text/plain\r\n\r\n" + text + b"\r\n--b\r\n"
            b'Content-Type: application/pdf; name="paper.pdf"\r\nContent-Transfer-Encoding: base64\r\n'
            b'Content-Disposition: attachment; filename="paper.pdf"\r\n\r\n'
            + b"".join([b"QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWZnaGlqa2xtbm9wcXI=\r\n"] * 16)
            + b"\r\n--b--\r\n"
        )
        signer = DkimSigner(DOMAIN, SELECTOR, pem)
        signed = signer.sign(read_header(header), hash_body(body, {signer.wanted}), 1_790_000_000)
        self.message = folder / "signed.eml"
        # smtp-source reads lines of a text file and sends CRLF itself.
        self.message.write_bytes((signed + header + b"\r\n" + body).replace(b"\r\n", b"\n"))

    def zones(self) -> str:
        """What Unbound answers: the sender's records. The two lists, as all other names, have nobody."""
        key = f"v=DKIM1; k=rsa; p={self.public}"
        pieces = " ".join(f'"{key[at : at + TXT_PIECE]}"' for at in range(0, len(key), TXT_PIECE))
        records = (
            f"{DOMAIN}. 3600 IN A 127.0.0.1",
            f"{DOMAIN}. 3600 IN MX 10 mx.{DOMAIN}.",
            f"mx.{DOMAIN}. 3600 IN A 127.0.0.1",
            f"client.{DOMAIN}. 3600 IN A 127.0.0.1",
            f'{DOMAIN}. 3600 IN TXT "v=spf1 ip4:127.0.0.0/8 -all"',
            f'_dmarc.{DOMAIN}. 3600 IN TXT "v=DMARC1; p=reject"',
            f"{SELECTOR}._domainkey.{DOMAIN}. 3600 IN TXT {pieces}",
        )
        # Nothing else exists: there may be no network to ask, for instance for _dmarc.org.
        lines = ['  local-zone: "." static', "  local-data: '. 3600 IN SOA . . 1 3600 900 86400 3600'"]
        lines += [f"  local-data: '{record}'" for record in records]
        return "\n".join(lines)


@contextmanager
def resolver(folder: Path, sender: Sender) -> Iterator[str]:
    """Unbound with the sender's records on port 53, the only one that /etc/resolv.conf can name."""
    apt.install("servers")
    folder.mkdir()
    configuration = folder / "unbound.conf"
    configuration.write_text(_UNBOUND.format(address=ADDRESS, folder=folder, zones=sender.zones()))
    with Server("unbound", ["/usr/sbin/unbound", "-c", configuration, "-d"], folder):
        yield f"{ADDRESS}:53"


def recommended() -> str:
    """The shipped policy for the public listener, with lists that exist here and room for one busy client."""
    documents = [one for one in yaml.safe_load_all(RECOMMENDED.read_text()) if one]
    (policy,) = [one for one in documents if one["metadata"]["name"] == "public-mx"]
    spec = policy["spec"]
    for one, zone in zip(spec["dnsbl"]["lists"], LISTS, strict=True):
        one["zone"] = zone
    spec["connection"]["perHost"]["concurrent"] = 1000
    spec["recipients"]["rates"] = {
        name: {**rate, "messages": 10_000_000} for name, rate in spec["recipients"]["rates"].items()
    }
    domain = next(iter(yaml.safe_load_all(MANIFESTS)))
    return yaml.safe_dump_all([domain, policy])


class GuardedPostfix(Peer):
    """Its CPU is that of a control group, with all helpers."""

    def __init__(self, postfix: Postfix, group: ControlGroup) -> None:
        super().__init__("postfix-guarded", postfix.port, {"postfix": postfix.server.pid}, postfix.mail)
        self._group = group

    def cpu(self) -> dict[str, float]:
        return {"postfix and helpers": self._group.cpu_seconds()}


@contextmanager
def guarded_postfix(folder: Path) -> Iterator[GuardedPostfix]:
    """Postfix that holds what it has taken, with lists, SPF, DKIM, DMARC and expressions."""
    apt.install("milters")
    folder.mkdir()
    resolv = folder / "resolv.conf"
    resolv.write_text(f"nameserver {ADDRESS}\n")
    resolv.chmod(0o644)
    bind = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'
    inside = ["unshare", "--mount", "--propagation", "private", "sh", "-c", bind, str(resolv)]
    with ExitStack() as stack:
        group = stack.enter_context(ControlGroup("guarded"))
        postfix = Postfix(folder, users=USERS, inside=inside)
        base = postfix.mail.parent
        settings = base / "etc"
        (settings / "nobody").write_text("192.0.2.1\n")
        dkim, dmarc = ports.reserve(), ports.reserve()
        (settings / "opendkim.conf").write_text(_DKIM.format(port=dkim, folder=base))
        (settings / "opendmarc.conf").write_text(_DMARC.format(port=dmarc, folder=base))
        (settings / "spf.conf").write_text(_SPF)
        (settings / "header_checks").write_text(_HEADER_CHECKS)
        (settings / "mime_header_checks").write_text(_MIME_HEADER_CHECKS)
        with (settings / "main.cf").open("a") as main:
            values = {"first": LISTS[0], "second": LISTS[1], "dkim": dkim, "dmarc": dmarc, "folder": base}
            main.write(_POSTFIX.format_map(values))
            main.write("smtpd_junk_command_limit = 1000000\n")
            main.write("smtpd_end_of_data_restrictions = check_client_access static:HOLD\n")
        with (settings / "master.cf").open("a") as master:
            master.write(_MASTER.format(folder=base))
        for name, port, option in (("opendkim", dkim, "-x"), ("opendmarc", dmarc, "-c")):
            argv = [*inside, f"/usr/sbin/{name}", "-f", option, settings / f"{name}.conf"]
            helper = stack.enter_context(Server(name, argv, folder, ports=[port], death_signal="TERM"))
            group.adopt(helper.pid)
        stack.enter_context(postfix)
        group.adopt(postfix.server.pid)
        yield GuardedPostfix(postfix, group)
