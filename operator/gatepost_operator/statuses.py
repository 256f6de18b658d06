"""The status that each object should have, beside the one that it has: pure, and the only place that decides
whether anything is written at all.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from gatepost.core.compile import Condition, Status
from gatepost.core.compile.book import TargetState
from gatepost.core.compile.conditions import ACCEPTED, PROGRAMMED, RESOLVED_REFS
from gatepost.core.configuration import object_label
from gatepost.core.domain import DomainError, canonical_domain
from gatepost.core.manifest import mail_domain
from gatepost.core.manifest.object import ObjectKey
from gatepost.core.manifest.status import (
    MAX_MESSAGE,
    MAX_TARGET_MESSAGE,
    MAX_TARGETS,
    ConditionStatus,
    MailDomainStatus,
    RelayPolicyStatus,
    TargetStatus,
)
from gatepost_operator.cluster import Document
from gatepost_operator.compilation import Compilation
from gatepost_operator.objects import StoredObject
from gatepost_operator.programmed import EXCLUDED, Edges, Fingerprints, programmed

OURS: Final = (ACCEPTED, RESOLVED_REFS, PROGRAMMED)


class Moment(msgspec.Struct, frozen=True):
    """What statuses depend on beside the objects. `now` is RFC 3339 in UTC with whole seconds; `edges` and
    `waits_for` are those of programmed().

    `refresh` lets messages be rewritten when nothing else changed ("3 of 5 edges"): not at every ack, since
    that would be a write for each object and each pod.
    """

    now: str
    edges: Edges | None = None
    waits_for: str = ""
    refresh: bool = False


class _Known(msgspec.Struct, frozen=True):
    """The status that an object has, as far as it is ours."""

    generation: int
    ascii_domain: str | None
    conditions: dict[str, ConditionStatus]
    targets: tuple[TargetStatus, ...] = ()


def wanted_statuses(
    objects: tuple[StoredObject, ...], compilation: Compilation, contained: Fingerprints, moment: Moment
) -> dict[ObjectKey, Document]:
    """Return the statuses that have to be written. `contained`: the fingerprints of compilation.configuration."""
    result: dict[ObjectKey, Document] = {}
    for stored in objects:
        if stored.key not in compilation.conditions:
            continue
        known = _known(stored.status)
        wanted = _wanted(stored, compilation, contained, moment, known)
        if _differs(wanted, known, moment.refresh):
            result[stored.key] = msgspec.json.decode(msgspec.json.encode(wanted))
    return result


def _wanted(
    stored: StoredObject,
    compilation: Compilation,
    contained: Fingerprints,
    moment: Moment,
    known: _Known,
) -> MailDomainStatus | RelayPolicyStatus:
    fingerprint = contained.get(object_label(stored.key))
    before = known.conditions.get(PROGRAMMED)
    if fingerprint is not None and before is not None and _stays(before, stored.generation, moment.edges):
        last = Condition(PROGRAMMED, Status(before.status), before.reason, before.message)
    else:
        last = programmed(stored.key, fingerprint, moment.edges, moment.waits_for)
    conditions = tuple(
        _written(condition, stored.generation, moment.now, known.conditions.get(condition.type))
        for condition in (*compilation.conditions[stored.key], last)
    )
    if stored.key.kind == mail_domain.KIND:
        return MailDomainStatus(stored.generation, _ascii_domain(stored.document), conditions)
    return RelayPolicyStatus(stored.generation, conditions, _targets(compilation.targets.get(stored.key, ())))


def _targets(states: tuple[TargetState, ...]) -> tuple[TargetStatus, ...]:
    """Those first that are not accepted; of many the rest is left out."""
    found = [
        TargetStatus(
            state.kind,
            state.name,
            "True" if state.condition.status is Status.TRUE else "False",
            state.condition.reason,
            "" if state.condition.status is Status.TRUE else state.condition.message[:MAX_TARGET_MESSAGE],
        )
        for state in states
    ]
    return tuple(sorted(found, key=lambda target: (target.accepted, target.name))[:MAX_TARGETS])


def _stays(before: ConditionStatus, generation: int, edges: Edges | None) -> bool:
    """It is about the generation, not about pods: once it ran everywhere, pods that come and go change nothing.
    What was known of a generation also stays while nothing can be heard.
    """
    if before.observed_generation != generation or before.reason == EXCLUDED:
        return False
    return before.status == Status.TRUE.value or edges is None


def _written(condition: Condition, generation: int, now: str, before: ConditionStatus | None) -> ConditionStatus:
    since = before.last_transition_time if before and before.status == condition.status.value else now
    return ConditionStatus(
        type=condition.type,
        status=condition.status.value,
        last_transition_time=since,
        reason=condition.reason,
        message=condition.message[:MAX_MESSAGE],
        observed_generation=generation,
    )


def _ascii_domain(document: Document) -> str | None:
    spec = document.get("spec")
    text = spec.get("domain") if isinstance(spec, dict) else None
    try:
        return canonical_domain(text) if isinstance(text, str) else None
    except DomainError:
        return None


def _differs(wanted: MailDomainStatus | RelayPolicyStatus, known: _Known, refresh: bool) -> bool:
    ascii_domain = wanted.ascii_domain if isinstance(wanted, MailDomainStatus) else None
    if wanted.observed_generation != known.generation or ascii_domain != known.ascii_domain:
        return True
    if len(wanted.conditions) != len(known.conditions):
        return True
    if isinstance(wanted, RelayPolicyStatus) and wanted.targets != known.targets:
        return True
    return any(_changed(one, known.conditions.get(one.type), refresh) for one in wanted.conditions)


def _changed(wanted: ConditionStatus, known: ConditionStatus | None, refresh: bool) -> bool:
    if known is None:
        return True
    if wanted.type == PROGRAMMED and not refresh:
        known = msgspec.structs.replace(known, message=wanted.message)
    return wanted != known


def _known(status: Any) -> _Known:
    """Read what is there leniently: what cannot be read will be written anew."""
    try:
        read = msgspec.convert(status or {}, MailDomainStatus, strict=True)
        targets = msgspec.convert(status or {}, RelayPolicyStatus, strict=True).targets
    except msgspec.ValidationError:
        return _Known(-1, None, {})
    ours = {condition.type: condition for condition in read.conditions if condition.type in OURS}
    return _Known(read.observed_generation, read.ascii_domain, ours, targets)
