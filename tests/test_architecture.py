"""Imports point inwards: a room of the package knows the rooms above it in this list, and none below."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import blender_hf

ROOT = Path(__file__).parent.parent
FOLDERS = {"blender_hf": "blender_hf", "blender_hf.modeling": "modeling", "blender_hf.export": "export"}
# From the inside out; those of one line do not know each other.
LAYERS = (
    ("errors", "logs"),
    ("modeling",),
    ("inputs",),
    ("engine",),
    ("loading",),
    ("data",),
    ("generation", "export"),
    ("judging",),
    ("asynchronous", "named_rankers"),
    ("blender",),
    ("pipeline", "integrations"),
    ("evaluation", "labelling"),
    ("space", "training"),
    ("cli",),
    ("__main__",),
)
# What a user touches; everything else has a folder.
MOST_MODULES_AT_THE_TOP = 10


def modules() -> Iterator[tuple[str, Path]]:
    for package, folder in FOLDERS.items():
        for path in (ROOT / folder).rglob("*.py"):
            inner = path.relative_to(ROOT / folder).with_suffix("").parts
            yield ".".join((package, *(part for part in inner if part != "__init__"))), path


def imported(name: str, path: Path) -> Iterator[str]:
    """Yield what a module imports of the package, at its top and inside of its functions."""
    package = name if path.stem == "__init__" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*parents, *([node.module] if node.module else [])])
            yield from (f"{source}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def room(module: str) -> str | None:
    package, _, inner = module.partition(".")
    return inner.split(".")[0] if package == "blender_hf" and inner else None


@pytest.mark.once
def test_imports_point_inwards() -> None:
    depth = {name: number for number, names in enumerate(LAYERS) for name in names}
    known = {name for name, _ in modules()}
    for name, path in modules():
        own = room(name)
        if own is None:
            continue  # the package itself names its public parts, and imports them when they are asked for
        for target in imported(name, path):
            other = room(target)
            if other in depth and other != own and any(target == k or target.startswith(f"{k}.") for k in known):
                assert depth[other] < depth[own], f"{name} imports {target}, which lies further out"


@pytest.mark.once
def test_every_room_has_its_layer() -> None:
    rooms = {found for name, _ in modules() if (found := room(name))}
    assert rooms == {name for names in LAYERS for name in names}


@pytest.mark.once
def test_the_top_keeps_only_what_users_touch() -> None:
    assert len(list((ROOT / "blender_hf").glob("*.py"))) <= MOST_MODULES_AT_THE_TOP


@pytest.mark.once
def test_the_public_names_are_typed_where_they_live() -> None:
    """A type checker reads the imports of `__init__.py`, the interpreter its table."""
    tree = ast.parse((ROOT / "blender_hf" / "__init__.py").read_text(encoding="utf-8"))
    (typed,) = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    imports = (node for node in typed.body if isinstance(node, ast.ImportFrom))
    assert {alias.asname: node.module for node in imports for alias in node.names} == blender_hf._HOMES
