"""clamd with a signature database of one line, made by hand: it knows the EICAR test file and nothing else."""

from pathlib import Path

from testbed import ports
from testbed.process import Server
from testbed.provision import apt
from testbed.running import Running
from testbed.user import forget, ordinary, reachable

# In halves, so that no scanner on a developer's machine takes this file for one.
EICAR = rb"X5O!P%@AP[4\PZX54(P^)7CC)7}$" + rb"EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
SIGNATURE = "Test.Eicar.UNOFFICIAL"  # clamd marks names that are not its makers'
STREAM_MAX = 2 * 2**20  # bytes; more is answered with an error before the end


class Clamd(Running):
    """One clamd in `folder`, a context manager. Attributes: `address`, `unix_address`, `server`."""

    def __init__(self, folder: Path) -> None:
        apt.install("servers")
        self._user = ordinary()
        self._folder, self._outside = reachable(folder, self._user)
        self._port = ports.reserve()
        socket = self._folder / "clamd.sock"
        self.address, self.unix_address = f"tcp://127.0.0.1:{self._port}", f"unix:{socket}"
        signatures = self._folder / "signatures"
        signatures.mkdir()
        (signatures / "test.ndb").write_text(f"Test.Eicar:0:*:{EICAR.hex()}\n")
        settings = self._folder / "clamd.conf"
        settings.write_text(
            f"DatabaseDirectory {signatures}\nTemporaryDirectory {self._folder}\nForeground yes\n"
            f"TCPSocket {self._port}\nTCPAddr 127.0.0.1\nLocalSocket {socket}\n"
            f"StreamMaxLength {STREAM_MAX}\nMaxThreads 4\nPidFile {self._folder}/clamd.pid\n"
        )
        self._user.own(self._folder)
        self.server = Server(
            "clamd",
            ["/usr/sbin/clamd", "-c", settings],
            self._folder,
            ports=[self._port],
            ready=socket.exists,
            user=self._user,
        )

    def start(self) -> None:
        self.server.start()

    def stop(self) -> None:
        self.server.stop()
        ports.release(self._port)
        forget(self._folder, self._outside)
