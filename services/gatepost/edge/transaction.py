"""One mail transaction, from MAIL to the end of DATA, with the configuration that is pinned for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gatepost.core.address import Address
from gatepost.core.checks.spam_traps import SpamTrapPolicy
from gatepost.core.checks.verdict import Verdict
from gatepost.core.configuration import ListenerPolicy
from gatepost.core.envelope import Recipient
from gatepost.core.layers import Layer
from gatepost.core.manifest.actions import Action
from gatepost.core.parsed_commands import MailCommand
from gatepost.core.relay_right import RelayFacts
from gatepost.core.removal import Removal
from gatepost.core.tables import ListenerTable, Tables
from gatepost.telemetry.tracing import Span

if TYPE_CHECKING:
    from gatepost.edge.access import TransactionAccess
    from gatepost.edge.authentication import Authentication
    from gatepost.edge.inspection import Inspection

SPAN: Final = "gatepost.edge receive"


class Transaction:
    """`recipients` by Address key. `size_limit` shrinks to the smallest of the recipients' domains.

    `relaying` are the facts on which a right to relay was granted. `span` only when the trace is sampled.
    `access` is what access rules said, once they were asked. `authentication` gathers who sent it, where asked for;
    `trap` is the spam trap that a recipient was, `trap_policy` what follows;
    `sender_judged`: a sender of ours was looked at; `mailboxes` are those that message rates count.
    `inspection` is all that looks at the content, `authentication` included; there from DATA or the first BDAT on.
    `layer` is the first accepted recipient's: its content rules are the message's.
    `removal` is what of the content is left out, and what is put in.
    `verdicts` are those on the sender; `tags` what checks noted; `discarded` recipients get nothing after the 250.
    `exempt` are those, by Address key, whom an access rule lets have all mail.
    """

    __slots__ = (
        "access",
        "authentication",
        "discarded",
        "exempt",
        "inspection",
        "layer",
        "mail",
        "mailboxes",
        "policy",
        "recipients",
        "relaying",
        "removal",
        "sender_judged",
        "size_limit",
        "span",
        "table",
        "tables",
        "tags",
        "trap",
        "trap_policy",
        "verdicts",
    )

    def __init__(self, mail: MailCommand, tables: Tables, table: ListenerTable, span: Span | None) -> None:
        self.mail, self.tables, self.table, self.span = mail, tables, table, span
        self.policy: ListenerPolicy = table.policy
        self.recipients: dict[str, Recipient] = {}
        self.relaying: list[RelayFacts] = []
        self.size_limit = table.policy.message_size
        self.verdicts: list[Verdict] = []
        self.tags: dict[str, None] = {}
        self.discarded = 0
        self.exempt: set[str] = set()
        self.trap = ""
        self.mailboxes: set[str] = set()
        self.trap_policy: SpamTrapPolicy | None = None
        self.sender_judged = False
        self.access: TransactionAccess | None = None
        self.authentication: Authentication | None = None
        self.inspection: Inspection | None = None
        self.layer: Layer | None = None
        self.removal: Removal | None = None

    @property
    def content_policy(self) -> ListenerPolicy:
        """The policy that judges the message's content: what is in force for its recipients."""
        return self.policy if self.layer is None else self.layer.policy

    def shares(self, layer: Layer) -> bool:
        """Whether a recipient can be one of this message: there is one reply for all of its recipients."""
        return self.layer is None or self.layer is layer or self.layer.content == layer.content

    def layer_of(self, recipient: Address, client: str) -> Layer:
        """What is in force for a recipient."""
        if not self.table.layers:
            return self.table.plain
        home = self.tables.home(recipient)
        return self.table.plain if home is None else self.table.layer(home[0].domain, client)

    @property
    def relays_by_itself(self) -> bool:
        """Whether a right to relay was used that is the client's own: a recipient's rule gives one to strangers."""
        if any(not facts.granted for facts in self.relaying):
            return True
        access = self.access
        if not self.relaying or access is None or access.client is None:
            return False
        return access.rules.clients_may_relay and access.client.action is Action.RELAY

    def event(self, name: str, **attributes: str | int | float | bool) -> None:
        """Note a check in the trace."""
        if self.span is not None:
            self.span.event(name, **attributes)

    def end(self) -> None:
        if self.inspection is not None:
            self.inspection.close()
        if self.authentication is not None:
            self.authentication.close()
        if self.span is not None:
            self.span.end()
            self.span = None
