"""The only part of the coordinator that knows Flower."""
