"""One mail transaction, from MAIL to the end of DATA, with the configuration that is pinned for it."""

from __future__ import annotations

from typing import Final

from gatepost.core.configuration import ListenerPolicy
from gatepost.core.envelope import Recipient
from gatepost.core.relay_right import RelayFacts
from gatepost.core.smtp_commands import MailCommand
from gatepost.core.tables import ListenerTable, Tables
from gatepost.telemetry.tracing import Span

SPAN: Final = "gatepost.edge receive"


class Transaction:
    """`recipients` by Address key. `size_limit` shrinks to the smallest of the recipients' domains.

    `relaying` are the facts on which a right to relay was granted. `span` only when the trace is sampled.
    """

    __slots__ = ("mail", "policy", "recipients", "relaying", "size_limit", "span", "table", "tables")

    def __init__(self, mail: MailCommand, tables: Tables, table: ListenerTable, span: Span | None) -> None:
        self.mail, self.tables, self.table, self.span = mail, tables, table, span
        self.policy: ListenerPolicy = table.policy
        self.recipients: dict[str, Recipient] = {}
        self.relaying: list[RelayFacts] = []
        self.size_limit = table.policy.message_size

    def event(self, name: str, **attributes: str | int | float | bool) -> None:
        """Note a check in the trace."""
        if self.span is not None:
            self.span.event(name, **attributes)

    def end(self) -> None:
        if self.span is not None:
            self.span.end()
            self.span = None
