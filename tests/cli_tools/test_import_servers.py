"""Other servers' configuration: what is written answers as they did, and every line is translated or told."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from gatepost.backends.access_file import read_access_file
from gatepost.backends.config_dir import compile_directory
from gatepost.cli.main import main
from gatepost.core.access.table import AccessChain, AccessRule
from gatepost.core.address import Address, parse_address
from gatepost.core.compile import Surroundings, compile_manifests
from gatepost.core.imports.plan import Fate
from gatepost.core.imports.postfix import import_postfix
from gatepost.core.imports.sendmail import import_sendmail
from gatepost.core.imports.writing import write_plan
from gatepost.core.manifest.actions import Action
from gatepost.core.manifest.documents import read_objects
from gatepost.core.manifest.settings import Role
from gatepost.core.recipients import candidates
from gatepost.core.tables import Tables

DATA = Path(__file__).parent.parent / "data/sendmail-postfix"
EXPECTED = yaml.safe_load((DATA / "expected.yml").read_text("utf-8"))
AROUND = Surroundings({"mx": Role.MX}, ("users",), ("local",), any_namespace=True)


class Imported:
    """A written directory, compiled, with its access tables."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tables = Tables(compile_directory(folder, AROUND).configuration)
        self.notes = (folder / "NOT-TRANSLATED.txt").read_text("utf-8")
        access = self.tables.listeners["mx"].policy.access
        assert access is not None
        assert access.clients_may_relay
        self.access = AccessChain([read_access_file(folder / table.file) for table in access.tables])

    def told(self, place: str) -> bool:
        """Whether a line is told of, as file:line or by its text."""
        return place in self.notes

    def alias(self, text: str) -> list[str] | None:
        """Where an address goes on to, by aliases."""
        home = self.tables.home(parse_address(text))
        if home is None:
            return None
        for candidate in candidates(*home):
            if candidate.local.lower() in home[0].aliases:
                return list(home[0].aliases[candidate.local.lower()])
        return None


@pytest.fixture(scope="module")
def sendmail(tmp_path_factory: pytest.TempPathFactory) -> Imported:
    folder = tmp_path_factory.mktemp("sendmail") / "to"
    assert main(["import", "sendmail", str(DATA / "sendmail"), "--to", str(folder)]) == 0
    return Imported(folder)


@pytest.fixture(scope="module")
def postfix(tmp_path_factory: pytest.TempPathFactory) -> Imported:
    """With the answers of expected.yml: parent_domain_matches_subdomains empty, and nothing in mynetworks."""
    source = tmp_path_factory.mktemp("postfix")
    shutil.copytree(DATA / "postfix", source, dirs_exist_ok=True)
    fragment = (source / "main.cf.fragment").read_text("utf-8")
    (source / "main.cf").write_text(f"{fragment}\nmynetworks =\nparent_domain_matches_subdomains =\n", "utf-8")
    (source / "main.cf.fragment").unlink()
    folder = source / "to"
    assert main(["import", "postfix", str(source), "--to", str(folder)]) == 0
    return Imported(folder)


def found(one: Imported, kind: str, value: str) -> AccessRule | None:
    if kind == "from":
        return one.access.sender(parse_address(value) if value else None)
    if kind == "to":
        return one.access.recipient(parse_address(value))
    address = value.removeprefix("IPv6:")
    is_address = address.replace(".", "").isdigit() or ":" in address
    return one.access.client(address if is_address else "192.0.2.9", () if is_address else (value,))


@pytest.mark.parametrize(("kind", "value", "wanted"), EXPECTED["sendmail_access"])
def test_sendmail_access(sendmail: Imported, kind: str, value: str, wanted: str | None) -> None:
    rule = found(sendmail, kind, value)
    action = None if rule is None else rule.action
    match (wanted or "").split(":")[0].split(" ")[0]:
        case "":
            assert action is None
        case "OK" | "RELAY" | "REJECT" | "DISCARD" as word:
            assert action == {"OK": Action.ACCEPT}.get(word) or action is Action(word.title())
        case _:
            assert rule is not None
            code = f"{rule.code} {rule.text}"
            assert wanted in (f"ERROR:{rule.enhanced}:{code}", code)


