"""Haraka in front of Dovecot's LMTP, as a peer of benchmarks: it has no way into a Maildir of its own."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from testbed import ports
from testbed.dovecot import Dovecot
from testbed.process import Server
from testbed.provision import haraka as provision
from testbed.running import Running
from testbed.user import current, forget, reachable

DOMAIN = "example.test"
START_SECONDS = 60.0

# Haraka's own plugins know domains only; the other servers verify each recipient in a table, and look up no names.
_RECIPIENTS_PLUGIN = """\
'use strict'

exports.register = function () {
    this.recipients = new Set(this.config.get('recipients', 'list'))
}

exports.hook_lookup_rdns = (next) => next(OK, 'localhost')

exports.hook_rcpt = function (next, connection, params) {
    if (this.recipients.has(params[0].address.toLowerCase())) return next(OK)
    next(DENY, 'no such user')
}
"""


def configuration(port: int, lmtp_port: int, users: Sequence[str], workers: int) -> Mapping[str, str]:
    """The files of Haraka's folder by their path in it: verified recipients of DOMAIN, by LMTP to `lmtp_port`."""
    return {
        "config/me": f"mx.{DOMAIN}\n",
        "config/smtp.ini": f"listen=127.0.0.1:{port}\nnodes={workers}\n",
        "config/plugins": "known_recipients\nqueue/lmtp\n",
        "config/recipients": "".join(f"{user}@{DOMAIN}\n" for user in users),
        "config/lmtp.ini": f"[main]\nhost=127.0.0.1\nport={lmtp_port}\n",
        "config/outbound.ini": "enable_tls=false\n",
        "config/log.ini": "[main]\nlevel=notice\ntimestamps=true\nformat=default\n",
        "plugins/known_recipients.js": _RECIPIENTS_PLUGIN,
    }


class Haraka(Running):
    """One Haraka with its own Dovecot in `folder`, a context manager; it takes mail for `users` of DOMAIN only.

    250 is said when its queue file is synced and has its final name (outbound's FsyncWriteStream and a rename,
    whose folder is not synced); the LMTP delivery comes after. `workers` processes share the port, as its
    documentation advises for a machine with so many cores. Attributes: `port` on 127.0.0.1, `mail` (the folder of
    the Maildirs `<user>/`), `server`, `dovecot`.
    """

    def __init__(self, folder: Path, *, users: Sequence[str] = ("user",), workers: int = 2) -> None:
        installed = provision.install()
        # As we ourselves: the installation may lie where nobody else may look.
        self._folder, self._outside = reachable(folder, current())
        self.dovecot = Dovecot(self._folder / "dovecot", dict.fromkeys(users, "secret"))
        self.mail = self.dovecot.mail
        self.port = ports.reserve()
        for name in ("config", "plugins", "queue"):
            (self._folder / name).mkdir()
        for name, text in configuration(self.port, self.dovecot.lmtp_port, users, workers).items():
            (self._folder / name).write_text(text)
        # Its defaults: limits and texts that it does not bring with it otherwise.
        shutil.copy(installed / "node_modules/Haraka/config/connection.ini", self._folder / "config")
        self.server = Server(
            "haraka",
            [provision.node(), installed / "node_modules/Haraka/bin/haraka", "-c", self._folder],
            self._folder,
            ports=[self.port],
            start_seconds=START_SECONDS,
            # Its workers are its own children.
            death_signal="TERM",
        )

    def start(self) -> None:
        """Starts both; returns when their ports answer."""
        self.dovecot.start()
        try:
            self.server.start()
        except BaseException:
            self.dovecot.stop()
            raise

    def stop(self) -> None:
        """Stops both for good; what waits in the queue is dropped with the folder."""
        self.server.kill9()
        self.dovecot.stop()
        ports.release(self.port)
        forget(self._folder, self._outside)

    def messages(self, user: str) -> list[Path]:
        """The files of the user's delivered messages."""
        return sorted((self.mail / user / "new").glob("*"))
