"""Access rules: written forms, the order of look-ups, and that size costs no look-ups."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from gatepost.core.access.entry import AccessEntry, AccessError, Tag, check_entry
from gatepost.core.access.source import read_line, read_table
from gatepost.core.access.table import AccessChain, AccessRule, AccessTable
from gatepost.core.address import parse_address
from gatepost.core.manifest.actions import Action

DATA = Path(__file__).parent.parent / "data/sendmail-postfix"
EXPECTED = yaml.safe_load((DATA / "expected.yml").read_text("utf-8"))


def chain(*texts: str) -> AccessChain:
    return AccessChain([AccessTable(read_table(text, f"table{n}")) for n, text in enumerate(texts)])


def shown(rule: AccessRule | None) -> str | None:
    """A rule as sendmail writes its value, for comparing."""
    if rule is None or rule.action is None:
        return None
    if rule.action in (Action.REJECT, Action.DEFER) and (rule.code or rule.text):
        tail = f"{rule.code} {rule.text}"
        return f"ERROR:{rule.enhanced}:{tail}" if rule.enhanced else tail
    return {Action.ACCEPT: "OK"}.get(rule.action, rule.action.value.upper())


def known_source() -> str:
    """The table without the lines that are no access rules, which the import tells of."""
    lines = (DATA / "sendmail/access").read_text("utf-8").splitlines()
    return "\n".join(line for line in lines if not line.startswith(("GreetPause:", "Client")))


def is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text.removeprefix("IPv6:"))
    except ValueError:
        return False
    return True


@pytest.mark.requirement("S4-15")
@pytest.mark.requirement("S4-20")
@pytest.mark.parametrize(("kind", "value", "wanted"), EXPECTED["sendmail_access"])
def test_sendmails_answers(kind: str, value: str, wanted: str | None) -> None:
    """Fails without one table with sendmail's keys for clients, senders, recipients, and its order of look-ups."""
    table = chain(known_source())
    if kind == "connect":
        address, names = (value.removeprefix("IPv6:"), ()) if is_ip(value) else ("192.0.2.9", (value,))
        found = table.client(address, names)
    elif kind == "from":
        found = table.sender(parse_address(value))
    else:
        found = table.recipient(parse_address(value))
    assert shown(found) == wanted


@pytest.mark.requirement("S4-16")
@pytest.mark.parametrize(
    ("value", "action", "code", "enhanced", "text"),
    [
        ("OK", Action.ACCEPT, 0, "", ""),
        ("RELAY", Action.RELAY, 0, "", ""),
        ("DISCARD", Action.DISCARD, 0, "", ""),
        ("SKIP", None, 0, "", ""),
        ("REJECT", Action.REJECT, 0, "", ""),
        ("REJECT go away", Action.REJECT, 0, "", "go away"),
        ("QUARANTINE:look at it", Action.QUARANTINE, 0, "", "look at it"),
        ("TAG", Action.TAG, 0, "", ""),
        ("DEFER later", Action.DEFER, 0, "", "later"),
        ("ERROR:5.7.1:551 Relay denied", Action.REJECT, 551, "5.7.1", "Relay denied"),
        ("ERROR:550 Bogus host", Action.REJECT, 550, "", "Bogus host"),
        ('ERROR:"550 Bogus host"', Action.REJECT, 550, "", "Bogus host"),
        ("ERROR:4.7.1:450 Try again later", Action.DEFER, 450, "4.7.1", "Try again later"),
        ("550 5.7.1 Go away", Action.REJECT, 550, "5.7.1", "Go away"),
        ("ERROR:no mail from here", Action.REJECT, 0, "", "no mail from here"),
        ("ok", Action.ACCEPT, 0, "", ""),
    ],
)
def test_values(value: str, action: Action | None, code: int, enhanced: str, text: str) -> None:
    """Fails without REJECT, DISCARD, RELAY and ERROR with own codes and text."""
    assert read_line(f"x.example\t{value}") == AccessEntry(Tag.ANY, "x.example", action, code, enhanced, text)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("x.example", "a value is missing"),
        ("From:x@ub.example RELAY", "never goes by the sender"),
        ("Helo:x.example RELAY", "never goes by the HELO"),
        ("Connect:10.300 REJECT", "above 255"),
        ("Connect:10.0.0.1/8 REJECT", "no network"),
        ("Connect:10.0.0.9-10.0.0.1 REJECT", "upwards"),
        ("Connect:IPv6:xyz REJECT", "no IPv6"),
        ("Connect:2001:db8::/129 REJECT", "no network"),
        ("Connect: REJECT", "the key is empty"),
        ("GreetPause:10.1 5000", "not one of"),
        ("From:a@b@c REJECT", "not an address"),
        ("To:<> REJECT", "<> is a sender"),
        ("x.example FROB", "no action"),
        ("x.example ERROR:4.7.1:550 x", "wants an enhanced code"),
        ("x.example ERROR:421 x", "421"),
        ("x.example ERROR:2.0.0:250 fine", "no enhanced code 2"),
        ("x.example OK yes", "has no text"),
        ("x.example REJECT caf\u00e9", "printable ASCII"),
        ("Spam:a@b.example HATER", "only FRIEND"),
        (f"{'x' * 400}.example OK", "longer than"),
        (f"x.example REJECT {'x' * 401}", "at most 400"),
    ],
)
def test_faults_name_file_line_and_reason(line: str, says: str) -> None:
    with pytest.raises(AccessError, match=says) as error:
        AccessTable(read_table(f"# a comment\n\n{line}\n", "/etc/mail/access"))
    assert str(error.value).startswith("/etc/mail/access line 3: ")


