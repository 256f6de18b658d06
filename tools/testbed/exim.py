"""Exim from a configuration folder of its own, as a peer of benchmarks; needs root to become Debian's Exim user."""

from __future__ import annotations

import os
import pwd
from collections.abc import Sequence
from pathlib import Path

from testbed import ports
from testbed.process import Server
from testbed.provision import exim as provision
from testbed.provision.errors import ProvisionError
from testbed.running import Running
from testbed.user import User, forget, reachable

DOMAIN = "example.test"

# What differs from Exim's defaults, and why:
# - deliver_drop_privilege: a delivery goes on in the process that was forked for it, as Exim's own user. Otherwise
#   it would execute itself again, setuid root, which an unpacked program is not. It spares Exim an exec.
# - smtp_accept_queue_per_connection 0: by default only the first ten messages of a connection are delivered at
#   once, the others wait for a queue run.
# - no ident, no reverse look-up, no TLS: the other servers have none either.
# - keep_environment: its libraries may lie beside it.
_CONFIGURATION = """\
exim_path = {program}
keep_environment = LD_LIBRARY_PATH
spool_directory = {folder}/spool
log_file_path = {folder}/log/%slog
pid_file_path = {folder}/exim.pid
primary_hostname = mx.{domain}
local_interfaces = 127.0.0.1
daemon_smtp_ports = {port}
deliver_drop_privilege
disable_ipv6
host_lookup =
rfc1413_query_timeout = 0s
tls_advertise_hosts =
check_spool_space = 0
check_spool_inodes = 0
message_size_limit = 100M
smtp_accept_max = {processes}
smtp_accept_max_nonmail = 1000000
smtp_accept_max_per_connection = 100000
smtp_accept_queue_per_connection = 0
smtp_accept_queue = 0
acl_smtp_rcpt = recipient

begin acl
recipient:
  require verify = recipient
  accept

begin routers
mailbox:
  driver = accept
  domains = {domain}
  local_parts = lsearch;{folder}/recipients
  transport = maildir

begin transports
maildir:
  driver = appendfile
  directory = {folder}/mail/$local_part_data
  maildir_format
  create_directory
  delivery_date_add
  envelope_to_add
  return_path_add
"""


def configuration(folder: Path, program: Path, port: int, processes: int) -> str:
    """The text of exim.conf: verified recipients of DOMAIN to Maildirs at once, with Exim's own fsyncs."""
    return _CONFIGURATION.format(folder=folder, program=program, port=port, processes=processes, domain=DOMAIN)


class Exim(Running):
    """One Exim in `folder`, a context manager. It takes mail for `users` of DOMAIN, refusing all others.

    250 is said when its spool files are synced; delivery begins at once, in a process of its own for each message.
    Attributes: `port` on 127.0.0.1, `mail` (the folder of the Maildirs `<user>/`), `server` (its daemon). Nobody
    waits for the processes that deliver, so their CPU shows in no parent: count it by a control group.
    """

    def __init__(self, folder: Path, *, users: Sequence[str] = ("user",), processes: int = 100) -> None:
        if os.geteuid() != 0:
            raise ProvisionError("Exim runs as a user of its own, which only root can start: run this as root")
        unpacked = provision.install()
        user = _user()
        self._folder, self._outside = reachable(folder, user)
        self.port = ports.reserve()
        for name in ("spool", "log", "mail"):
            (self._folder / name).mkdir()
        self.mail = self._folder / "mail"
        (self._folder / "recipients").write_text("".join(f"{name}: {name}\n" for name in users))
        program = unpacked / "usr/sbin/exim4"
        user.own(self._folder)
        settings = self._folder / "exim.conf"
        # Stays root's: Exim refuses a configuration that somebody else could change.
        settings.write_text(configuration(self._folder, program, self.port, processes))
        self.server = Server(
            "exim",
            [program, "-C", settings, "-bdf"],
            self._folder,
            ports=[self.port],
            env={"LD_LIBRARY_PATH": str(unpacked / provision.LIBRARY_FOLDER)},
            death_signal="TERM",
        )

    def start(self) -> None:
        """Starts it; returns when its port answers."""
        self.server.start()

    def stop(self) -> None:
        """Stops it for good."""
        self.server.stop()
        ports.release(self.port)
        forget(self._folder, self._outside)

    def messages(self, user: str) -> list[Path]:
        """The files of the user's delivered messages."""
        return sorted((self.mail / user / "new").glob("*"))


def _user() -> User:
    entry = pwd.getpwnam(provision.USER)
    return User(entry.pw_name, entry.pw_uid, entry.pw_gid, provision.USER)
