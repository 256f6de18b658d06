"""A RelayPolicy's `access` -> AccessConfig: every rule tried, defaults filled in."""

from __future__ import annotations

from typing import Final

from gatepost.core.access.entry import AccessError
from gatepost.core.access.table import AccessTable
from gatepost.core.checks.access import AccessConfig, AccessTableConfig
from gatepost.core.compile.conditions import ACCEPTED, Rejection
from gatepost.core.compile.values import read_seconds
from gatepost.core.manifest.actions import OnError
from gatepost.core.manifest.policy_access import AccessSpec, AccessTableSpec, entry_of
from gatepost.core.manifest.settings import Role

MIN_REFRESH_S: Final = 1.0  # a look at a file costs microseconds, but there may be sixteen of them in each edge

_FIELD: Final = "spec.access"


def compile_access(spec: AccessSpec | None, role: Role, allow_on_public: bool | None) -> AccessConfig | None:
    """Return the access rules of one listener, None without any. Raises Rejection."""
    if spec is None or not (spec.inline or spec.tables):
        return None
    may_relay = role is not Role.MX or bool(allow_on_public)
    entries = []
    for number, rule in enumerate(spec.inline or ()):
        try:
            entries.append(entry_of(rule))
        except AccessError as error:
            raise Rejection(ACCEPTED, "Invalid", f"{_FIELD}.inline[{number}]", str(error)) from None
    try:
        table = AccessTable((entry, f"{_FIELD}.inline[{number}]") for number, entry in enumerate(entries))
    except AccessError as error:
        raise Rejection(ACCEPTED, "Invalid", "", str(error)) from None
    if table.lets_clients_relay and not may_relay:
        raise Rejection(
            ACCEPTED,
            "NotAllowed",
            f"{_FIELD}.inline",
            "a listener of role mx lets no client relay by its address, since a load balancer can make every "
            "client look inside; use an internal listener, or set relay.allowOnPublicListeners: true",
        )
    return AccessConfig(
        tuple(entries), tuple(_table(each, n) for n, each in enumerate(spec.tables or ())), may_relay
    )


def _table(spec: AccessTableSpec, number: int) -> AccessTableConfig:
    field = f"{_FIELD}.tables[{number}]"
    default = AccessTableConfig(spec.file)
    refresh = default.refresh
    if spec.refresh is not None:
        refresh = read_seconds(spec.refresh, f"{field}.refresh")
        if refresh < MIN_REFRESH_S:
            raise Rejection(ACCEPTED, "Invalid", f"{field}.refresh", "at least 1s")
    return AccessTableConfig(spec.file, refresh, spec.on_error or OnError.TEMPFAIL)
