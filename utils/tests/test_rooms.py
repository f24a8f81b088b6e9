"""Packages import downwards only, through each other's doors; no circles, and a name means one thing."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path
from types import ModuleType

from utils import env

ROOMS = (  # from the ground up; a room may use what stands in an earlier row, never its own row
    "env stats widgets scoring colab",
    "data plots",
    "models",
    "evaluate explain",
    "train trust explorer",
    "improve audit bench report",
    "app course",
)
FLOOR = {room: floor for floor, row in enumerate(ROOMS) for room in row.split()}
FILES = [f for f in env.PACKAGE.rglob("*.py") if "tests" not in f.relative_to(env.PACKAGE).parts]


def imports(file: Path) -> Iterator[tuple[str, str]]:
    """(module, name) of each import from this package, inside functions as well; "" is the root."""
    folder = file.relative_to(env.PACKAGE).parts[:-1]
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = folder[: len(folder) - node.level + 1]
            for alias in node.names:
                yield ".".join((*base, *filter(None, [node.module]))), alias.name


def room_of(file: Path) -> str:
    return file.relative_to(env.PACKAGE).parts[0].removesuffix(".py")


def between() -> Iterator[tuple[str, str, str, str]]:
    """(file, its room, the other room or a path in it, the name taken) of imports between rooms."""
    for file in FILES:
        for module, name in imports(file):
            place, taken = (module, name) if module else (name, "")
            if place.partition(".")[0] != room_of(file):
                yield file.name, room_of(file), place, taken


def test_arrows_point_down() -> None:
    up = [i for i in between() if FLOOR[i[2].partition(".")[0]] >= FLOOR[i[1]]]
    assert up == []


def test_nothing_reaches_past_a_door() -> None:
    past = []
    for file, room, place, name in between():
        door = import_module(f"utils.{place.partition('.')[0]}")
        named = getattr(door, "__all__", None)  # modules of the root are doors themselves
        if "." in place or name.startswith("_") or (named and name and name not in named):
            past.append((file, room, place, name))
    assert past == []


def test_a_name_means_one_thing_wherever_it_is_imported() -> None:
    meanings: dict[str, dict[int, str]] = {}
    for file in FILES:
        for module, name in imports(file):
            thing = getattr(import_module(".".join(filter(None, ["utils", module]))), name, None)
            if thing is not None and not isinstance(thing, ModuleType):
                meanings.setdefault(name, {})[id(thing)] = module
    assert {name: places for name, places in meanings.items() if len(places) > 1} == {}


def test_no_module_imports_itself_in_the_end() -> None:
    modules = {".".join(f.relative_to(env.PACKAGE).with_suffix("").parts): f for f in FILES}
    graph = {
        name.removesuffix(".__init__"): {
            f"{module}.{taken}".strip(".") if f"{module}.{taken}".strip(".") in modules else module
            for module, taken in imports(file)
        }
        for name, file in modules.items()
    }
    assert len(list(TopologicalSorter(graph).static_order())) >= len(modules)
