"""Owns the one answer to "what do the tests need that pip does not bring, and is it here?".

Called as `python -m tests.support.provision` by `./run test` before pytest, and by tests/conftest.py for the rule of
what may be missing. It never runs a test and never hides a missing piece: every one is named, and fatal where required.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from tests.support.provision_chromium import ProvisionError, provide_chromium
from tests.support.provision_debian import find_faketime, find_haproxy, provide_debian
from tests.support.provision_firefox import provide_firefox
from tests.support.provision_mcp_legacy import provide_mcp_legacy
from tests.support.provision_node import NPM_PROJECTS, find_node, install_npm_projects, playwright_node, version_of
from tests.support.provision_scan import provide_scanners

EXIT_UNAVAILABLE = 69


@dataclass(frozen=True, slots=True)
class Piece:
    """One thing that the tests need: how it was found, or what to do about its absence."""

    name: str
    found: str | None
    cure: str
    optional: bool = False
    """Not to be had on every system; tests that want it are then skipped by name, also in continuous integration."""


def everything_required(environment: Mapping[str, str]) -> bool:
    """Whether a missing piece is an error (continuous integration) instead of a named skip."""
    return environment.get("CI", "").lower() in {"1", "true"} or environment.get("UNBROKEN_REQUIRE") == "all"


def provision() -> list[Piece]:
    """Find or fetch every piece. Idempotent; the second time it only looks."""
    node = find_node()
    pieces = [
        Piece("node", f"{node.version} ({node.source})" if node else None, "install Node 20 or newer with npm"),
        _playwright_driver(),
    ]
    chromium = provide_chromium(node)
    found = f"{chromium.version} ({chromium.source})" if chromium else None
    pieces.append(Piece("chromium", found, "install Chromium, or set UNBROKEN_CHROMIUM to a browser that starts"))
    legacy = provide_mcp_legacy()
    cure = "run pip with requirements/mcp-legacy.txt and read its complaint"
    pieces.append(Piece("old MCP SDK", legacy.version if legacy else None, cure))
    cure = "run pip with requirements/scan.txt and read its complaint"
    pieces.append(Piece("scanners", "an environment" if provide_scanners() else None, cure))
    installed = install_npm_projects(node) if node else []
    for folder in NPM_PROJECTS:
        name = f"tests/{folder.name}"
        if (folder / "package-lock.json").is_file():
            found = "npm packages" if name in installed else None
            pieces.append(Piece(name, found, f"run `npm ci` in {name} and read its complaint"))
    return [*pieces, *_debian_pieces()]


def _debian_pieces() -> list[Piece]:
    provide_debian()
    haproxy, faketime, firefox = find_haproxy(), find_faketime(), provide_firefox()
    return [
        Piece(
            "firefox",
            firefox.version if firefox else None,
            "install Firefox ESR, or set UNBROKEN_FIREFOX",
            optional=True,
        ),
        Piece("haproxy", haproxy.version if haproxy else None, "install HAProxy 2.4 or newer", optional=True),
        Piece("libfaketime", "a library" if faketime else None, "install libfaketime", optional=True),
    ]


def _playwright_driver() -> Piece:
    given = os.environ.get("PLAYWRIGHT_NODEJS_PATH")
    node = playwright_node()
    found = "own Node" if node is None else f"Node {version_of(node)} of the wheel"
    return Piece("playwright", found if given is None else f"Node at {given}", "set PLAYWRIGHT_NODEJS_PATH")


def main() -> int:
    """Provision and print one summary; 69 when a piece is missing that may not be."""
    try:
        pieces = provision()
    except ProvisionError as error:
        print(f"provision: {error}", file=sys.stderr)
        return EXIT_UNAVAILABLE
    print("provisioned: " + " · ".join(f"{piece.name} {piece.found}" for piece in pieces if piece.found))
    missing = [piece for piece in pieces if not piece.found]
    for piece in missing:
        print(f"missing: {piece.name}: {piece.cure}", file=sys.stderr)
    if any(not piece.optional for piece in missing) and everything_required(os.environ):
        print("a missing piece is an error here (CI=true or UNBROKEN_REQUIRE=all)", file=sys.stderr)
        return EXIT_UNAVAILABLE
    return 0


if __name__ == "__main__":
    sys.exit(main())
