"""The chart as helm renders it: what pods may do, what they are told, and that wrong values are refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from gatepost.backends.settings_file import load_settings
from gatepost.core.manifest.quantities import seconds
from gatepost.core.manifest.settings import DirectorySettings, LdapSettings, Role, Settings
from gatepost.telemetry.export import prometheus_text

pytestmark = pytest.mark.node

REPOSITORY = Path(__file__).resolve().parents[2]
CHART = REPOSITORY / "charts" / "gatepost"
GOLDEN = Path(__file__).with_name("golden")
ALL_VALUES = ("least", "everything", "examples/trying-out", "examples/production")
# What the chart decides by itself, so that it can't be set.
COMPUTED = {"log.sqlite", "log.topicPrefix", "log.kafka.bootstrapServers", "log.kafka.replicationFactor"}
COMPUTED |= {"log.kafka.minInsyncReplicas", "log.kafka.createTopics", "log.kafka.security", "log.kafka.caFile"}
COMPUTED |= {"log.kafka.saslMechanism", "log.kafka.certificateFile", "log.kafka.keyFile"}
# The user's name is no secret and comes as a value, so no file is needed for it.
COMPUTED |= {"log.kafka.usernameFile"}
COMPUTED |= {"log.kafka.username", "log.kafka.passwordFile", "hostname", "directories", "listeners", "stores"}
COMPUTED |= {"admin", "store", "state", "releaseNamespace", "domainOwnership"}

Object = dict[str, Any]


def pods(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    """Every pod's spec with the name of what makes it."""
    for one in objects:
        if one["kind"] == "Pod":
            yield one["metadata"]["name"], one["spec"]
        elif "template" in one.get("spec", {}):
            yield one["metadata"]["name"], one["spec"]["template"]["spec"]


def find(objects: list[Object], kind: str, name: str) -> Object:
    (found,) = [one for one in objects if one["kind"] == kind and one["metadata"]["name"] == name]
    return found


@pytest.mark.parametrize("values", ALL_VALUES)
def test_helm_lint_has_nothing_to_say(helm: Any, values: str) -> None:
    output = helm.run("lint", "--strict", CHART, "-f", helm.file(values))
    said = [line for line in output.splitlines() if line.startswith("[") and "icon is recommended" not in line]
    assert said == []


@pytest.mark.parametrize("values", ALL_VALUES)
def test_a_release_is_these_objects(helm: Any, values: str) -> None:
    """The list is in golden/: a new or a vanished object must be meant."""
    objects = helm.render(values)
    names = sorted(f"{one['kind']} {one['metadata']['name']}" for one in objects)
    assert names == (GOLDEN / f"{Path(values).name}.txt").read_text().splitlines()
    assert len(names) == len(set(names))
    cluster_wide = {"CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding"}
    for one in objects:
        assert one["metadata"].get("namespace") == (None if one["kind"] in cluster_wide else "post"), one
        assert one["metadata"]["labels"]["app.kubernetes.io/instance"] == "mail"


@pytest.mark.parametrize("values", ALL_VALUES)
def test_every_pod_is_restricted(helm: Any, values: str) -> None:
    seen = 0
    for name, spec in pods(helm.render(values)):
        seen += 1
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert spec["automountServiceAccountToken"] is name.endswith("-operator"), name
        assert spec["enableServiceLinks"] is False, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys(), name
        for container in spec["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False, name
            assert context["readOnlyRootFilesystem"] is True, name
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}, name
            assert "memory" in container["resources"]["limits"], name
    assert seen >= 6


@pytest.mark.parametrize("values", ALL_VALUES)
@pytest.mark.parametrize("key", ["gatepost.yaml", "delivery.yaml"])
def test_pods_can_read_their_settings(settings_of: Callable[..., Path], values: str, key: str) -> None:
    """The rendered file goes through the very code that the pods read it with."""
    settings = load_settings(settings_of(values, key), None, {})
    assert settings.log.kafka is not None
    assert settings.log.topic_prefix == "post.mail."
    assert settings.release_namespace == "post"
    assert settings.admin.address == "0.0.0.0:8025"
    if key == "delivery.yaml":
        assert settings.directories == {}  # relay and mailbox pods have none of their secrets


