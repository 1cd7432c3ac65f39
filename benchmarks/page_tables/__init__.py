"""The tables of figures in README.md and docs/, made from the stored results."""
