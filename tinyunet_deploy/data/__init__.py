"""Images and labels: decoding, tiles, data-set layouts, checks, the synthetic generator."""
