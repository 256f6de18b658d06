"""What a run imports is what it is said to test: Python here, machine code where GATEPOST_CODE says so."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES

import pytest

from compiling.modules import COMPILED
from gatepost.cli.startup import form_of_code
from gatepost.core.data_reader import ChunkReader, DataReader
from gatepost.core.ids import is_id, new_id

EXPECTED = os.environ.get("GATEPOST_CODE", "interpreted")


@pytest.mark.parametrize("module", COMPILED)
def test_each_module_is_in_the_form_that_this_run_is_about(module: str) -> None:
    found = importlib.import_module(module.removesuffix(".py").replace("/", ".")).__file__
    assert found is not None
    assert found.endswith(tuple(EXTENSION_SUFFIXES)) is (EXPECTED == "compiled"), found


def test_the_start_report_says_so() -> None:
    assert form_of_code() == EXPECTED


def test_a_process_that_a_test_starts_has_the_same_form() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from gatepost.cli.startup import form_of_code; print(form_of_code())"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.strip() == EXPECTED


def test_a_wrong_type_is_an_exception_in_either_form() -> None:
    """Machine code checks what it is handed; nothing of the memory behind a wrong object is read."""
    reader = DataReader(100, 100)
    with pytest.raises((TypeError, AttributeError)):
        reader.feed("text")  # type: ignore[arg-type]
    with pytest.raises((TypeError, AttributeError)):
        is_id(None)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        ChunkReader(100, 100).expect("x", last=True)  # type: ignore[arg-type]
    assert is_id(new_id(1))
