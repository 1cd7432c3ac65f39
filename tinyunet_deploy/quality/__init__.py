"""Quality of the answers: metrics, evaluation, threshold choice, parity, self-test."""
