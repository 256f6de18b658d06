"""RelayPolicy's `access`: who may connect, send and be sent to, by rules with sendmail's semantics.

The most specific key wins, wherever it stands; of equal ones `inline` wins over `tables`, an earlier table over a
later one.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from gatepost.core.access.entry import ENHANCED, AccessEntry, AccessError, Tag
from gatepost.core.manifest.actions import Action, OnError
from gatepost.core.manifest.object import SpecPart
from gatepost.core.manifest.quantities import Duration

KeyText = Annotated[str, msgspec.Meta(min_length=1, max_length=330)]


class AccessMatch(SpecPart, frozen=True):
    """Exactly one of the keys."""

    connect: KeyText | None = None
    """The client: IP address, prefix ("10.1", "IPv6:2001:db8"), CIDR, range, or a host name, which means the names
    below it as well (".example.net": only those). A name counts only when DNS confirms it both ways."""
    helo: KeyText | None = None
    """The name that the client says, or one above it."""
    from_: KeyText | None = msgspec.field(name="from", default=None)
    """The sender: user@domain, user@ (in any domain), a domain and those below it, or <> (the null sender)."""
    to: KeyText | None = None
    """The recipient, written as in `from`."""
    any: KeyText | None = None
    """Client, sender and recipient at once, as a key without a tag in sendmail's table."""


class AccessRuleSpec(SpecPart, frozen=True):
    """A key, and what is done with what it matches."""

    match: AccessMatch
    action: Action | None = None
    """Accept of a recipient exempts it from what was found against client and sender. Relay: of a client, it may
    relay; of a recipient, anybody may send to it through us; never of a sender. Reject and Defer answer at RCPT."""
    skip: bool | None = None
    """In place of an action: nothing is done, and no less specific key is looked up."""
    code: Annotated[int, msgspec.Meta(ge=400, le=559)] | None = None
    """Of Reject (550) or Defer (450)."""
    enhanced: Annotated[str, msgspec.Meta(pattern=ENHANCED, max_length=9)] | None = None
    text: Annotated[str, msgspec.Meta(min_length=1, max_length=400)] | None = None
    """What the client reads; printable ASCII."""


class AccessTableSpec(SpecPart, frozen=True):
    """A table in a file: one `key<TAB>value` a line as in sendmail's source form, or YAML."""

    file: Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
    """Absolute, or relative to the folder of gatepost.yaml. In Kubernetes: of a mounted ConfigMap or Secret."""
    refresh: Duration | None = None
    """How often the file is looked at for a change (10s)."""
    on_error: OnError | None = None
    """While no version of it was read: Tempfail (the default) defers every recipient; else it counts as empty."""


class AccessSpec(SpecPart, frozen=True):
    inline: Annotated[tuple[AccessRuleSpec, ...], msgspec.Meta(max_length=2000)] | None = None
    tables: Annotated[tuple[AccessTableSpec, ...], msgspec.Meta(max_length=16)] | None = None


def entry_of(rule: AccessRuleSpec) -> AccessEntry:
    """The rule as an entry of a table. Raises AccessError when it has no single key or no single action."""
    match = rule.match
    keys = [
        (tag, key)
        for tag, key in (
            (Tag.CONNECT, match.connect),
            (Tag.HELO, match.helo),
            (Tag.FROM, match.from_),
            (Tag.TO, match.to),
            (Tag.ANY, match.any),
        )
        if key is not None
    ]
    if len(keys) != 1:
        raise AccessError("match has exactly one of connect, helo, from, to, any")
    if (rule.action is None) == (not rule.skip):
        raise AccessError("exactly one of action and skip: true is expected")
    tag, key = keys[0]
    return AccessEntry(tag, key, rule.action, rule.code or 0, rule.enhanced or "", rule.text or "")
