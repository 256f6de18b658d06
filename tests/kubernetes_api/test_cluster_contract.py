"""The port to the Kubernetes API: the fake and the real one must do the same."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from typing import Any

import pytest
import yaml
from lightkube import KubeConfig

from gatepost.core.manifest.object import ObjectKey
from gatepost_operator.cluster import Cluster, ClusterConflict, ClusterUnavailable, Document, resource_version
from gatepost_operator.cluster_lightkube import LightkubeCluster
from gatepost_operator.cluster_memory import MemoryCluster
from gatepost_operator.events import held_back_event
from gatepost_operator.removal import Removal

_numbers = itertools.count(1)


class Side:
    """A cluster, and the hands of a user in it. `away` makes it unreachable."""

    cluster: Cluster
    namespace: str

    async def store(self, document: Document) -> None: ...

    async def delete(self, name: str) -> None: ...

    async def status(self, name: str) -> Any: ...

    async def away(self) -> Cluster: ...


class MemorySide(Side):
    def __init__(self) -> None:
        self.memory = MemoryCluster()
        self.cluster, self.namespace = self.memory, "default"

    async def store(self, document: Document) -> None:
        self.memory.store({**document, "metadata": {**document["metadata"], "namespace": self.namespace}})

    async def delete(self, name: str) -> None:
        self.memory.delete("MailDomain", name, self.namespace)

    async def status(self, name: str) -> Any:
        return self.memory.objects[ObjectKey("MailDomain", self.namespace, name)].get("status")

    async def away(self) -> Cluster:
        self.memory.away = True
        return self.memory


class RealSide(Side):
    def __init__(self, api: Any) -> None:
        self.api = api
        self.cluster = LightkubeCluster(KubeConfig.from_file(api.kubeconfig))
        self.namespace = f"contract-{next(_numbers)}"
        api.kubectl("create", "namespace", self.namespace)

    async def store(self, document: Document) -> None:
        self.api.kubectl("-n", self.namespace, "apply", "-f", "-", stdin=yaml.safe_dump(document))

    async def delete(self, name: str) -> None:
        self.api.kubectl("-n", self.namespace, "delete", "mdom", name)

    async def status(self, name: str) -> Any:
        return self.api.get("-n", self.namespace, "mdom", name).get("status")

    async def away(self) -> Cluster:
        return LightkubeCluster(KubeConfig.from_dict(_nowhere()))


def _nowhere() -> Document:
    """A kubeconfig for a port that nobody listens on."""
    return {
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": {"token": "x"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }


@pytest.fixture(params=["memory", pytest.param("real", marks=pytest.mark.node)])
async def side(request: pytest.FixtureRequest) -> AsyncIterator[Side]:
    made = MemorySide() if request.param == "memory" else RealSide(request.getfixturevalue("api"))
    yield made
    await made.cluster.close()


def lease(side: Side, name: str = "lease") -> Document:
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": name, "namespace": side.namespace},
        "spec": {"holderIdentity": "me", "leaseDurationSeconds": 15, "renewTime": "2026-01-01T00:00:00.000001Z"},
    }


STATUS = {
    "observedGeneration": 1,
    "conditions": [
        {
            "type": "Accepted",
            "status": "True",
            "reason": "Accepted",
            "message": "fine",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
            "observedGeneration": 1,
        }
    ],
}


async def test_a_list_has_whole_objects_and_a_version(side: Side, mail_domain: Any) -> None:
    await side.store(mail_domain("a"))
    await side.store(mail_domain("b"))
    listed = await side.cluster.list_objects("MailDomain", side.namespace)
    assert sorted(one["metadata"]["name"] for one in listed.documents) == ["a", "b"]
    for one in listed.documents:
        assert (one["kind"], one["apiVersion"]) == ("MailDomain", "gatepost.dev/v1alpha1")
        assert one["metadata"]["uid"]
        assert 0 < resource_version(one) <= listed.version
    everywhere = await side.cluster.list_objects("MailDomain", None)
    assert len(everywhere.documents) >= 2


async def test_an_empty_list_has_a_version_too(side: Side) -> None:
    listed = await side.cluster.list_objects("RelayPolicy", side.namespace)
    assert listed.documents == ()
    assert listed.version >= 0


async def test_both_kinds_are_defined(side: Side) -> None:
    assert await side.cluster.defined_kinds() == {"MailDomain", "RelayPolicy"}


async def test_a_status_is_applied_and_the_object_comes_back(side: Side, mail_domain: Any) -> None:
    await side.store(mail_domain("a"))
    written = await side.cluster.apply_status("MailDomain", side.namespace, "a", STATUS)
    assert written is not None
    assert written["status"] == STATUS
    assert written["spec"]["domain"] == "a.test"
    assert await side.status("a") == STATUS


async def test_the_same_status_again_changes_nothing(side: Side, mail_domain: Any) -> None:
    await side.store(mail_domain("a"))
    first = await side.cluster.apply_status("MailDomain", side.namespace, "a", STATUS)
    again = await side.cluster.apply_status("MailDomain", side.namespace, "a", STATUS)
    assert first is not None
    assert again is not None
    assert resource_version(first) == resource_version(again)


async def test_what_is_left_out_of_a_status_goes(side: Side, mail_domain: Any) -> None:
    await side.store(mail_domain("a"))
    await side.cluster.apply_status("MailDomain", side.namespace, "a", {**STATUS, "asciiDomain": "a.test"})
    other = {**STATUS["conditions"][0], "type": "Programmed"}
    written = await side.cluster.apply_status(
        "MailDomain", side.namespace, "a", {"observedGeneration": 1, "conditions": [other]}
    )
    assert written is not None
    assert written["status"] == {"observedGeneration": 1, "conditions": [other]}


async def test_the_status_of_what_is_gone_is_none(side: Side, mail_domain: Any) -> None:
    assert await side.cluster.apply_status("MailDomain", side.namespace, "never", STATUS) is None
    await side.store(mail_domain("a"))
    await side.delete("a")
    assert await side.cluster.apply_status("MailDomain", side.namespace, "a", STATUS) is None


async def test_a_lease_is_created_once(side: Side) -> None:
    assert await side.cluster.get_lease(side.namespace, "lease") is None
    made = await side.cluster.create_lease(lease(side))
    assert made["spec"] == lease(side)["spec"]
    assert await side.cluster.get_lease(side.namespace, "lease") == made
    with pytest.raises(ClusterConflict):
        await side.cluster.create_lease(lease(side))


async def test_a_lease_is_replaced_only_as_it_was_read(side: Side) -> None:
    made = await side.cluster.create_lease(lease(side))
    changed = {**made, "spec": {**made["spec"], "holderIdentity": "another"}}
    replaced = await side.cluster.replace_lease(changed)
    assert resource_version(replaced) > resource_version(made)
    with pytest.raises(ClusterConflict):
        await side.cluster.replace_lease(made)
    found = await side.cluster.get_lease(side.namespace, "lease")
    assert found is not None
    assert found["spec"]["holderIdentity"] == "another"


async def test_an_annotation_that_is_left_out_goes(side: Side) -> None:
    document = lease(side)
    document["metadata"]["annotations"] = {"a": "1", "b": "2"}
    made = await side.cluster.create_lease(document)
    made = {**made, "metadata": {**made["metadata"], "annotations": {"b": "2"}}}
    await side.cluster.replace_lease(made)
    found = await side.cluster.get_lease(side.namespace, "lease")
    assert found is not None
    assert found["metadata"]["annotations"] == {"b": "2"}


async def test_an_event_can_be_posted(side: Side) -> None:
    reference = {"kind": "Lease", "name": "lease", "namespace": side.namespace}
    event = held_back_event(Removal(("a.test", "b.test"), 2), reference, "2026-01-01T00:00:00Z")
    await side.cluster.post_event(event)


async def test_a_cluster_that_is_away_is_unavailable(side: Side) -> None:
    away = await side.away()
    for call in (
        away.list_objects("MailDomain", side.namespace),
        away.apply_status("MailDomain", side.namespace, "a", STATUS),
        away.get_lease(side.namespace, "lease"),
        away.create_lease(lease(side)),
        away.replace_lease(lease(side)),
    ):
        with pytest.raises(ClusterUnavailable):
            await call
    await away.close()
