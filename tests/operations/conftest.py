"""One gateway as `gatepost run` on ports of its own, with mail that waits, for the tests of what operators see."""

from __future__ import annotations

import shutil
import smtplib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbed.installation import GATEPOST, Member
from testbed.world import wait_for

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "examples"
SECONDS = 60


class Gateway(Member):
    """The quickstart with log files of its own, and a resolver that never answers: what goes out waits."""

    def __init__(self, folder: Path) -> None:
        document = yaml.safe_load((EXAMPLES / "quickstart/gatepost.yaml").read_text())
        document["dns"] = {"servers": ["127.0.0.1:9"], "timeout": "1s"}
        document["telemetry"] = {
            "logFile": {"path": "{state}/log/main.log"},
            "decisionLog": {"path": "{state}/log/decisions.log"},
        }
        super().__init__("run", "gateway", folder, document)
        shutil.copy(EXAMPLES / "quickstart/example-test.yaml", self.config)
        made = self.command("quickstart", "--state", self.state).stdout.split()
        self.password = made[made.index("alice@example.test") + 2]

    @staticmethod
    def command(*words: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run([GATEPOST, *words], capture_output=True, text=True, timeout=SECONDS, check=False)

    def ask(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """A command about this gateway."""
        return self.command(*words, "--config", self.config, "--state", self.state)

    def receive(self, *recipients: str, sender: str = "you@example.org") -> None:
        with smtplib.SMTP("127.0.0.1", self.mx, timeout=SECONDS) as client:
            client.sendmail(sender, recipients, b"Subject: in\r\n\r\nhello\r\n")

    def submit(self, *recipients: str) -> str:
        """As alice; returns the id."""
        with smtplib.SMTP("127.0.0.1", self.submission, timeout=SECONDS) as client:
            client.starttls()
            client.login("alice", self.password)
            client.mail("alice@example.test")
            for recipient in recipients:
                client.rcpt(recipient)
            _, text = client.data(b"Subject: out\r\n\r\nhello\r\n")
        return text.decode().split()[-1]

    def lines(self, name: str) -> list[dict[str, Any]]:
        text = (self.state / "log" / name).read_text()
        return [yaml.safe_load(line) for line in text.splitlines()]


@pytest.fixture
def new_gateway() -> type[Gateway]:
    return Gateway


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """With one message for a foreign domain deferred, one stored, one refused."""
    with Gateway(tmp_path_factory.mktemp("operations")) as own:
        own.waiting_id = own.submit("far@nowhere.example", "near@nowhere.example")  # type: ignore[attr-defined]
        own.receive("postmaster@example.test")
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            own.receive("mark@example.test")
        wait_for(lambda: own.ask("queue", "list").stdout, lambda out: "retry.1m" in out, SECONDS)
        yield own
