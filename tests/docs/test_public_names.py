"""The package's public names: the same for people, type checkers and machines, and nothing loaded that is not wanted."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import unbroken
import unbroken.testing

LISTED = """
import sys
from unbroken import {names}
print(*sorted(name for name in sys.modules if name.split(".")[0] in {{"starlette", "fastapi", "uvicorn", "apsw", "pydantic"}}
    or name.startswith(("unbroken.server", "unbroken.store", "unbroken.hub", "unbroken.embed"))))
"""


@pytest.mark.parametrize("package", [unbroken, unbroken.testing], ids=lambda package: package.__name__)
def test_type_checkers_see_exactly_the_public_names(package: ModuleType) -> None:
    assert package.__file__ is not None
    stub = ast.parse(Path(package.__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    names = {alias.name for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    homes = {alias.name: node.module for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert names == set(package.__all__)
    assert homes == package._HOME_OF
    assert [name for name in package.__all__ if not hasattr(package, name)] == []


@pytest.mark.parametrize("name", unbroken.__all__)
def test_every_public_name_can_be_imported(name: str) -> None:
    assert getattr(unbroken, name).__name__ == name
    assert name in dir(unbroken)


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        _ = unbroken.nothing  # type: ignore[attr-defined]


@pytest.mark.parametrize("names", ["Client, SyncClient, NewMessage, Cursor, UnbrokenError", "__version__"])
def test_a_client_loads_nothing_of_the_server(names: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LISTED.format(names=names)], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == []


def test_the_check_sees_what_an_application_loads() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LISTED.format(names="Unbroken")], capture_output=True, text=True, check=True, timeout=60
    )
    assert {"starlette", "apsw", "unbroken.embed"} <= set(done.stdout.split())
    assert "fastapi" not in done.stdout.split(), "only the router needs it"
