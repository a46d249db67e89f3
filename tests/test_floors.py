"""The house stands as it was drawn: imports go down only, and every module keeps the house's measures."""

from __future__ import annotations

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCE = Path(__file__).parent.parent / "src" / "steadcast"
MODULES = {
    ".".join(path.relative_to(SOURCE).with_suffix("").parts): path for path in sorted(SOURCE.rglob("*.py"))
}
TREES = {name: ast.parse(path.read_text()) for name, path in MODULES.items()}

FLOORS = {
    **dict.fromkeys(["event", "incoming", "wire", "errors", "version", "masking", "core", "tracer"], 0),
    **dict.fromkeys(["engines", "client", "plain_log"], 1),
    **dict.fromkeys(["hub", "gate", "announce"], 2),
    **dict.fromkeys(["socketio", "http"], 3),
    **dict.fromkeys(["app", "parts", "readiness", "serve", "cli", "config", "commands", "demo"], 4),
    **dict.fromkeys(["certificate", "descriptors", "doctor", "logs", "outlet", "tracing"], 4),
    "testing": 2,  # public, for tests: nothing of the house imports it
    "__init__": 4,  # the public names, lazily
    "__main__": 4,
}
PURE_WITHOUT = {"asyncio", "time", "random", "socket", "threading", "logging"}
NAMES_THAT_SAY_NOTHING = re.compile(r"(Manager|Service|Helper|Utils|Normalizer)$")
MAX_MODULE = 500
MAX_FUNCTION = 60


def part(module: str) -> str:
    """Give the part of the house that a module belongs to: `core` for `core.cursor`."""
    return module.split(".", maxsplit=1)[0]


def floor(module: str) -> int:
    return FLOORS[part(module)]


def imports(module: str) -> Iterator[tuple[int, str]]:
    """Give every import of a module, late ones and those for type checking too: line and full name."""
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno}: imports are written in full"
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}"


def of_the_house(module: str) -> Iterator[tuple[int, str]]:
    """Give what a module imports of the house, without the leading `steadcast.`."""
    for line, name in imports(module):
        if name == "steadcast" or name.startswith("steadcast."):
            yield line, name.removeprefix("steadcast").removeprefix(".") or "__init__"


def foreign(module: str) -> Iterator[tuple[int, str]]:
    for line, name in imports(module):
        if part(name) != "steadcast":
            yield line, part(name)


def test_every_module_has_its_floor() -> None:
    assert {part(module) for module in MODULES} <= FLOORS.keys()
    assert len(MODULES) > 30


def test_imports_go_down_only() -> None:
    upward = [
        f"{module}:{line} imports {name}"
        for module in MODULES
        for line, name in of_the_house(module)
        if FLOORS.get(part(name), FLOORS["__init__"]) > floor(module)
    ]
    assert upward == []


def test_no_imports_lead_round_in_a_circle() -> None:
    """Nor do those for type checking: two rooms that name each other's types can only be read together."""

    def room(name: str) -> str:
        while name and name not in MODULES:
            if f"{name}.__init__" in MODULES:
                return f"{name}.__init__"
            name = name.rpartition(".")[0]
        return name or "__init__"

    below = {module: {room(name) for _, name in of_the_house(module)} for module in MODULES}
    assert len(list(TopologicalSorter(below).static_order())) == len(MODULES)


def test_nothing_of_the_house_imports_the_package_itself_or_what_is_made_for_tests() -> None:
    outside = [
        f"{module}:{line} imports {name}"
        for module in MODULES
        for line, name in of_the_house(module)
        if part(name) not in FLOORS or part(name) in {"testing", "__init__"}
    ]
    assert outside == []


def test_the_ground_floor_is_pure() -> None:
    impure = [
        f"{module}:{line} imports {name}"
        for module in MODULES
        if floor(module) == 0
        for line, name in foreign(module)
        if name in PURE_WITHOUT
    ]
    assert impure == []


def test_only_those_who_speak_socketio_import_it() -> None:
    strangers = [
        f"{module}:{line} imports {name}"
        for module in MODULES
        if part(module) not in {"socketio", "client", "app"}
        for line, name in foreign(module)
        if name in {"socketio", "engineio"}
    ]
    assert strangers == []


