"""The benchmark report: one page, HTML or Markdown, made of result files."""
