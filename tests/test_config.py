"""The configuration: the shipped file equals the structures, and every fault is named at its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from edged.config import Config, load, render_default
from edged.errors import ConfigError
from edged.replica.files.disk import DEFAULT_DATA_DIR

ROOT = Path(__file__).parent.parent


def faults_of(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "edged.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert caught.value.exit_code == 2
    return [fault.removeprefix(f"{path}: ") for fault in caught.value.faults]


def test_the_shipped_file_shows_every_key_at_its_default() -> None:
    shipped = ROOT / "config" / "edged.toml"
    assert shipped.read_text() == render_default()
    assert load(shipped) == Config()


def test_a_whole_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "trust").write_bytes(b"")
    path = tmp_path / "edged.toml"
    path.write_text(f"""
[daemon]
data_dir = "{tmp_path}"
[[datasets]]
name = "catalog"
origin = ["https://origin.example/catalog", "file:///srv/feed/catalog"]
trust = "{tmp_path}/trust"
slices = ["core", "region-br"]
[serve]
bind = ["127.0.0.1:0", "[::1]:8484"]
""")
    config = load(path)
    assert config.datasets[0].slices == ["core", "region-br"]
    assert config.serve.bind == ["127.0.0.1:0", "[::1]:8484"]
    assert config.admin.bind == ["127.0.0.1:8485"]


def test_every_fault_is_named_with_its_line_and_the_fix(tmp_path: Path) -> None:
    faults = faults_of(
        tmp_path,
        """[daemon]
data_dir = ""
devise_id = "x"
[[datasets]]
name = "../etc"
origin = ["ftp://x"]
[[datasets]]
name = "catalog"
origin = ["https://origin.example/catalog"]
trust = "/nonexistent/trust"
[serve]
bind = [
  "127.0.0.1:99999",
]
workers = 0
tls_cert = "/nonexistent/cert"
[unknown]
""",
    )
    lines = [fault.split(":")[0] for fault in faults]
    assert lines == ["line 2", "line 3", "line 4", "line 5", "line 6", "line 10", "line 12", "line 15", "line 17"]
    text = "\n".join(faults)
    assert "did you mean 'device_id'?" in text
    assert "the key 'trust' is missing; add it" in text
    assert "HOST:PORT" in text
    assert "edged origin init" in text


def test_the_same_dataset_twice_is_refused_at_the_second(tmp_path: Path) -> None:
    trust = tmp_path / "trust"
    trust.write_bytes(b"")
    entry = f'[[datasets]]\nname = "a"\norigin = ["file:///x"]\ntrust = "{trust}"\n'
    assert faults_of(tmp_path, entry + entry) == ["line 6: datasets.name: dataset 'a' is there twice; remove one"]


def test_keys_that_go_together(tmp_path: Path) -> None:
    faults = faults_of(tmp_path, '[serve]\nworkers = 2\nbind = ["127.0.0.1:0"]\ntls_key = "/nonexistent"\n')
    assert [fault.split(": ")[1] for fault in faults] == ["serve.tls_cert", "serve.bind", "serve.tls_key"] or len(
        faults
    ) == 3


@pytest.mark.parametrize(
    ("data", "line"),
    [(b"a = \n", "line 1"), (b"[daemon]\nx = \xff\n", "line 2"), (b"[[[", "line 1"), (b"a=" + b"[" * 9000, "")],
)
def test_what_is_not_toml_is_refused_clearly(tmp_path: Path, data: bytes, line: str) -> None:
    path = tmp_path / "edged.toml"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=f"{path}.*{line}"):
        load(path)


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--config"):
        load(tmp_path / "none.toml")


def test_an_endless_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "big.toml"
    path.write_bytes(b"#" * (5 << 20))
    with pytest.raises(ConfigError, match="not a configuration"):
        load(path)


def test_routes_of_the_proxy(tmp_path: Path) -> None:
    path = tmp_path / "edged.toml"
    path.write_text(
        '[proxy]\nquota = "64MiB"\n[[proxy.routes]]\nprefix = "/api"\nupstream = "https://services.example"\n'
    )
    proxy = load(path).proxy
    assert (proxy.quota, proxy.routes[0].prefix, proxy.routes[0].offline_s) == ("64MiB", "/api", 86_400)
    faults = faults_of(
        tmp_path,
        '[proxy]\nquota = "1kB"\n[[proxy.routes]]\nprefix = "/api"\nupstream = "https://services.example"\n'
        '[[proxy.routes]]\nprefix = "/api/"\nupstream = "http://b.example/x"\n',
    )
    assert [fault.split(":")[0] for fault in faults] == ["line 2", "line 7"]
    bad = '[[proxy.routes]]\nprefix = "/v1/x"\nupstream = "ftp://x"\ncert = "/nonexistent"\n'
    assert [fault.split(": ")[1] for fault in faults_of(tmp_path, bad)] == [
        "proxy.routes.prefix",
        "proxy.routes.upstream",
    ]


def test_readers_know_where_replicas_are_without_reading_a_configuration() -> None:
    assert Config().daemon.data_dir == DEFAULT_DATA_DIR
