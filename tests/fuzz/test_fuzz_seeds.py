"""Every input that is kept for a fuzzing target goes through it: what once failed does not fail again."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from fuzzing.targets import TARGETS

SEEDS = Path(__file__).resolve().parent.parent / "data/fuzz"
MOST_MEMORY = 32 * 2**20  # octets; no input has over some thousand


@pytest.mark.timeout(60)  # a parser that loops ends here; all together take about a second
@pytest.mark.parametrize("name", sorted(TARGETS))
def test_no_input_breaks_a_parser(name: str) -> None:
    """No exception but those that are documented, bounded memory, and an end. Fails with any fault found before."""
    inputs = sorted((SEEDS / name).iterdir())
    assert len(inputs) >= 3
    tracemalloc.start()
    try:
        for path in inputs:
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            TARGETS[name](path.read_bytes())
            assert tracemalloc.get_traced_memory()[1] - before < MOST_MEMORY, path.name
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", sorted(TARGETS))
@pytest.mark.parametrize(
    "octets", [b"", b"\0", b"\xff" * 300, b"\r\n", b'"' * 100, b"(" * 3000, b"a" * 4096, b"=" * 999]
)
def test_nor_do_the_simplest_ones(name: str, octets: bytes) -> None:
    TARGETS[name](octets)


def test_every_folder_belongs_to_a_target() -> None:
    assert {path.name for path in SEEDS.iterdir() if path.is_dir()} == set(TARGETS)
