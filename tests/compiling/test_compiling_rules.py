"""What may be compiled: what mypyc would change without a word is found before it is tried."""

from __future__ import annotations

from pathlib import Path

import pytest

from compiling.build import SERVICES, compiled
from compiling.modules import COMPILED
from compiling.rules import faults
from testbed.provision.errors import ProvisionError

RECORDS = "import msgspec\nclass Base(msgspec.Struct):\n    x: int\n"


def package(folder: Path, **modules: str) -> Path:
    """A source root with one package `p` of these modules."""
    (folder / "p").mkdir()
    for name, text in modules.items():
        (folder / "p" / f"{name}.py").write_text(text)
    return folder


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("class A:\n    pass\n", ""),
        ("class A:\n    __slots__ = ('x',)\n", ""),
        ("from enum import Enum\nclass A(Enum):\n    X = 1\n", ""),
        ("def f(n):\n    return g(n)\ndef g(n):\n    return n\n", ""),
        ("class A(B, frozen=True):\n    pass\n", "p/a.py:1: class A has options"),
        ("import msgspec\nclass A(msgspec.Struct):\n    pass\n", "p/a.py:2: class A is a record of msgspec"),
        ("from msgspec import Struct\nclass A(Struct):\n    pass\n", "p/a.py:2: class A is a record of msgspec"),
        ("from p.records import Base\nclass A(Base):\n    pass\n", "p/a.py:2: class A is a record of msgspec"),
        ("import msgspec as m\nclass B(m.Struct):\n    pass\n", "p/a.py:2: class B is a record of msgspec"),
        (
            "from p.plain import P\nclass A(P):\n    __slots__ = ()\n",
            "p/a.py:2: class A has __slots__ and a base that is not compiled",
        ),
        ("def f(n):\n    return f(n - 1)\n", "p/a.py:1: f calls itself, without a limit"),
        ("class A:\n    def f(self):\n        self.f()\n", "p/a.py:2: f calls itself, without a limit"),
    ],
)
def test_what_a_compiled_module_may_contain(tmp_path: Path, source: str, fault: str) -> None:
    root = package(tmp_path, a=source, records=RECORDS, plain="class P:\n    pass\n")
    assert faults(root, ["p/a.py"]) == ([fault] if fault else [])


def test_nothing_outside_inherits_from_a_compiled_class(tmp_path: Path) -> None:
    """An interpreted class that does fails when it is imported, which only who imports it would see."""
    root = package(tmp_path, a="class A:\n    pass\n", b="from p import a\nclass B(a.A):\n    pass\n")
    assert faults(root, ["p/a.py"]) == ["p/b.py:2: class B would inherit from the compiled p.a.A"]
    assert faults(root, ["p/a.py", "p/b.py"]) == []


def test_a_module_that_is_not_there(tmp_path: Path) -> None:
    assert faults(package(tmp_path), ["p/a.py"]) == ["p/a.py: no such file"]


def test_our_own_modules_may_be_compiled() -> None:
    assert faults(SERVICES, COMPILED) == []
    assert len(set(COMPILED)) == len(COMPILED)


def test_a_build_refuses_what_may_not_be_compiled(tmp_path: Path) -> None:
    root = package(tmp_path, a=RECORDS)
    with pytest.raises(ProvisionError, match=r"p/a\.py:2: class Base is a record of msgspec"):
        compiled(root, ["p/a.py"])
