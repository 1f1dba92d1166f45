"""The configuration: the shipped file equals the structures, and every fault is named at its line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edged.config import Config
from edged.configfile import all_faults, load, load_with_warnings, render_default
from edged.errors import ConfigError
from edged.replica.files.disk import DEFAULT_DATA_DIR
from edged.sync.subscription import access_of

ROOT = Path(__file__).parent.parent


def faults_of(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "edged.toml"
    path.write_text(text)
    return [fault.removeprefix(f"{path}: ") for fault in all_faults(path)]


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


def test_further_certificates_need_a_first_one_and_their_files(tmp_path: Path) -> None:
    faults = faults_of(tmp_path, '[serve]\ncertificates = [{ cert = "x" }]\n')
    assert "the key 'key' is missing" in "\n".join(faults)
    faults = faults_of(tmp_path, '[serve]\ncertificates = [{ cert = "/nonexistent/c", key = "/nonexistent/k" }]\n')
    assert [fault.split(": ", 1)[1] for fault in faults] == [
        "serve.certificates.cert: '/nonexistent/c' is not a file",
        "serve.certificates.key: '/nonexistent/k' is not a file",
    ]
    for name in ("c", "k"):
        (tmp_path / name).touch(mode=0o600)
    pair = f'{{ cert = "{tmp_path}/c", key = "{tmp_path}/k" }}'
    (fault,) = faults_of(tmp_path, f"[serve]\ncertificates = [{pair}]\n")
    assert fault.startswith("line 2: serve.certificates: set tls_cert and tls_key too")


def test_keys_that_go_together(tmp_path: Path) -> None:
    faults = faults_of(tmp_path, '[serve]\nworkers = 2\nbind = ["127.0.0.1:0"]\ntls_key = "/nonexistent"\n')
    assert {fault.split(": ")[1] for fault in faults} == {"serve.tls_cert", "serve.bind", "serve.tls_key"}


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("serve.workers", "65", "a whole number <= 64; got 65"),
        ("serve.workers", '"two"', "expected a whole number; got 'two'"),
        ("serve.workers", "true", "expected a whole number; got true"),
        ("serve.bind", '["127.0.0.1:1", 7]', "item 2: expected a text; got 7"),
        ("serve.bind", '["127.0.0.1:1", "no"]', "item 2: expected a text of the form:"),
        ("serve.bind", '"127.0.0.1:1"', "expected a list; got '127.0.0.1:1'"),
        ("serve.bind", "[]", "expected a list of length >= 1; got []"),
        ("daemon.log_level", '"loud"', "expected one of: debug, error, info, warning; got 'loud'"),
        ("daemon", "7", "expected a table; got 7"),
        ("daemon.data_dir", '"/var/\\u0000x"', "a path, in which there can be no NUL"),
        ("serve.tls_key", '"/a\\u0000b"', "a path, in which there can be no NUL"),
    ],
)
def test_faults_are_said_in_words_that_no_program_uses(tmp_path: Path, key: str, value: str, said: str) -> None:
    section, _, name = key.partition(".")
    text = f"[{section}]\n{name} = {value}\n" if name else f"{section} = {value}\n"
    (fault,) = faults_of(tmp_path, text)
    assert fault.startswith(f"line {2 if name else 1}: {key}: ")
    assert said in fault
    assert not re.search(r"`|\$|NoneType|regex", fault)


def test_no_credential_is_echoed(tmp_path: Path) -> None:
    for text in (
        '[[datasets]]\nname = "a"\norigin = ["https://ann:s3cret@origin.example/a"]\ntrust = "t"\n',
        '[[proxy.routes]]\nprefix = "/a"\nupstream = "https://ann:s3cret@services.example"\n',
    ):
        faults = faults_of(tmp_path, text)
        assert faults
        assert "s3cret" not in "".join(faults)
        assert "ann" not in "".join(faults)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("[daemon]\ndata_dri = 1\n", "daemon.data_dri: unknown key; did you mean 'data_dir'?"),
        ("[serve]\ndata_dir = 1\n", "serve.data_dir: unknown key; did you mean 'data_dir' of [daemon]?"),
        ("[proxy]\nupstreem = 1\n", "proxy.upstreem: unknown key; did you mean 'upstream' of [proxy.routes]?"),
        ("[damon]\nx = 1\n", "damon: unknown key; did you mean 'daemon'?"),
        ("[admin]\nzzz = 1\n", "admin.zzz: unknown key; expected one of: bind"),
    ],
)
def test_an_unknown_key_says_what_may_have_been_meant(tmp_path: Path, text: str, hint: str) -> None:
    (fault,) = faults_of(tmp_path, text)
    assert hint in fault


@pytest.mark.parametrize(
    ("serve", "admin", "clash"),
    [
        ("127.0.0.1:8484", "127.0.0.1:8484", True),
        ("127.0.0.1:8484", "localhost:8484", True),
        ("0.0.0.0:8484", "127.0.0.1:8484", True),
        ("[::]:8484", "[::1]:8484", True),
        ("unix:/run/a", "unix:/run/./a", True),
        ("127.0.0.1:8484", "127.0.0.2:8484", False),
        ("127.0.0.1:8484", "127.0.0.1:8485", False),
        ("127.0.0.1:0", "127.0.0.1:0", False),
        ("0.0.0.0:8484", "[::]:8484", False),
        ("unix:/run/a", "unix:/run/b", False),
        ("unix:/run/a", "127.0.0.1:8484", False),
    ],
)
def test_two_listeners_on_one_address(tmp_path: Path, serve: str, admin: str, clash: bool) -> None:
    faults = faults_of(tmp_path, f'[serve]\nbind = ["{serve}"]\n[admin]\nbind = ["{admin}"]\n')
    assert [fault.split(":")[0] for fault in faults] == (["line 4"] if clash else [])


@pytest.mark.parametrize(("mode", "wrong"), [(0o600, False), (0o640, False), (0o604, True), (0o644, True)])
def test_a_key_that_every_user_can_read_is_a_fault_and_the_daemon_runs(tmp_path: Path, mode: int, wrong: bool) -> None:
    for name in ("cert", "key"):
        (tmp_path / name).write_bytes(b"")
        (tmp_path / name).chmod(mode)
    text = f'[serve]\ntls_cert = "{tmp_path}/cert"\ntls_key = "{tmp_path}/key"\n'
    assert [fault.partition(";")[0] for fault in faults_of(tmp_path, text)] == (
        [f"line 3: serve.tls_key: '{tmp_path}/key' can be read by every user (mode {mode:04o})"] if wrong else []
    )
    assert len(load_with_warnings(tmp_path / "edged.toml")[1]) == wrong


def test_a_missing_trust_file_or_seed_is_a_fault_and_the_daemon_runs(tmp_path: Path) -> None:
    text = '[[datasets]]\nname = "a"\norigin = ["file:///x"]\ntrust = "/nonexistent"\nseed = "/nonexistent"\n'
    assert [fault.split(":")[0] for fault in faults_of(tmp_path, text)] == ["line 4", "line 5"]
    assert len(load_with_warnings(tmp_path / "edged.toml")[1]) == 2


def test_files_beside_the_configuration_are_read_after_it_in_the_order_of_their_names(tmp_path: Path) -> None:
    (tmp_path / "trust").write_bytes(b"")
    dataset = '[[datasets]]\nname = "{}"\norigin = ["file:///x"]\n' + f'trust = "{tmp_path}/trust"\n'
    path, more = tmp_path / "edged.toml", tmp_path / "edged.d"
    more.mkdir()
    path.write_text("[serve]\nworkers = 2\nmax_connections = 9\n" + dataset.format("a"))
    (more / "20.toml").write_text('[serve]\nworkers = 3\nbind = ["127.0.0.1:1"]\n' + dataset.format("c"))
    (more / "10.toml").write_text("[serve]\nworkers = 4\n" + dataset.format("b"))
    (more / "30.toml~").write_text("not read")
    (more / ".hidden.toml").write_text("not read")
    config = load(path)
    assert (config.serve.workers, config.serve.max_connections, config.serve.bind) == (3, 9, ["127.0.0.1:1"])
    assert [item.name for item in config.datasets] == ["a", "b", "c"]
    assert all_faults(path) == ()
    late = more / "30.toml"
    late.write_text("\n[serve]\nworkers = 0\n" + dataset.format("d") + dataset.format("b").replace('"b"', '"/"'))
    assert [fault.split(": ")[:2] for fault in all_faults(path)] == [
        [str(late), "line 3"],
        [str(late), "line 9"],
    ]
    late.write_text(dataset.format("d") + dataset.format("a"))
    assert all_faults(path) == (f"{late}: line 6: datasets.name: dataset 'a' is there twice; remove one",)
    late.write_bytes(b"[[[")
    assert [fault.partition(": ")[0] for fault in all_faults(path)] == [str(late)]


def test_a_directory_beside_the_configuration_that_cannot_be_listed_is_said(tmp_path: Path) -> None:
    path = tmp_path / "edged.toml"
    path.write_text("")
    (tmp_path / "edged.d").write_text("no directory")
    with pytest.raises(ConfigError, match=r"list .*edged\.d: Not a directory"):
        load(path)


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"\xef\xbb\xbf[daemon]\n", "line 1: begins with a byte order mark"),
        ("[daemon]\n".encode("utf-16"), "line 1: begins with a byte order mark"),
        (b"a = \n", "line 1"),
        (b"[daemon]\nx = \xff\n", "line 2"),
        (b"[[[", "line 1"),
        (b"a=" + b"[" * 9000, ""),
    ],
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


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ('origin = ["http://[bad/"]', "the host is no name or address"),
        ('origin = ["file:///x", "http://h:99999/"]', "the port is not a number up to 65535"),
        ('origin = ["http://a..b/"]', "no part of a host name"),
        ('origin = ["https://xn--a\u200d.example/"]', "no international host name"),
        ('origin = ["file:///x"]\nproxy = "ftp://h"', "does not begin with https:// or http://"),
        ('origin = ["file:///x"]\nproxy = "http://ann:s3cret@h:0"', "the port is 0"),
        ('origin = ["file:///x"]\ncert = "c"', "cert and key go together"),
        ('origin = ["file:///x"]\nca = "/nonexistent"', "is not a file"),
        ('origin = ["file:///x"]\nheaders = {"a b" = "x"}', "no header field that can be set"),
        ('origin = ["file:///x"]\nheaders = {Host = "x"}', "no header field that can be set"),
        ('origin = ["file:///x"]\nheaders = {A = "env:NO_SUCH_VARIABLE"}', "no such variable in the environment"),
        ('origin = ["file:///x"]\nheaders = {A = "s3cret\\n"}', "a control character or one beyond ASCII"),
    ],
)
def test_origins_that_cannot_be_reached_as_written(tmp_path: Path, lines: str, said: str) -> None:
    (tmp_path / "trust").write_bytes(b"")
    text = f'[[datasets]]\nname = "a"\ntrust = "{tmp_path}/trust"\n{lines}\n'
    faults = faults_of(tmp_path, text)
    assert [said in fault for fault in faults].count(True) == 1
    assert "s3cret" not in "".join(faults)


def test_origins_as_people_write_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "trust").write_bytes(b"")
    monkeypatch.setenv("ORIGIN_TOKEN", "Bearer s3cret\n")
    path = tmp_path / "edged.toml"
    path.write_text(
        f'[[datasets]]\nname = "a"\ntrust = "{tmp_path}/trust"\norigin = ["https://b\u00fccher.example:8443/a"]\n'
        'proxy = "http://ann:pass@10.0.0.1:3128"\nheaders = {Authorization = "env:ORIGIN_TOKEN", X-Device = "box"}\n'
    )
    access = access_of(load(path).datasets[0])
    assert access.headers == (("Authorization", "Bearer s3cret"), ("X-Device", "box"))
    assert "s3cret" not in repr(access)
    assert "pass" not in repr(access)


@pytest.mark.parametrize(("prefix", "fits"), [("/", False), ("/pages", False), ("/pages/x", False), ("/page", True)])
def test_a_route_where_the_explorer_is_is_refused(tmp_path: Path, prefix: str, fits: bool) -> None:
    path = tmp_path / "edged.toml"
    path.write_text(
        f'[serve]\nexplorer = true\n[[proxy.routes]]\nprefix = "{prefix}"\nupstream = "http://127.0.0.1:1"\n'
    )
    found = [fault for fault in all_faults(path) if "explorer" in fault]
    assert found == [] if fits else "give that another prefix" in found[0]
