"""POP before SMTP: which addresses have just logged in at the mailbox server, remembered by all edges together."""

from __future__ import annotations

import ipaddress
from typing import Final

import msgspec

from gatepost.core.ports.state import Kind

# What a policy's window may be at most: the longer it is, the more strangers get the same address (DHCP, NAT).
LONGEST_S: Final = 3600.0
# Of all edges together; some 400 bytes each. Beyond that the oldest logins are forgotten.
MOST: Final = 50_000
MAX_ACCOUNT: Final = 256


class PopLogin(msgspec.Struct, frozen=True, omit_defaults=True):
    """When (ms since 1970), and who: for the logs, the right is the address's."""

    since_ms: int
    account: str = ""


POP_LOGIN: Final[Kind[PopLogin]] = Kind("pop-login", PopLogin, 1, MOST)


def address_key(address: str) -> str:
    """The key of a client's address. Raises ValueError for what is no single IP address."""
    parsed = ipaddress.ip_address(address.strip())
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.scope_id is not None:
            raise ValueError(f"{address!r}: an address with a zone is nobody's on the Internet")
        if parsed.ipv4_mapped is not None:
            parsed = parsed.ipv4_mapped
    if parsed.is_unspecified or parsed.is_multicast:
        raise ValueError(f"{address!r} is nobody's address")
    return str(parsed)


def may_relay(login: PopLogin | None, window: float, now_ms: int) -> bool:
    """Whether a login is recent enough for a policy's window (s); one from the future counts as none."""
    return login is not None and 0 <= now_ms - login.since_ms < window * 1000
