"""The server's wall to Flower: the only place of this package that imports it."""
