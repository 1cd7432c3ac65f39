"""Shadow run: a challenger sees every part beside the leader and decides nothing."""
