"""The pages in docs/ that are to be followed, followed."""
