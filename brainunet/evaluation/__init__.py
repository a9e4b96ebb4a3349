"""Scoring a folder of cases: predictions against truths, or a model's predictions against them."""
