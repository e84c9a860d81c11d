"""What a server offers to run, from its settings: tasks, programs, MCP servers.

The composition roots call it before anything is opened, so that a wrong setting is told at once.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from unbroken.mcp.config import load_servers
from unbroken.mcp.source import McpServer
from unbroken.runs.catalog import Catalog, Source
from unbroken.runs.programs import Programs, load_programs
from unbroken.runs.task import Tasks, load_tasks

if TYPE_CHECKING:
    from unbroken.settings import Settings

__all__ = ["build_catalog"]


def build_catalog(settings: Settings) -> Catalog | None:
    """The catalog that `settings` name, None when they name nothing to run. `ConfigurationError` says what is wrong."""
    sources: list[Source] = []
    if settings.tasks:
        sources.append(Tasks(found for path in settings.tasks for found in load_tasks(path)))
    if settings.programs is not None:
        sources.append(Programs(load_programs(settings.programs)))
    if settings.mcp_config is not None:
        servers = load_servers(settings.mcp_config, os.environ, limits=settings.limits)
        sources += [McpServer(config, settings.limits) for config in servers]
    return Catalog(sources) if sources else None
