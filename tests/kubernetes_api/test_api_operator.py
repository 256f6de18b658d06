"""The operator as a process on a real API server and a real Kafka: what users see, and what it survives."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from gatepost_operator.cluster import FIELD_MANAGER
from gatepost_operator.lease import EPOCH_ANNOTATION
from gatepost_operator.removal import ANNOTATION
from testbed.installation import Member

pytestmark = pytest.mark.node

REPOSITORY = Path(__file__).resolve().parents[2]
QUICKSTART = REPOSITORY / "examples" / "quickstart" / "example-test.yaml"
Make = Callable[..., dict[str, Any]]


async def test_the_quickstart_becomes_programmed(release: Any) -> None:
    await release.kubectl("apply", "-f", str(QUICKSTART))
    await release.start()
    await release.serves("example.test", epoch=1)
    await release.becomes("mdom", "example-test", "Programmed", "Unknown", "NoEdges")
    await release.edge("edge-1")
    await release.kubectl("wait", "--for=condition=Programmed", "--timeout=60s", "mdom,rpol", "--all")
    row = (await release.kubectl("get", "mdom", "--no-headers")).split()
    assert row[:5] == ["example-test", "example.test", "Mailbox", "True", "True"]
    for kind, name in (("mdom", "example-test"), ("rpol", "public-mx"), ("rpol", "submission")):
        metadata = (await release.get(kind, name, ""))["metadata"]
        assert "finalizers" not in metadata
        assert not [key for key in metadata["annotations"] if "kopf" in key]
        assert metadata["generation"] == 1
    fields = await release.kubectl("get", "mdom", "example-test", "--show-managed-fields", "-o", "yaml")
    entries = yaml.safe_load(fields)["metadata"]["managedFields"]
    ours = [entry for entry in entries if entry["manager"] == FIELD_MANAGER]
    assert [(entry["operation"], entry["subresource"]) for entry in ours] == [("Apply", "status")]
    assert not [entry for entry in entries if "kopf" in entry["manager"]]


async def test_an_edge_process_makes_it_programmed(release: Any, tmp_path: Path) -> None:
    await release.kubectl("apply", "-f", str(QUICKSTART))
    await release.start()
    (tmp_path / "edge").mkdir()
    (tmp_path / "edge" / "users.ldif").write_text("dn: dc=example,dc=test\nobjectClass: domain\ndc: example\n")
    edge = Member("edge", "edge", tmp_path / "edge", release.settings)
    release.operators.append(edge)
    await asyncio.to_thread(edge.start)
    await release.becomes("mdom", "example-test", "Programmed", "True")
    await release.becomes("rpol", "submission", "Programmed", "True")
    assert await release.metric("gatepost_operator_edges") == 1.0


async def test_a_life_with_updates_conflicts_and_deletions(release: Any, mail_domain: Make) -> None:
    await release.start()
    await release.serves()
    await release.edge("edge-1")
    await release.apply(mail_domain("first", "same.test"))
    await release.becomes("mdom", "first", "Programmed", "True")
    await release.apply(mail_domain("second", "same.test"), mail_domain("other", domain="bücher.example"))
    conflict = await release.becomes("mdom", "second", "Accepted", "False", "Conflicted")
    assert f"belongs to MailDomain {release.namespace}/first" in conflict["message"]
    await release.becomes("mdom", "second", "Programmed", "False", "Excluded")
    await release.becomes("mdom", "other", "Programmed", "True")
    assert (await release.get("mdom", "other"))["status"]["asciiDomain"] == "xn--bcher-kva.example"

    missing = mail_domain("first", "same.test", delivery={"type": "Mailbox", "store": "nowhere"})
    await release.apply(missing)
    refs = await release.becomes("mdom", "first", "ResolvedRefs", "False", "StoreNotFound")
    assert refs["observedGeneration"] == 2
    # The younger one may have the domain now, since the older one is left out.
    await release.becomes("mdom", "second", "Programmed", "True")
    await release.kubectl("delete", "mdom", "second")
    await release.serves("xn--bcher-kva.example")
    await release.apply(mail_domain("first", "same.test", subdomains=True))
    programmed = await release.becomes("mdom", "first", "Programmed", "True")
    assert programmed["observedGeneration"] == 3


async def test_an_object_of_another_schema_is_invalid_by_itself(release: Any, mail_domain: Make) -> None:
    """As after a downgrade: it was stored when the CRD knew more fields."""
    schema = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/x-kubernetes-preserve-unknown-fields"
    patch = [{"op": "add", "path": schema, "value": True}]
    try:
        await release.kubectl(
            "patch", "crd", "maildomains.gatepost.dev", "--type=json", "-p", yaml.safe_dump(patch)
        )

        async def stored() -> bool:
            await release.apply(mail_domain("odd", future={"field": 1}))
            return "future" in (await release.get("mdom", "odd"))["spec"]

        await release_eventually(stored)
        await release.apply(mail_domain("good"))
        await release.start()
        await release.edge("edge-1")
        refused = await release.becomes("mdom", "odd", "Accepted", "False", "Invalid")
        assert "future" in refused["message"]
        await release.becomes("mdom", "good", "Programmed", "True")
    finally:
        await release.kubectl("delete", "mdom", "odd")
        await release.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(REPOSITORY / "crds"))


async def release_eventually(condition: Callable[[], Any]) -> None:
    """The API server takes a moment to serve a changed CRD."""
    async with asyncio.timeout(30):
        while True:
            try:
                if await condition():
                    return
            except Exception as error:
                if "unknown field" not in str(error):
                    raise
            await asyncio.sleep(0.1)


async def test_only_one_of_two_publishes_and_a_takeover_raises_the_epoch(
    release: Any, mail_domain: Make, eventually: Any
) -> None:
    first = await release.start("first")
    await release.apply(mail_domain("a"))
    await release.serves("a.test", epoch=1)
    second = await release.start("second")
    assert await release.metric("gatepost_operator_leader", "second") == 0.0
    await release.apply(mail_domain("b"))
    await release.serves("a.test", "b.test", epoch=1)

    # Suspended while it holds the Lease: another takes over, and when it goes on it must not publish.
    first.suspend()
    await release.serves("a.test", "b.test", epoch=2)
    first.resume()

    async def stands_by() -> bool:
        return await release.metric("gatepost_operator_leader", "first") == 0.0

    await eventually(stands_by, "the first stands by", release)
    await release.apply(mail_domain("c"))
    await release.serves("a.test", "b.test", "c.test", epoch=2)

    await asyncio.to_thread(second.stop)  # hands over at once
    await release.serves("a.test", "b.test", "c.test", epoch=3)
    await release.edge("edge-1")
    await release.becomes("mdom", "c", "Programmed", "True")
    lease = await release.get("lease", release.lease)
    assert lease["metadata"]["annotations"] == {EPOCH_ANNOTATION: "3"}
    assert lease["spec"]["holderIdentity"].startswith("first_")


async def test_a_killed_operator_goes_on_where_it_was(release: Any, mail_domain: Make) -> None:
    operator = await release.start()
    await release.edge("edge-1")
    await release.apply(mail_domain("a"))
    before = await release.becomes("mdom", "a", "Programmed", "True")
    await asyncio.to_thread(operator.kill9)
    await release.apply(mail_domain("b"))
    await asyncio.to_thread(operator.start)
    await release.becomes("mdom", "b", "Programmed", "True")
    assert await release.condition("mdom", "a", "Programmed") == before
    head, _ = await release.published()
    assert head is not None
    assert head.epoch == 2


async def test_it_survives_an_api_server_that_was_away(release: Any, mail_domain: Make, eventually: Any) -> None:
    operator = await release.start()
    await release.edge("edge-1")
    await release.apply(mail_domain("a"), mail_domain("b"), mail_domain("c"))
    for name in "abc":
        await release.becomes("mdom", name, "Programmed", "True")
    pid = operator.pid
    await asyncio.to_thread(release.api.apiserver.kill9)

    async def let_go() -> bool:
        return await release.metric("gatepost_operator_leader") == 0.0

    await eventually(let_go, "it does not hold the Lease any more", release)
    await asyncio.to_thread(release.api.apiserver.start)
    await release.kubectl("delete", "mdom", "b")
    await release.apply(mail_domain("d"))
    await release.serves("a.test", "c.test", "d.test", epoch=1)
    await release.becomes("mdom", "d", "Programmed", "True")
    assert operator.pid == pid
    assert operator.running


async def test_it_survives_a_kafka_that_was_away(release: Any, mail_domain: Make) -> None:
    await release.start()
    await release.edge("edge-1")
    await release.apply(mail_domain("a"))
    await release.becomes("mdom", "a", "Programmed", "True")
    await asyncio.to_thread(release.broker.kill9)
    await release.apply(mail_domain("b"))
    await release.becomes("mdom", "b", "Accepted", "True")
    waiting = await release.becomes("mdom", "b", "Programmed", "Unknown", "Pending")
    assert waiting["message"] == "the log is not available, so the configuration cannot be published"
    assert await release.ready()
    await asyncio.to_thread(release.broker.start)
    await release.serves("a.test", "b.test", epoch=1)
    await release.becomes("mdom", "b", "Programmed", "True")


async def test_namespaces_own_the_domains_they_were_given(release: Any, mail_domain: Make) -> None:
    tenant, stranger = f"{release.namespace}-tenant", f"{release.namespace}-stranger"
    for namespace in (tenant, stranger):
        await release.kubectl("create", "namespace", namespace)

    def within(namespace: str, name: str, domain: str) -> dict[str, Any]:
        document = mail_domain(name, domain)
        document["metadata"]["namespace"] = namespace
        return document

    release.grant(everywhere=True)
    documents = [
        within(tenant, "own", "mail.tenant.example"),
        within(tenant, "greedy", "tenant.example.org"),
        within(stranger, "own", "x.tenant.example"),
        mail_domain("central", "anything.example"),
    ]
    # kubectl's -n must not contradict the documents' namespaces.
    for document in documents:
        namespace = document["metadata"].get("namespace", release.namespace)
        await asyncio.to_thread(
            release.api.kubectl, "-n", namespace, "apply", "-f", "-", stdin=yaml.safe_dump(document)
        )
    await release.start(domainOwnership={tenant: ["tenant.example"]})
    await release.serves("mail.tenant.example", "anything.example")
    refused = await release.becomes("mdom", "greedy", "Accepted", "False", "NotAllowed", tenant)
    assert "domainOwnership" in refused["message"]
    await release.becomes("mdom", "own", "Accepted", "True", namespace=tenant)
    assert "status" not in await release.get("mdom", "own", stranger)


async def test_its_rights_are_least(release: Any) -> None:
    """Every test here runs it with the documented rules; here is what those do not give."""
    account = f"--as=system:serviceaccount:{release.namespace}:operator"
    for verb, what, allowed in (
        ("list", "maildomains", True),
        ("patch", "maildomains.gatepost.dev --subresource=status", True),
        ("update", f"leases/{release.lease}", True),
        ("update", "leases/another", False),
        ("patch", "maildomains", False),
        ("delete", "relaypolicies", False),
        ("get", "secrets", False),
        ("list", "pods", False),
    ):
        words = ["auth", "can-i", verb, *what.split(), account]
        await (release.kubectl(*words) if allowed else release.refused(*words))
    await release.refused("auth", "can-i", "list", "maildomains", account, "--all-namespaces")


async def test_a_mass_removal_waits_for_a_word(release: Any, mail_domain: Make, eventually: Any) -> None:
    await release.start()
    await release.apply(*(mail_domain(name) for name in ("a", "b", "c", "d")))
    before = await release.serves("a.test", "b.test", "c.test", "d.test")
    await release.kubectl("delete", "mdom", "a", "b", "c")

    async def told() -> str:
        return str(await release.kubectl("describe", "lease", release.lease))

    async def said() -> str:
        text = await told()
        return text if "RemovalHeldBack" in text else ""

    text = await eventually(said, "an event tells", release)
    assert "3 of 4 domains would be removed at once (a.test, b.test, c.test)" in text
    assert (await release.published())[0] == before
    assert await release.metric("gatepost_operator_removals_held") == 3.0
    await release.kubectl("annotate", "lease", release.lease, f"{ANNOTATION}=3")
    await release.serves("d.test")
    assert ANNOTATION not in (await release.get("lease", release.lease))["metadata"]["annotations"]


async def test_deleted_definitions_unpublish_nothing(release: Any, mail_domain: Make, eventually: Any) -> None:
    """With its kind all objects go; the operator ends, and begins anew when the kind is there again."""
    operator = await release.start()
    await release.apply(mail_domain("a"), mail_domain("b"))
    before = await release.serves("a.test", "b.test")
    async with _without_mail_domains(release, operator, eventually):
        assert (await release.published())[0] == before
        await asyncio.to_thread(operator.stop)
        await asyncio.to_thread(operator.start)
        assert not await release.ready()
    after = await release.serves("a.test", "b.test", epoch=2)
    assert after.hash == before.hash
    await release.apply(mail_domain("a"), mail_domain("b"), mail_domain("c"))
    await release.serves("a.test", "b.test", "c.test", epoch=2)


async def test_a_deleted_definition_takes_not_even_one_domain(
    release: Any, mail_domain: Make, eventually: Any
) -> None:
    """One domain is below the number that waits for a person's word."""
    operator = await release.start()
    await release.apply(mail_domain("a"))
    before = await release.serves("a.test")
    async with _without_mail_domains(release, operator, eventually):
        assert (await release.published())[0] == before


@contextlib.asynccontextmanager
async def _without_mail_domains(release: Any, operator: Any, eventually: Any) -> AsyncIterator[None]:
    """Without the definition of MailDomain, and with an operator that has ended for that."""
    await release.kubectl("delete", "crd", "maildomains.gatepost.dev")
    try:

        async def has_ended() -> bool:
            return not operator.running

        await eventually(has_ended, "it ends", release)
        yield
    finally:
        await asyncio.to_thread(release.api.establish, REPOSITORY / "crds")


async def test_hundreds_of_domains_are_programmed(release: Any, mail_domain: Make, eventually: Any) -> None:
    await release.start()
    await release.edge("edge-1")
    count = 300
    await release.apply(*(mail_domain(f"d{number:03d}") for number in range(count)))

    async def all_of_them() -> bool:
        rows = (await release.kubectl("get", "mdom", "--no-headers")).splitlines()
        return [row.split()[3:5] for row in rows] == [["True", "True"]] * count

    await eventually(all_of_them, "all are programmed", release)