@pytest.mark.parametrize("enhanced", ["5.7.\u0661", "5.7", "5.7.1.1", "5.7.1000", "5..1", "4.7.1", "05.7.1"])
def test_an_enhanced_code_is_three_numbers_in_ascii(enhanced: str) -> None:
    with pytest.raises(AccessError, match="wants an enhanced code"):
        check_entry(AccessEntry(Tag.TO, "a@", Action.REJECT, 550, enhanced, ""))


@pytest.mark.parametrize(
    ("table", "address", "host", "wanted"),
    [
        ("Connect:10.1 RELAY\nConnect:10.1.2 REJECT", "10.1.2.3", "", "REJECT"),
        ("Connect:10.1 RELAY", "10.10.0.1", "", None),
        ("Connect:10.1.0.0/16 RELAY\nConnect:10.1.4.0/22 REJECT", "10.1.7.1", "", "REJECT"),
        ("Connect:10.1.4.4-10.1.4.6 REJECT", "10.1.4.6", "", "REJECT"),
        ("Connect:10.1.4.4-10.1.4.6 REJECT", "10.1.4.7", "", None),
        ("Connect:2001:db8::/32 REJECT\nConnect:2001:db8:1::1 OK", "2001:db8:1::1", "", "OK"),
        ("Connect:IPv6:2001:db8:20 RELAY", "2001:db8:20:1::1", "", "RELAY"),
        ("Connect:192.0.2.1 REJECT", "::ffff:192.0.2.1", "", "REJECT"),
        ("Connect:.example.net REJECT", "192.0.2.1", "a.b.example.net", "REJECT"),
        ("Connect:.example.net REJECT", "192.0.2.1", "example.net", None),
        ("Connect:.example.net REJECT\nConnect:example.net OK", "192.0.2.1", "a.example.net", "REJECT"),
        ("Connect:example.net REJECT\nConnect:192.0.2.1 OK", "192.0.2.1", "a.example.net", "REJECT"),
        ("Connect:example.net REJECT\nConnect:good.example.net SKIP", "192.0.2.1", "good.example.net", None),
        ("Connect:example.net REJECT", "192.0.2.1", "badexample.net", None),
        ("example.net REJECT\nConnect:example.net OK", "192.0.2.1", "a.example.net", "OK"),
        ("0.0.0.0/0 REJECT\n::/0 DISCARD", "2001:db8::1", "", "DISCARD"),
    ],
)
@pytest.mark.requirement("S2-15")
def test_clients(table: str, address: str, host: str, wanted: str | None) -> None:
    """Fails without prefixes, networks and ranges of IPv4 and IPv6 in access rules, the longest one first."""
    assert shown(chain(table).client(address, (host,) if host else ())) == wanted


