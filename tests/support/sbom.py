"""Owns the bill of materials: what an installed Unbroken consists of, as a CycloneDX document.

`tests.docs.generate` writes it to docs/reference/sbom.cdx.json and a test compares. It is made from what is locked and
vendored alone, so that the same sources give the same document; it asks no registry.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

__all__ = ["bill_of_materials"]

ROOT = Path(__file__).parents[2]
_PINNED = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)(?: ; ([^\\]+?))? \\$", re.MULTILINE)
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_VENDORED = re.compile(
    r"^\| `([^`]+)` \| (\S+) (\S+) \| `([^`]+)` \| ([\w.-]+)[^|]*\| `([0-9a-f]{64})` \|$", re.MULTILINE
)


def bill_of_materials() -> dict[str, Any]:
    """Every locked Python package with the digests that may be installed, and every vendored JavaScript file."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    version = re.search(r'^version = "([^"]+)"$', project, re.MULTILINE)
    assert version is not None
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": "unbroken",
                "name": "unbroken",
                "version": version[1],
                "licenses": [{"license": {"id": "Apache-2.0"}}],
                "purl": f"pkg:pypi/unbroken@{version[1]}",
            }
        },
        "components": [*_python(), *_javascript()],
    }


def _python() -> list[dict[str, Any]]:
    text = (ROOT / "requirements" / "run.txt").read_text(encoding="utf-8")
    found: list[dict[str, Any]] = []
    pins = list(_PINNED.finditer(text))
    for place, pin in enumerate(pins):
        end = pins[place + 1].start() if place + 1 < len(pins) else len(text)
        purl = f"pkg:pypi/{pin[1].lower()}@{pin[2]}"
        properties = [{"name": "unbroken:sha256", "value": digest} for digest in _HASH.findall(text[pin.end() : end])]
        if pin[3]:
            properties.append({"name": "unbroken:marker", "value": pin[3].strip()})
        found.append(
            {
                "type": "library",
                "bom-ref": purl,
                "name": pin[1],
                "version": pin[2],
                "purl": purl,
                "properties": properties,
            }
        )
    assert len(found) == len(re.findall(r"^[A-Za-z0-9._-]+==", text, re.MULTILINE)), "a pin was not understood"
    return found


def _javascript() -> list[dict[str, Any]]:
    text = (ROOT / "src" / "unbroken" / "web" / "vendor" / "VENDORED.md").read_text(encoding="utf-8")
    found = [
        {
            "type": "library",
            "bom-ref": f"pkg:npm/{package}@{version}#{path}",
            "name": package,
            "version": version,
            "purl": f"pkg:npm/{package}@{version}#{path}",
            "hashes": [{"alg": "SHA-256", "content": digest}],
            "licenses": [{"license": {"id": licence}}],
            "properties": [{"name": "unbroken:file", "value": f"src/unbroken/web/vendor/{file}"}],
        }
        for file, package, version, path, licence, digest in _VENDORED.findall(text)
    ]
    assert len(found) == len(re.findall(r"\| `[0-9a-f]{60,64}` \|$", text, re.MULTILINE)), (
        "a vendored file was not understood"
    )
    return found
