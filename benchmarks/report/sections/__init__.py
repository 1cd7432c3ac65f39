"""The numbered sections of the report, one a module, each with the figure that it shows."""
