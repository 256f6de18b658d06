"""A RelayPolicy's `scanners` -> ScannerPolicy of each, with the defaults filled in."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from gatepost.core.checks.scanners import (
    DEFAULT_ACTIONS,
    DEFAULT_MAX_SIZE,
    DEFAULT_ON_ERROR,
    DEFAULT_TIMEOUT,
    ScannerPolicy,
)
from gatepost.core.compile.conditions import ACCEPTED, Rejection
from gatepost.core.compile.values import duration, judging
from gatepost.core.manifest.actions import Action
from gatepost.core.manifest.policy_scanners import ClamdScanner, RspamdScanner, ScannerActions, ScannerSpec
from gatepost.core.manifest.quantities import size_bytes
from gatepost.core.manifest.settings import Role
from gatepost.core.ports.scanner import Advice, ScannerAddress, ScannerKind

MIN_TIMEOUT: Final = 0.1
# A client waits ten minutes behind the dot (RFC 5321 4.5.3.2.6), but many give up much earlier.
MAX_TIMEOUT: Final = 120.0

_FIELD: Final = "spec.scanners"


def compile_scanners(
    specs: tuple[ScannerSpec, ...] | None, role: Role, warnings: list[str]
) -> tuple[ScannerPolicy, ...]:
    """Raises Rejection."""
    policies = tuple(_scanner(spec, f"{_FIELD}[{place}]") for place, spec in enumerate(specs or ()))
    places = [policy.where for policy in policies]
    if len(set(places)) < len(places):
        raise Rejection(ACCEPTED, "Invalid", _FIELD, "one scanner stands here twice")
    for policy in policies:
        if policy.where.kind is ScannerKind.CLAMD and policy.action(Advice.FOUND) in (Action.ACCEPT, Action.TAG):
            warnings.append("scanners: actions.found lets malware through to the mailboxes")
        if role is Role.SUBMISSION and not policy.own_clients:
            warnings.append("scanners: without ownClients nothing is scanned on a submission listener")
    return policies


def _scanner(spec: ScannerSpec, field: str) -> ScannerPolicy:
    kind = ScannerKind.RSPAMD if isinstance(spec, RspamdScanner) else ScannerKind.CLAMD
    return ScannerPolicy(
        _address(spec, field),
        DEFAULT_TIMEOUT[kind]
        if spec.timeout is None
        else duration(spec.timeout, f"{field}.timeout", MIN_TIMEOUT, MAX_TIMEOUT),
        spec.on_error or DEFAULT_ON_ERROR[kind],
        DEFAULT_MAX_SIZE if spec.max_size is None else _size(spec.max_size, f"{field}.maxSize"),
        judging(spec.too_large, f"{field}.tooLarge") or Action.TAG,
        _actions(spec.actions, kind, field),
        spec.own_clients is not False,
    )


def _address(spec: ScannerSpec, field: str) -> ScannerAddress:
    if isinstance(spec, ClamdScanner):
        if not spec.address.startswith("unix:"):
            _check_port(spec.address, f"{field}.address")
        return ScannerAddress(ScannerKind.CLAMD, spec.address)
    if "@" in spec.url:
        raise Rejection(
            ACCEPTED, "Invalid", f"{field}.url", "no name or password: a policy is no place for secrets"
        )
    if "/" in spec.url.split("://", 1)[1].rstrip("/"):
        raise Rejection(ACCEPTED, "Invalid", f"{field}.url", "no path: rspamd is asked at /checkv2")
    _check_port(spec.url, f"{field}.url")
    return ScannerAddress(ScannerKind.RSPAMD, spec.url.rstrip("/"), spec.settings or "")


def _check_port(url: str, field: str) -> None:
    try:
        parts = urlsplit(url)
        good = bool(parts.hostname) and parts.port != 0
    except ValueError as error:
        raise Rejection(ACCEPTED, "Invalid", field, str(error)) from None
    if not good:
        raise Rejection(ACCEPTED, "Invalid", field, "a host and a port from 1 to 65535 are expected")


def _size(text: str, field: str) -> int:
    size = size_bytes(text)
    if size < 1:
        raise Rejection(ACCEPTED, "Invalid", field, "at least 1; to scan nothing leave the scanner out")
    return size


def _actions(spec: ScannerActions | None, kind: ScannerKind, field: str) -> dict[str, Action]:
    """Those that are not the default, by the advice's name."""
    if spec is None:
        return {}
    defaults, found = DEFAULT_ACTIONS[kind], {}
    for advice in Advice:
        action = judging(getattr(spec, advice.name.lower(), None), f"{field}.actions")
        if action is not None and advice not in defaults:
            raise Rejection(ACCEPTED, "Invalid", f"{field}.actions", f"{kind.value} never says {advice.value!r}")
        if action is not None and action is not defaults[advice]:
            found[advice.value] = action
    return found
