"""sendmail's sources -> a Plan (cf/README of sendmail for what each file means)."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Final

from gatepost.core.access.entry import AccessEntry, AccessError, Tag
from gatepost.core.access.keys import client_networks
from gatepost.core.access.source import read_line
from gatepost.core.access.table import AccessChain, AccessTable
from gatepost.core.hosts import HostError, parse_host
from gatepost.core.imports.aliases import read_aliases
from gatepost.core.imports.plan import Place, Plan, domain_of
from gatepost.core.imports.sendmail_mc import Mc, read_mc
from gatepost.core.imports.text_maps import Pair, logical_lines, pairs
from gatepost.core.manifest.actions import Action

FILES: Final = (
    "sendmail.mc",
    "local-host-names",
    "relay-domains",
    "access",
    "mailertable",
    "virtusertable",
    "domaintable",
    "genericstable",
    "aliases",
)
_RELAYING: Final = frozenset({"smtp", "esmtp", "relay", "smtp8", "dsmtp"})
_ERROR_WORDS: Final = {  # error: of mailertable and virtusertable (sysexits names)
    "nouser": "5.1.1:550",
    "nohost": "5.1.2:550",
    "unavailable": "4.7.0:450",
    "tempfail": "4.7.0:450",
    "protocol": "5.5.0:550",
    "usage": "5.5.0:550",
    "config": "5.3.5:550",
}


def import_sendmail(files: Mapping[str, str]) -> Plan:
    """Translate the files that are there (name of FILES -> text)."""
    plan = Plan("sendmail")
    mc = read_mc(files.get("sendmail.mc", ""), plan)
    _local_names(files.get("local-host-names", ""), mc, plan)
    routes = _mailertable(files.get("mailertable", ""), plan)
    relayed = _relay_domains(files.get("relay-domains", ""), plan)
    relayed |= _access(files.get("access", ""), mc, plan)
    _routes(routes, relayed, plan)
    _virtusertable(files.get("virtusertable", ""), plan)
    _domaintable(files.get("domaintable", ""), plan)
    if files.get("aliases"):
        read_aliases(files["aliases"], "aliases", plan)
    for pair in pairs(files.get("genericstable", ""), "genericstable", continued=False):
        plan.lost(pair.place, "addresses of senders are not rewritten yet")
    return plan


def _local_names(text: str, mc: Mc, plan: Plan) -> None:
    """Class w: mail for all of these names is for the same local users, so they are one domain with aliases."""
    names = []
    for line, place in logical_lines(text, "local-host-names", continued=False):
        name = domain_of(line)
        if name is None:
            plan.lost(place, "this is no domain name")
        elif name not in names:
            names.append(name)
    if not names:
        plan.primary = mc.masquerade
        return
    plan.primary = (
        mc.masquerade if mc.masquerade in names else min(names, key=lambda name: (name.count("."), len(name)))
    )
    plan.domain(plan.primary).alias_domains = [name for name in names if name != plan.primary]


def _split_alias(plan: Plan, name: str) -> None:
    """Give an alias domain an object of its own: it has rules of its own."""
    primary = plan.domains.get(plan.primary)
    if primary is not None and name in primary.alias_domains:
        primary.alias_domains.remove(name)
    plan.domain(name)


def _relay_domains(text: str, plan: Plan) -> set[str]:
    """Class R: relayed to, and from. Returns the domains."""
    domains = set()
    for line, place in logical_lines(text, "relay-domains", continued=False):
        try:
            networks = client_networks(line)
        except AccessError as error:
            plan.lost(place, str(error))
            continue
        if networks:
            plan.access.append(f"Connect:{line}\tRELAY")
            continue
        name = domain_of(line)
        if name is None:
            plan.lost(place, "this is no domain name and no network")
            continue
        domains.add(name)
        plan.access += [f"Connect:{name}\tRELAY", f"To:{name}\tRELAY"]
    return domains


def _access(text: str, mc: Mc, plan: Plan) -> set[str]:
    """Keep the table as it is, but for what is no access rule here. Returns the domains that may be relayed to."""
    kept: list[str] = []
    relayed: set[str] = set()
    for number, raw in enumerate(text.removesuffix("\n").split("\n"), 1):
        line = raw.rstrip()
        if not line or line.lstrip().startswith("#"):
            kept.append(line)
            continue
        place = Place("access", number, line)
        try:
            entry = read_line(line)
            AccessTable([(entry, "")])
        except AccessError as error:
            plan.lost(place, str(error).removeprefix(": "))
            continue
        kept += _access_lines(line, entry, place, mc, plan)
        if entry.tag in (Tag.TO, Tag.ANY) and entry.action is Action.RELAY and domain_of(entry.key):
            relayed.add(entry.key.lower())
    if any(line and not line.startswith("#") for line in kept):
        plan.tables["sendmail"] = kept
    return relayed


def _access_lines(line: str, entry: AccessEntry, place: Place, mc: Mc, plan: Plan) -> list[str]:
    value = re.split(r"[ \t]+", line, maxsplit=1)[1]
    if entry.action in (Action.ACCEPT, None) and entry.tag is Tag.CONNECT and _relays(entry.key, plan):
        plan.differs(place, "relay-domains has this client as well: it became RELAY")
        return [f"Connect:{entry.key}\tRELAY"]
    if entry.tag is Tag.ANY and mc.given and not mc.recipients_in_access and not _is_network(entry.key):
        plan.differs(place, "without blocklist_recipients the key is not for recipients: it became two lines")
        tags = ["From"] if "@" in entry.key or entry.key == "<>" else ["Connect", "From"]
        return [
            f"{tag}:{entry.key}\t{value}" for tag in tags if not (tag == "From" and entry.action is Action.RELAY)
        ]
    return [line]


def _relays(key: str, plan: Plan) -> bool:
    """Whether relay-domains (read before) lets a client relay that a key of `access` names."""
    table = AccessChain([AccessTable((read_line(line), "") for line in plan.access if line.startswith("Connect:"))])
    networks = client_networks(key)
    if not networks:
        found = table.client("::", (key.removeprefix("."),))
    else:
        version, length, bits = networks[0]
        kind = ipaddress.IPv4Address if version == 4 else ipaddress.IPv6Address
        found = table.client(str(kind(bits << ((32 if version == 4 else 128) - length))), ())
    return found is not None and found.action is Action.RELAY


def _is_network(key: str) -> bool:
    try:
        return bool(client_networks(key))
    except AccessError:
        return False


Routes = dict[str, tuple[list[str], Place]]


def _mailertable(text: str, plan: Plan) -> Routes:
    """Read the static routes: domain (with its leading dot) -> hosts. Errors become access rules at once."""
    routes: Routes = {}
    for pair in pairs(text, "mailertable", continued=False):
        mailer, _, target = pair.value.partition(":")
        if mailer == "error":
            _error_rule(f"To:{pair.key}", target, pair.place, plan)
        elif mailer not in _RELAYING:
            plan.lost(
                pair.place, f"the mailer {mailer!r} has no counterpart: {_MAILERS.get(mailer, 'write it by hand')}"
            )
        else:
            hosts = _hosts(target)
            if hosts is None:
                plan.lost(pair.place, f"{target!r} is no next hop")
            elif pair.key == ".":
                plan.smart_hosts = hosts
                plan.differs(pair.place, "becomes outbound.smartHost of the domains served here: for their senders")
            else:
                routes[pair.key.lower()] = (hosts, pair.place)
    return routes


_MAILERS: Final = {
    "lmtp": "an LMTP server is a store of gatepost.yaml (stores.NAME.lmtp)",
    "local": "deliver one mailbox for a whole domain by recipients.unknownDeliverTo",
}


def _hosts(target: str) -> list[str] | None:
    """The hosts of "[a]:port", "a:b" or "[a]:[b]" (tried in order) as next hops; None when one is none."""
    parts = re.findall(r"\[[^\]]*\](?::[0-9]+)?|[^:]+", target)
    hosts = []
    for part in parts:
        text = part
        try:
            ipaddress.ip_address(text)
            text = f"[{text}]"
        except ValueError:
            pass
        try:
            parse_host(text)
        except HostError:
            return None
        hosts.append(text)
    return hosts or None


def _routes(routes: Routes, relayed: set[str], plan: Plan) -> None:
    """A route for a domain that we take mail for is its delivery; others are routes for foreign domains."""
    for name, (hosts, place) in routes.items():
        if name.startswith("."):
            continue
        if name in relayed:
            one = plan.domain(name)
            one.hosts, one.any_recipient = hosts, True
        elif plan.serves(name) is not None:
            _split_alias(plan, name)
            plan.domain(name).hosts = hosts
        else:
            plan.lost(place, "a route for a domain that is not served here: mail to it goes by MX")
    for name, (hosts, place) in routes.items():
        if name.startswith("."):
            parent = plan.domains.get(name[1:])
            if parent is not None and parent.hosts == hosts:
                parent.subdomains = True
            else:
                plan.lost(
                    place,
                    "a domain and the names below it go to the same hosts (subdomains: true) or are objects each",
                )


def _virtusertable(text: str, plan: Plan) -> None:
    rows = list(pairs(text, "virtusertable", continued=False))
    for pair in rows:
        local, at, name = pair.key.rpartition("@")
        domain = domain_of(name) if at else None
        if domain is None:
            plan.lost(pair.place, "the key is no address and no @domain")
        elif pair.value.startswith("error:"):
            _error_rule(f"To:{pair.key if local else domain}", pair.value[6:], pair.place, plan)
        elif not local:
            _whole_domain(pair, domain, rows, plan)
        else:
            _one_address(pair, local, domain, plan)


def _one_address(pair: Pair, local: str, domain: str, plan: Plan) -> None:
    if "%" in pair.value or "*" in local:
        plan.lost(pair.place, "an alias has no pattern: a detail behind + is cut off, and the target is fixed")
        return
    target = plan.full(pair.value)
    if target is None:
        plan.lost(pair.place, f"{pair.value!r} is no address")
        return
    _split_alias(plan, domain)
    plan.domain(domain).aliases[local.lower()] = [target]


def _whole_domain(pair: Pair, domain: str, rows: list[Pair], plan: Plan) -> None:
    """@domain: another domain with the same local parts, or one address for all that are unknown."""
    user, at, name = pair.value.rpartition("@")
    if "%" in pair.value:
        other = plan.serves(domain_of(name) or "") if at and user in ("%1", "%1%3") else None
        own = [row for row in rows if row.key.lower().endswith(f"@{domain}") and not row.key.startswith("@")]
        kept = [row for row in own if not row.value.startswith("error:")]
        if other is None or kept or domain == other.domain or user == "%1":
            plan.lost(
                pair.place,
                "local parts are kept (with their detail) by aliasDomains of a served domain; this domain has "
                "addresses of its own, or drops the detail, or goes to a domain that is not served",
            )
            return
        _split_alias(plan, domain)
        del plan.domains[domain]
        other.alias_domains.append(domain)
        return
    target = plan.full(pair.value)
    if target is None:
        plan.lost(pair.place, f"{pair.value!r} is no address")
        return
    _split_alias(plan, domain)
    plan.domain(domain).unknown_to = target


def _domaintable(text: str, plan: Plan) -> None:
    for pair in pairs(text, "domaintable", continued=False):
        old, new = domain_of(pair.key), plan.serves(domain_of(pair.value) or "")
        if old is None or new is None or old in plan.domains:
            plan.lost(pair.place, "only a name for a domain that is served here can be an alias domain")
        elif old not in new.alias_domains:
            new.alias_domains.append(old)


def _error_rule(key: str, text: str, place: Place, plan: Plan) -> None:
    """`error:...` of mailertable and virtusertable as an access rule: refused at RCPT, as sendmail does."""
    word, _, rest = text.partition(" ")
    if word.lower() in _ERROR_WORDS:
        code = _ERROR_WORDS[word.lower()]
        rest = re.sub(r"^[45][0-9]{2}\s+", "", rest)
        text = f"{code} {rest}"
    line = f"{key}\tERROR:{text}"
    try:
        AccessTable([(read_line(line), "")])
    except AccessError as error:
        plan.lost(place, str(error).removeprefix(": "))
        return
    plan.access.append(line)
