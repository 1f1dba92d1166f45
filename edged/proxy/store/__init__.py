"""Stored responses: in memory, on flash, and both as one."""
