"""Our own addresses on others' lists: told by metric and event at each change, and nothing is refused for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gatepost.core.checks.dnsbl import DnsblList, DnsblPolicy, Subject
from gatepost.edge import listing_watch
from gatepost.edge.listing_watch import Place
from gatepost.telemetry import metrics

if TYPE_CHECKING:
    from conftest import Edge, MakeEdge

OURS, OTHER = "192.0.2.25", "2001:db8::25"
BAD = Place(OURS, "bl.example")
LISTS = (
    DnsblList("bl.example", ("127.0.0.2",)),
    DnsblList("good.example", weight=-1),
    DnsblList("dom.example", subject=Subject.SENDER_DOMAIN),
)
WATCHED = DnsblPolicy(LISTS, watch=(OURS, OTHER))


def told(edge: Edge) -> list[dict[str, str]]:
    return [event.facts for event in edge.events.all if event.kind == "listed"]


@pytest.mark.requirement("S4-14")
@pytest.mark.requirement("S3-13")
async def test_a_listing_of_ours_is_told_once_and_its_end_too(make_edge: MakeEdge) -> None:
    """Fails without the look at our own addresses in the lists that the policy uses."""
    edge = await make_edge(dnsbl=WATCHED)
    await edge.server.listings.look()
    assert {name for name, _ in edge.resolver.asked} == {
        "25.2.0.192.bl.example",
        "5.2" + ".0" * 22 + ".8.b.d.0.1.0.0.2.bl.example",
    }
    assert metrics.OWN_LISTED.values[BAD] == 0
    edge.resolver.add("25.2.0.192.bl.example", "A", "127.0.0.2")
    for _ in range(2):
        await edge.server.listings.look()
    assert told(edge) == [{"address": OURS, "zone": "bl.example", "code": "127.0.0.2"}]
    assert metrics.OWN_LISTED.values[BAD] == 1
    # No answer changes nothing; an operator's error code is no answer.
    edge.resolver.fail("25.2.0.192.bl.example")
    await edge.server.listings.look()
    edge.resolver.mend()
    edge.resolver.remove("25.2.0.192.bl.example")
    edge.resolver.add("25.2.0.192.bl.example", "A", "127.255.255.254")
    await edge.server.listings.look()
    assert metrics.OWN_LISTED.values[BAD] == 1
    edge.resolver.remove("25.2.0.192.bl.example")
    await edge.server.listings.look()
    assert metrics.OWN_LISTED.values[BAD] == 0
    assert edge.server.listings.listed == {}


async def test_what_is_no_longer_watched_is_no_longer_listed(make_edge: MakeEdge) -> None:
    edge = await make_edge(dnsbl=WATCHED)
    edge.resolver.add("25.2.0.192.bl.example", "A", "127.0.0.2")
    await edge.server.listings.look()
    edge.configure(dnsbl=DnsblPolicy(LISTS))
    assert metrics.OWN_LISTED.values[BAD] == 0


async def test_it_looks_by_itself_and_goes_on_after_a_fault(
    make_edge: MakeEdge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing_watch, "FIRST_LOOK", 0.0)
    edge = await make_edge()
    assert edge.resolver.asked == []
    edge.resolver.add("25.2.0.192.bl.example", "A", "127.0.0.2")
    real, broken = edge.server.listings.look, [True]

    async def look() -> None:
        if broken.pop() if broken else False:
            raise RuntimeError("a fault")
        await real()

    monkeypatch.setattr(edge.server.listings, "look", look)
    edge.configure(dnsbl=DnsblPolicy(LISTS, watch=(OURS,), watch_every=0.01))
    await edge.until(lambda: len(told(edge)) == 1)
