"""Inspection of image files: scores, masks, defects, verdicts and a report."""
