"""A new version beside the live one: staged, merged, mended."""
