"""Which modules run compiled: all that packaging/compiling.py names where EDGED_COMPILED=1 says so, else none."""

from __future__ import annotations

import importlib
import importlib.util
import os
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from edged.feed.coding.arithmetic import BITS_MOST, ONE, ArithmeticDecoder, ArithmeticEncoder
from edged.feed.coding.textmodel import Decisions

ROOT = Path(__file__).resolve().parent.parent.parent


def load_compiling() -> ModuleType:
    spec = importlib.util.spec_from_file_location("compiling", ROOT / "packaging" / "compiling.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


compiling = load_compiling()


def test_every_module_of_the_coding_is_named() -> None:
    named = set(compiling.sources())
    assert {f"edged/feed/coding/{path.name}" for path in (ROOT / "edged/feed/coding").glob("[a-z]*.py")} <= named
    assert not any(name.endswith("__init__.py") for name in named)
    assert all((ROOT / name).is_file() for name in named)


@pytest.mark.parametrize("source", compiling.sources())
def test_runs_compiled_where_that_is_asked_for(source: str) -> None:
    file = str(importlib.import_module(source.removesuffix(".py").replace("/", ".")).__file__)
    assert file.endswith(tuple(EXTENSION_SUFFIXES)) == (os.environ.get("EDGED_COMPILED") == "1"), file
    assert file.startswith(str(ROOT)), file


@pytest.mark.parametrize(("asked", "expected"), [("1", True), ("0", False), ("", False), (None, False)])
def test_a_wheel_is_compiled_only_where_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, asked: str | None, expected: bool
) -> None:
    monkeypatch.delenv("EDGED_COMPILE", raising=False)
    if asked is not None:
        monkeypatch.setenv("EDGED_COMPILE", asked)
    hook = compiling.CompileHook()
    assert (hook.dependencies() == compiling.REQUIRED) == expected
    assert bool(hook.dependencies()) == expected
    if not expected:
        data: dict[str, Any] = {"force_include": {}}
        hook.initialize("standard", data)
        assert data == {"force_include": {}}


def test_an_editable_install_is_never_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGED_COMPILE", "1")
    data: dict[str, Any] = {"force_include": {}}
    compiling.CompileHook().initialize("editable", data)
    assert data == {"force_include": {}}


@pytest.mark.parametrize("number", [0, 1, (1 << 62) - 1, 1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, (1 << 65) - 3])
def test_numbers_beyond_a_machine_word_come_back(number: int) -> None:
    """Differences of two 64-bit numbers take 65 bits, more than what is compiled computes with in a register."""
    encoder = ArithmeticEncoder(BITS_MOST)
    Decisions(encoder, {}).number(number, "n")
    decoder = ArithmeticDecoder(encoder.finish(), "test")
    assert Decisions(decoder, {}).number(0, "n") == number
    decoder.finish()


@pytest.mark.parametrize("probability", [24, ONE // 2, ONE - 24])
@pytest.mark.parametrize("bits", [0, 1])
def test_the_nearest_to_certainty_is_coded_and_decoded(probability: int, bits: int) -> None:
    encoder = ArithmeticEncoder(BITS_MOST)
    for _ in range(500):
        encoder.code(bits, probability)
    decoder = ArithmeticDecoder(encoder.finish(), "test")
    assert all(decoder.code(0, probability) == bits for _ in range(500))
    decoder.finish()