@pytest.mark.parametrize(("name", "wanted"), EXPECTED["sendmail_mailertable"])
def test_sendmail_mailertable(sendmail: Imported, name: str, wanted: str) -> None:
    config = sendmail.tables.domain(name)
    if config is None or not config.delivery.hosts:
        parents = [f".{name.split('.', n)[n]}" for n in range(1, name.count(".") + 1)]
        table = (DATA / "sendmail/mailertable").read_text("utf-8")
        key = next((key for key in (name, *parents) if f"\n{key}\t" in table), ".")
        assert wanted == "esmtp:[smarthost.example.net]" or sendmail.told(f"    {key}\t")
        assert all(
            domain.smart_hosts == ("[smarthost.example.net]",) for domain in sendmail.tables.configuration.domains
        )
        return
    hosts = wanted.partition(":")[2]
    assert hosts in (":".join(config.delivery.hosts), *config.delivery.hosts)


@pytest.mark.parametrize(("address", "wanted"), EXPECTED["sendmail_virtusertable"])
def test_sendmail_virtusertable(sendmail: Imported, address: str, wanted: str | None) -> None:
    local, _, domain = address.partition("@")
    aliases, config = sendmail.alias(address), sendmail.tables.domain(domain)
    rule = sendmail.access.recipient(parse_address(address))
    if wanted is None:
        assert aliases is None
    elif wanted.startswith("error:"):
        assert rule is not None
        assert (rule.enhanced, f"{rule.code} {rule.text}") == (
            wanted.split(":")[1],
            wanted.split(":", 2)[2],
        )
    elif "+" in local and domain == "example.test":
        assert sendmail.told("+*@example.test")  # patterns with a detail have no counterpart
    elif domain == "example.jp":
        assert sendmail.told("@example.jp\t\t\t%1@")
    elif domain == "shop.example.test":
        home = sendmail.tables.home(parse_address(address))
        assert home is not None
        assert str(home[1]) == wanted
    elif domain == "all.example.test":
        assert config is not None
        assert config.unknown_deliver_to == f"{wanted}@example.test"
    else:
        assert aliases == [wanted if "@" in wanted else f"{wanted}@example.test"]


def test_sendmail_genericstable_is_told_line_by_line(sendmail: Imported) -> None:
    lines = [line for line in (DATA / "sendmail/genericstable").read_text().splitlines() if line[0] != "#"]
    assert all(sendmail.told(f"    {line}\n") for line in lines)


@pytest.mark.parametrize(("value", "wanted"), EXPECTED["postfix_client_cidr"])
def test_postfix_client_cidr(postfix: Imported, value: str, wanted: str) -> None:
    assert same(found(postfix, "connect", value), wanted)


@pytest.mark.parametrize(("value", "wanted"), EXPECTED["postfix_sender_access"])
def test_postfix_sender_access(postfix: Imported, value: str, wanted: str) -> None:
    if wanted.startswith("PREPEND"):
        assert found(postfix, "from", value) is None
        assert postfix.told("bulk.example\t")
        return
    assert same(found(postfix, "from", value), wanted)


def same(rule: AccessRule | None, wanted: str) -> bool:
    """Whether a rule does what Postfix's action does."""
    word, _, text = wanted.partition(" ")
    action = None if rule is None else rule.action
    said = "" if rule is None else f"{rule.code} {rule.enhanced} {rule.text}"
    match word:
        case "OK":
            return action is Action.ACCEPT
        case "DUNNO":
            return action is None
        case "DISCARD":
            return action is Action.DISCARD
        case "REJECT":
            return action is Action.REJECT and said.endswith(text)
        case "DEFER_IF_PERMIT":
            return action is Action.DEFER and said == f"450 {text}"
        case _:
            return action is (Action.REJECT if word[0] == "5" else Action.DEFER) and said == wanted


