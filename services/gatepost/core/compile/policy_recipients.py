"""A RelayPolicy's `recipients` -> the fields of ListenerPolicy that it decides."""

from __future__ import annotations

from typing import Any, Final

from gatepost.core.checks.auth_failures import AuthFailures
from gatepost.core.checks.greylist import GreylistPolicy
from gatepost.core.checks.harvest import HarvestPolicy
from gatepost.core.compile.values import duration
from gatepost.core.configuration import ListenerPolicy
from gatepost.core.manifest.policy_recipients import Greylist, Harvest, LoginFailures, RecipientLimits

MAX_DELAY: Final = 30.0  # a client waits 5 minutes for a reply (RFC 5321 4.5.3.2.3), many for 30 s
DEFAULT_DELAY: Final = 2.0
MAX_BAN: Final = 720 * 3600.0  # a month: an address belongs to somebody else by then
MAX_WINDOW: Final = 168 * 3600.0
MAX_GREY_DELAY: Final = 24 * 3600.0
MAX_KEEP: Final = 8760 * 3600.0

_FIELD: Final = "spec.recipients"


def recipient_parts(spec: RecipientLimits | None, warnings: list[str]) -> dict[str, Any]:
    """Return the fields that are not as by default. Raises Rejection."""
    if spec is None:
        return {}
    base = ListenerPolicy("")
    parts: dict[str, Any] = {
        "max_recipients": spec.max,
        "errors_before_disconnect": spec.errors_before_disconnect,
        "errors_before_delay": spec.errors_before_delay,
        "harvest": None if spec.harvest is None else _harvest(spec.harvest),
        "greylist": _greylist(spec.greylist) if spec.greylist and spec.greylist.enabled else None,
    }
    if spec.delay is not None:
        parts["error_delay"] = duration(spec.delay, f"{_FIELD}.delay", 0.0, MAX_DELAY)
    elif spec.errors_before_delay is not None:
        parts["error_delay"] = DEFAULT_DELAY
    made = {name: value for name, value in parts.items() if value is not None and value != getattr(base, name)}
    _warn(made, base, warnings)
    return made


def _warn(made: dict[str, Any], base: ListenerPolicy, warnings: list[str]) -> None:
    before = made.get("errors_before_delay", base.errors_before_delay)
    disconnect = made.get("errors_before_disconnect", base.errors_before_disconnect)
    if made.get("error_delay") and before >= disconnect:
        warnings.append("recipients.delay has no effect: errorsBeforeDisconnect is not above errorsBeforeDelay")


def _harvest(spec: Harvest) -> HarvestPolicy:
    base = HarvestPolicy()
    field = f"{_FIELD}.harvest"
    return HarvestPolicy(
        spec.min_unknown or base.min_unknown,
        spec.min_unknown_percent or base.min_unknown_percent,
        base.window if spec.window is None else duration(spec.window, f"{field}.window", 1.0, MAX_WINDOW),
        base.ban if spec.ban is None else duration(spec.ban, f"{field}.ban", 1.0, MAX_BAN),
    )


def _greylist(spec: Greylist) -> GreylistPolicy:
    base = GreylistPolicy()
    field = f"{_FIELD}.greylist"
    return GreylistPolicy(
        base.delay if spec.delay is None else duration(spec.delay, f"{field}.delay", 1.0, MAX_GREY_DELAY),
        base.keep if spec.keep is None else duration(spec.keep, f"{field}.keep", 3600.0, MAX_KEEP),
        spec.ipv4_prefix or base.ipv4_prefix,
        spec.ipv6_prefix or base.ipv6_prefix,
    )


def login_failures(spec: LoginFailures | None) -> AuthFailures | None:
    """The normalised `relay.authenticated.failures`. Raises Rejection."""
    if spec is None:
        return None
    base, field = AuthFailures(), "spec.relay.authenticated.failures"
    return AuthFailures(
        base.delay if spec.delay is None else duration(spec.delay, f"{field}.delay", 0.0, MAX_DELAY),
        spec.most or base.most,
        base.window if spec.window is None else duration(spec.window, f"{field}.window", 1.0, MAX_WINDOW),
        base.ban if spec.ban is None else duration(spec.ban, f"{field}.ban", 1.0, MAX_BAN),
    )
