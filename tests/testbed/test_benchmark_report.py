"""The benchmarks' tables from made-up samples: ratios, spreads, targets, and what is kept of the page."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """The benchmarks' modules, which are scripts beside each other and no package."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(FOLDER)
    import deferred
    import ratios
    import report
    import rows

    yield SimpleNamespace(deferred=deferred, ratios=ratios, report=report, rows=rows)
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(FOLDER)):
            del sys.modules[name]


def deliver(bench: SimpleNamespace, ours: list[float], **peers: list[float]) -> object:
    def samples(values: list[float]) -> list[object]:
        return [bench.rows.Sample({"all": us}, 1e6 / us, 100) for us in values]

    everything = {"deliver": ours, **peers}
    return bench.rows.Row("accept -> Maildir", 1, True, {name: samples(us) for name, us in everything.items()})


def test_a_ratio_is_one_of_medians_with_the_spread_of_the_rounds(bench: SimpleNamespace) -> None:
    row = deliver(bench, [100, 110, 90], postfix=[200, 220, 300], exim=[1000, 1000, 1000])
    cpu, rate = bench.ratios.lines([row])
    assert str(cpu.against["postfix"]) == "0.45 (0.30-0.50)"
    assert str(cpu.against["exim"]) == "0.10 (0.09-0.11)"
    assert (cpu.target, cpu.met, cpu.ours, cpu.against["exim"].theirs) == ("<= 0.5", True, "100 us", "1000 us")
    assert str(rate.against["postfix"]) == "2.20 (2.00-3.33)"
    assert (rate.target, rate.met) == (">= 2", True)


def test_a_target_is_about_postfix_whatever_the_others_do(bench: SimpleNamespace) -> None:
    row = deliver(bench, [100], exim=[10_000], postfix=[150])
    cpu, rate = bench.ratios.lines([row])
    assert not cpu.met
    assert not rate.met
    assert bench.ratios.peers_in([cpu]) == ["postfix", "exim"]


def test_the_page_has_a_column_for_each_peer_and_keeps_what_was_written_by_hand(
    bench: SimpleNamespace, tmp_path: Path
) -> None:
    (tmp_path / "RESULTS.md").write_text("old <!-- by hand: begin -->\nmy words\n<!-- by hand: end --> old")
    row = deliver(bench, [100], postfix=[400], exim=[1000], haraka=[2000])
    results = bench.report.Results(False, 1, rows=[row], versions={"exim": "Exim 4.96"})
    text = bench.report.write(results, tmp_path)
    assert "| what | target | / Postfix | met | / Exim | / Haraka | Gatepost | Postfix | Exim | Haraka |" in text
    assert "| <= 0.5 | **0.25 (0.25-0.25)** | yes | 0.10 (0.10-0.10) | 0.05 (0.05-0.05) | 100 us |" in text
    assert "Exim 4.96" in text
    assert "deliver, postfix, exim, haraka: 100 at 1 per connection" in text
    assert re.search(r"Recipients are verified.*events are written.*traced.*log line.*no TLS", text)
    assert "<!-- by hand: begin -->\nmy words\n<!-- by hand: end -->" in text
    assert "old" not in text.split("\n")[0]
    assert (tmp_path / "RESULTS.md").read_text() == text


def test_the_row_of_waiting_mail_pairs_the_rounds_and_leaves_the_broker_to_a_line_of_its_own(
    bench: SimpleNamespace, tmp_path: Path
) -> None:
    def sample(own: float, broker: float) -> object:
        return bench.rows.Sample({"edge": own / 2, "relay": own / 2, "broker": broker}, 1.0, 100)

    row = bench.rows.Row(
        "waiting",
        50,
        True,
        {"few": [sample(100, 50), sample(200, 50), sample(100, 50)], "many": [sample(120, 50)] * 3},
    )
    starts = [bench.deferred.Start(waiting, 1.0, 2.0, 0.5, 80.0, 1.0) for waiting in (1000, 1_000_000)]
    deferred = bench.deferred.Deferred("few", "many", starts, row)
    assert bench.deferred.pair_ratios(deferred, broker=False) == pytest.approx([1.2, 0.6, 1.2])
    text = bench.report.write(bench.report.Results(False, 1, deferred=deferred), tmp_path)
    assert "| edge, router, mailbox, relay | <= 1.1 | **1.200** | 0.60-1.20 | **no** | 100 us | 120 us |" in text
    assert "| with the broker | - | **1.133** | 0.68-1.13 | - | 150 us | 170 us |" in text
    assert "| 1,000,000 waiting | 1.0 s | 2.00 s | 0.50 s | 80 MiB |" in text