@pytest.mark.parametrize(("address", "wanted"), EXPECTED["postfix_transport"])
def test_postfix_transport(postfix: Imported, address: str, wanted: str) -> None:
    parsed = parse_address(address)
    config, rule = postfix.tables.domain(parsed.domain), postfix.access.recipient(parsed)
    key = next(
        key
        for key in (
            address,
            address.replace("+x", ""),
            parsed.domain,
            f".{parsed.domain.split('.', 1)[1]}",
            f".{'.'.join(parsed.domain.split('.')[2:])}",
            "*",
        )
        if f"\n{key}\t" in (DATA / "postfix/transport").read_text("utf-8")
    )
    if wanted == ":":
        assert config is not None
        assert config.delivery.kind == "Mailbox"
    elif wanted.startswith("error:"):
        assert rule is not None
        assert f"error:{rule.enhanced} {rule.text}" == wanted
    elif config is not None and "@" not in key and not key.startswith("."):
        assert wanted.split(":", 1)[1] in config.delivery.hosts
    elif key == "*":
        assert all("[smarthost.example.net]:587" in one.smart_hosts for one in postfix.tables.configuration.domains)
    else:
        assert postfix.told(f"    {key}\t")


@pytest.mark.parametrize(("address", "wanted"), EXPECTED["postfix_virtual"])
def test_postfix_virtual(postfix: Imported, address: str, wanted: Any) -> None:
    aliases = postfix.alias(address)
    if address == "jane+other@example.test":
        assert aliases == ["jane.doe@corp.example.test"]  # without the detail, which is told
        assert postfix.told("an alias's target does not get the detail")
    elif address.endswith("@shop.example.test"):
        home = postfix.tables.home(parse_address(address))
        assert home == (postfix.tables.domain("example.test"), Address("bob", "example.test"))
    elif address.endswith("@all.example.test"):
        config = postfix.tables.domain("all.example.test")
        assert config is not None
        assert [config.unknown_deliver_to] == wanted
    elif wanted == "loop":
        assert aliases == ["loop-b@example.test"]
    else:
        assert aliases == wanted


@pytest.mark.parametrize("table", ["header_checks", "sender_login_maps"])
def test_postfix_tables_without_a_counterpart_are_told(postfix: Imported, table: str) -> None:
    lines = [
        line for line in (DATA / f"postfix/{table}").read_text().splitlines() if line.strip() and line[0] != "#"
    ]
    assert all(postfix.told(f"    {line.strip()}\n") for line in lines)


