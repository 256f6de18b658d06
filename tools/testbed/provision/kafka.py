"""Apache Kafka's broker as jars from Maven, with an archive of its loaded classes that halves its start."""

import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from xml.sax.saxutils import escape

from testbed.provision import command
from testbed.provision.cache import built

VERSION = "4.3.1"
SLF4J_VERSION = "1.7.36"
# Any UUID will do, but not the first few, which Kafka reserves and then refuses at its start.
CLUSTER_ID = "Z2F0ZXBvc3QtdGVzdGJlZA"
JAVA_HINT = "run `python -m testbed.provision apt:java`"
DOWNLOAD_SECONDS = 600
FORMAT_SECONDS = 120

_POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>local</groupId><artifactId>broker</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{escape(VERSION)}</version>
    </dependency>
    <dependency>
      <groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>{escape(SLF4J_VERSION)}</version>
    </dependency>
  </dependencies>
</project>
"""


def install() -> Path:
    """The folder that holds the broker's jars."""
    return built("kafka", VERSION, _download)


def java() -> str:
    """The path of the `java` program."""
    return command.require("java", JAVA_HINT)


def class_path(jars: Path) -> str:
    """All jars in a fixed order: a class archive is only used with the very class path that it was made with."""
    return ":".join(str(jar) for jar in sorted(jars.glob("*.jar")))


def class_archive() -> Path:
    """The class-data archive for this JVM and these jars, made by one short run of a broker (about 10 s).

    The JVM silently ignores an archive of another build of itself, so its version is part of the cache's key; so is
    the class path, since the archive records the jars' place.
    """
    jars = install()
    key = hashlib.sha256((_java_version() + class_path(jars)).encode()).hexdigest()[:12]
    return built("kafka-classes", f"{VERSION}-{key}", _record_classes) / "classes.jsa"


def formatted() -> Path:
    """A folder with the `bootstrap.checkpoint` that Kafka's format tool writes; it is the same for all nodes."""
    return built("kafka-format", VERSION, _format)


def _format(folder: Path) -> None:
    settings = folder / "server.properties"
    settings.write_text(
        "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:9093\n"
        "listeners=PLAINTEXT://127.0.0.1:9092,CONTROLLER://127.0.0.1:9093\n"
        f"controller.listener.names=CONTROLLER\nlog.dirs={folder / 'data'}\n"
    )
    command.run(
        [
            *(java(), "-XX:TieredStopAtLevel=1", "-cp", class_path(install())),
            *("kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", settings),
        ],
        seconds=FORMAT_SECONDS,
    )
    (folder / "data" / "bootstrap.checkpoint").rename(folder / "bootstrap.checkpoint")
    shutil.rmtree(folder / "data")
    settings.unlink()


def _download(folder: Path) -> None:
    maven = command.require("mvn", JAVA_HINT)
    pom = folder / "pom.xml"
    pom.write_text(_POM)
    command.run(
        [
            *(maven, "-q", "-B", "-f", pom, "dependency:copy-dependencies", "-DincludeScope=runtime"),
            f"-DoutputDirectory={folder}",
        ],
        cwd=folder,
        seconds=DOWNLOAD_SECONDS,
    )
    pom.unlink()


def _java_version() -> str:
    return command.run([java(), "--version"], seconds=60)


def _record_classes(folder: Path) -> None:
    # Imported here: the broker's module needs this one.
    from testbed.kafka import record_classes

    with tempfile.TemporaryDirectory(prefix="kafka-classes-") as scratch:
        record_classes(Path(scratch), folder / "classes.jsa")
    os.chmod(folder / "classes.jsa", 0o644)
