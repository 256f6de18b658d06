"""The image `gatepost-kafka`: one Kafka broker for trying out, from Debian's Java and the broker's jars."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from images.layers import tree_layer
from testbed.ociimage import file_layer, write_image
from testbed.provision import apt, command
from testbed.provision import kafka as provision
from testbed.provision.cache import built, key_of

SUITE: Final = "bookworm"
PACKAGES: Final = ("openjdk-17-jre-headless", "busybox-static", "libc-bin")
BUILD_SECONDS: Final = 900
USER: Final = 10001
SCRATCH: Final = "/tmp"  # noqa: S108  (in the image, where only one program lives)
START: Final = Path(__file__).with_name("start-kafka.sh")
FORM: Final = "1"


def build_kafka(out: Path, tag: str) -> Path:
    """Writes the image to `out`."""
    system = _system(out.with_name(f".{out.name}.system"))
    try:
        return write_image(
            out,
            f"docker.io/gatepost/gatepost-kafka:{tag}",
            [_root() / "root.tar", _jars(), system],
            entrypoint=["/bin/busybox", "sh", "/opt/kafka/start.sh"],
            env={"LANG": "C.UTF-8", "HOME": SCRATCH},
            user=f"{USER}:{USER}",
            workdir=SCRATCH,
            labels={
                "org.opencontainers.image.title": "gatepost-kafka",
                "org.opencontainers.image.licenses": "Apache-2.0",
            },
        )
    finally:
        system.unlink()


def _root() -> Path:
    return built("image-java", key_of([FORM, SUITE, *PACKAGES]), _bootstrap)


def _bootstrap(folder: Path) -> None:
    apt.install("node")
    program = command.require("mmdebstrap", "run `python -m testbed.provision apt:node`")
    include = f"--include={','.join(PACKAGES)}"
    command.run(
        [program, "--mode=root", "--variant=extract", include, SUITE, folder / "root.tar"],
        seconds=BUILD_SECONDS,
        nice=True,
    )


def _system(out: Path) -> Path:
    files: dict[str, Path | bytes] = {
        "etc/passwd": f"root:x:0:0:root:/:/sbin/nologin\nkafka:x:{USER}:{USER}::{SCRATCH}:/sbin/nologin\n".encode(),
        "etc/group": f"root:x:0:\nkafka:x:{USER}:\n".encode(),
        "opt/kafka/start.sh": START.read_bytes(),
    }
    return file_layer(out, files)


def _jars() -> Path:
    return built("image-kafka", f"{provision.VERSION}-{FORM}", _add_jars) / "jars.tar"


def _add_jars(folder: Path) -> None:
    tree_layer(folder / "jars.tar", provision.install(), "/opt/kafka/libs")
