"""How fast the answers are: benchmark, stage table, peaks of the machine, roofline."""
