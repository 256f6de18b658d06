"""The whole gateway on real servers, started once for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from testbed.corpus import sample_messages
from testbed.world import World, whole_gateway


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with whole_gateway(tmp_path_factory.mktemp("system")) as made:
        yield made


@pytest.fixture(scope="session")
def corpus() -> list[bytes]:
    messages = sample_messages()
    assert len(messages) == 548
    return messages
