"""The two images that a node without a network needs at least: a Debian root with Python, and the pause program."""

from pathlib import Path

from testbed.ociimage import file_layer, write_image
from testbed.provision import apt, command
from testbed.provision.cache import built

SUITE = "bookworm"
# libstdc++6: google-re2 is C++, and its wheel brings everything but that.
PACKAGES = ("python3-minimal", "libpython3.11-stdlib", "libstdc++6", "busybox-static", "libc-bin")
PAUSE_REFERENCE = "registry.k8s.io/pause:3.10"
BUILD_SECONDS = 900


def install() -> Path:
    """Makes both; returns the root layer."""
    pause_image()
    return base_root()


def base_root() -> Path:
    """A layer (tar) with Debian's Python 3.11 and busybox, about 64 MB; made by mmdebstrap as root."""
    return built("root", f"{SUITE}-py311-cxx", _bootstrap) / "root.tar"


def pause_image() -> Path:
    """An OCI image (tar) of the pause program under the name that containerd's settings ask for."""
    return built("pause", "3.10", _pause) / "pause.tar"


def _bootstrap(folder: Path) -> None:
    apt.install("node")
    program = command.require("mmdebstrap", "run `python -m testbed.provision apt:node`")
    command.run(
        [
            program,
            "--mode=root",
            "--variant=extract",
            f"--include={','.join(PACKAGES)}",
            SUITE,
            folder / "root.tar",
        ],
        seconds=BUILD_SECONDS,
        nice=True,
    )


def _pause(folder: Path) -> None:
    compiler = command.require("cc", "install gcc and libc6-dev")
    source, program = Path(__file__).parent / "sources" / "pause.c", folder / "pause"
    command.run([compiler, "-Os", "-static", "-s", "-o", program, source], seconds=BUILD_SECONDS)
    layer = file_layer(folder / "layer.tar", {"pause": program})
    write_image(folder / "pause.tar", PAUSE_REFERENCE, [layer], entrypoint=["/pause"], user="65535:65535")
    layer.unlink()
