"""The forms in which an open relay is asked to pass mail on, and what an answer to one means.

The sixteen pairs of MAIL and RCPT are those that relay testers have used since the 1990s: foreign and forged
senders, and recipients with %, !, quotes, two @ or a source route, which some servers took for a route.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

import msgspec

USER: Final = "relaytest"
SENDER: Final = "antispam"


class Probe(msgspec.Struct, frozen=True):
    """Addresses with {far}: a domain that is not the server's, {here}: its name, {ip}: its address in brackets."""

    name: str
    sender: str
    recipient: str


_AT_IP: Final = f"{SENDER}@{{ip}}"
_FAR: Final = f"{USER}@{{far}}"

PROBES: Final = (
    Probe("null sender", "", _FAR),
    Probe("foreign sender", f"{SENDER}@{{far}}", _FAR),
    Probe("sender at the server's name", f"{SENDER}@{{here}}", _FAR),
    Probe("sender at the server's address", _AT_IP, _FAR),
    Probe("percent at the address", _AT_IP, f"{USER}%{{far}}@{{ip}}"),
    Probe("percent at the name", _AT_IP, f"{USER}%{{far}}@{{here}}"),
    Probe("quoted address", _AT_IP, f'"{_FAR}"'),
    Probe("quoted percent", _AT_IP, f'"{USER}%{{far}}"'),
    Probe("two @ at the address", _AT_IP, f"{_FAR}@{{ip}}"),
    Probe("quoted at the address", _AT_IP, f'"{_FAR}"@{{ip}}'),
    Probe("two @ at the name", _AT_IP, f"{_FAR}@{{here}}"),
    Probe("source route by the address", _AT_IP, f"@{{ip}}:{_FAR}"),
    Probe("source route by the name", _AT_IP, f"@{{here}}:{_FAR}"),
    Probe("bang path alone", _AT_IP, f"{{far}}!{USER}"),
    Probe("bang path at the address", _AT_IP, f"{{far}}!{USER}@{{ip}}"),
    Probe("bang path at the name", _AT_IP, f"{{far}}!{USER}@{{here}}"),
)


class Outcome(Enum):
    """REFUSED is what has to be; DEFERRED decides nothing yet; ACCEPTED is a hole."""

    REFUSED = "refused"
    DEFERRED = "deferred"
    ACCEPTED = "accepted"


def outcome(code: int) -> Outcome:
    """What the code of the reply to MAIL or RCPT means. Raises ValueError for a code that is none of theirs."""
    match code // 100:
        case 2:
            return Outcome.ACCEPTED
        case 4:
            return Outcome.DEFERRED
        case 5:
            return Outcome.REFUSED
        case _:
            raise ValueError(f"{code} is no answer to MAIL or RCPT")


def fill(text: str, *, far: str, here: str, ip: str) -> str:
    """A probe's address with the names of this test; `ip` without brackets."""
    literal = f"[IPv6:{ip}]" if ":" in ip else f"[{ip}]"
    return text.format(far=far, here=here, ip=literal)
