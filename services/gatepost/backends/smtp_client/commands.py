"""The command lines of a transaction, and what a host must offer for a message: pure functions."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from gatepost.backends.smtp_client.replies import Reply
from gatepost.core.envelope import BodyType
from gatepost.core.ports.transport import OutgoingMessage, RemoteReply, TransportRecipient

Extensions = Mapping[str, str]  # keyword in capitals -> its parameters

# RFC 9422 4.1: six digits, not beginning with 0.
_LIMIT: Final = re.compile(r"(?:^|(?<= ))([A-Z]+)=([1-9][0-9]{0,5})(?= |$)")
# A path is written by core.address, so that this only guards against a damaged envelope.
_UNSAFE: Final = re.compile(r"[\x00-\x1f\x7f]|[\ud800-\udfff]")
# xtext, keywords and commas (RFC 3461 4): printable without space.
_PARAMETER: Final = re.compile(r"[\x21-\x7e]+", re.ASCII)
_UTF8_PARAMETER: Final = re.compile(r"[^\x00-\x20\x7f\ud800-\udfff]+")


def read_extensions(reply: Reply) -> dict[str, str]:
    """Return what a reply to EHLO announces (RFC 5321 4.1.1.1); the first line is the host's name."""
    extensions: dict[str, str] = {}
    for line in reply.lines[1:]:
        keyword, _, parameters = line.strip().partition(" ")
        if keyword.upper().startswith("AUTH="):
            # "AUTH=LOGIN" of old hosts is read as AUTH.
            keyword, _, parameters = line.strip().replace("=", " ", 1).partition(" ")
        if keyword:
            extensions.setdefault(keyword.upper(), parameters.strip())
    return extensions


class HostLimits(msgspec.Struct, frozen=True):
    """RFC 9422 4: how many messages a session, recipients a message and domains of recipients a message may have.

    A host that sets no limit has a very large one.
    """

    mails: int = sys.maxsize
    recipients: int = sys.maxsize
    domains: int = sys.maxsize


def read_limits(extensions: Extensions) -> HostLimits:
    """Return what the host announced by LIMITS; a limit that is not valid counts as none (RFC 9422 3)."""
    found = dict(_LIMIT.findall(extensions.get("LIMITS", "").upper()))
    return HostLimits(*(int(found.get(name, sys.maxsize)) for name in ("MAILMAX", "RCPTMAX", "RCPTDOMAINMAX")))


def rounds(recipients: Sequence[TransportRecipient], limits: HostLimits) -> list[list[int]]:
    """Return the places of the recipients in as few messages as the limits allow, each place once."""
    done: list[list[int]] = []
    by_domain: dict[str, list[int]] = {}
    for place, recipient in enumerate(recipients):
        by_domain.setdefault(recipient.address.rpartition("@")[2].lower(), []).append(place)
    domains = 0
    for places in by_domain.values():
        if not done or domains >= limits.domains:
            done.append([])
            domains = 0
        domains += 1
        for place in places:
            if len(done[-1]) >= limits.recipients:
                done.append([])
                domains = 1
            done[-1].append(place)
    return done


def needs_smtputf8(message: OutgoingMessage) -> bool:
    """Whether the message can travel only with SMTPUTF8: it was declared so, or an address has UTF-8."""
    addresses = (message.reverse_path, *(recipient.address for recipient in message.recipients))
    return message.smtputf8 or not all(address.isascii() for address in addresses)


def unfit(message: OutgoingMessage, extensions: Extensions) -> RemoteReply | None:
    """Return the refusal in the host's place when it cannot take this message, or None.

    RFC 6531 3.2 and 4 (SMTPUTF8, X.6.7), RFC 6152 3 and RFC 3463 3.7 (8BITMIME, X.6.3), RFC 1870 6.3 (X.3.4).
    """
    if needs_smtputf8(message) and "SMTPUTF8" not in extensions:
        return RemoteReply(554, "5.6.7", "The next host does not take internationalised mail (SMTPUTF8)")
    if message.body_type is BodyType.EIGHT_BIT_MIME and "8BITMIME" not in extensions:
        return RemoteReply(554, "5.6.3", "The next host does not take 8-bit content (8BITMIME)")
    limit = extensions.get("SIZE", "")
    if limit.isdecimal() and 0 < int(limit) < content_size(message):
        return RemoteReply(552, "5.3.4", f"The message is larger than the next host takes ({limit} octets)")
    return None


def local_fault(message: OutgoingMessage) -> RemoteReply | None:
    """Return a temporary failure for an envelope that must not be sent as it is, or None."""
    texts = (message.reverse_path, *(recipient.address for recipient in message.recipients))
    if any(_UNSAFE.search(text) for text in texts) or not all(texts[1:]):
        return RemoteReply(451, "4.3.0", "The envelope has an address that cannot be sent")
    prepend = message.prepend
    lines = prepend.count(b"\r\n")
    if (
        (prepend and not prepend.endswith(b"\r\n"))
        or lines != prepend.count(b"\n")
        or lines != prepend.count(b"\r")
    ):
        return RemoteReply(451, "4.3.0", "The added header fields are not whole lines")
    return None


def content_size(message: OutgoingMessage) -> int:
    """The octets of the content, dots not doubled (RFC 1870 5)."""
    return len(message.prepend) + message.body.size


def mail_line(message: OutgoingMessage, extensions: Extensions) -> bytes:
    """MAIL with the parameters that the host has announced."""
    words = [f"MAIL FROM:<{message.reverse_path}>"]
    if "SIZE" in extensions:
        words.append(f"SIZE={content_size(message)}")
    if message.body_type is BodyType.EIGHT_BIT_MIME:
        words.append("BODY=8BITMIME")
    if needs_smtputf8(message):
        words.append("SMTPUTF8")
    if "DSN" in extensions:
        words += _parameter("RET", message.ret) + _parameter("ENVID", message.envid)
    return " ".join(words).encode("utf-8") + b"\r\n"


def rcpt_line(recipient: TransportRecipient, extensions: Extensions, smtputf8: bool) -> bytes:
    """RCPT with the DSN parameters, where the host has announced DSN (RFC 3461 4.1, 4.2; RFC 6533 3 for UTF-8)."""
    words = [f"RCPT TO:<{recipient.address}>"]
    if "DSN" in extensions:
        words += _parameter("NOTIFY", recipient.notify) + _parameter("ORCPT", recipient.orcpt, smtputf8)
    return " ".join(words).encode("utf-8") + b"\r\n"


def _parameter(name: str, value: str, utf8: bool = False) -> list[str]:
    form = _UTF8_PARAMETER if utf8 else _PARAMETER
    return [f"{name}={value}"] if form.fullmatch(value) else []
