"""Files that a backend loads, and what is known of them: sidecar, lineage, network, guards."""
