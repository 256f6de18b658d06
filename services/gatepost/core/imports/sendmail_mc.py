"""sendmail.mc: the m4 macros whose meaning exists here; every other one is told."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from gatepost.core.compile.policy import MAX_MESSAGE_SIZE, MIN_MESSAGE_SIZE
from gatepost.core.hosts import HostError, parse_host
from gatepost.core.imports.lists import add_sendmail_list
from gatepost.core.imports.plan import Place, Plan, domain_of
from gatepost.core.manifest.read import ManifestError

_CALL = re.compile(r"([A-Za-z_]+)\((.*?)\)\s*(?:dnl.*)?$")
_NEUTRAL: Final = frozenset({"VERSIONID", "OSTYPE", "divert", "include", "DOMAIN", "undefine"})
_NEUTRAL_FEATURES: Final = frozenset(
    {
        "use_cw_file",
        "mailertable",
        "virtusertable",
        "domaintable",
        "genericstable",
        "access_db",
        "always_add_domain",
    }
)
_NEUTRAL_FEATURES_ALSO: Final = frozenset({"delay_checks", "nocanonify", "nouucp", "no_default_msa", "msp"})


@dataclass
class Mc:
    """What the other files need to know. `given`: there was an mc file at all."""

    given: bool = False
    masquerade: str = ""
    recipients_in_access: bool = False


def read_mc(text: str, plan: Plan) -> Mc:
    """Read the file into the plan; without one everything is as the other files say."""
    mc = Mc(given=bool(text.strip()))
    for number, raw in enumerate(text.split("\n"), 1):
        line = re.sub(r"^dnl\b.*|\bdnl\s.*$|\bdnl$", "", raw.strip()).strip()
        if not line or line.startswith("#"):
            continue
        place = Place("sendmail.mc", number, raw.strip())
        found = _CALL.match(line)
        if found is None:
            plan.lost(place, "not a macro that is known here")
            continue
        _macro(found[1], [_bare(part) for part in found[2].split(",")], place, mc, plan)
    return mc


def _bare(text: str) -> str:
    return text.strip().strip("`'\"").strip()


def _macro(name: str, arguments: list[str], place: Place, mc: Mc, plan: Plan) -> None:
    value = arguments[1] if len(arguments) > 1 else ""
    match name:
        case "FEATURE":
            _feature(arguments, place, mc, plan)
        case "define":
            _define(arguments[0], value, place, plan)
        case "MASQUERADE_AS":
            mc.masquerade = domain_of(arguments[0]) or ""
            plan.lost(place, "senders are not rewritten yet; the name was taken as the main domain")
        case "MAILER":
            if arguments[0] not in ("smtp", "local", "procmail"):
                plan.lost(place, f"the mailer {arguments[0]!r} has no counterpart")
        case _ if name not in _NEUTRAL:
            plan.lost(place, f"{name} has no counterpart")


def _feature(arguments: list[str], place: Place, mc: Mc, plan: Plan) -> None:
    name = arguments[0]
    if name in ("dnsbl", "enhdnsbl"):
        add_sendmail_list(arguments, place, plan)
    elif name in ("blocklist_recipients", "blacklist_recipients"):
        mc.recipients_in_access = True
    elif name in ("relay_mail_from", "promiscuous_relay", "relay_local_from"):
        plan.lost(place, "nobody relays by the sender's address, or without any right")
    elif name not in _NEUTRAL_FEATURES | _NEUTRAL_FEATURES_ALSO:
        plan.lost(place, f"the feature {name} has no counterpart that the import can write")


def _define(name: str, value: str, place: Place, plan: Plan) -> None:
    match name:
        case "confDOMAIN_NAME" if domain_of(value):
            plan.hostname = domain_of(value) or ""
        case "SMART_HOST":
            host = value.split(":", 1)[1] if value.startswith(("smtp:", "esmtp:", "relay:")) else value
            try:
                parse_host(host)
            except (HostError, ManifestError) as error:
                plan.lost(place, str(error))
                return
            plan.smart_hosts = [host]
            plan.differs(place, "becomes outbound.smartHost of the domains served here: for their senders")
        case "confMAX_MESSAGE_SIZE" if value.isdecimal() and MIN_MESSAGE_SIZE <= int(value) <= MAX_MESSAGE_SIZE:
            plan.set("smtp.limits.messageSize", value)
        case "confMAX_RCPTS_PER_MESSAGE" if value.isdecimal() and 1 <= int(value) <= 1_000_000:
            plan.set("recipients.max", int(value))
        case "confMAX_HOP" if value.isdecimal() and 1 <= int(value) <= 1_000_000:
            plan.set("smtp.limits.received", int(value))
        case _:
            plan.lost(place, f"{name} has no counterpart that the import can write")
