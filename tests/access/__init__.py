"""Tests of edged/access, on the apps' listener."""
