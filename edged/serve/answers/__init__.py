"""What apps ask, and the answer to it: the same from every lane."""
