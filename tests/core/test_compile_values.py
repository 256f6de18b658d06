"""Values of manifests: whatever fits a field's type is compiled or refused with the field's name, never a crash."""

from __future__ import annotations

import pytest

from gatepost.core.compile import Surroundings, compile_manifests
from gatepost.core.manifest.documents import read_objects
from gatepost.core.manifest.settings import Role

OUT_OF_ORDER = "1s1h"  # the type's pattern lets it pass
DOMAIN = """
apiVersion: gatepost.dev/v1alpha1
kind: MailDomain
metadata: {{name: it}}
spec: {{domain: it.test, {more}}}
"""
POLICY = """
apiVersion: gatepost.dev/v1alpha1
kind: RelayPolicy
metadata: {{name: it}}
spec: {{target: {{type: Listeners, listeners: [mx]}}, {more}}}
"""
ASKED = "recipients: {{source: {{type: CallAhead, hosts: ['[next.test]'], {more}}}}}"
STATIC = "recipients: {source: {type: Static, addresses: [a]}}, delivery: {type: Discard}"


@pytest.mark.parametrize(
    ("kind", "more", "field"),
    [
        (DOMAIN, ASKED.format(more=f"timeout: {OUT_OF_ORDER}"), "recipients.source.timeout"),
        (DOMAIN, ASKED.format(more=f"cache: {{positive: {OUT_OF_ORDER}}}"), "source.cache.positive"),
        (DOMAIN, ASKED.format(more=f"cache: {{negative: {OUT_OF_ORDER}}}"), "source.cache.negative"),
        (DOMAIN, ASKED.format(more=f"cache: {{stale: {OUT_OF_ORDER}}}"), "source.cache.stale"),
        (DOMAIN, f"{STATIC}, outbound: {{retry: {{expireAfter: {OUT_OF_ORDER}}}}}", "retry.expireAfter"),
        (POLICY, f"connection: {{idleTimeout: {OUT_OF_ORDER}}}", "connection.idleTimeout"),
        (POLICY, f"connection: {{bannerDelay: {OUT_OF_ORDER}}}", "connection.bannerDelay"),
        (POLICY, f"dnsbl: {{deadline: {OUT_OF_ORDER}}}", "dnsbl.deadline"),
        (POLICY, f"authentication: {{deadline: {OUT_OF_ORDER}}}", "authentication.deadline"),
        (POLICY, f"access: {{tables: [{{file: x, refresh: {OUT_OF_ORDER}}}]}}", "access.tables[0].refresh"),
        (POLICY, f"recipients: {{harvest: {{ban: {OUT_OF_ORDER}}}}}", "recipients.harvest.ban"),
        (POLICY, f"spamTraps: {{addresses: [a@b.test], ban: {{client: {OUT_OF_ORDER}}}}}", "spamTraps.ban.client"),
        (POLICY, f"scanners: [{{type: Clamd, address: 'tcp://h:1', timeout: {OUT_OF_ORDER}}}]", "scanners"),
        (POLICY, f"relay: {{popBeforeSmtp: {{enabled: true, window: {OUT_OF_ORDER}}}}}", "popBeforeSmtp.window"),
    ],
)
def test_a_duration_out_of_order_is_refused_with_its_field(kind: str, more: str, field: str) -> None:
    objects = read_objects({"it.yaml": kind.format(more=more)})
    result = compile_manifests(objects.domains, objects.policies, Surroundings(listeners={"mx": Role.INTERNAL}))
    ((_, condition),) = result.rejected
    assert field in condition.message
    assert "in this order" in condition.message
