"""The numbered sections of the report, one per module, each with its figure."""
