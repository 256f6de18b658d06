"""Whatever stands in another server's files: the import never fails, and `gatepost check` takes what it writes."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from gatepost.core.access.source import read_table
from gatepost.core.access.table import AccessTable
from gatepost.core.compile import Surroundings, compile_manifests
from gatepost.core.imports.plan import Plan
from gatepost.core.imports.postfix import import_postfix
from gatepost.core.imports.sendmail import FILES, import_sendmail
from gatepost.core.imports.writing import write_plan
from gatepost.core.manifest.documents import read_objects
from gatepost.core.manifest.settings import Role

AROUND = Surroundings({"mx": Role.MX}, ("users",), ("local",), any_namespace=True)
NAMES = (
    "example.jp",
    "sub.example.jp",
    ".example.jp",
    "mx.example.jp",
    "other.example",
    "localhost",
    "x_y",
    "日本.jp",
)
KEYS = st.sampled_from(
    [
        *NAMES,
        *(f"@{n}" for n in NAMES),
        *(f"a@{n}" for n in NAMES),
        "a",
        "a+*@example.jp",
        "<>",
        "*",
        ".",
        "10.1",
        "10.1.2.0/24",
        "!10.0.0.0/8",
        "if",
        "endif",
        "Connect:10.1",
        "From:a@",
        "To:example.jp",
        "Tag:x",
        "IPv6:2001:db8",
    ]
)
VALUES = st.sampled_from(
    [
        "OK",
        "RELAY",
        "REJECT",
        "REJECT no",
        "550 5.7.1 no",
        "ERROR:4.7.1:450 later",
        "SKIP",
        "DUNNO",
        "smtp:[10.0.0.1]",
        "smtp:mx.other.example:26",
        "esmtp:[a.example]:[b.example]",
        "error:5.1.1:550 no",
        "error:nouser gone",
        "local:x",
        "relay:",
        ":",
        "discard:",
        "b@example.jp",
        "b",
        "@other.example",
        "%1@example.jp",
        "%1%3@example.jp",
        "|prog",
        "",
        "a@example.jp, b@other.example",
        "HOLD",
        "PREPEND X: y",
        "10.0.0.0/8",
        "example.jp",
    ]
)
LINE = st.builds("{}\t{}".format, KEYS, VALUES) | KEYS | st.text(st.characters(codec="utf-8"), max_size=20)
TEXT = st.lists(LINE, max_size=5).map("\n".join)
PARAMETERS = (
    "mynetworks",
    "mydestination",
    "relay_domains",
    "transport_maps",
    "virtual_alias_maps",
    "relayhost",
    "myorigin",
    "myhostname",
    "recipient_delimiter",
    "message_size_limit",
    "smtpd_client_restrictions",
    "virtual_mailbox_domains",
    "smtpd_sender_restrictions",
    "relocated_maps",
    "parent_domain_matches_subdomains",
    "smtpd_recipient_limit",
)
SETTING = st.sampled_from(
    [
        "hash:/x/t",
        "cidr:/x/t",
        "example.jp",
        "example.jp, sub.example.jp",
        "$myhostname",
        "${mydomain}",
        "10.0.0.0/8",
        "10.0.0.0/8 !10.1.0.0/16",
        "check_client_access cidr:/x/t",
        "check_sender_access hash:/x/t",
        "[10.0.0.9]:587",
        "check_client_access hash:/x/t, reject",
        "0",
        "5000",
        "99999999",
        "\u00b2",
        "+-",
        "hash:/x/gone",
        "static:all",
        "$a $b",
    ]
)


def fits(plan: Plan) -> None:
    """What is written compiles, and its tables load."""
    files = write_plan(plan)
    objects = read_objects(
        {name: text for name, text in files.items() if name in ("domains.yaml", "policies.yaml")}
    )
    compiled = compile_manifests(objects.domains, objects.policies, AROUND)
    assert compiled.rejected == ()
    for name, text in files.items():
        if name.startswith("access."):
            AccessTable(read_table(text, name))


@settings(max_examples=40, deadline=None)
@given(st.fixed_dictionaries(dict.fromkeys(FILES, TEXT)))
@example({**dict.fromkeys(FILES, ""), "sendmail.mc": "example.jp", "access": "example.jp\trelay:"})
@example({**dict.fromkeys(FILES, ""), "sendmail.mc": "example.jp", "access": "<>\tOK"})
def test_sendmail(files: dict[str, str]) -> None:
    fits(import_sendmail(files))


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.sampled_from(PARAMETERS), SETTING, max_size=10), TEXT)
def test_postfix(parameters: dict[str, str], table: str) -> None:
    main = "\n".join(f"{name} = {value}" for name, value in parameters.items())
    fits(import_postfix({"main.cf": main, "t": table}))
