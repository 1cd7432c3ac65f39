"""Files that a backend loads, and their facts: sidecar, lineage, network, guards."""
