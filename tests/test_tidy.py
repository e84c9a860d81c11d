"""Tests of the code itself: sizes, words, pinned bytes, and nothing of the machine that it was written on."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import unbroken

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "unbroken"
VENDOR = SOURCE / "web" / "vendor"
FILE_LINES_MAX = 500
BODY_LINES_MAX = 60
UNOWNED = {
    *(".git", ".venv", ".cache", ".hypothesis", "node_modules", "__pycache__", "build", "dist"),
    *("test-results", "bench-results"),
}
TEXT = {".py", ".js", ".mjs", ".css", ".html", ".sql", ".md", ".toml", ".txt", ".json", ".yml", ".sh", ""}
CODE = {".py", ".js", ".mjs", ".css", ".html", ".sql"}

# The word table of the architecture: what a stream, a message, a producer and a trim are never called. Words that a
# foreign protocol or Python's library also uses (event, offset, index, id, token, poll, worker, lock), and "room" for
# space in a queue, cannot be banned.
BANNED_WORDS = {
    "rooms": "session",
    "channel": "stream",
    "channels": "stream",
    "topic": "stream",
    "topics": "stream",
    "bookmark": "cursor",
    "publisher": "producer",
    "publishers": "producer",
    "publish": "append",
    "purge": "trim",
}
UNFINISHED = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|X" + r"XX|HA" + r"CK)\b")
# Spelt in two parts, so that this file does not contain what it looks for.
MACHINE_PATHS = re.compile("|".join(["/ro" + "ot/", "/ho" + "me/[a-z]", "/wo" + "rk/", "/op" + "t/(pypi|wheels)"]))
REGISTRY = re.compile(r"https?://|--(extra-)?index-url|--find-links|\"resolved\"")
LOCKS = ("requirements/*.txt", "tests/*/package-lock.json", "**/.npmrc")


def files(*suffixes: str) -> list[Path]:
    """Every file of the checkout with one of the suffixes (all text when none is given), generated ones left out."""
    wanted, found = set(suffixes) or TEXT, []
    for folder, names, entries in os.walk(ROOT):
        names[:] = sorted(name for name in names if name not in UNOWNED and not name.endswith(("_cache", ".egg-info")))
        found += [
            Path(folder) / entry for entry in sorted(entries) if Path(entry).suffix in wanted and entry not in UNOWNED
        ]
    return found


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function's body, its docstring not counted."""
    statements = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return (statements[-1].end_lineno or 0) - statements[0].lineno + 1 if statements else 0


def defined_names(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every name that the code introduces: definitions, arguments, assigned names and attributes."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.name, node.lineno
            case ast.arg():
                yield node.arg, node.lineno
            case ast.Name(ctx=ast.Store()):
                yield node.id, node.lineno
            case ast.Attribute(ctx=ast.Store()):
                yield node.attr, node.lineno


def words_of(name: str) -> set[str]:
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)}


def banned_names(source: str) -> list[tuple[int, str, str]]:
    """(line, name, the word to use) for each name introduced in `source` that the word table forbids."""
    return [
        (line, name, BANNED_WORDS[word])
        for name, line in defined_names(ast.parse(source))
        for word in sorted(words_of(name) & BANNED_WORDS.keys())
    ]


