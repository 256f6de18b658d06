"""The configuration of the benchmarks' peers, and what pins Haraka. That they deliver is proven by `make bench`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from testbed import exim, haraka
from testbed.provision import command
from testbed.provision import haraka as provision
from testbed.provision.errors import ProvisionError


def test_exim_delivers_every_message_at_once_to_known_recipients_only() -> None:
    text = exim.configuration(Path("/f"), Path("/p/exim4"), 2525, 100)
    settings = dict(re.findall(r"^\s*(\w+) = (.*)$", text, re.MULTILINE))
    assert settings["daemon_smtp_ports"] == "2525"
    assert settings["local_interfaces"] == "127.0.0.1"
    assert settings["smtp_accept_queue_per_connection"] == "0"
    assert settings["acl_smtp_rcpt"] == "recipient"
    assert settings["local_parts"] == "lsearch;/f/recipients"
    assert "require verify = recipient" in text
    # Its own syncs are left as they are.
    assert not re.search("sync|queue_only|no_", text)
    # Nothing but its own folder, and its program.
    assert set(re.findall(r"(?<=[ ;])/\w+", text)) == {"/f", "/p"}


def test_haraka_verifies_recipients_and_delivers_by_lmtp() -> None:
    files = haraka.configuration(2525, 2424, ["ann", "bob"], 2)
    assert files["config/smtp.ini"] == "listen=127.0.0.1:2525\nnodes=2\n"
    assert files["config/recipients"] == "ann@example.test\nbob@example.test\n"
    assert "port=2424\n" in files["config/lmtp.ini"]
    for plugin in files["config/plugins"].split():
        assert plugin == "queue/lmtp" or f"plugins/{plugin}.js" in files


def test_the_lock_pins_every_package_by_its_hash_and_names_no_host_to_fetch_it_from() -> None:
    folder = provision.LOCK_FOLDER
    wanted = json.loads((folder / "package.json").read_text())
    text = (folder / "package-lock.json").read_text()
    lock = json.loads(text)
    packages = {name: package for name, package in lock["packages"].items() if name}
    assert all(package["integrity"].startswith("sha512-") for package in packages.values())
    assert "resolved" not in text
    assert not re.search("registry|npmjs", text)
    assert packages["node_modules/Haraka"]["version"] == provision.VERSION
    for name, version in wanted["overrides"].items():
        assert packages[f"node_modules/{name}"]["version"] == version


@pytest.mark.parametrize(("version", "fits"), [("v18.20.4", False), ("v20.19.2", True), ("v24.0.0", True)])
def test_an_old_node_is_named_with_what_would_help(
    version: str, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "require", lambda program, hint: f"/usr/bin/{program}")
    monkeypatch.setattr(command, "run", lambda words, *, seconds: f"{version}\n")
    if fits:
        assert provision.node() == "/usr/bin/node"
        return
    with pytest.raises(ProvisionError, match=rf"needs Node\.js 20 .* is {version} .*--without haraka"):
        provision.node()
