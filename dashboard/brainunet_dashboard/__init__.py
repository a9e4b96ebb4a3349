"""Pages over the store for the people who watch a federation."""
