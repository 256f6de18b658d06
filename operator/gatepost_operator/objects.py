"""The objects as they stand in the cluster: fed by watch events, put right by lists.

A watch that was interrupted for long does not say what was deleted meanwhile, so that a list now and then is
part of being level-triggered. An older state never replaces a newer one, whichever way it comes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from gatepost.core.manifest import mail_domain, relay_policy
from gatepost.core.manifest.object import ObjectKey
from gatepost_operator.cluster import Document, Listed, resource_version

KINDS: Final = {mail_domain.KIND: mail_domain.PLURAL, relay_policy.KIND: relay_policy.PLURAL}


class StoredObject(msgspec.Struct, frozen=True):
    """One object. `document` is the whole of it and is not to be changed."""

    key: ObjectKey
    uid: str
    version: int
    generation: int
    document: Document

    @property
    def status(self) -> Any:
        return self.document.get("status")


class ObjectCache:
    """All objects that count: those in `namespaces`, or in any (None). `changes` grows with each change."""

    def __init__(self, namespaces: frozenset[str] | None) -> None:
        self._namespaces = namespaces
        self._objects: dict[ObjectKey, StoredObject] = {}
        self._gone: dict[str, int] = {}  # uid -> version at deletion, until a later list
        self._listed: set[str] = set()
        self.changes = 0

    @property
    def complete(self) -> bool:
        """Whether every kind was listed at least once; before that, what is missing means nothing."""
        return self._listed == set(KINDS)

    def snapshot(self) -> tuple[StoredObject, ...]:
        return tuple(self._objects[key] for key in sorted(self._objects))

    def get(self, key: ObjectKey) -> StoredObject | None:
        return self._objects.get(key)

    def put(self, document: Document) -> None:
        """Take an object as it is now, unless a newer state is known."""
        stored = _stored(document)
        if stored is None or not self._counts(stored.key) or stored.uid in self._gone:
            return
        known = self._objects.get(stored.key)
        if known is not None and known.uid == stored.uid and known.version >= stored.version:
            return
        if known is not None and known.uid != stored.uid and known.version > stored.version:
            return
        self._objects[stored.key] = stored
        self.changes += 1

    def remove(self, document: Document) -> None:
        """Take a deletion."""
        stored = _stored(document)
        if stored is None or not self._counts(stored.key):
            return
        self._gone[stored.uid] = stored.version
        known = self._objects.get(stored.key)
        if known is not None and known.uid == stored.uid:
            del self._objects[stored.key]
            self.changes += 1

    def replace(self, kind: str, listed: Listed) -> None:
        """Take a list of a whole kind: what it lacks, and is not newer than it, is gone."""
        for document in listed.documents:
            self.put(document)
        there = set(_keys(kind, listed.documents))
        for key, known in list(self._objects.items()):
            if key.kind == kind and key not in there and known.version <= listed.version:
                del self._objects[key]
                self.changes += 1
        self._gone = {uid: version for uid, version in self._gone.items() if version > listed.version}
        if kind not in self._listed:
            self._listed.add(kind)
            self.changes += 1

    def _counts(self, key: ObjectKey) -> bool:
        return key.kind in KINDS and (self._namespaces is None or key.namespace in self._namespaces)


def _keys(kind: str, documents: Iterable[Document]) -> Iterable[ObjectKey]:
    for document in documents:
        metadata = document.get("metadata") or {}
        yield ObjectKey(kind, str(metadata.get("namespace", "")), str(metadata.get("name", "")))


def _stored(document: Document) -> StoredObject | None:
    metadata = document.get("metadata") or {}
    kind, name = document.get("kind"), metadata.get("name")
    if not isinstance(kind, str) or not isinstance(name, str):
        return None
    generation = metadata.get("generation")
    return StoredObject(
        key=ObjectKey(kind, str(metadata.get("namespace", "")), name),
        uid=str(metadata.get("uid", "")),
        version=resource_version(document),
        generation=generation if isinstance(generation, int) else 0,
        document=document,
    )
