"""A RelayPolicy's `authentication` -> AuthenticationPolicy, with the defaults filled in."""

from __future__ import annotations

from typing import Final

from gatepost.core.authentication.names import dns_name
from gatepost.core.checks.authentication import AuthenticationPolicy, DkimActions, DmarcActions, SpfActions
from gatepost.core.compile.conditions import ACCEPTED, Rejection
from gatepost.core.compile.values import judging, read_seconds
from gatepost.core.manifest.actions import Action
from gatepost.core.manifest.policy_authentication import (
    ArcSpec,
    AuthenticationSpec,
    DkimSpec,
    DmarcSpec,
    SpfSpec,
)
from gatepost.core.manifest.settings import Role

MIN_DEADLINE: Final = 0.1
# A client waits ten minutes behind the dot (RFC 5321 4.5.3.2.6), but many wait one and send again then.
MAX_DEADLINE: Final = 30.0

_FIELD: Final = "spec.authentication"
_REFUSALS: Final = (Action.REJECT, Action.DEFER)


def compile_authentication(
    spec: AuthenticationSpec | None, role: Role, warnings: list[str]
) -> AuthenticationPolicy | None:
    """Return the policy of one listener, None when it is off. Raises Rejection."""
    if spec is None:
        return None
    base = AuthenticationPolicy()
    spf = _spf(spec.spf or SpfSpec())
    if spf.fail in _REFUSALS:
        warnings.append(
            f"authentication.spf.fail {spf.fail.value} refuses forwarded mail, also with a good DKIM signature"
        )
    if role is Role.SUBMISSION:
        warnings.append("authentication never judges clients that log in; a submission listener has no other")
    return AuthenticationPolicy(
        spf,
        _dkim(spec.dkim or DkimSpec()),
        _dmarc(spec.dmarc or DmarcSpec()),
        tuple(_domain(text, "arc.trustedSealers") for text in (spec.arc or ArcSpec()).trusted_sealers or ()),
        base.authserv_id if spec.authserv_id is None else _domain(spec.authserv_id, "authservId"),
        base.deadline if spec.deadline is None else _deadline(spec.deadline),
    )


def _spf(spec: SpfSpec) -> SpfActions:
    base = SpfActions()
    return SpfActions(
        _action(spec.fail, base.fail, "spf.fail"),
        _action(spec.soft_fail, base.soft_fail, "spf.softFail"),
        _action(spec.perm_error, base.perm_error, "spf.permError"),
        spec.temp_error or base.temp_error,
    )


def _dkim(spec: DkimSpec) -> DkimActions:
    base = DkimActions()
    return DkimActions(_action(spec.fail, base.fail, "dkim.fail"), spec.temp_error or base.temp_error)


def _dmarc(spec: DmarcSpec) -> DmarcActions:
    base = DmarcActions()
    return DmarcActions(
        _action(spec.reject, base.reject, "dmarc.reject"),
        _action(spec.quarantine, base.quarantine, "dmarc.quarantine"),
        _action(spec.perm_error, base.perm_error, "dmarc.permError"),
        spec.temp_error or base.temp_error,
    )


def _action(action: Action | None, default: Action, field: str) -> Action:
    return judging(action, f"{_FIELD}.{field}") or default


def _domain(text: str, field: str) -> str:
    name = dns_name(text.removesuffix("."))
    if name is None:
        raise Rejection(ACCEPTED, "Invalid", f"{_FIELD}.{field}", f"{text!r} is no domain name")
    return name


def _deadline(text: str) -> float:
    field = f"{_FIELD}.deadline"
    value = read_seconds(text, field)
    if not MIN_DEADLINE <= value <= MAX_DEADLINE:
        raise Rejection(ACCEPTED, "Invalid", field, f"from {MIN_DEADLINE * 1000:g}ms to {MAX_DEADLINE:g}s")
    return value
