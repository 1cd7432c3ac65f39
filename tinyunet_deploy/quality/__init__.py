"""How good the answers are: metrics, evaluation, threshold choice, parity, self-test."""
