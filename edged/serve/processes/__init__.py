"""Further serving processes that share the ports: those that run, and who keeps them running."""
