"""What an operator sees of a gateway that runs: start-up, logs, queue, evidence; and what nobody sees over SMTP."""

from __future__ import annotations

import hashlib
import json
import os
import re
import smtplib
import socket
import stat
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gatepost import __version__
from gatepost.core.ids import is_id
from testbed.world import wait_for

# Whole processes of ours: seconds each.
pytestmark = pytest.mark.servers

if TYPE_CHECKING:
    from conftest import Gateway

SECONDS = 60


@pytest.mark.requirement("S0-64")
def test_the_start_says_what_runs(gateway: Gateway) -> None:
    """Fails without version, time, host name, addresses, log, queue, durability and ready at the start."""
    text = gateway.log.read_text()
    assert re.search(rf"^Gatepost {__version__} is running as mx\.example\.test since \w+, .* \+0000$", text, re.M)
    for said in (
        f"mx          127.0.0.1:{gateway.mx}",
        f"submission  127.0.0.1:{gateway.submission}",
        "synced to this disk before 250",
        "queue       empty",
        "\nReady.\n",
    ):
        assert said in text
    (line,) = [line for line in gateway.lines("main.log") if line["event"] == "started"]
    assert line["version"] == __version__
    assert line["code"] == os.environ.get("GATEPOST_CODE", "interpreted")
    assert line["services"] == ["standalone"]
    assert line["listening"]["mx"] == f"127.0.0.1:{gateway.mx}"
    assert line["policies"] == {
        "mx": "RelayPolicy default/public-mx",
        "submission": "RelayPolicy default/submission",
    }
    assert (line["domains"], line["queued"]) == (1, {})
    assert line["log"].startswith("sqlite ")
    assert (line["host"], line["pid"]) == (socket.gethostname(), gateway.pid)


def test_a_restart_says_what_waits(tmp_path: Path, new_gateway: type[Gateway]) -> None:
    own = new_gateway(tmp_path)
    with own:
        own.submit("far@nowhere.example")
        wait_for(lambda: own.ask("queue", "list").stdout, lambda out: "retry.1m" in out, SECONDS)
    with own:  # which answers before it has said all this, into the same file
        text = wait_for(own.log.read_text, lambda text: text.count("Ready.") == 2, SECONDS)
        assert re.findall(r"^  queue +(.*)$", text, re.M) == ["empty", "1 in retry.1m"]