def long_bodies(source: str) -> list[str]:
    functions = [
        node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    return [f"{node.name} ({body_lines(node)})" for node in functions if body_lines(node) > BODY_LINES_MAX]


def test_no_file_is_longer_than_500_lines() -> None:
    lengths = {
        name_of(path): len(path.read_text(encoding="utf-8").splitlines())
        for path in files(*CODE)
        if not path.is_relative_to(VENDOR)
    }
    assert {name: lines for name, lines in lengths.items() if lines > FILE_LINES_MAX} == {}
    assert "tests/test_tidy.py" in lengths


def test_no_function_body_is_longer_than_60_lines() -> None:
    long = {name_of(path): found for path in files(".py") if (found := long_bodies(path.read_text(encoding="utf-8")))}
    assert long == {}


def test_names_follow_the_word_table() -> None:
    found = {
        f"{name_of(path)}:{line}": f"{name}: say {word}"
        for path in files(".py")
        if path.is_relative_to(SOURCE)
        for line, name, word in banned_names(path.read_text(encoding="utf-8"))
    }
    assert found == {}


def test_nothing_is_left_unfinished() -> None:
    found = [
        f"{name_of(path)}:{number}"
        for path in files(*CODE)
        if not path.is_relative_to(VENDOR)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if UNFINISHED.search(line)
    ]
    assert found == []


def test_no_path_of_one_machine_is_named() -> None:
    found = [name_of(path) for path in files() if MACHINE_PATHS.search(path.read_text(encoding="utf-8"))]
    assert found == []


def test_lock_files_name_no_registry() -> None:
    locks = [path for pattern in LOCKS for path in ROOT.glob(pattern) if "node_modules" not in path.parts]
    assert {"run.txt", "test.txt"} <= {path.name for path in locks}
    assert [name_of(path) for path in locks if REGISTRY.search(_without_funding(path))] == []


def test_every_requirement_is_pinned_by_hash() -> None:
    for path in ROOT.glob("requirements/*.txt"):
        entries = re.split(r"\n(?=\S)", path.read_text(encoding="utf-8"))
        loose = [entry for entry in entries if not entry.startswith("#") and "--hash=sha256:" not in entry]
        assert [entry for entry in loose if entry.strip()] == [], name_of(path)


def test_vendored_files_are_the_recorded_bytes() -> None:
    record = (VENDOR / "VENDORED.md").read_text(encoding="utf-8")
    present = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in VENDOR.rglob("*") if path.is_file()}
    code = {name: digest for name, digest in present.items() if Path(name).suffix in {".js", ".mjs", ".css"}}
    assert vendored_hashes(record).keys() <= present.keys(), "VENDORED.md names a file that is not there"
    assert code.items() <= vendored_hashes(record).items()


def test_the_version_is_one() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == unbroken.__version__


def vendored_hashes(record: str) -> dict[str, str]:
    """File name -> SHA-256, of each line of VENDORED.md that holds both."""
    found: dict[str, str] = {}
    for line in record.splitlines():
        digest = re.search(r"\b[0-9a-f]{64}\b", line)
        name = re.search(r"(?<![\w./-])[\w-]+(\.[\w-]+)*\.(?:m?js|css)\b(?![\w/.-])", line)
        if digest and name:
            found[name.group(0)] = digest.group(0)
    return found


def _without_funding(path: Path) -> str:
    """A lock file's text; npm copies each package's funding pages into it, which are no registry."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".json":
        return text
    packages = json.loads(text)["packages"].values()
    return json.dumps([{key: value for key, value in package.items() if key != "funding"} for package in packages])


def test_vendored_hashes_are_read_from_tables_and_lists() -> None:
    digest = "0" * 64
    assert vendored_hashes(f"| `htm.mjs` | 3.1.1 | {digest} |") == {"htm.mjs": digest}
    assert vendored_hashes(f"- marked.esm.js {digest}") == {"marked.esm.js": digest}
    assert vendored_hashes(f"the tarball {digest}, see https://example.org/dist/a.js") == {}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("class ChatRooms: ...", "session"),
        ("def publish(): ...", "append"),
        ("def f(topic): ...", "stream"),
        ("self.open_channels = 1", "stream"),
    ],
)
def test_a_banned_word_is_found_wherever_a_name_is_introduced(source: str, expected: str) -> None:
    assert [word for _, _, word in banned_names(source)] == [expected]


def test_words_inside_other_words_are_not_banned() -> None:
    assert banned_names("showrooms = republished = None") == []


def test_a_long_body_is_found_and_its_docstring_not_counted() -> None:
    docstring = '    """' + "line\n" * 100 + '"""\n'
    assert long_bodies("def f():\n" + docstring + "    pass\n" * 60) == []
    assert long_bodies("def f():\n" + "    pass\n" * 61) == ["f (61)"]


@pytest.mark.parametrize("text", ["--index-url x", '"resolved": "x"', "https" + "://registry.example/a.tgz"])
def test_a_registry_in_a_lock_file_is_found(text: str) -> None:
    assert REGISTRY.search(text)
