"""From image files to scores, masks, defects, verdicts and a report."""
