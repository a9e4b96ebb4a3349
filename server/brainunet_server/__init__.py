"""The coordinating institution: rounds, admission of replies, the store. Needs no torch."""