@pytest.mark.requirement("S4-17")
@pytest.mark.requirement("S4-19")
@pytest.mark.parametrize(
    ("tag", "address", "wanted"),
    [
        ("from", "x@spammers.example", "REJECT"),
        ("from", "x@a.spammers.example", "REJECT"),
        ("from", "spammer@ube.example", "ERROR:5.7.1:551 Relay denied"),
        ("from", "other@ube.example", None),
        ("from", "spam@uce.uce.example", "DISCARD"),
        ("from", "bogus_user@anywhere.example", None),
        ("to", "bogus_user@one.example.test", "REJECT"),
        ("to", "Bogus_User+tag@two.example.test", "REJECT"),
        ("to", "x@bogus.example.test", "550 Bogus host"),
        ("to", "junk@other.example.test", "550 Mailbox unavailable"),
        ("to", "junk+y@other.example.test", "550 Mailbox unavailable"),
        ("to", "nice@other.example.test", None),
    ],
)
def test_senders_and_recipients(tag: str, address: str, wanted: str | None) -> None:
    """Fails without own codes, DISCARD, and keys of recipients by local part, host and whole address."""
    table = chain(
        "From:spammers.example REJECT\n"
        "From:spammer@ube.example ERROR:5.7.1:551 Relay denied\n"
        "spam@uce.uce.example DISCARD\n"
        "To:bogus_user@ REJECT\n"
        "bogus.example.test ERROR:550 Bogus host\n"
        "junk@other.example.test ERROR:550 Mailbox unavailable\n"
    )
    found = (table.sender if tag == "from" else table.recipient)(parse_address(address))
    assert shown(found) == wanted


def test_the_null_sender_and_untagged_relay() -> None:
    table = chain("From:<> OK\nfriend.example RELAY\n")
    assert shown(table.sender(None)) == "OK"
    assert shown(table.recipient(parse_address("x@friend.example"))) == "RELAY"
    assert shown(table.client("192.0.2.1", ("mx.friend.example",))) == "RELAY"
    assert shown(table.sender(parse_address("x@friend.example"))) == "OK"


@pytest.mark.requirement("S2-19")
def test_a_local_rule_wins_over_a_list() -> None:
    """Fails without the order of tables: a local exception must hold against a list that others keep."""
    local, shared = "From:news@shop.example OK\nConnect:192.0.2.7 OK", "shop.example REJECT\n192.0.2 REJECT"
    table = chain(local, shared)
    assert shown(table.sender(parse_address("news@shop.example"))) == "OK"
    assert shown(table.sender(parse_address("x@shop.example"))) == "REJECT"
    assert shown(table.client("192.0.2.7", ())) == "OK"
    assert shown(chain("shop.example OK", "shop.example REJECT").sender(parse_address("x@shop.example"))) == "OK"
    narrow = chain("Connect:192.0.2 OK", "Connect:192.0.2.7 REJECT")
    assert shown(narrow.client("192.0.2.7", ())) == "REJECT"  # over all tables the most specific key


