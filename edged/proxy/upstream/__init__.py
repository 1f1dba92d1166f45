"""Connections to the services behind the routes, and whether these are there."""
