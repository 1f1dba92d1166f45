"""The contract's "What apps ask", asked of the handlers alone."""

from __future__ import annotations

import gzip

import cbor2
import msgspec
import pytest
import zstandard

from edged.errors import DamageError
from edged.http.application import Response
from edged.serve.answers.respond import Service
from tests.serve.asking import ask, ask_json, field_of, make_service
from tests.serve.memory import NOW, MemoryDataset, film, make_dataset

TITLES = "/v1/catalog/titles"


@pytest.fixture
def dataset() -> MemoryDataset:
    return make_dataset()


@pytest.fixture
def service(dataset: MemoryDataset) -> Service:
    return make_service({"catalog": dataset, "empty": MemoryDataset("empty")})


@pytest.mark.parametrize(
    "accept",
    [
        "text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2",  # Java's HttpURLConnection
        "text/html, *; q=.2",
        "text/html, */*;q=.001",
        "*",
    ],
)
def test_the_accept_of_old_clients_is_understood(service: Service, accept: str) -> None:
    found = ask(service, f"{TITLES}/1997/Film_0007", {"Accept": accept})
    assert (found.status, field_of(found, "content-type")) == (200, "application/json")


@pytest.mark.parametrize("accept", ["*;q=.0", "*/*;q=0.", "*;q=.", "*;q=.2000", "*/*;q=1.5"])
def test_what_weighs_nothing_or_is_no_weight_takes_nothing(service: Service, accept: str) -> None:
    assert ask(service, f"{TITLES}/1997/Film_0007", {"Accept": accept}).status == 406


@pytest.mark.parametrize("place", ["/1997/Film_0007?_=1732540800", "?limit=2&_=1", "?_=1&_=2"])
def test_a_number_against_caches_changes_nothing(service: Service, place: str) -> None:
    plain = place.replace("_=1732540800", "").replace("&_=1", "").replace("_=1&_=2", "").rstrip("?")
    assert ask(service, TITLES + place).body == ask(service, TITLES + plain).body


def test_a_record_is_its_value_alone_as_json_and_as_the_published_cbor(
    service: Service, dataset: MemoryDataset
) -> None:
    found = ask(service, f"{TITLES}/1997/Film_0007")
    assert found.status == 200
    assert field_of(found, "content-type") == "application/json"
    assert msgspec.json.decode(found.body) == film(7)
    binary = ask(service, f"{TITLES}/1997/Film_0007", {"Accept": "application/cbor"})
    assert field_of(binary, "content-type") == "application/cbor"
    assert binary.body == dataset.view().get_raw("titles", "1997/Film_0007")


def test_every_answer_says_what_version_and_state_it_is_of(service: Service) -> None:
    for target, status in ((f"{TITLES}/1997/Film_0007", 200), (f"{TITLES}/none", 404), ("/v1/catalog", 200)):
        found = ask(service, target)
        assert found.status == status
        assert field_of(found, "edged-version") == "2"
        assert field_of(found, "vary") == "Accept, Accept-Encoding"
        assert (field_of(found, "etag") or "").startswith('"')
        assert field_of(found, "cache-control")
        assert field_of(found, "content-length") == str(len(found.body))
        assert found.timed.fields(NOW)[1:] == ((b"Edged-State", b"fresh"), (b"Age", b"10"))


@pytest.mark.parametrize(
    ("later_s", "state", "age"),
    [(3600, "fresh", 3600), (3601, "stale", 3601), (86400, "stale", 86400), (86401, "expired", 86401)],
)
def test_age_makes_an_answer_stale_then_expired_and_it_is_still_served(
    service: Service, later_s: int, state: str, age: int
) -> None:
    found = ask(service, f"{TITLES}/1997/Film_0007", now=NOW - 10 + later_s)
    assert found.status == 200
    fields = dict(found.timed.fields(NOW - 10 + later_s))
    assert (fields[b"Edged-State"], fields[b"Age"]) == (state.encode(), b"%d" % age)


