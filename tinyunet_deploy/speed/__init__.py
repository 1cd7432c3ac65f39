"""Speed of the answers: benchmark, stage table, peaks of the machine, roofline."""
