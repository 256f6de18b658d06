"""What the router has decided about a record, until it is durable and told."""

from __future__ import annotations

import msgspec

from gatepost.core.envelope import Envelope
from gatepost.core.ports.log import Entry, LogError, Record
from gatepost.router.copies import Expansion, NearCopy
from gatepost.router.stopping import Stopped
from gatepost.telemetry.tracing import Span


class Routed(msgspec.Struct):
    """What was found out about a message, to be told once it is durable; `stored` are copies in near stores."""

    envelope: Envelope
    expansion: Expansion
    span: Span
    stored: list[NearCopy] = []


class Decision(msgspec.Struct):
    """What has to be durable before `record` is finished; `routed` is None where it goes to quarantine.

    `near` copies become entries too where their store does not take them.
    """

    record: Record
    entries: list[Entry]
    routed: Routed | None = None
    near: list[NearCopy] = []
    stopped: Stopped | None = None

    def failed(self, error: LogError) -> None:
        """The entries could not be appended: this was not what became of the record."""
        if self.routed is not None:
            self.routed.span.fail(str(error))
            self.routed.span.end()
