"""Events about the operator's Lease, for `kubectl describe lease` and whoever collects events."""

from __future__ import annotations

import uuid

from gatepost_operator.cluster import FIELD_MANAGER, Document
from gatepost_operator.removal import ANNOTATION, Removal


def how_to_allow(removal: Removal, lease: str) -> str:
    """What a person has to do, as a command."""
    return f"to allow it: kubectl annotate lease {lease} {ANNOTATION}={len(removal.domains)}"


def held_back_event(removal: Removal, lease: Document, now: str) -> Document:
    """Return the event that says that a removal waits. `lease` is a reference to the Lease, `now` RFC 3339."""
    name = str(lease["name"])
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{name}.{uuid.uuid4().hex[:16]}", "namespace": lease["namespace"]},
        "type": "Warning",
        "reason": "RemovalHeldBack",
        "message": f"{removal}; the configuration in force stays; {how_to_allow(removal, name)}",
        "involvedObject": lease,
        "source": {"component": FIELD_MANAGER},
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }
