"""Whether what was written is in force: what the edges run, compared with what each object became.

An object's part of a configuration has a fingerprint. An edge runs an object when the configuration that it
acknowledged holds the same fingerprint for it, whatever else has changed in between. An object that was deleted
and made again under its name therefore counts as another one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from typing import Final

import msgspec

from gatepost.core.compile import Condition, Status
from gatepost.core.compile.conditions import PROGRAMMED
from gatepost.core.config_head import Ack
from gatepost.core.configuration import Configuration, DomainConfig, ListenerPolicy, object_label
from gatepost.core.configuration_layers import Overlay
from gatepost.core.manifest.object import ObjectKey

Fingerprints = Mapping[str, bytes]
"""Label of an object -> fingerprint of what it became."""

EXCLUDED: Final = "Excluded"
NO_EDGES: Final = "NoEdges"
PENDING: Final = "Pending"
IN_FORCE: Final = "Programmed"
KEPT: Final = 8

_ENCODER = msgspec.json.Encoder(order="sorted")


def fingerprints(configuration: Configuration) -> dict[str, bytes]:
    """Return the fingerprint of each object that the configuration contains."""
    hashes: dict[str, hashlib._Hash] = {}
    others: tuple[DomainConfig | ListenerPolicy | Overlay, ...] = (
        *configuration.domains,
        *configuration.listeners,
        *configuration.overlays,
    )
    parts: list[tuple[str, msgspec.Struct]] = [(one.origin, one) for one in others]
    parts += [(beside.policy.origin, beside) for beside in configuration.beside]
    for origin, part in parts:
        if origin:
            hashes.setdefault(origin, hashlib.sha256()).update(_ENCODER.encode(part))
    result = {}
    for label, generation in configuration.objects.items():
        kind, namespace, name = label.split("/", 2)
        whole = hashes.get(str(ObjectKey(kind, namespace, name)), hashlib.sha256())
        whole.update(b"\0%d" % generation)
        result[label] = whole.digest()
    return result


class Published:
    """The configurations that edges may be running: hash -> fingerprints of what each contains."""

    def __init__(self) -> None:
        self._known: dict[str, Fingerprints] = {}

    def add(self, digest: str, configuration: Configuration) -> None:
        if digest not in self._known:
            self._known[digest] = fingerprints(configuration)

    def of(self, digest: str) -> Fingerprints:
        """Empty for a configuration of which nothing is known."""
        return self._known.get(digest, {})

    def keep(self, digests: Collection[str]) -> None:
        """Forget all others but the newest few, which may be on their way to the edges."""
        newest = set(list(self._known)[-KEPT:])
        self._known = {
            digest: known for digest, known in self._known.items() if digest in digests or digest in newest
        }


class Edges(msgspec.Struct, frozen=True):
    """The live edges: what each runs, and why one does not run something newer."""

    running: tuple[Fingerprints, ...] = ()
    refusals: tuple[str, ...] = ()


def edges_of(acks: Sequence[Ack], published: Published) -> Edges:
    """`acks` are those of live edges."""
    return Edges(
        tuple(published.of(ack.hash) for ack in acks),
        tuple(sorted(f"{ack.pod}: {ack.error}" for ack in acks if ack.error)),
    )


def programmed(key: ObjectKey, wanted: bytes | None, edges: Edges | None, waits_for: str) -> Condition:
    """Return the condition. `wanted` is the object's fingerprint, None when it is left out of the configuration;
    `edges` is None while nothing can be heard of them; `waits_for` says what holds the configuration back, if
    anything does.
    """
    if wanted is None:
        text = "the object is not part of the configuration: see the other conditions"
        return Condition(PROGRAMMED, Status.FALSE, EXCLUDED, text)
    if edges is None:
        return Condition(PROGRAMMED, Status.UNKNOWN, PENDING, waits_for or "what the edges run is not known yet")
    if not edges.running:
        text = "no edge pod is running, or none reports what it runs"
        return Condition(PROGRAMMED, Status.UNKNOWN, NO_EDGES, _with(text, waits_for))
    label = object_label(key)
    count = sum(running.get(label) == wanted for running in edges.running)
    if count == len(edges.running):
        return Condition(PROGRAMMED, Status.TRUE, IN_FORCE, "all edge pods run this generation")
    text = f"{count} of {len(edges.running)} edges run this generation"
    if edges.refusals:
        text += f"; {len(edges.refusals)} refuse the newest configuration, the first being {edges.refusals[0]}"
    return Condition(PROGRAMMED, Status.FALSE, PENDING, _with(text, waits_for))


def _with(text: str, waits_for: str) -> str:
    return f"{text}; {waits_for}" if waits_for else text
