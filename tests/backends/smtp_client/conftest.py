"""A client, a scripted host, and a certificate for it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from gatepost.backends.smtp_client import SmtpTransport
from testbed.smtp_client import a_transport
from testbed.smtpsink import SmtpSink
from testbed.tls import Authority, Certificate


@pytest.fixture
async def transport() -> AsyncIterator[SmtpTransport]:
    async with a_transport() as transport:
        yield transport


@pytest.fixture
def sink() -> Iterator[SmtpSink]:
    with SmtpSink() as sink:
        yield sink


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("smtp-client-ca"))


@pytest.fixture(scope="session")
def certificate(authority: Authority) -> Certificate:
    return authority.issue("sink.test")
