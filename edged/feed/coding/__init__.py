"""How records and their changes become few bytes, and bytes records again."""
