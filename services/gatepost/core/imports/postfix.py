"""Postfix's main.cf and its tables -> a Plan (postconf(5), access(5), transport(5), virtual(5))."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from gatepost.core.compile.policy import MAX_MESSAGE_SIZE, MIN_MESSAGE_SIZE
from gatepost.core.imports.aliases import read_aliases
from gatepost.core.imports.lists import add_postfix_list
from gatepost.core.imports.plan import Plan, domain_of
from gatepost.core.imports.postfix_access import import_access
from gatepost.core.imports.postfix_checks import add_check, add_client_limits
from gatepost.core.imports.postfix_clients import Clients
from gatepost.core.imports.postfix_main import TEXT_TABLES, MainCf
from gatepost.core.imports.postfix_routes import import_transport, next_hop
from gatepost.core.imports.postfix_values import add_rule
from gatepost.core.imports.postfix_virtual import import_virtual
from gatepost.core.imports.text_maps import pairs

MAIN: Final = "main.cf"
MAX_COUNT: Final = 1_000_000  # of every count in a policy
_CHECKS: Final = {
    "check_client_access": "Connect",
    "check_helo_access": "Helo",
    "check_sender_access": "From",
    "check_recipient_access": "To",
}
_LISTS: Final = (
    "smtpd_client_restrictions",
    "smtpd_helo_restrictions",
    "smtpd_sender_restrictions",
    "smtpd_relay_restrictions",
    "smtpd_recipient_restrictions",
)
# What these say is so here without being said.
_ALWAYS: Final = frozenset(
    {
        "permit_mynetworks",
        "permit_sasl_authenticated",
        "reject_unauth_destination",
        "defer_unauth_destination",
        "reject_unlisted_recipient",
        "reject_non_fqdn_recipient",
        "reject_non_fqdn_sender",
        "reject_unauth_pipelining",
        "permit",
    }
)
_NEUTRAL: Final = frozenset({"myorigin", "mydomain", "compatibility_level", "inet_interfaces", "inet_protocols"})


def import_postfix(files: Mapping[str, str]) -> Plan:
    """Translate main.cf with the tables that it names (by their last name). Raises KeyError without main.cf."""
    plan = Plan("postfix")
    main = MainCf(files[MAIN], files)
    for place in main.faults:
        plan.lost(place, "name = value is expected")
    plan.hostname = domain_of(main.get("myhostname")) or ""
    plan.separators = list(main.get("recipient_delimiter"))[:4]
    _local_domains(main, plan)
    relayed = _relay_domains(main, plan)
    clients = Clients()
    clients.add_mynetworks(main.words("mynetworks"), main.place("mynetworks"), plan)
    _each_table(main, "transport_maps", plan, lambda text, file: import_transport(text, file, relayed, plan))
    _smart_host(main, plan)
    _each_table(main, "virtual_alias_maps", plan, lambda text, file: import_virtual(text, file, plan))
    if plan.separators and main.parameters.get("virtual_alias_maps"):
        plan.differs(main.place("recipient_delimiter"), "an alias's target does not get the detail of its address")
    _each_table(main, "alias_maps", plan, lambda text, file: read_aliases(text, file, plan))
    main.used.add("alias_database")
    _each_table(main, "relocated_maps", plan, lambda text, file: _relocated(text, file, plan))
    for name in _LISTS:
        _restrictions(main, name, clients, plan)
    clients.write(plan)
    _each_table(main, "sender_canonical_maps", plan, _told(plan, "addresses of senders are not rewritten yet"))
    _each_table(main, "recipient_canonical_maps", plan, _told(plan, "addresses are not rewritten yet"))
    _each_table(main, "canonical_maps", plan, _told(plan, "addresses are not rewritten yet"))
    _each_table(main, "header_checks", plan, _told(plan, "write it as a rule for headers by hand"))
    _each_table(
        main, "smtpd_sender_login_maps", plan, _told(plan, "who may send as whom is in the directory (senderMatch)")
    )
    _limits(main, plan)
    for name, parameter in main.parameters.items():
        if name not in main.used and name not in _NEUTRAL:
            plan.lost(parameter.place, f"{name} has no counterpart that the import can write")
    return plan


def _told(plan: Plan, reason: str) -> Callable[[str, str], None]:
    """Tell each line of a table that has no counterpart."""

    def tell(text: str, file: str) -> None:
        for pair in pairs(text, file, continued=True):
            plan.lost(pair.place, reason)

    return tell


def _each_table(main: MainCf, name: str, plan: Plan, use: Callable[[str, str], None]) -> None:
    """Call `use` with text and file of each table that a parameter names."""
    for word in main.words(name):
        table = main.table(word)
        if table is None:
            plan.lost(
                main.place(name), f"{word}: the file was not found beside main.cf, or it is no table in text form"
            )
        elif table[0] not in TEXT_TABLES and table[0] not in ("regexp", "pcre"):
            plan.lost(main.place(name), f"{word}: tables of type {table[0]} are not read")
        else:
            use(table[2], table[1])


def _names(main: MainCf, name: str, plan: Plan) -> list[str]:
    """The domains of a list, whose words may be tables (only their keys count)."""
    found: list[str] = []
    for word in main.words(name):
        table = main.table(word)
        rows = [(pair.key, pair.place) for pair in pairs(table[2], table[1], continued=True)] if table else None
        for text, place in rows if rows is not None else [(word, main.place(name))]:
            domain = domain_of(text)
            if domain is None:
                plan.lost(place, f"{text}: only the names of domains, and not those below them, can be listed")
            elif domain not in found:
                found.append(domain)
    return found


def _local_domains(main: MainCf, plan: Plan) -> None:
    """mydestination is one set of users under many names; each virtual domain is a domain of its own."""
    names = [name for name in _names(main, "mydestination", plan) if name != "localhost"]
    virtual = _names(main, "virtual_mailbox_domains", plan) + _names(main, "virtual_alias_domains", plan)
    origin = domain_of(main.get("myorigin", "$myhostname")) or ""
    plan.primary = origin if origin in names else (names or virtual or [origin])[0]
    plan.origin = origin
    if names:
        plan.domain(plan.primary).alias_domains = [name for name in names if name != plan.primary]
    for name in virtual:
        if plan.serves(name) is None:
            plan.domain(name)
    main.used |= {"virtual_mailbox_domains", "virtual_alias_domains"}


def _relay_domains(main: MainCf, plan: Plan) -> set[str]:
    domains = {name for name in _names(main, "relay_domains", plan) if plan.serves(name) is None}
    plan.access += [f"To:{name}\tRELAY" for name in sorted(domains)]
    return domains


def _smart_host(main: MainCf, plan: Plan) -> None:
    text = main.get("relayhost")
    host = next_hop(text) if text else None
    if text and host is None:
        plan.lost(main.place("relayhost"), f"{text!r} is no next hop")
    elif host is not None:
        plan.smart_hosts = [host]
        plan.differs(
            main.place("relayhost"), "becomes outbound.smartHost of the domains served here: for their senders"
        )


def _relocated(text: str, file: str, plan: Plan) -> None:
    """relocated(5): who moved away is refused with the new address."""
    for pair in pairs(text, file, continued=True):
        if not pair.value:
            plan.lost(pair.place, "the new address is missing")
            continue
        add_rule(plan.access, f"To:{pair.key}", f"ERROR:5.1.6:550 User has moved to {pair.value}", pair.place, plan)


def _restrictions(main: MainCf, name: str, clients: Clients, plan: Plan) -> None:
    parents = "smtpd_access_maps" in main.words("parent_domain_matches_subdomains", "smtpd_access_maps")
    for word, argument in main.restrictions(name):
        if word in _ALWAYS:
            continue
        tag = _CHECKS.get(word)
        table = main.table(argument) if argument else None
        if tag is None:
            if add_check(word, main.place(name), plan) or add_postfix_list(word, argument, main.place(name), plan):
                continue
            plan.lost(
                main.place(name), f"{f'{word} {argument}'.strip()} has no counterpart that the import can write"
            )
        elif table is None:
            plan.lost(main.place(name), f"{argument}: the file was not found beside main.cf")
        elif table[0] == "cidr":
            clients.add_cidr(table[2], table[1], tag, plan)
        elif table[0] in TEXT_TABLES:
            import_access(table[2], table[1], tag, clients, plan, parents=parents)
        else:
            for pair in pairs(table[2], table[1], continued=True):
                plan.lost(pair.place, f"tables of type {table[0]} are not read")


def _limits(main: MainCf, plan: Plan) -> None:
    add_client_limits(main, plan)
    size = main.get("message_size_limit")
    if size.isdecimal() and MIN_MESSAGE_SIZE <= int(size) <= MAX_MESSAGE_SIZE:
        plan.set("smtp.limits.messageSize", size)
    elif size:
        plan.lost(
            main.place("message_size_limit"), "the size of a message is limited to 64Ki at least, 150Mi at most"
        )
    _count(main, "smtpd_recipient_limit", "recipients.max", plan)
    _count(main, "smtpd_hard_error_limit", "recipients.errorsBeforeDisconnect", plan)
    _count(main, "smtpd_junk_command_limit", "smtp.limits.junkCommands", plan)
    _count(main, "smtpd_client_connection_count_limit", "connection.perHost.concurrent", plan)
    _count(main, "hopcount_limit", "smtp.limits.received", plan)
    level = main.get("smtpd_tls_security_level")
    if level:
        plan.set("tls.mode", {"none": "Disabled", "encrypt": "Require"}.get(level, "Opportunistic"))
    newline = main.get("smtpd_forbid_bare_newline").lower()
    if newline in ("normalize", "yes"):
        plan.set("smtp.bareNewline", "Normalize")
    elif newline == "reject":
        plan.set("smtp.bareNewline", "Reject")
    elif newline:
        plan.lost(
            main.place("smtpd_forbid_bare_newline"), "bare newlines are refused or normalised, never let through"
        )


def _count(main: MainCf, name: str, path: str, plan: Plan) -> None:
    value = main.get(name)
    if value.isdecimal() and 1 <= int(value) <= MAX_COUNT:
        plan.set(path, int(value))
    elif value:
        plan.lost(main.place(name), f"{value} is no limit that can be written (1 to {MAX_COUNT})")