def test_only_the_tracing_knows_opentelemetry() -> None:
    strangers = [
        f"{module}:{line} imports {name}"
        for module in MODULES
        if part(module) != "tracing"
        for line, name in foreign(module)
        if name == "opentelemetry"
    ]
    assert strangers == []


def test_engines_and_client_do_not_know_each_other() -> None:
    other = {"client": "engines", "engines": "client"}
    known = [
        f"{module}:{line} imports {name}"
        for module in MODULES
        for line, name in of_the_house(module)
        if part(name) == other.get(part(module))
    ]
    assert known == []


# Measures


def docstring_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = node.body[0]
    is_text = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    return (first.end_lineno or first.lineno) - first.lineno + 1 if is_text else 0


def functions() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for module, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield module, node


def test_modules_have_at_most_500_lines() -> None:
    lines = {module: len(path.read_text().splitlines()) for module, path in MODULES.items()}
    assert {module: count for module, count in lines.items() if count > MAX_MODULE} == {}


def test_functions_have_at_most_60_lines_without_their_docstring() -> None:
    long = [
        f"{module}:{node.lineno} {node.name}"
        for module, node in functions()
        if (node.end_lineno or node.lineno) - node.lineno + 1 - docstring_lines(node) > MAX_FUNCTION
    ]
    assert long == []


def test_names_say_something() -> None:
    names = [module.rsplit(".", maxsplit=1)[-1].title() for module in MODULES]
    names += [
        node.name for tree in TREES.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)
    ]
    assert [name for name in names if NAMES_THAT_SAY_NOTHING.search(name)] == []


# Buffers

QUEUES = {"deque": "maxlen", "Queue": "maxsize", "LifoQueue": "maxsize", "PriorityQueue": "maxsize"}
QUEUES["SimpleQueue"] = "maxsize"  # it has none: it always needs its reason
BOUNDED_ELSEWHERE = {
    "client.async_publisher": "refused with QueueFull before it is queued",
    "client.buffer": "has_room, by events and bytes",
    "commands.lines": "a group of lines and one chunk",
    "engines.sqlite_writer": "refused with QueueFull in append; calls wait for their answers",
    "engines.watch": "offer, which drops what overflows and leaves bookmarks",
    "socketio.broadcaster": "inbox_limit in broadcast",
    "socketio.dead": "limit and max_bytes in _hold, the oldest go first",
}
"""Modules that bound their queues where something is put in, rather than beside the line that makes them."""


def unbounded(tree: ast.AST) -> Iterator[ast.Call]:
    """Give the queues that are made without a limit; one made of what is there already is a local list."""
    local = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and all(isinstance(target, ast.Name) for target in node.targets)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "id", None) or getattr(node.func, "attr", None)
        limits = [keyword for keyword in node.keywords if keyword.arg == QUEUES.get(str(name))]
        if name in QUEUES and not limits and not (node.args and id(node) in local):
            yield node


def test_every_queue_has_a_limit_or_says_what_bounds_it() -> None:
    silent = []
    for module, tree in TREES.items():
        lines = MODULES[module].read_text().splitlines()
        for call in unbounded(tree):
            near = " ".join(lines[call.lineno - 2 : call.end_lineno])
            if "# bounded by " not in near and module not in BOUNDED_ELSEWHERE:
                silent.append(f"{module}:{call.lineno}")
    assert silent == []


# Errors


def test_every_except_raises_or_does_something() -> None:
    idle = [
        f"{module}:{handler.lineno}"
        for module, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Try) and not node.finalbody  # what is done in any case is done here too
        for handler in node.handlers
        if all(isinstance(each, (ast.Pass, ast.Continue)) for each in handler.body)
    ]
    assert idle == []


# The tests themselves would notice


def test_a_queue_without_a_limit_is_found() -> None:
    found = [
        ast.unparse(call)
        for call in unbounded(
            ast.parse("""
self.a = deque()
self.b = deque(maxlen=5)
self.c = asyncio.Queue()
self.d = deque(given)
e = deque(given)
self.f = SimpleQueue()
g = deque()
""")
        )
    ]
    assert found == ["deque()", "asyncio.Queue()", "deque(given)", "SimpleQueue()", "deque()"]
