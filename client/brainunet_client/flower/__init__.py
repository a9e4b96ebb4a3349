"""The only part of the hospital that knows Flower."""