@pytest.mark.requirement("S0-65")
def test_a_refusal_stands_in_the_log_with_host_pid_and_id(gateway: Gateway) -> None:
    """Fails without time, host, pid, id, client, `<recipient>... user unknown` in the line of a refusal."""
    (line,) = [line for line in gateway.lines("main.log") if line.get("to") == "<mark@example.test>"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", str(line["timestamp"]))
    assert (line["host"], line["pid"], line["client"]) == (socket.gethostname(), gateway.pid, "127.0.0.1")
    assert is_id(line["id"])
    assert line["text"] == "<mark@example.test>: user unknown"
    assert line["port"] > 0


def test_the_decisions_stand_in_their_own_log(gateway: Gateway) -> None:
    decisions = [line["decision"] for line in gateway.lines("decisions.log")]
    assert decisions[:3] == ["accepted", "accepted", "refused"]
    assert stat.S_IMODE((gateway.state / "log/decisions.log").stat().st_mode) == 0o640


@pytest.mark.requirement("S4-74")
def test_the_queue_shows_who_keeps_mail_waiting(gateway: Gateway) -> None:
    """Fails without waiting copies by topic and destination, with age, reason, attempts and the next try."""
    listed = gateway.ask("queue", "list", "--output", "json")
    assert listed.returncode == 0
    told = json.loads(listed.stdout)
    assert told["copies"] == 1
    (topic,), (destination,) = told["topics"], told["destinations"]
    assert (topic["name"], topic["copies"], topic["recipients"]) == ("retry.1m", 1, 2)
    assert "nowhere.example" in destination["name"]
    assert destination["reason"].startswith("451 4.4.3 DNS did not answer")
    (one,) = told["waiting"]
    assert one["attempts"] == 1
    assert one["next_ms"] == one["queued_ms"] + 60_000
    text = gateway.ask("queue", "list").stdout
    assert "<alice@example.test> -> <far@nowhere.example> and 1 more" in text
    shown = gateway.ask("queue", "show", gateway.waiting_id).stdout  # type: ignore[attr-defined]
    assert "far@nowhere.example, near@nowhere.example" in shown
    assert re.search(r"^attempts +1$", shown, re.M)
    depth = wait_for(gateway.metrics, lambda all_: all_['gatepost_queue_depth{topic="retry.1m"}'] == 1, SECONDS)
    assert depth['gatepost_queue_oldest_age_seconds{topic="retry.1m"}'] >= 0


def test_what_does_not_wait_is_not_shown(gateway: Gateway) -> None:
    done = gateway.ask("queue", "show", "01HF7YAT3VMNYNQV3RQQ4BXDW8")
    assert (done.returncode, "does not wait" in done.stdout) == (1, True)
    wrong = gateway.ask("queue", "show", "nonsense")
    assert (wrong.returncode, "not a message id" in wrong.stderr) == (2, True)


@pytest.mark.requirement("S1-11")
def test_nothing_of_the_queue_can_be_asked_over_smtp(gateway: Gateway) -> None:
    """Fails without VRFY, EXPN, ETRN and HELP telling nothing, and the log's file being closed to other users."""
    with smtplib.SMTP("127.0.0.1", gateway.mx, timeout=SECONDS) as client:
        client.ehlo("x")
        known, unknown = client.docmd("VRFY alice"), client.docmd("VRFY nobody")
        assert known == unknown
        assert known[0] == 252
        for command in ("EXPN staff", "ETRN nowhere.example", "ETRN #example.test"):
            assert client.docmd(command)[0] in (500, 502)
        assert b"nowhere" not in client.docmd("HELP queue")[1]
    assert gateway.state.joinpath("log.sqlite3").stat().st_mode & 0o077 == 0
    assert "/metrics" not in (gateway.ask("queue", "list").stdout)


def export(gateway: Gateway, folder: Path, *words: str) -> tuple[dict[str, Any], dict[str, bytes]]:
    file = folder / "evidence.tar"
    done = gateway.ask("evidence", *words, "--to", file)
    assert done.returncode == 0, done.stderr
    assert hashlib.sha256(file.read_bytes()).hexdigest() in done.stdout
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with tarfile.open(file) as tar:
        files = {member.name: tar.extractfile(member).read() for member in tar.getmembers()}  # type: ignore[union-attr]
    manifest = json.loads(files.pop("evidence/MANIFEST.json"))
    for part in manifest["files"]:
        data = files[f"evidence/{part['name']}"]
        assert (len(data), hashlib.sha256(data).hexdigest()) == (part["bytes"], part["sha256"])
    assert len(files) == len(manifest["files"])
    return manifest, files


@pytest.mark.requirement("S3-19")
def test_an_incident_is_exported_with_a_manifest(gateway: Gateway, tmp_path: Path) -> None:
    """Fails without all events of a client's sessions and messages, their sums, time, host, version and query."""
    manifest, files = export(gateway, tmp_path, "--client", "127.0.0.0/8", "--since", "1h")
    assert (manifest["version"], manifest["host"]) == (f"gatepost {__version__}", socket.gethostname())
    assert manifest["query"]["client"] == "127.0.0.0/8"
    assert manifest["complete"] is True
    assert manifest["messages"] == 2
    assert manifest["sessions"] >= 1
    events = [json.loads(line) for line in files["evidence/events.jsonl"].splitlines()]
    assert {event["kind"] for event in events} >= {"accepted", "refused", "routed", "stored", "deferred"}
    everything = b"".join(files.values())
    assert gateway.password.encode() not in everything
    assert b"hello" not in everything, "content only when it is asked for"


@pytest.mark.requirement("S2-29")
def test_the_sending_terminal_can_be_found(gateway: Gateway, tmp_path: Path) -> None:
    """Fails without address, port, HELO, TLS and login in the event, and address and port in Received."""
    _, files = export(gateway, tmp_path, "--id", gateway.waiting_id, "--with-content")  # type: ignore[attr-defined]
    events = [json.loads(line) for line in files["evidence/events.jsonl"].splitlines()]
    facts = events[0]["facts"]
    assert (events[0]["kind"], facts["client"], facts["login"]) == ("accepted", "127.0.0.1", "alice")
    assert int(facts["port"]) > 0
    assert facts["helo"]
    assert facts["tls"].startswith("TLSv1.")
    message = files[f"evidence/messages/{gateway.waiting_id}.eml"].decode()  # type: ignore[attr-defined]
    assert "([127.0.0.1])" in message
    assert f"(client port {facts['port']})" in message
    assert message.endswith("hello\r\n")


def test_what_is_older_than_what_is_kept_is_said(gateway: Gateway, tmp_path: Path) -> None:
    file = tmp_path / "evidence.json"
    done = gateway.ask(
        "evidence", "--recipient", "ALICE@example.test", "--since", "300h", "--output", "json", "--to", file
    )
    assert done.returncode == 0
    assert "kept for 7 days" in done.stderr
    told = json.loads(file.read_text())
    assert told["manifest"]["complete"] is False
    assert {event["kind"] for event in told["events"]} == {"accepted", "routed", "stored"}


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        ((), 2, "say what to look for"),
        (("--client", "nonsense"), 2, "--client"),
        (("--since", "yesterday"), 2, "no time"),
        (("--since", "1h", "--until", "2h"), 2, "before --since"),
        (("--id", "x"), 2, "--id"),
        (("--since", "1h", "--with-content", "--output", "json"), 2, "tar"),
        (("--client", "198.51.100.1"), 1, ""),
    ],
)
def test_faults_of_a_question(
    gateway: Gateway, tmp_path: Path, words: tuple[str, ...], code: int, text: str
) -> None:
    file = tmp_path / "e"
    done = gateway.ask("evidence", *words, "--to", file)
    assert (done.returncode, text in done.stderr) == (code, True), done.stderr
    assert file.exists() is (code == 1), "no export is left that is none"


def test_an_export_never_overwrites(gateway: Gateway, tmp_path: Path) -> None:
    file = tmp_path / "e"
    file.write_text("older evidence")
    done = gateway.ask("evidence", "--client", "127.0.0.1", "--to", file)
    assert (done.returncode, file.read_text()) == (3, "older evidence")
    assert "File exists" in done.stderr


def test_two_processes_do_not_share_a_log_file(gateway: Gateway, tmp_path: Path) -> None:
    other = tmp_path / "config"
    other.mkdir()
    text = (gateway.config / "gatepost.yaml").read_text().replace("{state}/log/", f"{gateway.state}/log/")
    (other / "gatepost.yaml").write_text(text)
    done = gateway.command("run", "--config", other, "--state", tmp_path / "state")
    assert (done.returncode, "in use by another process" in done.stderr) == (3, True)
    assert os.path.exists(gateway.state / "log/main.log")
