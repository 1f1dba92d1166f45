"""How the files of a feed are reached: over HTTP, in a directory, in a bundle."""
