"""The port in memory, for tests: it behaves as an API server does, and can be made to fail as one does."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

from gatepost.core.manifest.object import API_VERSION, ObjectKey
from gatepost_operator.cluster import (
    ClusterConflict,
    ClusterError,
    ClusterUnavailable,
    Document,
    Listed,
)
from gatepost_operator.objects import KINDS


class MemoryCluster:
    """Implements the Cluster port. `fail` and `away` make it fail; `changed` is called as a watch would be."""

    def __init__(self) -> None:
        self.version = 0
        self.objects: dict[ObjectKey, Document] = {}
        self.leases: dict[tuple[str, str], Document] = {}
        self.events: list[Document] = []
        self.applied: list[tuple[ObjectKey, Document]] = []
        self.away = False
        self.fail: dict[ObjectKey, ClusterError] = {}
        self.defined = frozenset(KINDS)
        self.changed: Callable[[str, Document], None] = lambda kind, document: None

    # -- for tests

    def store(self, document: Document) -> Document:
        """Create or update an object as `kubectl apply` would."""
        document = copy.deepcopy(document)
        metadata = document.setdefault("metadata", {})
        metadata.setdefault("namespace", "default")
        key = ObjectKey(document["kind"], metadata["namespace"], metadata["name"])
        document["apiVersion"] = document.get("apiVersion", API_VERSION)
        old = self.objects.get(key)
        metadata["resourceVersion"] = self._next()
        if old is None:
            metadata.setdefault("uid", f"uid-{self.version}")
            metadata.setdefault("generation", 1)
            metadata.setdefault("creationTimestamp", f"2026-01-01T00:00:{self.version % 60:02d}Z")
        else:
            for name in ("uid", "creationTimestamp"):
                metadata[name] = old["metadata"][name]
            changed = old.get("spec") != document.get("spec")
            metadata["generation"] = old["metadata"]["generation"] + changed
            if "status" in old:
                document.setdefault("status", old["status"])
        self.objects[key] = document
        self.changed("ADDED" if old is None else "MODIFIED", copy.deepcopy(document))
        return document

    def delete(self, kind: str, name: str, namespace: str = "default") -> None:
        document = self.objects.pop(ObjectKey(kind, namespace, name))
        document["metadata"]["resourceVersion"] = self._next()
        self.changed("DELETED", document)

    def conditions(self, kind: str, name: str, namespace: str = "default") -> Mapping[str, Document]:
        """Return an object's conditions by their type."""
        status = self.objects[ObjectKey(kind, namespace, name)].get("status") or {}
        return {condition["type"]: condition for condition in status.get("conditions", ())}

    # -- the port

    async def close(self) -> None:
        pass

    async def list_objects(self, kind: str, namespace: str | None) -> Listed:
        self._check()
        found = [
            copy.deepcopy(document)
            for key, document in sorted(self.objects.items())
            if key.kind == kind and namespace in (None, key.namespace)
        ]
        return Listed(tuple(found), self.version)

    async def defined_kinds(self) -> frozenset[str]:
        self._check()
        return self.defined

    async def apply_status(self, kind: str, namespace: str, name: str, status: Document) -> Document | None:
        self._check()
        key = ObjectKey(kind, namespace, name)
        if key in self.fail:
            raise self.fail[key]
        document = self.objects.get(key)
        if document is None:
            return None
        self.applied.append((key, copy.deepcopy(status)))
        if document.get("status") != status:
            document = {**document, "metadata": {**document["metadata"], "resourceVersion": self._next()}}
            document["status"] = copy.deepcopy(status)
            self.objects[key] = document
            self.changed("MODIFIED", copy.deepcopy(document))
        return copy.deepcopy(document)

    async def get_lease(self, namespace: str, name: str) -> Document | None:
        self._check()
        return copy.deepcopy(self.leases.get((namespace, name)))

    async def create_lease(self, lease: Document) -> Document:
        self._check()
        place = (lease["metadata"]["namespace"], lease["metadata"]["name"])
        if place in self.leases:
            raise ClusterConflict(f"Lease {place[1]} exists")
        return self._keep_lease(place, lease)

    async def replace_lease(self, lease: Document) -> Document:
        self._check()
        place = (lease["metadata"]["namespace"], lease["metadata"]["name"])
        known = self.leases.get(place)
        if known is None or known["metadata"]["resourceVersion"] != lease["metadata"].get("resourceVersion"):
            raise ClusterConflict(f"Lease {place[1]} is another one by now")
        return self._keep_lease(place, lease)

    async def post_event(self, event: Document) -> None:
        self._check()
        self.events.append(copy.deepcopy(event))

    # -- inside

    def _keep_lease(self, place: tuple[str, str], lease: Document) -> Document:
        kept = copy.deepcopy(lease)
        kept["metadata"]["resourceVersion"] = self._next()
        self.leases[place] = kept
        return copy.deepcopy(kept)

    def _next(self) -> str:
        self.version += 1
        return str(self.version)

    def _check(self) -> None:
        if self.away:
            raise ClusterUnavailable("the API server in memory is away")
