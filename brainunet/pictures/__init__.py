"""Pictures for people, by matplotlib and without a display."""
