"""Events about the operator's Lease, for `kubectl describe lease` and whoever collects events."""

from __future__ import annotations

import uuid

from gatepost_operator.cluster import FIELD_MANAGER, Document
from gatepost_operator.removal import ANNOTATION, Removal


def how_to_allow(removal: Removal, lease: str) -> str:
    """What a person has to do, as a command."""
    return f"to allow it: kubectl annotate lease {lease} {ANNOTATION}={len(removal.domains)}"


def held_back_event(removal: Removal, namespace: str, lease: str, now: str) -> Document:
    """Return the event that says that a removal waits. `now` is RFC 3339."""
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{lease}.{uuid.uuid4().hex[:16]}", "namespace": namespace},
        "type": "Warning",
        "reason": "RemovalHeldBack",
        "message": f"{removal}; the configuration in force stays; {how_to_allow(removal, lease)}",
        "involvedObject": {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "name": lease,
            "namespace": namespace,
        },
        "source": {"component": FIELD_MANAGER},
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }
