"""The store: the only SQL of the engine, one code for SQLite and PostgreSQL."""

from engine.store.store import Role, Store

__all__ = ["Role", "Store"]
