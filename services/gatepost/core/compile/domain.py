"""One MailDomain -> DomainConfig: names made canonical, references checked, defaults filled in."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from gatepost.core.address import AddressError, parse_address
from gatepost.core.compile.call_ahead import call_ahead_plan
from gatepost.core.compile.conditions import ACCEPTED, RESOLVED_REFS, Rejection
from gatepost.core.compile.masquerade import compile_masquerade
from gatepost.core.configuration import DeliveryPlan, DomainConfig, RetryPlan
from gatepost.core.domain import DomainError, canonical_domain
from gatepost.core.hosts import HostError, parse_host
from gatepost.core.manifest import mail_domain
from gatepost.core.manifest.call_ahead import CallAheadSource
from gatepost.core.manifest.mail_domain import (
    AnySource,
    DirectorySource,
    DiscardDelivery,
    MailboxDelivery,
    MailDomain,
    Recipients,
    RecipientSource,
    RelayDelivery,
    Retry,
    StaticSource,
    UnknownAction,
)
from gatepost.core.manifest.object import API_VERSION, ObjectKey
from gatepost.core.manifest.quantities import seconds, size_bytes
from gatepost.core.topics import RETRY_TIERS

T = TypeVar("T")


def compile_domain(
    manifest: MailDomain, directories: tuple[str, ...], stores: tuple[str, ...]
) -> tuple[DomainConfig, list[str]]:
    """Return the domain's configuration and warnings for its author. Raises Rejection."""
    if manifest.api_version != API_VERSION or manifest.kind != mail_domain.KIND:
        raise Rejection(ACCEPTED, "Invalid", "apiVersion", f"{API_VERSION} {mail_domain.KIND} is expected")
    spec = manifest.spec
    warnings: list[str] = []
    domain = _domain(spec.domain, "spec.domain")
    kind, directory, static = _source(spec.recipients.source, domain, directories, warnings)
    unknown, unknown_to = _unknown(spec.recipients, warnings)
    source = spec.recipients.source
    plan = call_ahead_plan(source, unknown) if isinstance(source, CallAheadSource) else None
    outbound = spec.outbound
    aliases = tuple(_domain(name, "spec.aliasDomains") for name in spec.alias_domains or ())
    config = DomainConfig(
        domain=domain,
        origin=str(ObjectKey(mail_domain.KIND, manifest.metadata.namespace, manifest.metadata.name)),
        generation=manifest.metadata.generation,
        source_kind=kind,
        directory=directory,
        static=static,
        delivery=_delivery(spec.delivery or (RelayDelivery(plan.hosts) if plan else MailboxDelivery()), stores),
        default=bool(spec.default),
        subdomains=bool(spec.subdomains),
        alias_domains=aliases,
        unknown=unknown,
        unknown_deliver_to=unknown_to,
        separators=spec.recipients.subaddressing.separators if spec.recipients.subaddressing else (),
        role_addresses=_role_addresses(spec.recipients),
        aliases=_aliases(spec.recipients),
        max_message_size=_size(spec.recipients.max_message_size, "spec.recipients.maxMessageSize"),
        smart_hosts=_hosts(outbound.smart_host.hosts, "spec.outbound.smartHost.hosts")
        if outbound and outbound.smart_host
        else (),
        helo_name=_domain(outbound.helo_name, "spec.outbound.heloName") if outbound and outbound.helo_name else "",
        retry=_retry(outbound.retry) if outbound and outbound.retry else RetryPlan(),
        masquerade=compile_masquerade(outbound.masquerade, (domain, *aliases))
        if outbound and outbound.masquerade
        else None,
        call_ahead=plan,
    )
    return config, warnings


def _invalid(field: str, message: str) -> Rejection:
    return Rejection(ACCEPTED, "Invalid", field, message)


def _read(read: Callable[[str], T], text: str, field: str) -> T:
    """Apply a reader of core to a user's text and turn its error into a Rejection."""
    try:
        return read(text)
    except AddressError as error:
        raise _invalid(field, f"{text!r} is not an address: {error.reason}") from None
    except (DomainError, HostError, ValueError) as error:
        raise _invalid(field, str(error)) from None


def _domain(text: str, field: str) -> str:
    return _read(canonical_domain, text, field)


def _address(text: str, field: str) -> str:
    return _read(parse_address, text, field).key


def _size(text: str | None, field: str) -> int:
    return _read(size_bytes, text, field) if text else 0


def _hosts(texts: tuple[str, ...], field: str) -> tuple[str, ...]:
    for text in texts:
        _read(parse_host, text, field)
    return texts


