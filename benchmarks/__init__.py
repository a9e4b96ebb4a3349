"""One script per claim; each prints a ratio measured in one run. A package, since Opacus' wheel brings another of this name."""
