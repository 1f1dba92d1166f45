"""Answers compressed with their collection's dictionary that a client has (RFC 9842), decoded here as it does it."""

from __future__ import annotations

import re
from base64 import b64encode
from hashlib import sha256
from itertools import islice

import pytest
import zstandard

from edged.feed.cbor import encode, encode_record
from edged.feed.coding.snapshot import train_dictionary
from edged.feed.zstd import MAGIC
from edged.http.application import Response
from edged.replica.packs.frames import Frames
from edged.serve.answers.dictionary import LEAST_BYTES, Dictionaries, split
from edged.serve.answers.respond import Service
from tests.serve.asking import ask, ask_json, field_of, make_service
from tests.serve.memory import MemoryDataset, film, make_dataset

RECORD = "/v1/catalog/titles/1997/Film_0007"
LISTS = [f"/v1/catalog/titles?{query}" for query in ("limit=50", "keys=1997/Film_0007,none", "view=stb-basic")]


def own(dataset: MemoryDataset) -> bytes:
    """The dictionary of the titles."""
    return split(dataset.trained)["titles"]


def available(dictionary: bytes) -> dict[str, str]:
    name = b64encode(sha256(dictionary).digest()).decode()
    return {"Accept-Encoding": "gzip, br, zstd, dcb, dcz", "Available-Dictionary": f":{name}:"}


