"""Stores: where messages become durable. `base` holds the interface, each other module one implementation of it."""
