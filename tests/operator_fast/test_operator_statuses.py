"""Which status an object gets, and whether it is written at all: tables, without any server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gatepost.core.compile.surroundings import surroundings
from gatepost.core.config_head import Ack
from gatepost.core.manifest.object import ObjectKey
from gatepost.core.manifest.settings import Settings
from gatepost_operator.compilation import Compilation, Compiler
from gatepost_operator.objects import ObjectCache, StoredObject
from gatepost_operator.programmed import Edges, Published, edges_of, fingerprints
from gatepost_operator.statuses import Moment, wanted_statuses

Document = dict[str, Any]
Make = Callable[..., Document]
NOW, LATER = "2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z"


class Bench:
    """Objects as stored, compiled and judged step by step."""

    def __init__(self, settings: Settings) -> None:
        self.compiler = Compiler(surroundings(settings, any_namespace=False))
        self.documents: dict[ObjectKey, Document] = {}
        self.published = Published()

    def store(self, document: Document, generation: int = 1, uid: str = "") -> None:
        metadata = document["metadata"]
        key = ObjectKey(document["kind"], metadata["namespace"], metadata["name"])
        number = str(len(self.documents) + 1)
        metadata.update(uid=uid or f"u-{key.name}", generation=generation, resourceVersion=number)
        metadata.setdefault("creationTimestamp", f"2026-01-01T00:00:0{number}Z")
        status = self.documents.get(key, {}).get("status")
        self.documents[key] = {**document, **({"status": status} if status else {})}

    def objects(self) -> tuple[StoredObject, ...]:
        cache = ObjectCache(None)
        for document in self.documents.values():
            cache.put(document)
        return cache.snapshot()

    def compile(self) -> Compilation:
        compilation = self.compiler.compile(self.objects())
        self.published.add(compilation.hash, compilation.configuration)
        return compilation

    def judge(self, moment: Moment) -> list[str]:
        """Write what is wanted into the objects, and return the names of those that were written."""
        compilation = self.compile()
        wanted = wanted_statuses(self.objects(), compilation, fingerprints(compilation.configuration), moment)
        for key, status in wanted.items():
            self.documents[key] = {**self.documents[key], "status": status}
        return [key.name for key in wanted]

    def edges(self, *digests: str, error: str = "") -> Edges:
        acks = [Ack(f"pod-{n}", "edge", 0, hash=digest, error=error) for n, digest in enumerate(digests)]
        return edges_of(acks, self.published)

    def condition(self, name: str, type_: str = "Programmed", kind: str = "MailDomain") -> Document:
        status = self.documents[ObjectKey(kind, "default", name)]["status"]
        (found,) = (one for one in status["conditions"] if one["type"] == type_)
        return dict(found)

    def says(self, name: str, type_: str = "Programmed") -> tuple[str, str]:
        found = self.condition(name, type_)
        return found["status"], found["reason"]


@pytest.fixture
def bench(settings: Settings) -> Bench:
    return Bench(settings)


def test_a_good_object_is_accepted_resolved_and_waits_for_edges(bench: Bench, mail_domain: Make) -> None:
    bench.store(mail_domain("a", "Bücher.example"), generation=3)
    assert bench.judge(Moment(NOW, Edges())) == ["a"]
    (document,) = bench.documents.values()
    assert document["status"] == {
        "observedGeneration": 3,
        "asciiDomain": "xn--bcher-kva.example",
        "conditions": [
            {
                "type": "Accepted",
                "status": "True",
                "reason": "Accepted",
                "message": "the object is valid",
                "lastTransitionTime": NOW,
                "observedGeneration": 3,
            },
            {
                "type": "ResolvedRefs",
                "status": "True",
                "reason": "ResolvedRefs",
                "message": "all references were found",
                "lastTransitionTime": NOW,
                "observedGeneration": 3,
            },
            {
                "type": "Programmed",
                "status": "Unknown",
                "reason": "NoEdges",
                "message": "no edge pod is running, or none reports what it runs",
                "lastTransitionTime": NOW,
                "observedGeneration": 3,
            },
        ],
    }


def test_a_policy_has_no_domain(bench: Bench, relay_policy: Make) -> None:
    bench.store(relay_policy("mx"))
    bench.judge(Moment(NOW, Edges()))
    (document,) = bench.documents.values()
    assert set(document["status"]) == {"observedGeneration", "conditions", "targets"}


def test_what_is_as_it_should_be_is_not_written_again(bench: Bench, mail_domain: Make, relay_policy: Make) -> None:
    bench.store(mail_domain("a"))
    bench.store(relay_policy("mx"))
    assert bench.judge(Moment(NOW, Edges())) == ["a", "mx"]
    assert bench.judge(Moment(LATER, Edges(), refresh=True)) == []


def test_programmed_when_every_edge_runs_it(bench: Bench, mail_domain: Make) -> None:
    bench.store(mail_domain("a"))
    digest = bench.compile().hash
    bench.judge(Moment(NOW, bench.edges(digest, "another")))
    assert bench.says("a") == ("False", "Pending")
    assert bench.condition("a")["message"] == "1 of 2 edges run this generation"
    assert bench.judge(Moment(LATER, bench.edges(digest, digest))) == ["a"]
    assert bench.says("a") == ("True", "Programmed")
    assert bench.condition("a")["lastTransitionTime"] == LATER
    assert bench.condition("a", "Accepted")["lastTransitionTime"] == NOW


@pytest.mark.parametrize("edges", [Edges(), None, "old"])
def test_once_programmed_pods_that_come_and_go_change_nothing(bench: Bench, mail_domain: Make, edges: Any) -> None:
    bench.store(mail_domain("a"))
    digest = bench.compile().hash
    bench.judge(Moment(NOW, bench.edges(digest)))
    now = bench.edges("old") if edges == "old" else edges
    assert bench.judge(Moment(LATER, now, refresh=True)) == []


def test_a_new_generation_is_programmed_anew(bench: Bench, mail_domain: Make) -> None:
    bench.store(mail_domain("a"))
    first = bench.compile().hash
    bench.judge(Moment(NOW, bench.edges(first)))
    bench.store(mail_domain("a", subdomains=True), generation=2)
    assert bench.judge(Moment(LATER, bench.edges(first))) == ["a"]
    assert bench.says("a") == ("False", "Pending")
    second = bench.compile().hash
    assert second != first
    bench.judge(Moment(LATER, bench.edges(second)))
    assert bench.says("a") == ("True", "Programmed")
    assert bench.condition("a")["observedGeneration"] == 2


def test_an_older_configuration_that_holds_the_object_as_it_is_counts(bench: Bench, mail_domain: Make) -> None:
    bench.store(mail_domain("a"))
    first = bench.compile().hash
    bench.store(mail_domain("b"))
    bench.judge(Moment(NOW, bench.edges(first)))
    assert bench.says("a") == ("True", "Programmed")
    assert bench.says("b") == ("False", "Pending")


def test_an_object_that_was_made_again_is_not_the_one_that_runs(bench: Bench, mail_domain: Make) -> None:
    bench.store(mail_domain("a"), uid="old")
    first = bench.compile().hash
    bench.documents.clear()
    bench.store(mail_domain("a", subdomains=True), uid="new")
    bench.judge(Moment(NOW, bench.edges(first)))
    assert bench.says("a") == ("False", "Pending")


def test_an_edge_that_refuses_is_named(bench: Bench, mail_domain: Make) -> None:
    bench.store(mail_domain("a"))
    bench.judge(Moment(NOW, bench.edges("old", error="it needs a newer program")))
    message = bench.condition("a")["message"]
    assert message.startswith("0 of 1 edges run this generation; 1 refuse")
    assert "pod-0: it needs a newer program" in message


def test_what_is_held_back_is_said(bench: Bench, mail_domain: Make) -> None:
    bench.store(mail_domain("a"))
    bench.judge(Moment(NOW, bench.edges("old"), waits_for="a person must allow it"))
    assert bench.condition("a")["message"].endswith("; a person must allow it")


def test_while_nothing_is_heard_what_was_known_stays(bench: Bench, mail_domain: Make) -> None:
    bench.store(mail_domain("a"))
    bench.judge(Moment(NOW, bench.edges("old")))
    assert bench.judge(Moment(LATER, None, "the log is away", refresh=True)) == []
    bench.store(mail_domain("b"))
    assert bench.judge(Moment(LATER, None, "the log is away")) == ["b"]
    assert bench.says("b") == ("Unknown", "Pending")
    assert bench.condition("b")["message"] == "the log is away"


def test_a_message_alone_is_written_now_and_then_only(bench: Bench, mail_domain: Make) -> None:
    bench.store(mail_domain("a"))
    digest = bench.compile().hash
    bench.judge(Moment(NOW, bench.edges("old", "old")))
    assert bench.judge(Moment(LATER, bench.edges(digest, "old"))) == []
    assert bench.judge(Moment(LATER, bench.edges(digest, "old"), refresh=True)) == ["a"]
    assert bench.condition("a")["message"].startswith("1 of 2")
    assert bench.condition("a")["lastTransitionTime"] == NOW


def test_an_object_that_cannot_be_read_is_invalid_by_itself(bench: Bench, mail_domain: Make) -> None:
    """As one that was stored under another schema."""
    bench.store(mail_domain("good"))
    bench.store(mail_domain("odd", future={"field": 1}))
    bench.judge(Moment(NOW, bench.edges(bench.compile().hash)))
    assert bench.says("odd", "Accepted") == ("False", "Invalid")
    assert "future" in bench.condition("odd", "Accepted")["message"]
    assert bench.says("odd") == ("False", "Excluded")
    assert bench.says("good") == ("True", "Programmed")


REFUSALS = [
    ({"domain": "a..b"}, "Accepted", "Invalid"),
    ({"domain": "a.test", "aliasDomains": ["good.test"]}, "Accepted", "Conflicted"),
    ({"delivery": {"type": "Mailbox", "store": "none"}}, "ResolvedRefs", "StoreNotFound"),
    (
        {"recipients": {"source": {"type": "Directory", "directoryRef": {"name": "none"}}}},
        "ResolvedRefs",
        "DirectoryNotFound",
    ),
]


@pytest.mark.parametrize(("spec", "type_", "reason"), REFUSALS)
def test_a_refused_object_is_left_out_and_others_are_not(
    bench: Bench, mail_domain: Make, spec: Document, type_: str, reason: str
) -> None:
    bench.store(mail_domain("good"))
    bad = mail_domain("bad")
    bad["spec"].update(spec)
    bench.store(bad)
    bench.judge(Moment(NOW, bench.edges(bench.compile().hash)))
    assert bench.says("bad", type_) == ("False", reason)
    assert bench.says("bad") == ("False", "Excluded")
    assert bench.says("good") == ("True", "Programmed")


def test_a_condition_that_no_longer_applies_goes(bench: Bench, mail_domain: Make) -> None:
    bench.store(mail_domain("a"))
    bench.judge(Moment(NOW, Edges()))
    bench.store(mail_domain("a", "not a domain"), generation=2)
    bench.judge(Moment(LATER, Edges()))
    (document,) = bench.documents.values()
    assert [one["type"] for one in document["status"]["conditions"]] == ["Accepted", "Programmed"]
    assert "asciiDomain" not in document["status"]


def test_programmed_is_not_true_for_what_is_left_out_and_becomes_true_again(
    bench: Bench, mail_domain: Make
) -> None:
    bench.store(mail_domain("a"))
    digest = bench.compile().hash
    bench.judge(Moment(NOW, bench.edges(digest)))
    old = mail_domain("older", "a.test")
    old["metadata"]["creationTimestamp"] = "2025-01-01T00:00:00Z"
    bench.store(old)
    bench.judge(Moment(NOW, bench.edges(digest)))
    assert bench.says("a", "Accepted") == ("False", "Conflicted")
    assert bench.says("a") == ("False", "Excluded")
    del bench.documents[ObjectKey("MailDomain", "default", "older")]
    bench.judge(Moment(NOW, bench.edges(digest)))
    assert bench.says("a") == ("True", "Programmed")


def test_conditions_of_others_are_left_alone(bench: Bench, mail_domain: Make) -> None:
    bench.store(mail_domain("a"))
    bench.judge(Moment(NOW, Edges()))
    (document,) = bench.documents.values()
    document["status"]["conditions"].append({**document["status"]["conditions"][0], "type": "example.org/Theirs"})
    assert bench.judge(Moment(LATER, Edges(), refresh=True)) == []


@pytest.mark.parametrize(
    "status", [None, {}, {"conditions": [{"type": "Accepted"}]}, {"conditions": "none"}, "text"]
)
def test_a_status_that_makes_no_sense_is_written_anew(bench: Bench, mail_domain: Make, status: Any) -> None:
    bench.store(mail_domain("a"))
    (key,) = bench.documents
    bench.documents[key] = {**bench.documents[key], "status": status}
    assert bench.judge(Moment(NOW, Edges())) == ["a"]


def test_known_configurations_are_forgotten_when_no_edge_runs_them(bench: Bench, mail_domain: Make) -> None:
    digests = []
    for number in range(20):
        bench.store(mail_domain("a", subdomains=bool(number % 2)), generation=number + 1)
        digests.append(bench.compile().hash)
    bench.published.keep({digests[0]})
    known = [digest for digest in digests if bench.published.of(digest)]
    assert known[0] == digests[0]
    assert known[-1] == digests[-1]
    assert len(known) < 12
