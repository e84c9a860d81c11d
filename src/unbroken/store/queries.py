"""Loads named SQL from the files beside the stores: `-- name: x` begins a query, `-- fragment: x` a part of others.

The stores call it once at import. Queries hold parameters only; nothing here, or anywhere, builds SQL from values.
"""

from __future__ import annotations

import re
from importlib.resources import files

__all__ = ["load_queries", "parse_queries"]

_HEADING = re.compile(r"^-- (name|fragment): (\w+)$", re.MULTILINE)
_USE = re.compile(r"/\*(\w+)\*/")


def load_queries(dialect: str) -> dict[str, str]:
    """The queries of `sql/DIALECT/queries.sql` by name."""
    return parse_queries(files("unbroken.store").joinpath("sql", dialect, "queries.sql").read_text(encoding="utf-8"))


def parse_queries(text: str) -> dict[str, str]:
    """The queries in `text` by name, with each `/*fragment*/` filled in and comments and line ends made single spaces."""
    parts = _HEADING.split(text)[1:]
    fragments: dict[str, str] = {}
    queries: dict[str, str] = {}
    for kind, name, body in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        if name in fragments or name in queries:
            raise ValueError(f"the query {name} is there twice")
        code = " ".join(line for line in body.splitlines() if not line.lstrip().startswith("--"))
        filled = _USE.sub(lambda use: fragments[use[1]], code)
        (fragments if kind == "fragment" else queries)[name] = " ".join(filled.split()).rstrip(";")
    return queries
