"""Objects of the cluster -> a configuration and each object's conditions; pure but for a memo of what was read.

An object that cannot be read (it was stored under an older or newer schema) is Invalid by itself; all the
others go through the same compile as everywhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from gatepost.core.compile import Condition, Status, Surroundings, compile_manifests
from gatepost.core.compile.book import TargetState
from gatepost.core.compile.conditions import ACCEPTED
from gatepost.core.configuration import Configuration
from gatepost.core.manifest.documents import read_object
from gatepost.core.manifest.mail_domain import MailDomain
from gatepost.core.manifest.object import ObjectKey
from gatepost.core.manifest.read import ManifestError
from gatepost.core.manifest.relay_policy import RelayPolicy
from gatepost_operator.objects import StoredObject

INVALID: Final = "Invalid"


_Version = tuple[str, int, frozenset[tuple[str, str]]]


def _version(stored: StoredObject) -> _Version:
    """What an object is read anew for: its spec, and its labels, which selectors see and no generation counts."""
    labels = (stored.document.get("metadata") or {}).get("labels")
    written = labels.items() if isinstance(labels, dict) else ()
    return stored.uid, stored.generation, frozenset((str(name), str(value)) for name, value in written)


class Compilation(msgspec.Struct, frozen=True):
    """`hash` is the configuration's, reckoned once."""

    configuration: Configuration
    hash: str
    conditions: dict[ObjectKey, tuple[Condition, ...]]
    targets: dict[ObjectKey, tuple[TargetState, ...]] = {}


class Compiler:
    """Compiles all objects; remembers what it read of each generation, since most do not change, and the last
    result, since most changes are statuses.
    """

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._read: dict[_Version, MailDomain | RelayPolicy | ManifestError] = {}
        self._last: tuple[tuple[tuple[ObjectKey, _Version], ...], Compilation] | None = None

    def compile(self, objects: Sequence[StoredObject]) -> Compilation:
        """Never raises for what a user wrote: each fault is a condition of its object."""
        same = tuple((stored.key, _version(stored)) for stored in objects)
        if self._last is None or self._last[0] != same:
            self._last = (same, self._compile(objects))
        return self._last[1]

    def _compile(self, objects: Sequence[StoredObject]) -> Compilation:
        read = {_version(stored): self._one(stored) for stored in objects}
        self._read = read
        each = [(stored.key, read[_version(stored)]) for stored in objects]
        compiled = compile_manifests(
            [manifest for _, manifest in each if isinstance(manifest, MailDomain)],
            [manifest for _, manifest in each if isinstance(manifest, RelayPolicy)],
            self._around,
        )
        invalid = {key: (_invalid(fault),) for key, fault in each if isinstance(fault, ManifestError)}
        configuration = compiled.configuration
        return Compilation(configuration, configuration.hash, {**compiled.conditions, **invalid}, compiled.targets)

    def _one(self, stored: StoredObject) -> MailDomain | RelayPolicy | ManifestError:
        known = self._read.get(_version(stored))
        if known is not None:
            return known
        try:
            return read_object(stored.document, "the API server")
        except ManifestError as error:
            return error


def _invalid(fault: ManifestError) -> Condition:
    text = f"{fault.field}: {fault.reason}" if fault.field else fault.reason
    return Condition(ACCEPTED, Status.FALSE, INVALID, text)
