"""Differential privacy without torch: what training costs, which noise it needs, and the ledger of what was spent."""
