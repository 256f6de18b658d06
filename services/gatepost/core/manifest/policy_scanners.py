"""RelayPolicy's `scanners`: programs beside the gateway that look into each message."""

from __future__ import annotations

from typing import Annotated

import msgspec

from gatepost.core.manifest.actions import Action, OnError
from gatepost.core.manifest.object import SpecPart
from gatepost.core.manifest.quantities import Duration, Size

UrlText = Annotated[str, msgspec.Meta(min_length=8, max_length=300, pattern=r"^https?://\S+$")]
ClamdAddress = Annotated[
    str, msgspec.Meta(min_length=7, max_length=300, pattern=r"^(tcp://[^\s/@]+:[0-9]{1,5}|unix:/\S+)$")
]


class ScannerActions(SpecPart, frozen=True):
    """What follows from what a scanner says; a clean message is always Accept. No octet of a message is changed."""

    found: Action | None = None
    """clamd's: Reject."""
    greylist: Action | None = None
    """Accept: rspamd's own greylisting says "soft reject" as long as a message has to wait."""
    add_header: Action | None = None
    """Tag."""
    rewrite_subject: Action | None = None
    """Tag."""
    soft_reject: Action | None = None
    """Defer."""
    quarantine: Action | None = None
    """Quarantine."""
    discard: Action | None = None
    """Discard."""
    reject: Action | None = None
    """Reject."""
    other: Action | None = None
    """Tag; for an action that was added to rspamd."""


class RspamdScanner(SpecPart, frozen=True, tag="Rspamd", tag_field="type"):
    """rspamd's normal or proxy worker. It is told the envelope and the client, and no password."""

    url: UrlText
    """Rspamd: http://HOST:PORT or https://HOST:PORT, without a password: policies are no place for secrets."""
    settings: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.-]+$", max_length=64)] | None = None
    """Rspamd: the id of a set of settings there (Settings-ID)."""
    timeout: Duration | None = None
    """Rspamd 8s, Clamd 20s, at most 120s: from the final dot on, and for the longest stop while content comes."""
    on_error: OnError | None = None
    """Rspamd Accept (with a tag), Clamd Tempfail (451 4.7.1); Ignore takes the message without a tag."""
    max_size: Size | None = None
    """25Mi. A larger message is not sent there."""
    too_large: Action | None = None
    """Tag: what is done with a message above maxSize."""
    own_clients: bool | None = None
    """Whether mail of those who log in or may relay (relay.clients) is scanned too; true."""
    actions: ScannerActions | None = None


class ClamdScanner(SpecPart, frozen=True, tag="Clamd", tag_field="type"):
    """clamd, by INSTREAM. Give its StreamMaxLength at least maxSize, and MaxThreads enough for busy minutes."""

    address: ClamdAddress
    """Clamd: tcp://HOST:PORT or unix:/PATH."""
    timeout: Duration | None = None
    """Rspamd 8s, Clamd 20s, at most 120s: from the final dot on, and for the longest stop while content comes."""
    on_error: OnError | None = None
    """Rspamd Accept (with a tag), Clamd Tempfail (451 4.7.1); Ignore takes the message without a tag."""
    max_size: Size | None = None
    """25Mi. A larger message is not sent there."""
    too_large: Action | None = None
    """Tag: what is done with a message above maxSize."""
    own_clients: bool | None = None
    """Whether mail of those who log in or may relay (relay.clients) is scanned too; true."""
    actions: ScannerActions | None = None


ScannerSpec = RspamdScanner | ClamdScanner
ScannerSpecs = Annotated[tuple[ScannerSpec, ...], msgspec.Meta(max_length=4)]