def test_a_clock_that_went_back_to_1970_serves_with_age_0(service: Service) -> None:
    found = ask(service, f"{TITLES}/1997/Film_0007", now=3.0)
    assert found.timed.fields(3.0)[1:] == ((b"Edged-State", b"fresh"), (b"Age", b"0"))


@pytest.mark.parametrize("key", ["a%20b%26c%2Cd", "a%20b&c,d"])
def test_keys_are_percent_decoded(service: Service, key: str) -> None:
    assert ask_json(service, f"/v1/catalog/people/{key}") == {"name": "Ann"}


def test_a_key_may_hold_slashes_encoded_or_not_and_any_letter(service: Service) -> None:
    assert ask_json(service, f"{TITLES}/1997%2FFilm_0007") == film(7)
    assert ask_json(service, "/v1/catalog/people/%C3%BC/1%25") == {"name": "Ü"}


def test_a_batch_is_in_the_order_asked_for_with_null_where_missing(service: Service) -> None:
    found = ask_json(service, f"{TITLES}?keys=1993/Film_0003,none,1991/Film_0001")
    assert found == {
        "items": [
            {"key": "1993/Film_0003", "value": film(3)},
            {"key": "none", "value": None},
            {"key": "1991/Film_0001", "value": film(1)},
        ],
        "version": 2,
        "next": None,
    }
    people = ask_json(service, "/v1/catalog/people?keys=a+b%26c%2Cd,%C3%BC/1%25")
    assert [item["value"] for item in people["items"]] == [{"name": "Ann"}, {"name": "Ü"}]


def test_pages_follow_one_another_by_next_and_by_link(service: Service) -> None:
    target, seen = f"{TITLES}?prefix=199&limit=50", []
    while target:
        found = ask(service, target)
        page = msgspec.json.decode(found.body)
        seen += [item["key"] for item in page["items"]]
        link = field_of(found, "link")
        assert (link is None) == (page["next"] is None)
        target = "" if link is None else link[1 : link.index(">")]
    assert seen == sorted(seen)
    assert len(seen) == 120


def test_a_link_keeps_the_conditions(service: Service) -> None:
    found = ask(service, f"{TITLES}?where.genres=Drama&where.year=1991&limit=3&fields=title,poster.w342&view=stb-basic")
    link = field_of(found, "link") or ""
    assert link.startswith("</v1/catalog/titles?after=1991/Film_0021&where.genres=Drama&where.year=1991&limit=3&")
    page = ask_json(service, link[1 : link.index(">")])
    assert page["items"][0]["key"] == "1991/Film_0031"


def test_an_index_is_asked_by_number_by_text_and_by_item(service: Service, dataset: MemoryDataset) -> None:
    dataset.publish("titles", {"old": {"title": "x", "year": "1994", "genres": []}})
    found = ask_json(service, f"{TITLES}?where.year=1994")
    keys = [item["key"] for item in found["items"]]
    assert keys == [f"1994/Film_{n:04}" for n in range(4, 120, 10)] + ["old"]
    assert [i["key"] for i in ask_json(service, f'{TITLES}?where.year="1994"')["items"]] == ["old"]
    both = ask_json(service, f"{TITLES}?where.genres=Noir&where.year=1991&limit=2")
    assert [item["key"] for item in both["items"]] == ["1991/Film_0001", "1991/Film_0011"]
    assert both["next"] == "1991/Film_0011"


def test_asking_by_a_field_without_an_index_names_those_there_are(service: Service) -> None:
    found = ask(service, f"{TITLES}?where.rating=1")
    assert found.status == 400
    assert b"year, genres" in found.body


def test_search_answers_best_first(service: Service) -> None:
    found = ask_json(service, f"{TITLES}?q=n%C3%BAmero+11&limit=2")
    assert len(found["items"]) == 2
    assert "11" in found["items"][0]["value"]["title"]
    seen = [item["key"] for item in found["items"]]
    while found["next"] is not None:
        found = ask_json(service, f"{TITLES}?q=n%C3%BAmero+11&limit=2&after={found['next']}")
        seen += [item["key"] for item in found["items"]]
    assert len(seen) == len(set(seen)) == 11
    assert ask(service, "/v1/catalog/people?q=x").status == 400


