"""Owns how the tests come by a Chromium that starts, without root where that is possible.

Called by `provision`, which may fetch, and by the `chromium_path` fixture, which only looks. It never fetches a
browser whose bytes differ from the pinned ones, and never touches a browser that is already installed.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

import brotli

from tests.support.provision_node import INSTALL_SECONDS_MAX, ROOT, Node, version_of

NPM_PACKAGE = "@sparticuz/chromium@153.0.0"
NPM_INTEGRITY = "sha512-jiGWqSvPMdu4+P9TilYqAR7yEGPEHINx+lCvE/NqNO/EHYzF/x1hUiI5T6ioVIt7dEy7n88byyT0vk+dnsgQwA=="
ON_PATH = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chromium-headless-shell")
TARBALL_BYTES_MAX = 128 * 1024 * 1024
# The package carries the browser, the libraries that minimal systems lack, and fonts. `exec` keeps the process id, so
# that whoever kills the wrapper kills the browser.
WRAPPER = """#!/bin/sh
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
LD_LIBRARY_PATH="$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
FONTCONFIG_PATH="${FONTCONFIG_PATH:-$here/fonts}"
export LD_LIBRARY_PATH FONTCONFIG_PATH
exec "$here/chromium" "$@"
"""


class ProvisionError(Exception):
    """Something asked for by name cannot be used; the message says what to change."""


@dataclass(frozen=True, slots=True)
class Chromium:
    """A Chromium that has been seen to start."""

    path: Path
    version: str
    source: str


def cache_folder() -> Path:
    """Where fetched browsers are kept: `$UNBROKEN_CACHE`, else the user's cache folder, else the checkout."""
    named = os.environ.get("UNBROKEN_CACHE")
    if named:
        return Path(named)
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    try:
        base.mkdir(parents=True, exist_ok=True)
    except OSError:
        return ROOT / ".cache"
    return base / "unbroken" if os.access(base, os.W_OK) else ROOT / ".cache"


def find_chromium() -> Chromium | None:
    """The first that starts of: `$UNBROKEN_CHROMIUM`, one on PATH, the cached npm build. Fetches nothing."""
    named = os.environ.get("UNBROKEN_CHROMIUM")
    if named:
        found = _started(Path(named), "UNBROKEN_CHROMIUM")
        if found is None:
            raise ProvisionError(f"UNBROKEN_CHROMIUM names {named}, which does not start")
        return found
    for name in ON_PATH:
        program = shutil.which(name)
        if program is not None and (found := _started(Path(program), "on PATH")):
            return found
    wrapper = _npm_build_folder() / "start"
    return _started(wrapper, "npm") if wrapper.is_file() else None


def provide_chromium(node: Node | None) -> Chromium | None:
    """`find_chromium`, else fetch one: the pinned npm package, then, as root, the system's package."""
    return find_chromium() or _from_npm(node) or _from_apt()


def _started(program: Path, source: str) -> Chromium | None:
    printed = version_of(program)
    if not printed:
        return None
    numbers = [word for word in printed.split() if word[0].isdigit()]
    return Chromium(program, numbers[0] if numbers else printed, source)


def _npm_build_folder() -> Path:
    return cache_folder() / f"chromium-{NPM_PACKAGE.rpartition('@')[2]}"


def _from_npm(node: Node | None) -> Chromium | None:
    if node is None or platform.system() != "Linux" or platform.machine() != "x86_64":
        return None
    print(f"fetching Chromium: npm package {NPM_PACKAGE}", flush=True)
    target = _npm_build_folder()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        tarball = _npm_pack(node, Path(scratch))
        if tarball is None:
            return None
        built = Path(scratch) / "built"
        _unpack(tarball, built)
        if not target.exists():
            built.rename(target)
    return _started(target / "start", "npm")


def _npm_pack(node: Node, folder: Path) -> bytes | None:
    done = subprocess.run(
        [*node.npm, "pack", NPM_PACKAGE, "--loglevel=error"],
        cwd=folder,
        env=node.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        timeout=INSTALL_SECONDS_MAX,
        check=False,
    )
    tarballs = list(folder.glob("*.tgz"))
    if done.returncode != 0 or len(tarballs) != 1:
        print(f"npm pack {NPM_PACKAGE} failed (exit {done.returncode})", file=sys.stderr)
        return None
    if tarballs[0].stat().st_size > TARBALL_BYTES_MAX:
        raise ProvisionError(f"{NPM_PACKAGE} is larger than {TARBALL_BYTES_MAX} bytes")
    body = tarballs[0].read_bytes()
    digest = "sha512-" + base64.b64encode(hashlib.sha512(body).digest()).decode()
    if digest != NPM_INTEGRITY:
        raise ProvisionError(f"{NPM_PACKAGE} has changed: expected {NPM_INTEGRITY}, got {digest}")
    return body


def _unpack(tarball: bytes, folder: Path) -> None:
    folder.mkdir()
    with tarfile.open(fileobj=io.BytesIO(tarball)) as package:

        def part(name: str) -> bytes:
            member = package.extractfile(f"package/bin/{name}.br")
            if member is None:
                raise ProvisionError(f"{NPM_PACKAGE} has no {name}")
            return bytes(brotli.decompress(member.read()))

        (folder / "chromium").write_bytes(part("chromium"))
        for name in ("al2023.tar", "fonts.tar", "swiftshader.tar"):
            with tarfile.open(fileobj=io.BytesIO(part(name))) as parts:
                # The bytes are pinned; the filter is for the linter of later Pythons and absent from 3.11.2.
                parts.extraction_filter = getattr(tarfile, "data_filter", None)
                parts.extractall(folder)
    (folder / "start").write_text(WRAPPER)
    (folder / "chromium").chmod(0o755)
    (folder / "start").chmod(0o755)


def _from_apt() -> Chromium | None:
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return None
    print("fetching Chromium: apt-get install chromium", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update", "-q"], ["apt-get", "install", "-qy", "--no-install-recommends", "chromium"]):
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            timeout=INSTALL_SECONDS_MAX,
            check=False,
        )
        if done.returncode != 0:
            print(f"{' '.join(command)} failed (exit {done.returncode})", file=sys.stderr)
            return None
    program = shutil.which("chromium")
    return _started(Path(program), "apt") if program else None
