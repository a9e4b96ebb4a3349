"""Training a network on prepared cases."""