def test_values_arrive_in_the_settings(settings_of: Callable[..., Path]) -> None:
    settings = load_settings(settings_of("everything", "gatepost.yaml"), None, {})
    kafka = settings.log.kafka
    assert kafka is not None
    assert kafka.bootstrap_servers == ("k1.example:9093", "k2.example:9093")
    assert (kafka.replication_factor, kafka.min_insync_replicas) == (3, 2)
    assert kafka.ca_file == "/etc/gatepost/kafka-ca/ca.crt"
    assert kafka.password_file == "/etc/gatepost/kafka-password/password"
    assert kafka.session_timeout == "10s"
    assert settings.dns.cache_entries == 1_000_000
    corp = settings.directories["corp"].ldap
    assert corp is not None
    assert corp.bind_password_file == "/etc/gatepost/directories/corp/password/password"
    assert corp.ca_file == "/etc/gatepost/directories/corp/ca/authority.pem"
    assert settings.domain_ownership == {"team-a": ("a.example.jp", "b.example")}
    by_name = {listener.name: listener for listener in settings.listeners}
    assert by_name["submissions"].tls.implicit
    (pair,) = by_name["submissions"].tls.certificates
    assert pair.key_file == "/etc/gatepost/tls/submissions-0/tls.key"
    assert by_name["submissions"].tls.client_ca_file == "/etc/gatepost/tls/submissions-clients/all.pem"
    assert by_name["inside"].role is Role.INTERNAL
    assert by_name["inside"].xclient.trusted_networks == ("192.0.2.8",)
    assert by_name["mx"].proxy_protocol.trusted_networks == ()
    assert by_name["inside"].proxy_protocol.trusted_networks == ("192.0.2.0/28",)
    assert by_name["submission"].tls.certificate_file == "/etc/gatepost/tls/submission/tls.crt"
    imap = settings.stores["imap"].lmtp
    assert imap is not None
    assert imap.address == "dovecot.mail.svc:2424"


def test_files_that_the_settings_name_are_mounted(helm: Any, settings_of: Callable[..., Path]) -> None:
    """Every file's folder is a volume of every pod that reads these settings with their secrets."""
    objects = helm.render("everything")
    named = set(re.findall(r"/etc/gatepost/[^\s\"']+", settings_of("everything", "gatepost.yaml").read_text()))
    assert len(named) >= 8
    edge = find(objects, "Deployment", "mail-gatepost-edge")["spec"]["template"]["spec"]
    router = find(objects, "Deployment", "mail-gatepost-router")["spec"]["template"]["spec"]
    relay = find(objects, "Deployment", "mail-gatepost-relay")["spec"]["template"]["spec"]

    def mounted(spec: Object) -> set[str]:
        volumes = {volume["name"] for volume in spec["volumes"]}
        mounts = spec["containers"][0]["volumeMounts"]
        assert {mount["name"] for mount in mounts} == volumes
        return {mount["mountPath"] for mount in mounts}

    assert {str(Path(file).parent) for file in named} <= mounted(edge)
    assert {"/etc/gatepost/files/access", "/etc/gatepost/files/hidden"} <= mounted(edge)
    sources = {volume["name"]: volume for volume in edge["volumes"]}
    assert sources["files-access"]["configMap"]["name"] == "mail-access"
    assert sources["files-hidden"]["secret"]["secretName"] == "mail-hidden"
    assert {str(Path(file).parent) for file in named if "/tls/" not in file} <= mounted(router)
    assert not [path for path in mounted(router) if "/tls/" in path]
    assert not [path for path in mounted(relay) if "directories" in path or "/tls/" in path]


def test_a_store_that_routes_is_told_of_the_directories_and_no_other_store_is(helm: Any) -> None:
    objects = helm.render("everything")
    seen = {}
    for store in ("local", "kept", "imap"):
        spec = find(objects, "StatefulSet", f"mail-gatepost-mailbox-{store}")["spec"]["template"]["spec"]
        mounts = {mount["mountPath"] for mount in spec["containers"][0]["volumeMounts"]}
        (settings,) = [one["configMap"]["items"][0]["key"] for one in spec["volumes"] if one["name"] == "settings"]
        seen[store] = (settings, "/etc/gatepost/directories/corp/password" in mounts)
    plain = ("delivery.yaml", False)
    assert seen == {"local": ("gatepost.yaml", True), "kept": plain, "imap": plain}


