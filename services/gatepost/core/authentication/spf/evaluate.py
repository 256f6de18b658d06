"""check_host() of RFC 7208 4 as a generator of DNS questions, with its limits.

    result = yield from check_mail_from(client="192.0.2.1", helo="mx.example.org", reverse_path="a@example.org",
                                        receiver="mx.example.net", now=0)

Limits of 4.6.4: ten terms that cost questions, ten names of an MX or a PTR, two terms without an answer. They
hold over all includes and redirects of one check, and bound the depth of the recursion with them.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

import msgspec

from gatepost.core.authentication.names import MAX_NAME, dns_name, is_below, plain
from gatepost.core.authentication.questions import (
    NO_SUCH_DOMAIN,
    Asking,
    DnsAnswer,
    Kind,
    Known,
    Question,
)
from gatepost.core.authentication.spf.macros import (
    MacroError,
    MacroString,
    MacroValues,
    expand,
    expand_domain,
    read_macro_string,
    uses,
)
from gatepost.core.authentication.spf.record import Mechanism, SpfRecord, SpfSyntaxError, is_record, read_record
from gatepost.core.authentication.spf.result import SpfIdentity, SpfResult, SpfStatus
from gatepost.core.networks import IPAddress

MAX_LOOKUPS: Final = 10  # RFC 7208 4.6.4: include, a, mx, ptr, exists and redirect
MAX_VOID_LOOKUPS: Final = 2  # 4.6.4
MAX_MX_NAMES: Final = 10  # 4.6.4: more are a permerror
MAX_PTR_NAMES: Final = 10  # 4.6.4: more are ignored
MAX_LABEL: Final = 63  # RFC 1035 2.3.4
MAX_EXPLANATION: Final = 400  # fits one reply line of RFC 5321 4.5.3.1.5 with a code and an id

_VISIBLE: Final = re.compile(r"[\x21-\x7e]+")


def check_mail_from(client: str, helo: str, reverse_path: str, receiver: str, now: int) -> Asking[SpfResult]:
    """Check the MAIL FROM identity; with the null reverse-path it is postmaster at the HELO name (2.4).

    `client` is an IP address (an IPv4 address in IPv6 form is the IPv4 address), `reverse_path` without angle
    brackets, `receiver` our host name for %{r}, `now` in seconds since 1970 for %{t}. Raises ValueError for a
    client that is no address.
    """
    local, _, domain = reverse_path.rpartition("@") if "@" in reverse_path else ("", "", reverse_path or helo)
    check = _Check(_address(client), helo, local, domain, receiver, now)
    return check.run(SpfIdentity.MAIL_FROM)


def check_helo(client: str, helo: str, receiver: str, now: int) -> Asking[SpfResult]:
    """Check the HELO identity (2.3); an address literal or a name without a dot gives none (4.3)."""
    return _Check(_address(client), helo, "", helo, receiver, now).run(SpfIdentity.HELO)


class _Ended(Exception):
    """The whole check ends with an error, out of any depth of includes."""

    def __init__(self, status: SpfStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class _Outcome(msgspec.Struct, frozen=True):
    """What one record came to; with the explanation of the record whose term decided (6.2)."""

    status: SpfStatus
    term: str
    domain: str
    explanation: MacroString | None = None


class _Check:
    """One check: who is judged, and the counts that hold over all its records."""

    def __init__(self, client: IPAddress, helo: str, local: str, domain: str, receiver: str, now: int) -> None:
        self._client = client
        self._helo = helo
        self._local = local or "postmaster"  # 4.3
        self._domain = domain
        self._receiver = receiver
        self._now = now
        self._lookups = 0
        self._void_lookups = 0
        self._client_names: tuple[str, ...] | None = None

    def run(self, identity: SpfIdentity) -> Asking[SpfResult]:
        name = _fully_qualified(self._domain)
        result = SpfResult(
            SpfStatus.NONE, identity, name or plain(self._domain), plain(f"{self._local}@{self._domain}")
        )
        if name is None:
            return msgspec.structs.replace(result, reason="not a fully qualified domain name")
        self._domain = name
        try:
            outcome = yield from self._check_host(name)
        except _Ended as ended:
            return self._with_counts(result, status=ended.status, reason=ended.reason)
        if outcome is None:
            return self._with_counts(result, status=SpfStatus.NONE, reason="no SPF record")
        explanation = ""
        if outcome.status is SpfStatus.FAIL and outcome.explanation is not None:
            explanation = yield from self._explain(outcome.explanation, outcome.domain)
        return self._with_counts(result, status=outcome.status, mechanism=outcome.term, explanation=explanation)

    def _with_counts(self, result: SpfResult, **changes: object) -> SpfResult:
        return msgspec.structs.replace(result, lookups=self._lookups, void_lookups=self._void_lookups, **changes)

    def _check_host(self, domain: str) -> Asking[_Outcome | None]:
        """The record of a domain and what it says of the client (4.4 to 4.7); None without one."""
        record = yield from self._record(domain)
        if record is None:
            return None
        for mechanism in record.mechanisms:
            if (yield from self._matches(mechanism, domain)):
                return _Outcome(mechanism.status, mechanism.text, domain, record.explanation)
        # 6.1: redirect counts only when nothing matched; with "all" something has.
        if record.redirect is None:
            return _Outcome(SpfStatus.NEUTRAL, "", domain)
        self._count_lookup()
        target = yield from self._target(record.redirect, domain)
        outcome = (yield from self._check_host(target)) if target else None
        if outcome is None:
            raise _Ended(SpfStatus.PERMERROR, "redirect to a domain without an SPF record")
        return outcome

    def _record(self, domain: str) -> Asking[SpfRecord | None]:
        answer = yield from self._ask(domain, "TXT")
        if answer.known is Known.FAILED:
            raise _Ended(SpfStatus.TEMPERROR, f"no answer for the SPF record of {plain(domain)}")
        records = [text for text in answer.records if is_record(text)]
        if len(records) > 1:
            raise _Ended(SpfStatus.PERMERROR, f"several SPF records of {plain(domain)}")
        try:
            return read_record(records[0]) if records else None
        except SpfSyntaxError as error:
            raise _Ended(SpfStatus.PERMERROR, str(error)) from None

    def _matches(self, mechanism: Mechanism, domain: str) -> Asking[bool]:
        match mechanism.name:
            case "all":
                return True
            case "ip4" | "ip6":
                network = mechanism.network
                return network is not None and self._client in network
        self._count_lookup()
        target = domain
        if mechanism.spec is not None:
            target = yield from self._target(mechanism.spec, domain)
        if mechanism.name == "include":
            return (yield from self._include(target))
        if not target:
            return False
        match mechanism.name:
            case "a":
                return (yield from self._a(mechanism, target))
            case "mx":
                return (yield from self._mx(mechanism, target))
            case "exists":
                return bool((yield from self._term_answer(target, "A")).records)
            case _:
                names = yield from self._names_of_client()
                return any(is_below(name, target) for name in names)

    def _include(self, target: str) -> Asking[bool]:
        """5.2: only a pass of the other domain matches; its errors are ours."""
        outcome = (yield from self._check_host(target)) if target else None
        if outcome is None:
            raise _Ended(SpfStatus.PERMERROR, "include of a domain without an SPF record")
        return outcome.status is SpfStatus.PASS

    def _a(self, mechanism: Mechanism, target: str) -> Asking[bool]:
        answer = yield from self._term_answer(target, self._address_kind)
        return self._is_among(answer, mechanism)

    def _mx(self, mechanism: Mechanism, target: str) -> Asking[bool]:
        """5.4: the implicit MX of RFC 5321 5.1 is not used."""
        answer = yield from self._term_answer(target, "MX")
        if len(answer.records) > MAX_MX_NAMES:
            raise _Ended(SpfStatus.PERMERROR, f"more than {MAX_MX_NAMES} MX names")
        hosts = _mail_hosts(answer.records)
        if not hosts:
            return False
        for found in (yield tuple(Question(host, self._address_kind) for host in hosts)):
            if found.known is Known.FAILED:
                raise _Ended(SpfStatus.TEMPERROR, "no answer for a mail host")
            if self._is_among(found, mechanism):
                return True
        return False

    def _names_of_client(self) -> Asking[tuple[str, ...]]:
        """The validated names of the client (5.5), asked for once in a check. Failures only mean fewer names."""
        if self._client_names is None:
            answer = yield from self._ask(self._client.reverse_pointer, "PTR")
            names = [name.lower().removesuffix(".") for name in answer.records[:MAX_PTR_NAMES]]
            names = [name for name in names if _has_sound_labels(name)]
            found = (yield tuple(Question(name, self._address_kind) for name in names)) if names else ()
            self._client_names = tuple(
                name for name, addresses in zip(names, found, strict=True) if self._holds(addresses, 32, 128)
            )
        return self._client_names

    def _target(self, spec: MacroString, domain: str) -> Asking[str]:
        """Expand a domain-spec; "" when no name comes of it."""
        values = yield from self._values(spec, domain)
        return expand_domain(spec, values) or ""

    def _values(self, spec: MacroString, domain: str) -> Asking[MacroValues]:
        validated = "unknown"
        if uses(spec, "p"):
            names = yield from self._names_of_client()
            # 7.3: the domain itself, else a name below it, else any.
            ranked = sorted(names, key=lambda name: (name != domain, not is_below(name, domain)))
            validated = ranked[0] if ranked else validated
        return MacroValues(
            client=self._client,
            helo=self._helo,
            local=self._local,
            sender_domain=self._domain,
            domain=domain,
            receiver=self._receiver,
            now=self._now,
            validated=validated,
        )

    def _explain(self, spec: MacroString, domain: str) -> Asking[str]:
        """The explanation (6.2), "" whenever anything about it is wrong. Its question is not limited (4.6.4)."""
        target = yield from self._target(spec, domain)
        answer = yield from self._ask(target, "TXT")
        if len(answer.records) != 1:
            return ""
        try:
            text = read_macro_string(answer.records[0], explanation=True)
        except MacroError:
            return ""
        values = yield from self._values(text, domain)
        return plain(expand(text[:MAX_EXPLANATION], values), MAX_EXPLANATION)

    def _term_answer(self, name: str, kind: Kind) -> Asking[DnsAnswer]:
        """The answer that a term hangs on: a failure ends the check (5), nothing found is counted (4.6.4)."""
        answer = yield from self._ask(name, kind)
        if answer.known is Known.FAILED:
            raise _Ended(SpfStatus.TEMPERROR, f"no answer for {plain(name)} {kind}")
        if answer.is_void:
            self._void_lookups += 1
            if self._void_lookups > MAX_VOID_LOOKUPS:
                raise _Ended(SpfStatus.PERMERROR, f"more than {MAX_VOID_LOOKUPS} terms without an answer")
        return answer

    def _ask(self, name: str, kind: Kind) -> Asking[DnsAnswer]:
        """Ask, or know without asking: a name that the DNS cannot hold does not exist (4.3, 4.8)."""
        if not _has_sound_labels(name):
            return NO_SUCH_DOMAIN
        return (yield (Question(name, kind),))[0]

    def _count_lookup(self) -> None:
        self._lookups += 1
        if self._lookups > MAX_LOOKUPS:
            raise _Ended(SpfStatus.PERMERROR, f"more than {MAX_LOOKUPS} terms that need the DNS")

    @property
    def _address_kind(self) -> Kind:
        return "A" if self._client.version == 4 else "AAAA"

    def _is_among(self, answer: DnsAnswer, mechanism: Mechanism) -> bool:
        return self._holds(answer, mechanism.ip4_prefix, mechanism.ip6_prefix)

    def _holds(self, answer: DnsAnswer, ip4_prefix: int, ip6_prefix: int) -> bool:
        """Whether an address of the answer agrees with the client in the prefix's bits (5.3, 5.6)."""
        rest = 32 - ip4_prefix if self._client.version == 4 else 128 - ip6_prefix
        wanted = int(self._client) >> rest
        return any(
            address.version == self._client.version and int(address) >> rest == wanted
            for address in map(_address_or_none, answer.records)
            if address is not None
        )