def decoded(found: Response, dictionary: bytes) -> bytes:
    """As RFC 9842 section 5 has it, the dictionary being raw content."""
    assert field_of(found, "Content-Encoding") == "dcz"
    magic, size, name = found.body[:4], found.body[4:8], found.body[8:40]
    assert (int.from_bytes(magic, "little"), int.from_bytes(size, "little")) == (0x184D2A5E, 32)
    assert name == sha256(dictionary).digest()
    raw = zstandard.ZstdCompressionDict(dictionary, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    return zstandard.ZstdDecompressor(dict_data=raw).decompress(found.body[40:])


@pytest.mark.parametrize("accept", ["application/json", "application/cbor"])
@pytest.mark.parametrize("target", [RECORD, *LISTS])
def test_a_client_with_the_dictionary_gets_the_same_bytes_in_fewer(target: str, accept: str) -> None:
    dataset = make_dataset()
    service = make_service({"catalog": dataset})
    plain = ask(service, target, {"Accept": accept})
    small = ask(service, target, {"Accept": accept, **available(own(dataset))})
    zstd = ask(service, target, {"Accept": accept, "Accept-Encoding": "zstd"})
    assert decoded(small, own(dataset)) == plain.body
    assert len(small.body) - 40 < len(zstd.body)  # the head costs 40, which is much beside so short a record
    assert field_of(small, "Vary") == "Accept, Accept-Encoding, Available-Dictionary"
    assert field_of(small, "Link") == field_of(plain, "Link")  # of a page alone: the dictionary is there already
    tag = field_of(small, "ETag") or ""
    assert tag not in (field_of(plain, "ETag"), field_of(zstd, "ETag"))
    again = ask(service, target, {"Accept": accept, "If-None-Match": tag, **available(own(dataset))})
    assert (again.status, field_of(again, "Vary")) == (304, field_of(small, "Vary"))


@pytest.mark.parametrize("named", [None, "x", ":x:", ":" + "A" * 43 + "=:", "::"])
def test_who_has_no_dictionary_or_another_is_told_where_ours_is(named: str | None) -> None:
    service = make_service({"catalog": make_dataset()})
    fields = {"Accept-Encoding": "zstd, dcz", **({"Available-Dictionary": named} if named else {})}
    found = ask(service, RECORD, fields)
    assert field_of(found, "Content-Encoding") == "zstd"
    assert field_of(found, "Vary") == "Accept, Accept-Encoding, Available-Dictionary"
    assert 'rel="compression-dictionary"' in (field_of(found, "Link") or "")
    page = field_of(ask(service, LISTS[0], fields), "Link") or ""
    assert page.count('rel="next"') == page.count('rel="compression-dictionary"') == 1


@pytest.mark.parametrize("accepted", ["*", "zstd", "dcz;q=0, zstd", "gzip;q=0.5, zstd"])
def test_only_a_client_that_names_dcz_gets_it(accepted: str) -> None:
    dataset = make_dataset()
    fields = {**available(own(dataset)), "Accept-Encoding": accepted}
    found = ask(make_service({"catalog": dataset}), RECORD, fields)
    assert field_of(found, "Content-Encoding") == "zstd"


def link_of(service: Service, target: str) -> str:
    """Where an answer says that its dictionary is."""
    found = ask(service, target, {"Accept-Encoding": "dcz, zstd"})
    url = re.search('<([^>]+)>; rel="compression-dictionary"', field_of(found, "Link") or "")
    assert url is not None
    return url[1]


def test_the_dictionary_is_where_the_link_says_and_says_what_it_is_for() -> None:
    dataset = make_dataset()
    service = make_service({"catalog": dataset})
    url = link_of(service, RECORD)
    assert url == f"/v1/catalog/titles?dictionary={ask_json(service, '/v1/catalog')['dictionaries']['titles']}"
    assert {link_of(service, target) for target in LISTS} == {url}
    found = ask(service, url, {"Accept-Encoding": "dcz", "Accept": "*/*"})
    assert found.body == own(dataset)
    assert field_of(found, "Use-As-Dictionary") == 'match="/v1/catalog/titles*"'
    assert field_of(found, "Cache-Control") == "public, max-age=31536000, immutable"
    assert ask(service, "/v1/catalog/titles?dictionary=" + "0" * 64).status == 404
    assert ask(service, "/v1/catalog/titles?dictionary=").status == 404
    assert ask(service, url.replace("titles", "none")).status == 404
    assert ask(service, url + "&limit=1").status == ask(service, url.replace("?", "?limit=1&")).status == 400
    dataset.trained = dataset.trained[:-600]
    dataset.publish("titles", {"new": {"title": "new"}})
    assert ask(service, url).status == 404
    assert link_of(service, RECORD) != url


def test_a_dictionary_shows_nothing_of_other_collections() -> None:
    """An app may be allowed one collection of several."""
    dataset = make_dataset()
    dataset.publish("secrets", {f"{number}": {"plan": f"unmistakable {number}" * 9} for number in range(20)})
    for name in ("secrets", "titles"):
        dataset.trained += b"".join([encode(name), *islice(dataset.records[name].values(), 20)])
    service = make_service({"catalog": dataset})
    titles, secrets = (ask(service, link_of(service, f"/v1/catalog/{name}")).body for name in ("titles", "secrets"))
    assert b"unmistakable" in secrets
    assert b"unmistakable" not in titles
    assert b"Film n" in titles
    assert b"Film n" not in secrets
    named = link_of(service, "/v1/catalog/secrets").partition("?")[2]
    assert set(ask_json(service, "/v1/catalog")["dictionaries"]) == {
        "secrets",
        "titles",
    }  # of people there is too little
    assert ask(service, f"/v1/catalog/titles?{named}").status == 404
    for target in ("/v1/catalog", "/v1/catalog/changes?since=0", "/openapi.json"):  # of several collections, or none
        found = ask(service, target, available(titles))
        assert (field_of(found, "Content-Encoding"), field_of(found, "Link")) == ("zstd", None)
        assert "Available-Dictionary" not in (field_of(found, "Vary") or "")


@pytest.mark.parametrize("enough", [True, False])
def test_too_few_samples_are_no_dictionary(enough: bool) -> None:
    dataset = make_dataset()
    sample = encode({"text": "x" * (LEAST_BYTES - (9 if enough else 10))})
    assert len(sample) == LEAST_BYTES - (not enough)
    dataset.trained = encode("titles") + sample
    trained = Dictionaries().of(dataset.view(), "titles")
    assert (trained is not None) is enough


def test_a_dictionary_is_made_anew_only_when_the_slice_has_another() -> None:
    dataset, known = make_dataset(), Dictionaries()
    first = known.of(dataset.view(), "titles")
    dataset.publish("titles", {"new": {"title": "new"}})
    assert first is known.of(dataset.view(), "titles") is not None
    assert known.of(dataset.view(), "people") is None  # it has next to nothing
    dataset.publish("titles", {"new": {"title": "newer"}})
    dataset.trained = dataset.trained[:5000]
    assert first is not known.of(dataset.view(), "titles") is not None
    assert len(known.known["catalog", frozenset()].sources) == 1


def test_the_tag_of_one_dictionary_does_not_stand_for_another() -> None:
    dataset = make_dataset()
    service = make_service({"catalog": dataset})
    first = ask(service, RECORD, available(own(dataset)))
    dataset.trained = dataset.trained[:5000]
    dataset.publish("titles", {"new": {"title": "new"}})
    second = ask(service, RECORD, available(own(dataset)))
    assert decoded(second, own(dataset)) == ask(service, RECORD).body
    assert field_of(first, "ETag") != field_of(second, "ETag")


def test_a_dataset_without_a_dictionary_answers_as_ever() -> None:
    dataset = make_dataset()
    dataset.trained, dataset.made = b"", None
    service = make_service({"catalog": dataset})
    found = ask(service, RECORD, available(b""))
    assert (field_of(found, "Content-Encoding"), field_of(found, "Link")) == ("zstd", None)
    assert ask_json(service, "/v1/catalog")["dictionaries"] == {}
    assert ask_json(service, "/v1/catalog")["version"] == dataset.version


def test_frames_of_the_packs_cannot_be_sent_as_they_are() -> None:
    """Why answers are compressed anew: stored frames lean on what only a formatted dictionary holds."""
    records = [("titles", f"{number}", encode_record(film(number), "x")) for number in range(400)]
    dictionary = train_dictionary(records)
    assert dictionary[:4].hex() == "37a430ec"
    frame = Frames(dictionary).compress(records[7][2])
    raw = zstandard.ZstdCompressionDict(dictionary, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    assert Frames(dictionary).decompress(frame) == records[7][2]
    with pytest.raises(zstandard.ZstdError):
        zstandard.ZstdDecompressor(dict_data=raw).decompress(MAGIC + frame)