def test_replicas_are_left_alone_unless_a_number_is_given(helm: Any) -> None:
    least, everything = helm.render("least"), helm.render("everything")
    for component in ("edge", "router", "relay"):
        assert "replicas" not in find(least, "Deployment", f"mail-gatepost-{component}")["spec"]
    assert "replicas" not in find(everything, "Deployment", "mail-gatepost-edge")["spec"]  # its autoscaler's
    assert find(everything, "HorizontalPodAutoscaler", "mail-gatepost-edge")["spec"]["maxReplicas"] == 30
    assert find(everything, "Deployment", "mail-gatepost-router")["spec"]["replicas"] == 4
    assert find(everything, "Deployment", "mail-gatepost-relay")["spec"]["replicas"] == 0


def test_a_maildir_store_has_one_owner_and_its_mail_outlives_the_release(helm: Any) -> None:
    objects = helm.render("everything")
    local = find(objects, "StatefulSet", "mail-gatepost-mailbox-local")["spec"]
    assert local["replicas"] == 1
    assert local["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
    assert local["volumeClaimTemplates"][0]["spec"]["storageClassName"] == "fast"
    kept = find(objects, "StatefulSet", "mail-gatepost-mailbox-kept")["spec"]
    assert "volumeClaimTemplates" not in kept
    claims = [
        volume["persistentVolumeClaim"]
        for volume in kept["template"]["spec"]["volumes"]
        if "persistentVolumeClaim" in volume
    ]
    assert claims == [{"claimName": "old-mail"}]
    imap = find(objects, "StatefulSet", "mail-gatepost-mailbox-imap")["spec"]
    assert imap["replicas"] == 3
    assert "volumeClaimTemplates" not in imap


def test_the_longest_names_still_fit(helm: Any) -> None:
    """A StatefulSet's name with a hash is a label of its pods: 63 characters at most, so 52 for the name."""
    for one in helm.render("least", "--set", "stores.twelve-chars.maildir.ledgerKeep=48h", release="r" * 53):
        limit = 52 if one["kind"] == "StatefulSet" else 63
        assert len(one["metadata"]["name"]) <= limit, one["metadata"]["name"]


def test_the_operator_has_the_documented_rights_and_no_others(helm: Any) -> None:
    text = (REPOSITORY / "docs" / "rbac.md").read_text()
    documented = [
        yaml.safe_load(block.replace("NAMESPACE", "post").replace("RELEASE", "mail-gatepost"))
        for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    ]
    rules = {one["kind"]: one["rules"] for one in documented}
    objects = helm.render("everything")
    assert find(objects, "Role", "mail-gatepost-operator")["rules"] == rules["Role"]
    assert find(objects, "ClusterRole", "post-mail-gatepost-operator")["rules"] == rules["ClusterRole"]
    roles = [one["kind"] for one in helm.render("least") if one["kind"].endswith(("Role", "RoleBinding"))]
    assert sorted(roles) == ["Role", "RoleBinding"]  # without domainOwnership nothing cluster-wide


def test_the_chart_has_the_generated_crds(helm: Any) -> None:
    generated = {file.name: file.read_text() for file in (REPOSITORY / "crds").glob("*.yaml")}
    copied = {file.name: file.read_text() for file in (CHART / "files" / "crds").glob("*.yaml")}
    assert len(generated) == 2
    assert copied == generated, "copy crds/*.yaml to charts/gatepost/files/crds"
    rendered = [one for one in helm.render("least") if one["kind"] == "CustomResourceDefinition"]
    for crd in rendered:
        assert crd["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
        del crd["metadata"]["labels"]
    # The same numbers too: 1e+06 would not be an integer to the API server.
    documents = [yaml.safe_load(text) for text in generated.values()]
    assert sorted(map(_text, rendered)) == sorted(map(_text, documents))
    for words, kept in ((["--set", "crds.keep=false"], False), (["--set", "crds.enabled=false"], None)):
        left = [
            one["metadata"].get("annotations")
            for one in helm.render("least", *words)
            if one["kind"] == "CustomResourceDefinition"
        ]
        assert left == ([] if kept is None else [None, None])


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["edge.replica=3"], "replica"),
        (["settings.limits.session=1"], "session"),
        (["settings.log.topicPrefix=x."], "topicPrefix"),
        (["kafka.bootstrapServers={kafka}"], "bootstrapServers"),
        (["kafka.bootstrapServers=null"], "kafka.dev.enabled=true"),
        (["kafka.dev.enabled=true"], "exclude each other"),
        (["kafka.sasl.username=u"], "passwordSecret"),
        (["kafka.sasl.mechanism=GSSAPI"], "mechanism"),
        (["kafka.tls.certificateSecret=c"], "kafka.tls.enabled"),
        (["listeners.mx.containerPort=25"], "containerPort"),
        (["listeners.mx.role=outside"], "role"),
        (["listeners.mx.tls.implicit=true"], "needs a certificate"),
        (["services.edge.listeners={mx,web}"], 'no listener "web"'),
        (["stores.a-name-that-is-long.maildir.ledgerKeep=1h"], "a-name-that-is-long"),
        (["stores.both.maildir.ledgerKeep=1h", "stores.both.lmtp.address=h:24"], "both"),
        (["directories.corp.ldap.base=dc=x"], "corp"),
        (["directories.corp.ldif.file=/etc/passwd"], "corp"),
        (["directories.corp.ldap.bindPasswordFile=x"], "corp"),
        (["image.digest=latest"], "digest"),
    ],
)
def test_wrong_values_are_refused_with_their_name(helm: Any, words: list[str], reason: str) -> None:
    with pytest.raises(helm.refused) as refused:
        helm.render("least", *(part for word in words for part in ("--set", word)))
    assert reason in str(refused.value)


