"""The Kubernetes API as the operator needs it: a port with plain documents, a real and an in-memory side.

Watching is not in here: kopf does that (watch.py). Everything that is written goes through this port.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

import msgspec

Document = dict[str, Any]
"""An object as JSON."""

FIELD_MANAGER: Final = "gatepost-operator"


class ClusterError(Exception):
    """The API server did not do what was asked; the message says what and why, for logs."""


class ClusterUnavailable(ClusterError):
    """It cannot be reached, is overloaded or failed: what was asked may be repeated."""


class ClusterRefused(ClusterError):
    """It will not do that, as it is now: no right, not valid, no such resource."""


class ClusterConflict(ClusterError):
    """The object is another one than was read, or exists already: read it again."""


class Listed(msgspec.Struct, frozen=True):
    """All objects of a kind at one moment. `version` is the list's resourceVersion as a number."""

    documents: tuple[Document, ...]
    version: int


class Cluster(Protocol):
    """Every call ends within a few seconds and raises ClusterError when it did not succeed."""

    async def list_objects(self, kind: str, namespace: str | None) -> Listed:
        """Return the objects of one of our kinds in a namespace, or in all (None)."""

    async def defined_kinds(self) -> frozenset[str]:
        """Return those of our kinds of which objects can be created: not one whose definition is being deleted.

        Its objects go then too, one by one, before the API server says that the kind is gone.
        """

    async def apply_status(self, kind: str, namespace: str, name: str, status: Document) -> Document | None:
        """Make this the object's status (server-side apply, our fields only) and return the object.

        Returns None when there is no such object.
        """

    async def get_lease(self, namespace: str, name: str) -> Document | None:
        """Return the Lease, None when there is none."""

    async def create_lease(self, lease: Document) -> Document:
        """Create it. Raises ClusterConflict when it exists."""

    async def replace_lease(self, lease: Document) -> Document:
        """Replace it. Raises ClusterConflict when its resourceVersion is not the current one any more."""

    async def post_event(self, event: Document) -> None:
        """Create a core/v1 Event."""

    async def close(self) -> None: ...


def resource_version(document: Document) -> int:
    """Return an object's or a list's resourceVersion as a number, 0 where it has none.

    Kubernetes made them comparable as numbers of one kind of resource (KEP-5504); etcd's always were.
    """
    text = str((document.get("metadata") or {}).get("resourceVersion") or "")
    return int(text) if text.isascii() and text.isdigit() else 0