def test_fields_and_views_shape_records_alone_and_in_lists(service: Service) -> None:
    assert ask_json(service, f"{TITLES}/1997/Film_0007?fields=title,poster.w342,none") == {
        "title": "Film número 7",
        "poster": {"w342": "/p/342/7.jpg"},
    }
    shaped = {"title": "Film…", "released": 1997, "poster": "/p/342/7.jpg"}
    assert ask_json(service, f"{TITLES}/1997/Film_0007?view=stb-basic") == shaped
    assert ask_json(service, f"{TITLES}/1997/Film_0007?view=stb-basic&fields=released") == {"released": 1997}
    listed = ask_json(service, f"{TITLES}?keys=1997/Film_0007&view=stb-basic")
    assert listed["items"] == [{"key": "1997/Film_0007", "value": shaped}]
    assert ask(service, f"{TITLES}/1997/Film_0007?view=none").status == 400


def test_lists_come_in_four_formats_of_the_same_content(service: Service) -> None:
    target = f"{TITLES}?keys=1993/Film_0003,none"
    wanted = [{"key": "1993/Film_0003", "value": film(3)}, {"key": "none", "value": None}]
    binary = ask(service, target, {"Accept": "application/cbor"})
    assert cbor2.loads(binary.body) == {"items": wanted, "version": 2, "next": None}
    lines = ask(service, target, {"Accept": "application/x-ndjson"})
    assert field_of(lines, "content-type") == "application/x-ndjson"
    assert [msgspec.json.decode(line) for line in lines.body.splitlines()] == wanted
    sequence = ask(service, target, {"Accept": "application/cbor-seq"})
    assert cbor2.loads(b"\x82" + sequence.body) == wanted
    assert len({field_of(ask(service, target, {"Accept": a}), "etag") for a in ("*/*", "application/cbor")}) == 2


def test_codings_hold_the_same_bytes_and_have_their_own_tags(service: Service) -> None:
    target = f"{TITLES}/1997/Film_0007"
    plain = ask(service, target)
    zstd = ask(service, target, {"Accept-Encoding": "gzip, zstd"})
    packed = ask(service, target, {"Accept-Encoding": "gzip, zstd;q=0.5"})
    assert (field_of(zstd, "content-encoding"), field_of(packed, "content-encoding")) == ("zstd", "gzip")
    assert zstandard.ZstdDecompressor().decompress(zstd.body) == plain.body
    assert gzip.decompress(packed.body) == plain.body
    assert len({field_of(found, "etag") for found in (plain, zstd, packed)}) == 3
    tiny = ask(service, "/v1/catalog/people/a%20b&c,d", {"Accept-Encoding": "gzip"})
    assert field_of(tiny, "content-encoding") is None
    forced = ask(service, "/v1/catalog/people/a%20b&c,d", {"Accept-Encoding": "gzip, identity;q=0"})
    assert field_of(forced, "content-encoding") == "gzip"


@pytest.mark.parametrize(
    ("accept", "media"),
    [
        ("*/*", "application/json"),
        ("application/cbor;q=0.4, application/json;q=0.5", "application/json"),
        ("application/json;q=0.4, application/cbor;q=0.5", "application/cbor"),
        ("application/json;q=0, */*", "application/cbor"),
        ("text/html, application/*;q=0.1", "application/json"),
        ("APPLICATION/CBOR; charset=x", "application/cbor"),
        ("", "application/json"),
    ],
)
def test_accept_is_weighed(service: Service, accept: str, media: str) -> None:
    assert field_of(ask(service, f"{TITLES}/1997/Film_0007", {"Accept": accept}), "content-type") == media


@pytest.mark.parametrize(
    "fields",
    [{"Accept": "text/html"}, {"Accept": "*/*;q=0"}, {"Accept-Encoding": "identity;q=0"}, {"Accept-Encoding": "*;q=0"}],
)
def test_nothing_acceptable_is_406_and_names_what_there_is(service: Service, fields: dict[str, str]) -> None:
    found = ask(service, f"{TITLES}/1997/Film_0007", fields)
    assert found.status == 406
    assert b"there is" in found.body


