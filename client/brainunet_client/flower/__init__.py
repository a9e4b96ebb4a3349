"""The client's wall to Flower."""
