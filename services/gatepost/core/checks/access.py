"""Check `access`: what the access rules say of a client, a sender and a recipient (sendmail's access database).

The rules are looked up once for each of them (core/access/table.py); this file says what a found rule means. Of a
client and a sender the answer is kept until RCPT, where a recipient's own rule can exempt it (sendmail's
delay_checks): see `Accept` below.
"""

from __future__ import annotations

from typing import Final

import msgspec

from gatepost.core.access.entry import AccessEntry
from gatepost.core.access.table import AccessRule, AccessTable
from gatepost.core.checks.verdict import Verdict
from gatepost.core.manifest.actions import Action, OnError
from gatepost.core.reply import Reply

CHECK: Final = "access"

ACCESS_DENIED: Final = Reply(550, "5.7.1", "access denied", CHECK)
ACCESS_DEFERRED: Final = Reply(450, "4.7.1", "access is not granted now, please try again later", CHECK)
ACCESS_NOT_LOADED: Final = Reply(
    451, "4.3.5", "the access rules are not loaded yet, please try again later", "access-table"
)


class AccessTableConfig(msgspec.Struct, frozen=True, omit_defaults=True):
    """A table in a file; `refresh` in seconds."""

    file: str
    refresh: float = 10.0
    on_error: OnError = OnError.TEMPFAIL


class AccessConfig(msgspec.Struct, frozen=True, omit_defaults=True):
    """`clients_may_relay`: whether Relay for a client gives that right on this listener (role mx: only if said)."""

    inline: tuple[AccessEntry, ...] = ()
    tables: tuple[AccessTableConfig, ...] = ()
    clients_may_relay: bool = False


def access_table(config: AccessConfig | None) -> AccessTable | None:
    """The table of the inline rules, perhaps empty; None when the policy has no access rules at all."""
    if config is None:
        return None
    return AccessTable((entry, f"access.inline[{number}]") for number, entry in enumerate(config.inline))


def wants_names(config: AccessConfig | None) -> bool:
    """Whether the client's host name can matter; what a file has is not known beforehand."""
    if config is None:
        return False
    table = access_table(config)
    return bool(config.tables) or (table is not None and table.by_host_name)


def evaluate(rule: AccessRule | None) -> Verdict | None:
    """What a found rule concludes; None without one and for SKIP. Accept and Relay are for the caller to use."""
    if rule is None or rule.action is None:
        return None
    facts = {"rule": rule.key, "origin": rule.origin}
    reason = f"{rule.key}: {rule.text}" if rule.text else rule.key
    match rule.action:
        case Action.REJECT:
            return Verdict(CHECK, rule.action, _reply(rule, ACCESS_DENIED), facts, reason=reason)
        case Action.DEFER:
            return Verdict(CHECK, rule.action, _reply(rule, ACCESS_DEFERRED), facts, reason=reason)
        case _:
            return Verdict(CHECK, rule.action, None, facts, reason=reason)


def missing(file: str) -> Verdict:
    """A table of which no version could be read, and without which nothing may be taken (onError Tempfail)."""
    return Verdict(
        ACCESS_NOT_LOADED.check, Action.DEFER, ACCESS_NOT_LOADED, {"file": file}, reason=f"{file} is not loaded"
    )


def _reply(rule: AccessRule, default: Reply) -> Reply:
    return Reply(rule.code or default.code, rule.enhanced or default.enhanced, rule.text or default.text, CHECK)
