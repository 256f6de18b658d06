"""The whole of compile: which objects count, who wins, and the configuration of those that do.

One bad object is left out and never blocks others. For one domain the oldest object wins (creation time, then
namespace and name); the other is Conflicted. Of policies with one target the oldest wins likewise (layers.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from gatepost.core.compile.book import Book, TargetState, by_age
from gatepost.core.compile.conditions import ACCEPTED, Condition, Rejection, Status
from gatepost.core.compile.domain import compile_domain
from gatepost.core.compile.ground import Surroundings
from gatepost.core.compile.layers import KnownDomain, compile_layers
from gatepost.core.configuration import SCHEMA_MAJOR, Configuration
from gatepost.core.domain import DomainError, canonical_domain
from gatepost.core.manifest import mail_domain
from gatepost.core.manifest.mail_domain import MailDomain
from gatepost.core.manifest.object import ObjectKey
from gatepost.core.manifest.relay_policy import RelayPolicy

__all__ = ["Compiled", "Surroundings", "compile_manifests"]


class Compiled(msgspec.Struct, frozen=True):
    configuration: Configuration
    conditions: dict[ObjectKey, tuple[Condition, ...]]
    warnings: dict[ObjectKey, tuple[str, ...]] = {}
    targets: dict[ObjectKey, tuple[TargetState, ...]] = {}

    @property
    def rejected(self) -> tuple[tuple[ObjectKey, Condition], ...]:
        return tuple(
            (key, condition)
            for key, conditions in sorted(self.conditions.items())
            for condition in conditions
            if condition.status is Status.FALSE
        )


def compile_manifests(
    domains: Sequence[MailDomain], policies: Sequence[RelayPolicy], around: Surroundings
) -> Compiled:
    """Compile all objects. Never raises for what a user wrote: each fault is a condition of its object."""
    book = Book()
    known = _domains(domains, around, book)
    layers = compile_layers(policies, around, known, book)
    configuration = Configuration(
        SCHEMA_MAJOR,
        tuple(sorted((each.config for each in known.values()), key=lambda domain: domain.domain)),
        tuple(sorted(layers.listeners, key=lambda policy: policy.listener)),
        dict(sorted(book.objects.items())),
        tuple(sorted(layers.beside, key=lambda beside: beside.policy.listener)),
        tuple(sorted(layers.overlays, key=lambda one: (one.listener, one.over, one.origin))),
    )
    return Compiled(configuration, book.conditions, book.warnings, book.targets)


def _domains(domains: Sequence[MailDomain], around: Surroundings, book: Book) -> dict[ObjectKey, KnownDomain]:
    owner: dict[str, ObjectKey] = {}
    default_owner: ObjectKey | None = None
    result: dict[ObjectKey, KnownDomain] = {}
    for manifest in by_age(domains):
        key = ObjectKey(mail_domain.KIND, manifest.metadata.namespace, manifest.metadata.name)
        try:
            book.check_duplicate(key)
            config, warnings = compile_domain(manifest, around.directories, around.stores)
            names = (config.domain, *config.alias_domains)
            shown = (config.masquerade.as_domain,) if config.masquerade else ()
            _check_ownership(manifest.metadata.namespace, (*names, *shown), around)
            _check_conflict(names, owner)
            if config.default and default_owner is not None:
                raise Rejection(
                    ACCEPTED, "Conflicted", "spec.default", f"{default_owner} is the default domain already"
                )
        except Rejection as rejection:
            book.reject(key, rejection)
            continue
        default_owner = key if config.default else default_owner
        owner.update(dict.fromkeys(names, key))
        book.accept(key, manifest.metadata.generation, warnings)
        result[key] = KnownDomain(config, manifest.metadata.labels)
    return result


def _check_conflict(names: tuple[str, ...], owner: dict[str, ObjectKey]) -> None:
    for name in names:
        if name in owner:
            raise Rejection(
                ACCEPTED, "Conflicted", "spec.domain", f"{name} belongs to {owner[name]}, which is older"
            )


def _check_ownership(namespace: str, names: tuple[str, ...], around: Surroundings) -> None:
    if around.any_namespace or namespace == around.release_namespace:
        return
    suffixes = []
    for suffix in around.domain_ownership.get(namespace, ()):
        try:
            suffixes.append(canonical_domain(suffix.removeprefix(".")))
        except DomainError:
            continue
    for name in names:
        if not any(name == suffix or name.endswith("." + suffix) for suffix in suffixes):
            raise Rejection(
                ACCEPTED,
                "NotAllowed",
                "metadata.namespace",
                f"namespace {namespace!r} may not own {name}: an administrator of the release must list the "
                "namespace with this suffix in domainOwnership",
            )