def test_the_schema_knows_all_settings_but_those_that_the_chart_computes() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    of_schema = set(_schema_fields(schema, schema["properties"]["settings"]))
    of_settings = set(_struct_fields(Settings))
    computed = {name for name in of_settings if any(name == one or name.startswith(f"{one}.") for one in COMPUTED)}
    assert of_schema == of_settings - computed
    directory = set(_struct_fields(DirectorySettings)) | {f"ldap.{name}" for name in _struct_fields(LdapSettings)}
    files = {"ldap.bindPasswordFile", "ldap.caFile", "ldif.file"}
    named = set(_schema_fields(schema, schema["$defs"]["ldap"], "ldap."))
    assert named == {name for name in directory if name.startswith("ldap.")} - files


def _text(document: Object) -> str:
    return json.dumps(document, sort_keys=True)


def _schema_fields(schema: Object, node: Object, prefix: str = "") -> Iterator[str]:
    """The paths of a schema's leaves."""
    if "$ref" in node:
        node = schema["$defs"][node["$ref"].removeprefix("#/$defs/")]
    if "properties" not in node:
        yield prefix.removesuffix(".")
        return
    for name, inner in node["properties"].items():
        yield from _schema_fields(schema, inner, f"{prefix}{name}.")


def _struct_fields(kind: Any, prefix: str = "") -> Iterator[str]:
    """The same of settings' types; a list or mapping is a leaf."""
    for field in msgspec.structs.fields(kind):
        options = [field.type, *getattr(field.type, "__args__", ())]
        structs = [one for one in options if isinstance(one, type) and issubclass(one, msgspec.Struct)]
        if structs and getattr(field.type, "__origin__", None) is None:
            yield from _struct_fields(structs[0], f"{prefix}{field.encode_name}.")
        else:
            yield f"{prefix}{field.encode_name}"


