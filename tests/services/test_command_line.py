"""The command line as its user meets it: exit codes, one clear line for each fault, check, trace, quickstart."""

from __future__ import annotations

import json
import shutil
import smtplib
import subprocess
import sys
from pathlib import Path

import pytest

from testbed.installation import GATEPOST, Member
from testbed.world import wait_for

# Whole processes of ours: seconds each.
pytestmark = pytest.mark.servers

EXAMPLE = Path(__file__).resolve().parent.parent.parent / "examples/quickstart"
SECONDS = 60


def gatepost(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([GATEPOST, *words], capture_output=True, text=True, timeout=SECONDS, check=False)


def test_check_accepts_the_quickstart() -> None:
    done = gatepost("check", EXAMPLE)
    assert done.returncode == 0, done.stderr
    assert "3 objects, 0 refused" in done.stdout


def test_check_names_object_field_and_reason(tmp_path: Path) -> None:
    shutil.copytree(EXAMPLE, tmp_path / "c")
    (tmp_path / "c/more.yaml").write_text(
        "apiVersion: gatepost.dev/v1alpha1\nkind: MailDomain\nmetadata: {name: more}\n"
        "spec: {domain: a_b, recipients: {source: {type: Any}}}\n"
    )
    done = gatepost("check", tmp_path / "c", "--output", "json")
    assert done.returncode == 1
    told = json.loads(done.stdout)
    assert told["ok"] is False
    (bad,) = [one for one in told["objects"] if one["object"] == "MailDomain default/more"]
    assert "spec.domain" in bad["conditions"][0]["message"]


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("check", "/nonexistent"), 2, "gatepost.yaml"),
        (("trace", "nonsense", "--config", str(EXAMPLE)), 2, "not a message id"),
        (("trace", "01HF7YAT3VMNYNQV3RQQ4BXDW8", "--config", str(EXAMPLE), "--state", "/nonexistent"), 3, "no log"),
        (("publish", str(EXAMPLE), "--config", str(EXAMPLE / "gatepost.yaml")), 2, "Kafka"),
        (("nonsense",), 2, "invalid choice"),
    ],
)
def test_faults_are_one_line_and_an_exit_code(words: tuple[str, ...], code: int, text: str) -> None:
    done = gatepost(*words)
    assert (done.returncode, text in done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr


def quickstart(folder: Path) -> Member:
    """The quickstart on ports of its own, as `make run` starts it."""
    import yaml

    document = yaml.safe_load((EXAMPLE / "gatepost.yaml").read_text())
    member = Member("run", "quickstart", folder, document)
    shutil.copy(EXAMPLE / "example-test.yaml", member.config)
    member.made = gatepost("quickstart", "--state", member.state).stdout  # type: ignore[attr-defined]
    return member


def test_the_quickstart_receives_and_delivers(tmp_path: Path) -> None:
    with quickstart(tmp_path) as own:
        passwords = dict(
            line.split("  password ") for line in own.made.splitlines() if "password" in line and "@" in line
        )  # type: ignore[attr-defined]
        password = next(value for name, value in passwords.items() if "alice" in name)
        assert "password" not in gatepost("quickstart", "--state", own.state).stdout
        with smtplib.SMTP("127.0.0.1", own.submission, timeout=SECONDS) as client:
            client.starttls()
            client.login("alice", password)
            client.sendmail("alice@example.test", ["bob+tag@example.test"], b"Subject: hi\r\n\r\nhello\r\n")
        folder = own.state / "mail/bob@example.test/new"
        (file,) = wait_for(lambda: list(folder.glob("*")), bool, SECONDS)
        text = file.read_bytes()
        assert text.startswith(b"Return-Path: <alice@example.test>\r\nDelivered-To: bob@example.test\r\nReceived: ")
        assert text.endswith(b"Subject: hi\r\n\r\nhello\r\n")
        own_id = text.partition(b"\tid ")[2].partition(b"\r\n")[0].decode()

        def story() -> str:
            done = gatepost("trace", own_id, "--config", own.config, "--state", own.state, "--output", "json")
            return done.stdout

        told = wait_for(story, lambda out: '"stored"' in out, SECONDS)
        assert [event["kind"] for event in json.loads(told)] == ["accepted", "routed", "stored"]
        assert password not in own.log.read_text()


def test_a_changed_policy_is_live_and_a_bad_one_is_not(tmp_path: Path) -> None:
    with quickstart(tmp_path) as own:
        manifest = own.config / "example-test.yaml"
        good = manifest.read_text()

        def limit() -> int:
            with smtplib.SMTP("127.0.0.1", own.mx, timeout=SECONDS) as client:
                client.ehlo("x")
                return int(client.esmtp_features["size"])

        assert limit() == 50 * 2**20
        manifest.write_text(good.replace("smtp: {bareNewline: Reject}", "smtp: {limits: {messageSize: 1Mi}}"))
        wait_for(limit, lambda size: size == 2**20, SECONDS)
        manifest.write_text(good.replace("bareNewline: Reject", "bareNewline: Perhaps"))
        wait_for(own.log.read_text, lambda text: "config.refused" in text, SECONDS)
        assert "bareNewline" in own.log.read_text()
        assert limit() == 2**20


def test_two_processes_on_one_log(tmp_path: Path) -> None:
    with quickstart(tmp_path) as own:
        done = subprocess.run(
            [sys.executable, "-m", "gatepost.cli", "run", "--config", own.config, "--state", own.state],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    assert done.returncode == 3
    assert "in use by another process" in done.stderr
    assert "Traceback" not in done.stderr
