"""Container images as OCI tar files, made from layers without a container engine.

`ctr images import FILE` (and `Cluster.import_image`) take them. The same input gives the same bytes: layers
carry no times and belong to root.
"""

import hashlib
import io
import json
import os
import platform
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def base_root() -> Path:
    """A cached layer (tar) with Debian's Python 3.11: see testbed.provision.image."""
    from testbed.provision import image

    return image.base_root()


def pause_image() -> Path:
    """The cached image of the pause program."""
    from testbed.provision import image

    return image.pause_image()


def file_layer(out: Path, files: Mapping[str, Path | bytes]) -> Path:
    """A layer with files (path in the image -> a file to copy, or the content); a copied file keeps its mode."""
    with tarfile.open(out, "w") as archive:
        for folder in sorted({str(parent) for name in files for parent in Path(name).parents} - {".", "/"}):
            archive.addfile(_entry(tarfile.TarInfo(folder.lstrip("/")), tarfile.DIRTYPE, 0o755))
        for name, source in sorted(files.items()):
            content = source if isinstance(source, bytes) else source.read_bytes()
            mode = 0o644 if isinstance(source, bytes) else source.stat().st_mode & 0o777
            entry = _entry(tarfile.TarInfo(name.lstrip("/")), tarfile.REGTYPE, mode)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return out


def folder_layer(out: Path, source: Path, target: str) -> Path:
    """A layer with everything in the folder `source`, to be found in the image at the absolute path `target`."""

    def cleaned(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        return None if Path(entry.name).name == "__pycache__" else _entry(entry, entry.type, entry.mode)

    inside = Path(target.lstrip("/"))
    with tarfile.open(out, "w") as archive:
        for parent in list(reversed(inside.parents))[1:]:
            archive.addfile(_entry(tarfile.TarInfo(str(parent)), tarfile.DIRTYPE, 0o755))
        archive.add(source, str(inside), filter=cleaned)
    return out


def write_image(
    out: Path,
    reference: str,
    layers: Sequence[Path],
    *,
    entrypoint: Sequence[str] = (),
    command: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    user: str = "",
    workdir: str = "/",
    labels: Mapping[str, str] | None = None,
) -> Path:
    """Writes an image of uncompressed tar layers, named `reference` (with its registry: docker.io/x/y:tag).

    Returns `out`, which appears only when it is complete.
    """
    draft = out.with_name(f".{out.name}.{os.getpid()}")
    with tarfile.open(draft, "w") as archive:
        blobs: dict[str, dict[str, Any]] = {}
        descriptors = [_file_blob(archive, path, blobs) for path in layers]
        config = {
            "architecture": ARCHITECTURES[platform.machine()],
            "os": "linux",
            "config": {
                "Env": [DEFAULT_PATH, *(f"{name}={value}" for name, value in (env or {}).items())],
                "Entrypoint": list(entrypoint),
                "Cmd": list(command),
                "User": user,
                "WorkingDir": workdir,
                "Labels": dict(labels or {}),
            },
            "rootfs": {"type": "layers", "diff_ids": [descriptor["digest"] for descriptor in descriptors]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": {"mediaType": _CONFIG, **_blob(archive, _json(config))},
            "layers": [{"mediaType": _LAYER, **descriptor} for descriptor in descriptors],
        }
        names = {"io.containerd.image.name": reference, "org.opencontainers.image.ref.name": reference}
        entry = {"mediaType": _MANIFEST, **_blob(archive, _json(manifest)), "annotations": names}
        _put(archive, "index.json", _json({"schemaVersion": 2, "manifests": [entry]}))
        _put(archive, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
    draft.rename(out)
    return out


def _entry(entry: tarfile.TarInfo, kind: bytes, mode: int) -> tarfile.TarInfo:
    entry.type, entry.mode, entry.mtime = kind, mode, 0
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


def _file_blob(archive: tarfile.TarFile, path: Path, blobs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        size = stream.tell()
        if digest not in blobs:
            stream.seek(0)
            entry = _entry(tarfile.TarInfo(f"blobs/sha256/{digest}"), tarfile.REGTYPE, 0o644)
            entry.size = size
            archive.addfile(entry, stream)
            blobs[digest] = {"digest": f"sha256:{digest}", "size": size}
    return blobs[digest]


def _blob(archive: tarfile.TarFile, data: bytes) -> dict[str, Any]:
    digest = hashlib.sha256(data).hexdigest()
    _put(archive, f"blobs/sha256/{digest}", data)
    return {"digest": f"sha256:{digest}", "size": len(data)}


def _put(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = _entry(tarfile.TarInfo(name), tarfile.REGTYPE, 0o644)
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True).encode()
