"""The port on a real API server, by lightkube (docs/adr/0004-kubernetes-client.md)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, Final, TypeVar

import httpx2
import msgspec
from lightkube import AsyncClient, KubeConfig
from lightkube.core.exceptions import ApiError, ConfigError
from lightkube.core.generic_client import BasicRequest
from lightkube.generic_resource import create_namespaced_resource
from lightkube.types import PatchType

from gatepost.core.manifest.object import GROUP, VERSION
from gatepost_operator.cluster import (
    FIELD_MANAGER,
    ClusterConflict,
    ClusterRefused,
    ClusterUnavailable,
    Document,
    Listed,
    resource_version,
)
from gatepost_operator.objects import KINDS

T = TypeVar("T")

REQUEST_S: Final = 5.0
LIST_S: Final = 60.0  # many large objects from a busy API server
CHUNK: Final = 500
CONNECT_S: Final = 3.0

_TOO_MANY_REQUESTS: Final = 429
_SERVER_ERRORS: Final = 500
_CONFLICT: Final = 409
_NOT_FOUND: Final = 404

_OBJECTS: Final = {kind: create_namespaced_resource(GROUP, VERSION, kind, plural) for kind, plural in KINDS.items()}
# As plain documents, so that what newer servers put into a Lease is kept.
_LEASE: Final = create_namespaced_resource("coordination.k8s.io", "v1", "Lease", "leases")
_EVENT: Final = create_namespaced_resource("", "v1", "Event", "events")


class _Resource(msgspec.Struct):
    name: str
    verbs: tuple[str, ...] = ()


class _Resources(msgspec.Struct):
    """What discovery says of a group's version (meta/v1 APIResourceList)."""

    resources: tuple[_Resource, ...] = ()


class LightkubeCluster:
    """Implements the Cluster port."""

    def __init__(self, config: KubeConfig | None = None) -> None:
        """Without `config`: the pod's service account, else KUBECONFIG, else ~/.kube/config.

        Raises ClusterRefused when there is none.
        """
        try:
            self._client = AsyncClient(
                config or KubeConfig.from_env(),
                field_manager=FIELD_MANAGER,
                timeout=httpx2.Timeout(REQUEST_S, connect=CONNECT_S),
                trust_env=False,
            )
        except (ConfigError, OSError, KeyError) as error:
            raise ClusterRefused(f"no way to the Kubernetes API: {error}") from error

    async def close(self) -> None:
        await self._client.close()

    async def list_objects(self, kind: str, namespace: str | None) -> Listed:
        return await _asked(f"listing {KINDS[kind]}", LIST_S, self._list(kind, namespace))

    async def _list(self, kind: str, namespace: str | None) -> Listed:
        listing = self._client.list(_OBJECTS[kind], namespace=namespace or "*", chunk_size=CHUNK)
        documents = []
        async for item in listing:
            document = dict(item)
            # Items of a list come without these two.
            document.setdefault("kind", kind)
            document.setdefault("apiVersion", f"{GROUP}/{VERSION}")
            documents.append(document)
        version = resource_version({"metadata": {"resourceVersion": listing.resourceVersion}})
        return Listed(tuple(documents), version)

    async def defined_kinds(self) -> frozenset[str]:
        return await _asked("asking which kinds there are", REQUEST_S, self._discover())

    async def _discover(self) -> frozenset[str]:
        # lightkube has no call for discovery, which everybody may ask. A kind whose definition is being deleted is
        # listed without `create` (apiextensions-apiserver, customresource_discovery_controller.go).
        client: Any = self._client._client
        response = await client.send(client.build_adapter_request(BasicRequest("GET", f"apis/{GROUP}/{VERSION}")))
        if response.status_code == _NOT_FOUND:
            return frozenset()
        client.raise_for_status(response)
        resources = msgspec.json.decode(response.content, type=_Resources).resources
        creatable = {one.name for one in resources if "create" in one.verbs}
        return frozenset(kind for kind, plural in KINDS.items() if plural in creatable)

    async def apply_status(self, kind: str, namespace: str, name: str, status: Document) -> Document | None:
        document = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": kind,
            "metadata": {"name": name, "namespace": namespace},
            "status": status,
        }
        call = self._client.patch(
            _OBJECTS[kind].Status, name, document, namespace=namespace, patch_type=PatchType.APPLY, force=True
        )
        what = f"writing the status of {kind} {namespace}/{name}"
        return _document(await _found(_asked(what, REQUEST_S, call)))

    async def get_lease(self, namespace: str, name: str) -> Document | None:
        call = self._client.get(_LEASE, name, namespace=namespace)
        return _document(await _found(_asked(f"reading Lease {name}", REQUEST_S, call)))

    async def create_lease(self, lease: Document) -> Document:
        return dict(await _asked("creating the Lease", REQUEST_S, self._client.create(_resource(_LEASE, lease))))

    async def replace_lease(self, lease: Document) -> Document:
        return dict(await _asked("renewing the Lease", REQUEST_S, self._client.replace(_resource(_LEASE, lease))))

    async def post_event(self, event: Document) -> None:
        await _asked("posting an event", REQUEST_S, self._client.create(_resource(_EVENT, event)))


class _NotFound(ClusterRefused):
    """The API server knows no such object or resource."""


def _resource(kind: Any, document: Document) -> Any:
    return kind.from_dict(document)


def _document(found: Any) -> Document | None:
    return None if found is None else dict(found)


async def _found(call: Awaitable[T]) -> T | None:
    try:
        return await call
    except _NotFound:
        return None


async def _asked(what: str, limit: float, call: Awaitable[T]) -> T:
    """Await a call with a limit and turn every way in which it fails into one of the port's errors."""
    try:
        async with asyncio.timeout(limit):
            return await call
    except ApiError as error:
        raise _refusal(what, error) from error
    except httpx2.HTTPStatusError as error:
        # An answer that is not JSON comes from something in front of the API server.
        raise ClusterUnavailable(f"{what}: HTTP status {error.response.status_code}") from error
    except TimeoutError as error:
        raise ClusterUnavailable(f"{what}: no answer within {limit:.0f} s") from error
    except msgspec.MsgspecError as error:
        raise ClusterUnavailable(f"{what}: {error}") from error
    except (httpx2.HTTPError, ConfigError, OSError) as error:
        raise ClusterUnavailable(f"{what}: {str(error) or type(error).__name__}") from error


def _refusal(what: str, error: ApiError) -> ClusterRefused | ClusterUnavailable | ClusterConflict:
    status = error.status
    code, text = status.code or 0, f"{what}: {status.message or status.reason}"
    if code == _CONFLICT:
        return ClusterConflict(text)
    if code == _NOT_FOUND:
        return _NotFound(text)
    if code == _TOO_MANY_REQUESTS or code >= _SERVER_ERRORS or code == 0:
        return ClusterUnavailable(text)
    return ClusterRefused(text)
