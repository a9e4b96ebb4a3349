"""A training of one machine: from a folder of cases to scored models, with everything to repeat it."""
