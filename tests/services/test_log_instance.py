"""A process works with the log that it knows, or says how the other one is accepted."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from gatepost.cli.log_instance import FILE, check_instance
from gatepost.core.manifest.read import ManifestError
from gatepost.core.manifest.settings import KafkaSecurity, KafkaSettings, LogSettings, Settings
from gatepost.core.manifest.settings_rules import check_settings
from gatepost.core.ports.log import LogMisconfigured


def test_the_first_log_is_remembered_and_another_is_refused(tmp_path: Path) -> None:
    settings = LogSettings()
    check_instance(tmp_path, settings, "first")
    check_instance(tmp_path, settings, "first")
    with pytest.raises(LogMisconfigured) as caught:
        check_instance(tmp_path, settings, "second")
    for text in (
        "second",
        "first",
        "log.acceptInstance",
        "GATEPOST_LOG__ACCEPT_INSTANCE=second",
        str(tmp_path / FILE),
    ):
        assert text in str(caught.value)
    check_instance(tmp_path, settings, "first")


def test_another_log_is_accepted_by_name_only(tmp_path: Path) -> None:
    check_instance(tmp_path, LogSettings(), "first")
    accepting = LogSettings(accept_instance="second")
    with pytest.raises(LogMisconfigured):
        check_instance(tmp_path, accepting, "third")
    check_instance(tmp_path, accepting, "second")
    check_instance(tmp_path, LogSettings(), "second")
    with pytest.raises(LogMisconfigured):
        check_instance(tmp_path, LogSettings(), "first")
    assert [file.name for file in tmp_path.iterdir()] == [FILE]


KAFKA = KafkaSettings()
TLS = KafkaSecurity.TLS


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"username": "a"}, "log.kafka.passwordFile"),
        ({"username_file": "/a"}, "log.kafka.passwordFile"),
        ({"password_file": "/a"}, "log.kafka.passwordFile"),
        ({"username": "a", "username_file": "/a", "password_file": "/b"}, "log.kafka.usernameFile"),
        ({"certificate_file": "/a", "security": TLS}, "log.kafka.certificateFile"),
        ({"key_file": "/a", "security": TLS}, "log.kafka.certificateFile"),
        ({"certificate_file": "/a", "key_file": "/b"}, "log.kafka.security"),
        ({"ca_file": "/a"}, "log.kafka.security"),
        ({"replication_factor": 1}, "log.kafka.minInsyncReplicas"),
        ({"username": "a", "password_file": "/a"}, None),
        ({"username_file": "/a", "password_file": "/a"}, None),
        ({"certificate_file": "/a", "key_file": "/b", "ca_file": "/c", "security": TLS}, None),
    ],
)
def test_security_settings_that_do_not_fit_together_are_named(
    changed: dict[str, object], field: str | None
) -> None:
    kafka = msgspec.structs.replace(KAFKA, **changed)
    settings = Settings(log=LogSettings(kafka=kafka))
    if field is None:
        check_settings(settings, "f")
        return
    with pytest.raises(ManifestError) as caught:
        check_settings(settings, "f")
    assert field in str(caught.value)