def _address(text: str) -> IPAddress:
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv4Address):
        return address
    # 5: an IPv4-mapped address (RFC 4291 2.5.5.2) is the IPv4 address. A zone (RFC 4007) says nothing to others.
    return address.ipv4_mapped or ipaddress.IPv6Address(int(address))


def _address_or_none(text: str) -> IPAddress | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _fully_qualified(text: str) -> str | None:
    """The domain to check, or None for what 4.3 says has none: a literal, one label, or labels that cannot be."""
    name = text.removesuffix(".").lower()
    if not name.isascii():
        name = dns_name(name) or ""  # RFC 8616 4: A-labels before anything else
    sound = "." in name and _VISIBLE.fullmatch(name) and not name.startswith("[") and _has_sound_labels(name)
    return name if sound else None


def _has_sound_labels(name: str) -> bool:
    return 0 < len(name) <= MAX_NAME and all(0 < len(label) <= MAX_LABEL for label in name.split("."))


def _mail_hosts(records: tuple[str, ...]) -> list[str]:
    """Hosts of "10 mx.example" records, lowest preference first; the null MX (RFC 7505) is none."""
    pairs = (record.partition(" ") for record in records)
    ranked = sorted((int(number) if number.isdecimal() else 0, host) for number, _, host in pairs)
    hosts = (host.strip().lower().removesuffix(".") for _, host in ranked)
    return list(dict.fromkeys(host for host in hosts if host and _has_sound_labels(host)))
