"""Postfix from a configuration folder of its own, as the peer of benchmarks; needs root, as Postfix's master
does."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from testbed import ports
from testbed.process import Server
from testbed.provision import apt, command
from testbed.provision.errors import ProvisionError
from testbed.running import Running
from testbed.user import forget, ordinary, reachable

DOMAIN = "example.test"
CHECK_SECONDS = 60

_MAIN = """
compatibility_level = 3.6
config_directory = {folder}/etc
queue_directory = {folder}/queue
data_directory = {folder}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
shlib_directory = /usr/lib/postfix
meta_directory = /etc/postfix
mail_owner = postfix
setgid_group = postdrop
maillog_file = {folder}/maillog
maillog_file_prefixes = {folder}
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = mx.{domain}
mydestination =
mynetworks = 127.0.0.0/8
default_database_type = texthash
alias_maps =
alias_database =
local_recipient_maps =
virtual_mailbox_domains = {domain}
virtual_mailbox_base = {folder}/mail
virtual_mailbox_maps = {recipients}
virtual_minimum_uid = 1
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
virtual_transport = {transport}
message_size_limit = 104857600
virtual_mailbox_limit = 0
smtpd_recipient_restrictions = reject_unauth_destination
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
smtpd_tls_security_level = none
"""

_MASTER = """
127.0.0.1:{port} inet n - n - {processes} smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
virtual unix - n n - {processes} virtual
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""


class Postfix(Running):
    """One Postfix in `folder`, a context manager. It takes mail for any user of DOMAIN, with its own fsyncs.

    `inside` are words before its command, such as those of unshare.

    With `deliver` each message ends in the Maildir `mail/<user>/` of its folder, otherwise it is queued durably and
    then discarded. Attributes: `port` on 127.0.0.1, `mail` (the folder of the Maildirs), `server` (its master).
    """

    def __init__(
        self,
        folder: Path,
        *,
        deliver: bool = True,
        users: Sequence[str] = ("user",),
        processes: int = 100,
        inside: Sequence[str] = (),
    ) -> None:
        if os.geteuid() != 0:
            raise ProvisionError("Postfix's master process runs as root only: run this as root")
        apt.install("bench")
        user = ordinary()
        # Postfix's own users must reach the queue, so the folder has to be open to others.
        self._folder, self._outside = reachable(folder, user)
        self.port = ports.reserve()
        for name in ("etc", "queue", "data", "mail"):
            (self._folder / name).mkdir()
        self.mail = self._folder / "mail"
        user.own(self.mail)
        recipients = self._folder / "etc" / "recipients"
        recipients.write_text("".join(f"{name}@{DOMAIN} {name}/\n" for name in users))
        settings = {
            "folder": self._folder,
            "domain": DOMAIN,
            "uid": user.uid,
            "gid": user.gid,
            "port": self.port,
            "processes": processes,
            "recipients": f"texthash:{recipients}",
            "transport": "virtual" if deliver else "discard",
        }
        (self._folder / "etc" / "main.cf").write_text(_MAIN.format_map(settings))
        (self._folder / "etc" / "master.cf").write_text(_MASTER.format_map(settings))
        _give(self._folder, "root")
        _give(self._folder / "queue", "root")
        _give(self._folder / "data", "postfix")
        self.server = Server(
            "postfix",
            # What `postfix start-fg` does, without its shell script between the master and us.
            [*inside, "/usr/lib/postfix/sbin/master", "-c", self._folder / "etc", "-s"],
            self._folder,
            ports=[self.port],
            death_signal="TERM",
        )

    def start(self) -> None:
        """Starts it; returns when its port answers."""
        command.run(["/usr/sbin/postfix", "-c", self._folder / "etc", "check"], seconds=CHECK_SECONDS)
        self.server.start()

    def stop(self) -> None:
        """Stops it for good, and with it all of its processes."""
        self.server.stop()
        ports.release(self.port)
        forget(self._folder, self._outside)

    def messages(self, user: str) -> list[Path]:
        """The files of the user's delivered messages."""
        return sorted((self.mail / user / "new").glob("*"))


def _give(path: Path, owner: str) -> None:

    shutil.chown(path, owner)
    path.chmod(0o755)