def test_the_dashboard_and_the_alerts_ask_for_metrics_that_exist(helm: Any) -> None:
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", prometheus_text().decode(), re.MULTILINE))
    exported = set(kinds) | {f"{name}_bucket" for name, kind in kinds.items() if kind == "histogram"}
    objects = helm.render("everything")
    rules = find(objects, "PrometheusRule", "mail-gatepost")["spec"]["groups"][0]["rules"]
    dashboard = json.loads(find(objects, "ConfigMap", "mail-gatepost-dashboard")["data"]["gatepost.json"])
    expressions = [rule["expr"] for rule in rules]
    expressions += [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    asked = set(re.findall(r"gatepost_\w+", " ".join(expressions)))
    assert len(asked) >= 12
    assert asked <= exported
    assert all('namespace="post", pod=~"mail-gatepost-.*"' in rule["expr"] for rule in rules)
    assert len({rule["alert"] for rule in rules}) == len(rules)


def test_network_policies_leave_the_listeners_open_and_little_else(helm: Any) -> None:
    objects = helm.render("everything")
    policies = {
        one["metadata"]["name"].removeprefix("mail-gatepost-"): one["spec"]
        for one in objects
        if one["kind"] == "NetworkPolicy"
    }
    components = {
        one["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/component"]
        for one in objects
        if "template" in one.get("spec", {})
    }
    assert set(policies) == components
    from_anywhere = {
        name: [port["port"] for rule in spec["ingress"] if "from" not in rule for port in rule["ports"]]
        for name, spec in policies.items()
    }
    assert from_anywhere == {
        "edge": ["inside", "mx", "submission", "submissions"],
        "router": [],
        "relay": [],
        "mailbox": [],
        "operator": [],
    }
    to = {
        name: {port["port"] for rule in spec["egress"] for port in rule.get("ports", [])}
        for name, spec in policies.items()
    }
    assert to["edge"] == to["router"] == {53, 9093, 4318, 636, 1389}
    assert to["relay"] == {53, 9093, 4318, 25, 465, 587, 2500}
    assert to["mailbox"] == {53, 9093, 4318, 2424, 636, 1389}  # the last two since a store routes
    assert to["operator"] == {53, 9093, 4318, 443, 6443}


def test_services_carry_their_listeners(helm: Any) -> None:
    objects = helm.render("everything")
    ports = {
        one["metadata"]["name"]: {port["name"]: (port["port"], port["targetPort"]) for port in one["spec"]["ports"]}
        for one in objects
        if one["kind"] == "Service" and one["metadata"]["labels"]["app.kubernetes.io/component"] == "edge"
    }
    assert ports == {
        "mail-gatepost-edge": {"mx": (25, "mx")},
        "mail-gatepost-clients": {"submission": (587, "submission"), "submissions": (465, "submissions")},
        "mail-gatepost-inside": {"inside": (26, "inside")},
    }
    assert find(objects, "Service", "mail-gatepost-edge")["spec"]["externalTrafficPolicy"] == "Local"
    assert "externalTrafficPolicy" not in find(objects, "Service", "mail-gatepost-inside")["spec"]


def test_the_grace_period_has_room_for_the_drain(helm: Any, settings_of: Callable[..., Path]) -> None:
    """Connections, then messages under way, then the last append; Kubernetes kills only afterwards."""
    for values in ALL_VALUES:
        settings = load_settings(settings_of(values, "gatepost.yaml"), None, {})
        spec = find(helm.render(values), "Deployment", "mail-gatepost-edge")["spec"]["template"]["spec"]
        waits = spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
        needed = waits + seconds(settings.limits.drain) + seconds(settings.log.append_timeout)
        assert spec["terminationGracePeriodSeconds"] > needed, values


def test_images_of_the_release_have_its_version(helm: Any) -> None:
    images = {
        container["image"]
        for _, spec in pods(helm.render("examples/trying-out"))
        for container in spec["containers"]
    }
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    assert images == {f"gatepost/{name}:{version}" for name in ("gatepost", "gatepost-operator", "gatepost-kafka")}
    digest = "sha256:" + "0" * 64
    pinned = helm.render("least", "--set", f"image.digest={digest}")
    edge = find(pinned, "Deployment", "mail-gatepost-edge")["spec"]["template"]["spec"]
    assert edge["containers"][0]["image"] == f"gatepost/gatepost@{digest}"
