"""Producers that are executed here, detached from every viewer."""
