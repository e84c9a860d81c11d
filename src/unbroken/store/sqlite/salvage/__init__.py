"""Brings back what verifies from a damaged database file, and names exactly what does not."""

from unbroken.store.sqlite.salvage.pages import unsound_pages
from unbroken.store.sqlite.salvage.salvage import Lost, Means, Salvage, salvage

__all__ = ["Lost", "Means", "Salvage", "salvage", "unsound_pages"]
