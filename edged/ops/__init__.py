"""What operators need: systemd, logs, metrics, the admin listener."""
