"""The hospital: its cases stay here, only tasks come in and replies go out."""