def test_yaml_says_the_same() -> None:
    pairs = AccessTable(read_table('"Connect:10.1": RELAY\n"From:a@b.example": "ERROR:551 no"\n', "t.yaml"))
    rules = AccessTable(
        read_table(
            "- {match: {connect: '10.1'}, action: Relay}\n"
            "- {match: {from: a@b.example}, action: Reject, code: 551, text: 'no'}\n",
            "t.yml",
        )
    )
    for table in (AccessChain([pairs]), AccessChain([rules])):
        assert shown(table.client("10.1.2.3", ())) == "RELAY"
        assert shown(table.sender(parse_address("a@b.example"))) == "551 no"
    with pytest.raises(AccessError, match="numbers in quotes"):
        AccessTable(read_table("10.1: RELAY\n", "t.yaml"))
    with pytest.raises(AccessError, match="exactly one of connect"):
        AccessTable(read_table("- {match: {}, action: Reject}\n", "t.yaml"))
    with pytest.raises(AccessError, match="exactly one of action and skip"):
        AccessTable(read_table("- {match: {to: a@}}\n", "t.yaml"))


class Counting(dict[Any, Any]):
    """A dict that counts how often it is asked."""

    asked = 0

    def get(self, key: Any, default: Any = None) -> Any:
        Counting.asked += 1
        return super().get(key, default)


def generated(count: int) -> str:
    lines = ["Connect:10.1 REJECT", "Connect:192.0.2.0/25 REJECT", "From:<> OK"]
    for number in range(count // 4):
        lines += [
            f"Connect:172.{16 + number // 65536}.{number // 256 % 256}.{number % 256} REJECT",
            f"Connect:host{number}.example.net REJECT",
            f"From:user{number}@bulk{number}.example ERROR:5.7.1:550 No thanks",
            f"To:trap{number}@ REJECT",
        ]
    return "\n".join(lines)


def test_many_rules_cost_no_more_look_ups() -> None:
    """Fails without one table for all of a policy that asks by the forms of a key, and not rule by rule."""

    def cost(rules: int) -> list[int]:
        table = AccessTable(read_table(generated(rules), "access"))
        assert table.size == rules + 3
        for name in ("networks", "hosts", "helo", "senders", "recipients"):
            setattr(table, name, Counting(getattr(table, name)))
        one = AccessChain([table])
        costs = []
        for ask in (
            lambda: one.client("198.51.100.7", ("a.b.c.example.org",)),
            lambda: one.client("172.16.0.3", ()),
            lambda: one.sender(parse_address("x+y@a.b.example.org")),
            lambda: one.recipient(parse_address("someone@example.test")),
        ):
            Counting.asked = 0
            ask()
            costs.append(Counting.asked)
        return costs

    few = cost(100)
    assert few == cost(100_000)
    assert max(few) <= 16


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["", "Connect:", "From:", "To:", "Helo:"]),
            st.text(st.characters(codec="utf-8", exclude_characters="\n\r"), max_size=30),
            st.sampled_from(["OK", "REJECT", "ERROR:5.7.1:550 x", "SKIP"]),
        ),
        max_size=8,
    )
)
def test_any_table_is_read_or_refused_with_its_line(rows: list[tuple[str, str, str]]) -> None:
    text = "\n".join(f"{tag}{key}\t{value}" for tag, key, value in rows)
    reason, one = "", AccessChain([])
    try:
        one = AccessChain([AccessTable(read_table(text, "f"))])
    except AccessError as error:
        reason = str(error)
    assert not reason or reason.startswith("f line ")
    one.client("192.0.2.1", ("a.example",))
    one.sender(parse_address("a@b.example"))


@settings(deadline=None)
@given(st.ip_addresses(v=4) | st.ip_addresses(v=6, network="2000::/3"), st.integers(1, 128))
def test_a_network_matches_what_it_contains_and_nothing_else(address: Any, length: int) -> None:
    network = ipaddress.ip_network((address, min(length, address.max_prefixlen)), strict=False)
    table = chain(f"Connect:{network} REJECT")
    inside = (network.network_address, address, network.broadcast_address)
    assert all(table.client(str(one), ()) is not None for one in inside)
    around = (int(network.network_address) - 1, int(network.broadcast_address) + 1)
    outside = [type(address)(n) for n in around if 2**33 < n < 2**128 or (address.version == 4 and 0 <= n < 2**32)]
    assert not [one for one in outside if one.version == address.version and table.client(str(one), ()) is not None]
