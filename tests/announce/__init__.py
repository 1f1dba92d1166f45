"""Tests of announcements by a broker: a real Mosquitto where there is one, and a broker that lies."""
