"""Unbroken: streams that survive the reload, the lost network, the crash and the restart.

The package's public names are imported from here. Applications import it. It never starts anything by being imported.
"""

from __future__ import annotations

__version__ = "0.1.0"