def test_a_known_tag_is_304_without_a_body_even_at_a_newer_version(service: Service, dataset: MemoryDataset) -> None:
    target = f"{TITLES}/1997/Film_0007"
    tag = field_of(ask(service, target), "etag") or ""
    dataset.publish("titles", {"other": {"title": "x"}})
    for known in (tag, f'"a", W/{tag}', "*"):
        found = ask(service, target, {"If-None-Match": known})
        assert (found.status, found.body, field_of(found, "etag")) == (304, b"", tag)
        assert field_of(found, "edged-version") == "3"
        assert field_of(found, "content-length") is None
    assert ask(service, target, {"If-None-Match": '"other"'}).status == 200
    dataset.publish("titles", {"1997/Film_0007": {"title": "new"}})
    assert ask(service, target, {"If-None-Match": tag}).status == 200


def test_a_dataset_says_what_it_holds_and_the_root_which_there_are(service: Service) -> None:
    found = ask_json(service, "/v1/catalog")
    assert found["dataset"] == "catalog"
    assert (found["version"], found["state"], found["as_of"]) == (2, "fresh", int(NOW) - 10)
    assert found["collections"] == {"titles": 120, "people": 2}
    assert found["slices"] == {"core": {"version": 2, "records": 122}}
    datasets = ask_json(service, "/v1")["datasets"]
    assert [(entry["dataset"], entry["version"]) for entry in datasets] == [("catalog", 2), ("empty", 0)]


@pytest.mark.parametrize(
    ("target", "missing"),
    [
        ("/v1/none", b"none"),
        ("/v1/none/titles/x", b"none"),
        ("/v1/catalog/none", b"none"),
        ("/v1/catalog/none/x", b"none"),
        (f"{TITLES}/none", b"none"),
        ("/none", b"/none"),
        ("/v1/catalog/changes?since=0&collection=none", b"there are: people, titles"),
    ],
)
def test_what_is_not_there_is_a_404_problem_that_names_it(service: Service, target: str, missing: bytes) -> None:
    found = ask(service, target)
    assert found.status == 404
    assert field_of(found, "content-type") == "application/problem+json"
    document = msgspec.json.decode(found.body)
    assert document["status"] == 404
    assert missing in document["detail"].encode()


def test_a_record_that_was_taken_down_is_gone(service: Service, dataset: MemoryDataset) -> None:
    dataset.take_down("titles", "1997/Film_0007")
    assert ask(service, f"{TITLES}/1997/Film_0007").status == 410
    assert ask_json(service, f"{TITLES}?keys=1997/Film_0007")["items"][0]["value"] is None


def test_before_the_first_synchronisation_it_is_503_with_retry_after(service: Service) -> None:
    for target in ("/v1/empty", "/v1/empty/titles", "/v1/empty/titles/x", "/v1/empty/changes?since=0"):
        found = ask(service, target)
        assert found.status == 503
        assert int(field_of(found, "retry-after") or "") > 0


def test_a_damaged_replica_is_503_and_says_so(
    service: Service, dataset: MemoryDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged() -> Response:
        raise DamageError("read pack 7: checksum differs")

    monkeypatch.setattr(dataset, "view", damaged)
    found = ask(service, f"{TITLES}/1997/Film_0007")
    assert found.status == 503
    assert b"checksum" in found.body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "BREW"])
def test_other_methods_are_405_with_allow(service: Service, method: str) -> None:
    found = ask(service, f"{TITLES}/1997/Film_0007", method=method)
    assert (found.status, field_of(found, "allow")) == (405, "GET, HEAD, OPTIONS")


