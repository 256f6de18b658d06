"""A secondary MX sends to better hosts only, whatever its own name is; Bounce sends back what nobody gets."""

from __future__ import annotations

from typing import Any

import pytest

from gatepost.backends.resolver_table import TableResolver
from gatepost.cli.assembly import own_names
from gatepost.core.compile import Surroundings, compile_manifests
from gatepost.core.envelope import Client, Destination, Trust
from gatepost.core.manifest.documents import read_objects
from gatepost.core.manifest.settings import ListenerSettings, RelaySettings, Role, Settings
from gatepost.core.tables import Tables
from gatepost.relay.targets import NoTarget, find_targets
from gatepost.router.service import Router

MX = {
    "friend.example": ["10 primary.friend.example.", "20 lb.a.example.", "20 equal.example.", "30 worse.example."],
    "named.example": ["10 primary.friend.example.", "20 mx.a.example.", "30 worse.example."],
    "best.example": ["5 lb.a.example.", "10 primary.friend.example."],
}
ADDRESSES = {
    "primary.friend.example": "192.0.2.1",
    "lb.a.example": "192.0.2.80",
    "equal.example": "192.0.2.2",
    "worse.example": "192.0.2.3",
}
MANIFESTS = """
apiVersion: gatepost.dev/v1alpha1
kind: MailDomain
metadata: {name: a}
spec:
  domain: a.example
  default: true
  recipients: {source: {type: Static, addresses: [ann]}, unknown: Bounce}
  outbound: {smartHost: {hosts: ["[gateway.example]"]}}
---
apiVersion: gatepost.dev/v1alpha1
kind: RelayPolicy
metadata: {name: p}
spec: {target: {type: Listeners, listeners: [mx]}, relay: {secondaryFor: [friend.example]}}
"""


def resolver() -> TableResolver:
    made = TableResolver()
    for name, records in MX.items():
        made.add(name, "MX", *records)
    for name, address in ADDRESSES.items():
        made.add(name, "A", address)
    return made


@pytest.mark.requirement("S1-4")
@pytest.mark.parametrize(
    ("domain", "others", "names"),
    [
        ("named.example", (), ["primary.friend.example"]),
        ("friend.example", ("lb.a.example",), ["primary.friend.example"]),
        ("friend.example", ("192.0.2.80",), ["primary.friend.example"]),
        ("best.example", ("192.0.2.80",), []),
        ("best.example", ("lb.a.example",), []),
    ],
)
async def test_only_hosts_of_better_preference(domain: str, others: tuple[str, ...], names: list[str]) -> None:
    """Fails without RFC 5321 5.1: never to itself, its equals or worse hosts, by its names or its addresses."""
    destination = Destination(domain=domain)
    for _ in range(10):  # equal preferences come in any order
        if names:
            targets = await find_targets(resolver(), destination, "mx.a.example", 25, others)
            assert [target.name for target in targets] == names
            continue
        with pytest.raises(NoTarget) as caught:
            await find_targets(resolver(), destination, "mx.a.example", 25, others)
        assert caught.value.reply.enhanced == "5.4.6"


def test_by_which_names_mx_records_mean_us() -> None:
    listeners = tuple(
        ListenerSettings(f"l{number}", address, Role.MX)
        for number, address in enumerate(("0.0.0.0:25", "127.0.0.1:25", "192.0.2.5:25", "[2001:db8::5]:25"))
    )
    relay = RelaySettings(own_names=("LB.A.example", "[192.0.2.80]", "2001:db8:0::80"))
    assert own_names(Settings(listeners=listeners, relay=relay)) == {
        "lb.a.example",
        "192.0.2.80",
        "2001:db8::80",
        "192.0.2.5",
        "2001:db8::5",
    }


def router(world: Any) -> Router:
    objects = read_objects({"t": MANIFESTS})
    around = Surroundings(listeners={"mx": Role.MX}, stores=("local",), any_namespace=True)
    compiled = compile_manifests(objects.domains, objects.policies, around)
    assert compiled.rejected == ()
    made = world.router(directories={}, resolver=resolver())
    made.on_configuration(Tables(compiled.configuration))
    return made


async def test_mail_for_the_friend_passes_by_the_own_smart_host(world: Any, running: Any) -> None:
    await world.put(world.topics.accepted, world.envelope("x@friend.example", "x@other.example"))
    async with running(router(world)):
        items = await world.some(world.topics.relay, 2)
    hosts = {one.address: item.envelope.destination.hosts for item in items for one in item.envelope.recipients}
    assert hosts == {"x@friend.example": (), "x@other.example": ("[gateway.example]",)}


@pytest.mark.requirement("S0-52")
async def test_bounce_goes_to_verified_return_paths_only(world: Any, running: Any) -> None:
    """Fails without a notification for an address that was taken although nobody has it, at once and not after the
    time for differing directories, and without strangers being spared it."""
    edge = Client("203.0.113.9", listener="mx")
    await world.put(
        world.topics.accepted, world.envelope("gone@a.example", reverse_path="ann@a.example", client=edge)
    )
    await world.put(world.topics.accepted, world.envelope("gone@a.example", trust=Trust.UNVERIFIED, client=edge))
    async with running(router(world)):
        (dsn,) = await world.some(world.topics.mailbox("local"), 1)
        (kept,) = await world.some(world.topics.quarantine, 1)
    assert dsn.envelope.destination.mailbox == "ann@a.example"
    assert b"Status: 5.1.1" in dsn.inline
    assert kept.envelope.recipients[0].address == "sender@elsewhere.example"
