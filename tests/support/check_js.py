"""Owns the type check of the browser client, so that `./run check` needs no other tool than the tests do.

Called as `python -m tests.support.check_js`. It never runs a test and never changes a file outside `node_modules`.
"""

from __future__ import annotations

import os
import subprocess
import sys

from tests.support.provision import EXIT_UNAVAILABLE, everything_required
from tests.support.provision_node import INSTALL_SECONDS_MAX, ROOT, find_node, install_npm_projects

PROJECT = ROOT / "tests" / "js"


def main() -> int:
    """Run the project's own `types` script; 69 when there is no Node where everything is required."""
    node = find_node()
    if node is None or f"tests/{PROJECT.name}" not in install_npm_projects(node):
        print("not run: the type check of the browser client needs Node 20 with npm", file=sys.stderr)
        return EXIT_UNAVAILABLE if everything_required(os.environ) else 0
    command = [*node.npm, "run", "--silent", "types"]
    done = subprocess.run(command, cwd=PROJECT, env=node.environment(), timeout=INSTALL_SECONDS_MAX, check=False)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