@pytest.mark.parametrize(
    "target",
    [
        f"{TITLES}/%",
        f"{TITLES}/%zz",
        f"{TITLES}/%ff",
        f"{TITLES}/%00",
        f"{TITLES}/",
        f"{TITLES}/" + "a" * 513,
        f"{TITLES}/x?unknown=1",
        f"{TITLES}/x?limit=1",
        f"{TITLES}/x?fields=a..b",
        f"{TITLES}/x?fields=",
        f"{TITLES}?limit=0",
        f"{TITLES}?limit=1001",
        f"{TITLES}?limit=-1",
        f"{TITLES}?limit=1&limit=2",
        f"{TITLES}?limit=٣",
        f"{TITLES}?limit=" + "9" * 5000,
        f"{TITLES}?keys=",
        f"{TITLES}?keys=a,,b",
        f"{TITLES}?keys=a&q=b",
        f"{TITLES}?keys=a&limit=1",
        f"{TITLES}?keys=" + ",".join(["a"] * 501),
        f"{TITLES}?q=",
        f"{TITLES}?view=",
        f"{TITLES}?q=a&after=b",
        f"{TITLES}?where.year=1&prefix=a",
        f"{TITLES}?" + "&".join(f"where.f{n}=1" for n in range(9)),
        f"{TITLES}?fields=" + ",".join(f"f{n}" for n in range(65)),
        "/v1/catalog/changes",
        "/v1/catalog/changes?since=x",
        "/v1/catalog/changes?since=1&wait=61",
        "http:/v1",
        "v1",
        "*",
    ],
)
def test_malformed_requests_are_400_with_the_reason(service: Service, target: str) -> None:
    found = ask(service, target if target.isascii() else target.replace("٣", "%D9%A3"))
    assert found.status == 400, found.body
    assert len(msgspec.json.decode(found.body)["detail"]) > 10


def test_an_absolute_target_is_answered_and_its_authority_is_what_counts(service: Service) -> None:
    assert ask(service, f"http://localhost:8484{TITLES}/1997/Film_0007", {"Host": "evil.example"}).status == 200
    assert ask(service, f"http://evil.example{TITLES}/1997/Film_0007").status == 421
    assert ask(service, "http://localhost?x").status == 404


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:8484", 200),
        ("127.0.0.1:1", 200),
        ("[::1]:8484", 200),
        ("[::1]", 200),
        ("localhost.", 200),
        ("evil.example", 421),
        ("evil.example:8484", 421),
        ("localhost.evil.example", 421),
        ("localhost:x", 421),
        ("", 421),
        ("[::1", 421),
    ],
)
def test_dns_rebinding_is_stopped_by_the_host_allowlist(service: Service, host: str, status: int) -> None:
    assert ask(service, "/v1", {"Host": host}).status == status


def test_cors_is_for_configured_origins_alone_and_never_reflected(dataset: MemoryDataset) -> None:
    service = make_service({"catalog": dataset}, ("https://tv.example",))
    target = f"{TITLES}/1997/Film_0007"
    allowed = ask(service, target, {"Origin": "https://tv.example"})
    assert field_of(allowed, "access-control-allow-origin") == "https://tv.example"
    assert "ETag" in (field_of(allowed, "access-control-expose-headers") or "")
    for origin in (
        "https://evil.example",
        "null",
        "https://tv.example.evil",
        "http://tv.example",
        "https://TV.example",
    ):
        found = ask(service, target, {"Origin": origin})
        assert field_of(found, "access-control-allow-origin") is None
        assert "Origin" in (field_of(found, "vary") or "")
    preflight = {"Origin": "https://tv.example", "Access-Control-Request-Method": "GET"}
    asked = ask(service, target, {**preflight, "Access-Control-Request-Private-Network": "true"}, method="OPTIONS")
    assert (asked.status, field_of(asked, "access-control-allow-origin")) == (204, "https://tv.example")
    assert field_of(asked, "access-control-allow-private-network") == "true"
    headers = {name.strip() for name in (field_of(asked, "access-control-allow-headers") or "").lower().split(",")}
    assert {"authorization", "cache-control", "last-event-id"} <= headers
    refused = ask(service, target, {**preflight, "Origin": "https://evil.example"}, method="OPTIONS")
    assert (refused.status, field_of(refused, "access-control-allow-origin")) == (403, None)


def test_options_says_what_is_allowed(service: Service) -> None:
    for target in ("*", TITLES):
        found = ask(service, target, method="OPTIONS")
        assert (found.status, field_of(found, "allow")) == (204, "GET, HEAD, OPTIONS")
