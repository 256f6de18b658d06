"""`helm uninstall`, after all other tests of the release: what stays is what docs/kubernetes.md says."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytestmark = [pytest.mark.node, pytest.mark.timeout(900)]

# Kubernetes' own in every namespace, and what the administrator brought.
OTHERS = {
    "ConfigMap/kube-root-ca.crt",
    "ServiceAccount/default",
    "Secret/users",
    "Secret/mx-tls",
    "MailDomain/example-test",
    "RelayPolicy/public-mx",
    "RelayPolicy/submission",
}
KEPT = {
    "PersistentVolumeClaim/data-mail-gatepost-kafka-0",
    "PersistentVolumeClaim/mail-mail-gatepost-mailbox-local-0",
    "Lease/mail-gatepost-operator",
}


def test_uninstall_leaves_mail_and_objects_and_nothing_else(release: Any) -> None:
    cluster = release.cluster
    release.helm("uninstall", release.name, "--wait", "--timeout", "180s")
    release.kubectl("wait", "--for=delete", "pod", "--all", "--timeout=180s")
    kinds = cluster.kubectl("api-resources", "--verbs=list", "--namespaced", "-o", "name").split()
    kinds = [kind for kind in kinds if not kind.startswith("events")]
    left = {f"{one['kind']}/{one['metadata']['name']}" for one in release.get(",".join(kinds))["items"]}
    # The controllers of a Service's endpoints take their time; everything else is gone with the release.
    left = {one for one in left if not one.startswith(("EndpointSlice/", "Endpoints/", "ControllerRevision/"))}
    assert left == OTHERS | KEPT
    everywhere = ["clusterroles", "clusterrolebindings", "customresourcedefinitions"]
    labelled = json.loads(
        cluster.kubectl("get", ",".join(everywhere), "-l", "app.kubernetes.io/instance=mail", "-o", "json")
    )["items"]
    assert sorted(one["metadata"]["name"] for one in labelled) == [
        "maildomains.gatepost.dev",
        "relaypolicies.gatepost.dev",
    ]
