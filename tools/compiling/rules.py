"""What mypyc would compile into something else than Python means, found before it is tried.

mypyc itself says what it cannot compile. These it lets pass: the options of a class (`frozen`) are dropped without
a word, compiled code has no limit of recursion, and what cannot be subclassed is known only when it is imported.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence, Set
from functools import cache
from pathlib import Path


def faults(services: Path, modules: Sequence[str]) -> list[str]:
    """Why these modules (paths below `services`) must not be compiled, one line each; [] when they may be."""
    found = [f"{module}: no such file" for module in modules if not (services / module).is_file()]
    if found:
        return found
    compiled = {_dotted(module) for module in modules}
    for path in sorted(services.rglob("*.py")):
        module = str(path.relative_to(services))
        for node in _classes(path):
            place = f"{module}:{node.lineno}: class {node.name}"
            if module in modules:
                found += [f"{place} {why}" for why in _faults_of_class(services, path, node, compiled)]
            else:
                bases = {base for base in _bases(services, path, node) if base.rpartition(".")[0] in compiled}
                found += [f"{place} would inherit from the compiled {base}" for base in sorted(bases)]
        if module in modules:
            found += [
                f"{module}:{line}: {name} calls itself, without a limit" for line, name in _recursive(_tree(path))
            ]
    return found


def _faults_of_class(services: Path, path: Path, node: ast.ClassDef, compiled: Set[str]) -> Iterator[str]:
    bases = _bases(services, path, node)
    if node.keywords:
        yield "has options"
    if any(_is_struct(services, base) for base in bases):
        yield "is a record of msgspec"
    slotted = any(isinstance(one, ast.Assign) and ast.unparse(one.targets[0]) == "__slots__" for one in node.body)
    if slotted and any(base.rpartition(".")[0] not in compiled for base in bases):
        yield "has __slots__ and a base that is not compiled"


def _recursive(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            names = {function.name, f"self.{function.name}"}
            if any(isinstance(one, ast.Call) and ast.unparse(one.func) in names for one in ast.walk(function)):
                yield function.lineno, function.name


def _is_struct(services: Path, name: str) -> bool:
    """Whether a class, by its dotted name, comes from msgspec.Struct."""
    if name == "msgspec.Struct":
        return True
    module, _, last = name.rpartition(".")
    path = services / f"{module.replace('.', '/')}.py"
    if not path.is_file():
        return False
    found = [node for node in _classes(path) if node.name == last]
    return any(_is_struct(services, base) for node in found for base in _bases(services, path, node))


def _bases(services: Path, path: Path, node: ast.ClassDef) -> list[str]:
    """The dotted names of a class's bases."""
    own = _dotted(str(path.relative_to(services)))
    names = _imported(path)
    local = {one.name for one in _classes(path)}
    found = []
    for base in node.bases:
        first, dot, rest = ast.unparse(base).partition(".")
        start = names.get(first, f"{own}.{first}" if first in local else first)
        found.append(f"{start}{dot}{rest}")
    return found


def _imported(path: Path) -> dict[str, str]:
    """Each name that the module imports -> the dotted name of what it is."""
    names = {}
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.ImportFrom):
            names.update({one.asname or one.name: f"{node.module}.{one.name}" for one in node.names})
        elif isinstance(node, ast.Import):
            names.update({one.asname or one.name: one.name for one in node.names})
    return names


def _classes(path: Path) -> list[ast.ClassDef]:
    return [node for node in ast.walk(_tree(path)) if isinstance(node, ast.ClassDef)]


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_bytes())


def _dotted(module: str) -> str:
    return module.removesuffix(".py").replace("/", ".")
