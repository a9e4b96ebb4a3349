"""A store of each kind, new for each test."""

from tests.support.store import reader, where, writer

__all__ = ["reader", "where", "writer"]  # fixtures