@pytest.mark.parametrize("which", ["sendmail", "postfix"])
def test_check_passes_on_what_was_written(
    which: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    one: Imported = request.getfixturevalue(which)
    assert main(["check", str(one.folder)]) == 0
    assert "0 refused" in capsys.readouterr().out


def test_mynetworks_and_the_client_table_are_one() -> None:
    """In Postfix the right to relay and the refusal of clients are asked apart; joined, both answers stay."""
    plan = import_postfix(
        {
            "main.cf": "mynetworks = 10.0.0.0/8, !10.9.0.0/16, 192.0.2.0/24\n"
            "smtpd_client_restrictions = check_client_access cidr:/etc/postfix/c\n",
            "c": "10.5.0.0/16 REJECT\n10.6.0.0/16 OK\n192.0.0.0/16 DUNNO\n0.0.0.0/0 450 later\n",
        }
    )
    assert sorted(plan.tables["postfix"]) == [
        "Connect:0.0.0.0/0\tERROR:4.7.1:450 later",
        "Connect:10.0.0.0/8\tERROR:4.7.1:450 later",
        "Connect:10.5.0.0/16\tREJECT",
        "Connect:10.6.0.0/16\tRELAY",
        "Connect:192.0.0.0/16\tSKIP",
        "Connect:192.0.2.0/24\tRELAY",
    ]
    assert ["!10.9.0.0/16 has no effect" in note.reason for note in plan.notes] == [True]


def test_first_match_wins_is_kept() -> None:
    plan = import_postfix(
        {
            "main.cf": "smtpd_client_restrictions = check_client_access cidr:/x/c\n",
            "c": "10.1.0.0/16 OK\n10.1.2.0/24 REJECT\n10.0.0.0/8 REJECT\n!192.0.2.0/24 DISCARD\n",
        }
    )
    lines = plan.tables["postfix"]
    assert "Connect:10.1.0.0/16\tOK" in lines
    assert "Connect:10.0.0.0/8\tREJECT" in lines
    assert not any("10.1.2.0/24" in line for line in lines)  # it never matched
    assert "Connect:192.0.3.0/24\tDISCARD" in lines
    assert not any("192.0.2.0/24" in line for line in lines)


def test_a_client_of_relay_domains_keeps_its_right() -> None:
    plan = import_sendmail({"relay-domains": "10.20\n", "access": "Connect:10.20.5\tOK\nConnect:10.21\tOK\n"})
    assert plan.tables["sendmail"] == ["Connect:10.20.5\tRELAY", "Connect:10.21\tOK"]
    assert [note.place.line for note in plan.notes] == [1]


def test_sendmail_mc_and_aliases() -> None:
    plan = import_sendmail(
        {
            "sendmail.mc": "divert(-1)dnl\nVERSIONID(`x')dnl\nOSTYPE(`linux')\n"
            "define(`confDOMAIN_NAME', `gw.example.jp')dnl\n"
            "define(`confMAX_MESSAGE_SIZE', `5000000')\nFEATURE(`access_db')\nFEATURE(`nocanonify')\n"
            "MASQUERADE_AS(example.jp)\nEXPOSED_USER(`root postmaster')\nFEATURE(`relay_mail_from')\n"
            "define(`SMART_HOST', `smtp:[192.168.0.3]')\nFEATURE(`enhdnsbl', `dnsbl.example.com')\n"
            "dnl FEATURE(`old')\nMAILER(`smtp')\nMAILER(`uucp')\n",
            "local-host-names": "example.jp\ngw.example.jp\n",
            "access": "spam.example REJECT\na@b.example REJECT\n10.1 RELAY\n",
            "aliases": 'postmaster: root\nroot: taro, hanako@example.org\nprog: "|/usr/bin/prog"\n'
            "list: :include:/x\n"
            "bad line\nboth: taro, |x\n",
        }
    )
    assert (plan.hostname, plan.primary) == ("gw.example.jp", "example.jp")
    assert plan.policy == {
        "smtp": {"limits": {"messageSize": "5000000"}},
        "dnsbl": {"lists": [{"zone": "dnsbl.example.com"}]},
    }
    assert plan.smart_hosts == ["[192.168.0.3]"]
    assert plan.domains["example.jp"].alias_domains == ["gw.example.jp"]
    assert plan.domains["example.jp"].aliases == {
        "postmaster": ["root@example.jp"],
        "root": ["taro@example.jp", "hanako@example.org"],
        "both": ["taro@example.jp"],
    }
    # Without blocklist_recipients a key without a tag says nothing of recipients.
    assert plan.tables["sendmail"] == [
        "Connect:spam.example\tREJECT",
        "From:spam.example\tREJECT",
        "From:a@b.example\tREJECT",
        "10.1 RELAY",
    ]
    told = {(note.place.file, note.place.line) for note in plan.notes}
    assert {("sendmail.mc", n) for n in (8, 9, 10, 11, 15)} <= told
    assert {("aliases", n) for n in (3, 4, 5, 6)} <= told


def test_the_lists_of_sendmail() -> None:
    plan = import_sendmail(
        {
            "sendmail.mc": "FEATURE(`dnsbl', `zen.example', `\"550 listed\"')dnl\n"
            "FEATURE(`enhdnsbl', `codes.example', `', `t', `127.0.0.2.', `127.0.0.3.')dnl\n"
            "FEATURE(`dnsbl', `zen.example')\nFEATURE(`dnsbl', `not a zone')\n",
            "local-host-names": "example.jp\n",
        }
    )
    assert plan.policy["dnsbl"] == {
        "lists": [
            {"zone": "zen.example"},
            {"zone": "codes.example", "codes": ["127.0.0.2", "127.0.0.3"], "onError": "Tempfail"},
        ]
    }
    assert {note.place.line for note in plan.notes} == {1, 4}


def test_the_lists_and_checks_of_postfix() -> None:
    restrictions = (
        "permit_mynetworks, reject_unauth_destination, permit_dnswl_client good.example, "
        "reject_rbl_client zen.example=127.0.0.[2..11], reject_rbl_client other.example=127.0.0.2;127.0.0.3, "
        "reject_rhsbl_sender dbl.example, reject_rhsbl_helo dbl.example, "
        "reject_rbl_client bad.example=127.0.0.[4;5], "
        "reject_unknown_sender_domain, reject_unlisted_sender, reject_unknown_client_hostname, "
        "reject_unknown_reverse_client_hostname, reject_invalid_helo_hostname, reject_non_fqdn_helo_hostname, "
        "reject_unknown_helo_hostname, reject_unverified_sender, reject_rhsbl_client names.example"
    )
    plan = import_postfix(
        {
            "main.cf": "myhostname = mx.example.jp\nmydestination = example.jp\nsmtpd_helo_required = no\n"
            f"smtpd_recipient_restrictions = {restrictions}\nsmtpd_soft_error_limit = 5\n"
            "smtpd_error_sleep_time = 3s\nsmtpd_client_connection_rate_limit = 60\n"
            "smtpd_client_message_rate_limit = 100\n"
        }
    )
    assert plan.policy == {
        "dnsbl": {
            "lists": [
                {"zone": "good.example", "weight": -100},
                {"zone": "zen.example", "codes": ["127.0.0.[2..11]"]},
                {"zone": "other.example", "codes": ["127.0.0.2", "127.0.0.3"]},
                {"zone": "dbl.example", "subject": "SenderDomain"},
                {"zone": "dbl.example", "subject": "HeloName"},
            ]
        },
        "senders": {"unresolvableDomain": "Defer", "localMustExist": True},
        "connection": {
            "reverseDNS": {"require": "Confirmed", "action": "Defer"},
            "perHost": {"ratePerMinute": 60},
        },
        "helo": {
            "checks": [{"test": "Syntax", "action": "Reject"}, {"test": "Resolves", "action": "Defer"}],
            "require": False,
        },
        "recipients": {
            "errorsBeforeDelay": 5,
            "delay": "3s",
            "rates": {"perClient": {"messages": 100, "window": "1m"}},
        },
    }
    lost = [note.reason for note in plan.notes if note.fate is Fate.LOST]
    assert [reason.split(" ")[0] for reason in lost if "counterpart" in reason] == [
        "reject_unverified_sender",
        "reject_rhsbl_client",
    ]
    assert any("127.0.0.[4" in reason for reason in lost)
    written = read_objects({"policies.yaml": write_plan(plan)["policies.yaml"]})
    compiled = compile_manifests(written.domains, written.policies, Surroundings({"mx": Role.MX}))
    assert compiled.rejected == ()


def test_postfix_relocated_and_recipients() -> None:
    plan = import_postfix(
        {
            "main.cf": "relocated_maps = hash:/etc/postfix/relocated\nalias_maps = hash:/etc/aliases\n"
            "smtpd_recipient_restrictions = check_recipient_access hash:/etc/postfix/to, reject\n"
            "frob = 1\nnonsense\n",
            "relocated": "old@example.jp\tnew@example.org\n@gone.example\n",
            "to": "x@example.jp REJECT\nsub.example.jp DUNNO\n.dotted.example REJECT\n",
        }
    )
    assert "To:old@example.jp\tERROR:5.1.6:550 User has moved to new@example.org" in plan.access
    assert "To:x@example.jp\tREJECT" in plan.tables["postfix"]
    told = [note.place.text for note in plan.notes]
    for text in ("@gone.example", ".dotted.example REJECT", "frob = 1", "nonsense"):
        assert text in told
    assert any("aliases: the file was not found" in note.reason for note in plan.notes)


def test_what_is_there_is_never_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").write_text("x")
    assert main(["import", "sendmail", str(DATA / "sendmail"), "--to", str(tmp_path)]) == 2
    assert "something already" in capsys.readouterr().err
    assert main(["import", "postfix", str(tmp_path)]) == 2
    assert "no main.cf" in capsys.readouterr().err
