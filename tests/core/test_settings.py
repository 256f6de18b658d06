"""Settings: what is wrong is named by file and field; the environment sets any value; names fit together."""

from __future__ import annotations

from pathlib import Path

import pytest

from gatepost.backends.settings_file import load_settings
from gatepost.core.manifest.quantities import seconds, size_bytes
from gatepost.core.manifest.read import ManifestError, load_yaml

GOOD = """
hostname: mx.example.test
log: {sqlite: {}}
directories: {users: {ldif: {file: "{state}/users.ldif"}}}
listeners: [{name: mx, address: "127.0.0.1:2525"}]
stores: {local: {maildir: {path: mail}}}
"""


def settings(tmp_path: Path, text: str, **environment: str):  # type: ignore[no-untyped-def]
    file = tmp_path / "gatepost.yaml"
    file.write_text(text)
    return load_settings(file, tmp_path / "state", environment)


def test_state_is_put_into_paths(tmp_path: Path) -> None:
    loaded = settings(tmp_path, GOOD)
    assert loaded.directories["users"].ldif.file == f"{tmp_path}/state/users.ldif"


def test_the_environment_sets_values(tmp_path: Path) -> None:
    loaded = settings(
        tmp_path,
        "log: {kafka: {}}\n",
        GATEPOST_HOSTNAME="mx.other.test",
        GATEPOST_LOG__KAFKA__BOOTSTRAP_SERVERS="a:9092, b:9092",
        GATEPOST_LOG__KAFKA__CREATE_TOPICS="false",
        GATEPOST_LOG__PARTITIONS="3",
        GATEPOST_EDGE_SERVICE_HOST="10.0.0.1",
    )
    assert loaded.hostname == "mx.other.test"
    assert loaded.log.kafka.bootstrap_servers == ("a:9092", "b:9092")
    assert loaded.log.kafka.create_topics is False
    assert loaded.log.partitions == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("log: {sqlite: {}, kafka: {}}", "log: exactly one"),
        ("log: {sqlite: {}, appendTimeout: 30s}", "log.appendTimeout"),
        ("directories: {users: {}}", "directories.users: exactly one"),
        ("stores: {a: {maildir: {path: x}, lmtp: {address: 'h:24'}}}", "stores.a"),
        ("listeners: [{name: mx, address: nonsense}]", "listeners[0].address"),
        ("listeners: [{name: mx, address: 'h:²'}]", "listeners[0].address: 'h:²' is not HOST:PORT"),
        ("admin: {address: '127.0.0.1:280.5'}", "admin.address: '127.0.0.1:280.5' is not HOST:PORT"),
        ("admin: {address: '127.0.0.1:65536'}", "admin.address"),
        ("stores: {a: {lmtp: {address: 'h:0'}}}", "stores.a.lmtp.address: 'h:0' is not HOST:PORT"),
        ("telemetry: {logLevel: loud}", "telemetry.logLevel: 'loud' is none of debug, info, warning, error"),
        ("telemetry: {logFormat: xml}", "telemetry.logFormat"),
        ("listeners: [{name: mx, address: 'h:1'}, {name: mx, address: 'h:2'}]", "stands twice"),
        ("listeners: [{name: mx, address: 'h:1', tls: {keyFile: k}}]", "listeners[0].tls"),
        ("listeners: [{name: mx, adress: 'h:1'}]", "adress"),
        ("store: other", "store: 'other'"),
        ("log: {kafka: {replicationFactor: 1}}", "minInsyncReplicas"),
        ("log: {kafka: {bootstrapServers: []}}", "log.kafka.bootstrapServers: at least one"),
        ("log: {kafka: {bootstrapServers: ['a:1', kafka]}}", "log.kafka.bootstrapServers[1]: 'kafka' is not HOST"),
        ("log: {kafka: {bootstrapServers: ['a:0']}}", "log.kafka.bootstrapServers[0]: 'a:0' is not HOST:PORT"),
        ("hostname: [", "line"),
        ("hostname: a\nhostname: b", "stands twice"),
        ("- a\n- b", "a mapping"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ManifestError) as caught:
        settings(tmp_path, text)
    assert words in str(caught.value)
    assert "gatepost.yaml" in str(caught.value)


def test_a_variable_that_names_nothing(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="names no setting"):
        settings(tmp_path, GOOD, GATEPOST_LOG__NONSENSE="1")


def test_dates_stay_texts() -> None:
    assert load_yaml("a: 2026-01-01", "f") == [{"a": "2026-01-01"}]


@pytest.mark.parametrize(("text", "value"), [("1h30m", 5400), ("250ms", 0.25), ("36h", 129600), ("0s", 0)])
def test_durations(text: str, value: float) -> None:
    assert seconds(text) == value


@pytest.mark.parametrize("text", ["30m1h", "1h1h", ""])
def test_bad_durations(text: str) -> None:
    with pytest.raises(ValueError, match="hours"):
        seconds(text)


@pytest.mark.parametrize(("text", "value"), [("25Mi", 25 * 2**20), ("10k", 10000), ("7", 7), ("1Gi", 2**30)])
def test_sizes(text: str, value: int) -> None:
    assert size_bytes(text) == value


@pytest.mark.parametrize(
    ("listener", "field"),
    [
        ("proxyProtocol: {trustedNetworks: [nonsense]}", "listeners[0].proxyProtocol.trustedNetworks[0]"),
        ("xclient: {trustedNetworks: [10.0.0.1, 10.0.0.1/8]}", "listeners[0].xclient.trustedNetworks[1]"),
        ("tls: {implicit: true}", "listeners[0].tls.implicit"),
        ("tls: {clientCaFile: ca.pem}", "listeners[0].tls.clientCaFile"),
        ("tls: {certificates: [{certificateFile: a, keyFile: ''}]}", "listeners[0].tls.certificates[0]"),
        ("tls: {certificateFile: a}", "listeners[0].tls"),
    ],
)
def test_listeners_that_cannot_be(tmp_path: Path, listener: str, field: str) -> None:
    file = tmp_path / "gatepost.yaml"
    file.write_text(f"listeners: [{{name: mx, address: '127.0.0.1:0', {listener}}}]\n")
    with pytest.raises(ManifestError) as error:
        load_settings(file, None, {})
    assert field in str(error.value)


def test_a_listener_with_everything(tmp_path: Path) -> None:
    file = tmp_path / "gatepost.yaml"
    file.write_text(
        "listeners: [{name: mx, address: '127.0.0.1:0', proxyProtocol: {trustedNetworks: [10.0.0.0/8]}, "
        "xclient: {trustedNetworks: [10.0.0.1]}, tls: {implicit: true, clientCaFile: ca.pem, "
        "certificates: [{certificateFile: a, keyFile: b}, {certificateFile: c, keyFile: d}]}}]\n"
    )
    (listener,) = load_settings(file, None, {}).listeners
    assert listener.proxy_protocol.trusted_networks == ("10.0.0.0/8",)
    assert listener.xclient.trusted_networks == ("10.0.0.1",)
    assert [pair.certificate_file for pair in listener.tls.certificates] == ["a", "c"]
