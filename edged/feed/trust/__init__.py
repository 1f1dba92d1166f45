"""Signatures, the roots of trust behind them, and which of them a device has come to know."""
