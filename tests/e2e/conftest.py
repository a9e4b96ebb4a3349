"""Federations of real processes, and the made-up cases of their hospitals."""

from tests.support.running import new_federation, phantoms

__all__ = ["new_federation", "phantoms"]  # fixtures
