"""Fixtures for the replica's tests."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def quick_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting for the disk: what a power loss does to unsynced data is modelled in faults.py."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)
