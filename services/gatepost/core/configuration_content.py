"""What a policy says of a message's content, normalised: each check's part, off where nothing is set."""

from __future__ import annotations

from typing import Final

import msgspec

from gatepost.core.checks.attachments import AttachmentPolicy
from gatepost.core.checks.charset import CharsetPolicy
from gatepost.core.checks.header_rules import HeaderRule
from gatepost.core.checks.scanners import ScannerPolicy


class ContentPolicy(msgspec.Struct, frozen=True, omit_defaults=True):
    """Judged behind the final dot, for all recipients with the same policy at once."""

    scanners: tuple[ScannerPolicy, ...] = ()
    headers: tuple[HeaderRule, ...] = ()
    charset: CharsetPolicy | None = None
    attachments: AttachmentPolicy | None = None

    @property
    def is_empty(self) -> bool:
        """Whether no content is looked at."""
        return self == NOTHING


NOTHING: Final = ContentPolicy()
