"""The commands of `edged origin` that are more than a few lines, and what those have in common (shared)."""