def _source(
    source: RecipientSource, domain: str, directories: tuple[str, ...], warnings: list[str]
) -> tuple[str, str, tuple[str, ...]]:
    match source:
        case DirectorySource(directory_ref=reference):
            if reference.name not in directories:
                known = ", ".join(sorted(directories)) or "none"
                raise Rejection(
                    RESOLVED_REFS,
                    "DirectoryNotFound",
                    "spec.recipients.source.directoryRef.name",
                    f"no directory {reference.name!r} in the settings; there are: {known}",
                )
            return "Directory", reference.name, ()
        case StaticSource(addresses=addresses):
            field = "spec.recipients.source.addresses"
            keys = tuple(sorted({_address(_complete(text, domain), field) for text in addresses}))
            return "Static", "", keys
        case CallAheadSource():
            return "Any", "", ()  # narrowed by the plan; who does not know it yet takes them all
        case AnySource():
            warnings.append(
                "recipients.source Any takes every address: mail that the next hop refuses becomes bounces to "
                "strangers (backscatter)"
            )
            return "Any", "", ()


def _complete(text: str, domain: str) -> str:
    """Static recipients may be written as local parts alone."""
    return text if "@" in text else f"{text}@{domain}"


def _unknown(recipients: Recipients, warnings: list[str]) -> tuple[UnknownAction, str]:
    action = recipients.unknown or UnknownAction.REJECT
    field = "spec.recipients.unknownDeliverTo"
    if action is UnknownAction.DELIVER_TO:
        if not recipients.unknown_deliver_to:
            raise _invalid(field, "an address is needed with unknown: DeliverTo")
        return action, _address(recipients.unknown_deliver_to, field)
    if recipients.unknown_deliver_to:
        raise _invalid(field, "has a meaning only with unknown: DeliverTo")
    if action is UnknownAction.BOUNCE:
        warnings.append(
            "recipients.unknown Bounce takes mail for everybody and sends it back later: to senders whose domain "
            "is verified, but who may not have written it (backscatter); the rest is held in quarantine. Reject "
            "has neither fault"
        )
    return action, ""


def _role_addresses(recipients: Recipients) -> dict[str, str]:
    field = "spec.recipients.roleAddresses"
    return {
        name.lower(): _address(target, f"{field}.{name}")
        for name, target in sorted((recipients.role_addresses or {}).items())
    }


def _aliases(recipients: Recipients) -> dict[str, tuple[str, ...]]:
    field = "spec.recipients.aliases"
    return {
        name.lower(): tuple(_address(target, f"{field}.{name}") for target in targets)
        for name, targets in sorted((recipients.aliases or {}).items())
    }


def _delivery(delivery: MailboxDelivery | RelayDelivery | DiscardDelivery, stores: tuple[str, ...]) -> DeliveryPlan:
    match delivery:
        case MailboxDelivery(store=store):
            if store is not None and store not in stores:
                known = ", ".join(sorted(stores)) or "none"
                raise Rejection(
                    RESOLVED_REFS,
                    "StoreNotFound",
                    "spec.delivery.store",
                    f"no store {store!r}; there are: {known}",
                )
            if not stores:
                raise Rejection(
                    RESOLVED_REFS,
                    "StoreNotFound",
                    "spec.delivery",
                    "the settings have no store for mailboxes",
                )
            return DeliveryPlan("Mailbox", store=store or stores[0])
        case RelayDelivery(hosts=hosts):
            return DeliveryPlan("Relay", hosts=_hosts(hosts, "spec.delivery.hosts"))
        case DiscardDelivery():
            return DeliveryPlan("Discard")


def _retry(retry: Retry) -> RetryPlan:
    field = "spec.outbound.retry"
    plan = RetryPlan()
    for tier in retry.tiers or ():
        if tier not in RETRY_TIERS:
            raise _invalid(f"{field}.tiers", f"{tier!r} is none of {', '.join(RETRY_TIERS)}")
    expire = _read(seconds, retry.expire_after, f"{field}.expireAfter") if retry.expire_after else plan.expire_after
    bounce = (
        _read(seconds, retry.bounce_expire_after, f"{field}.bounceExpireAfter")
        if retry.bounce_expire_after
        else min(plan.bounce_expire_after, expire)
    )
    if max(expire, bounce) > MAX_EXPIRE:
        raise _invalid(f"{field}.expireAfter", "at most 168h: the log keeps bodies for 8 days")
    return RetryPlan(retry.tiers or plan.tiers, expire, bounce)


MAX_EXPIRE = 168 * 3600.0  # a day less than topics.CONTENT_RETENTION_MS
