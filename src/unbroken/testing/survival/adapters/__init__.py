"""Adapters for servers that speak something known; `survival.loading` picks one by its name."""
