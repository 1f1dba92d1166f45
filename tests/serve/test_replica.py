"""The station over the real replica, from before its first version on."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from pathlib import Path

import pytest
import trio
import zstandard

import edged
from edged.config import ServeConfig
from edged.replica.writer import Writer
from edged.serve.answers.dictionary import split
from edged.serve.app_server import AppServer
from tests.replica.feeds import Publisher, made_up
from tests.serve.lanes import ask_once, head


@pytest.mark.trio
async def test_the_real_replica_is_served_and_followed(tmp_path: Path) -> None:
    publisher = Publisher({"core": made_up(50)})
    stop = trio.Event()
    with Writer.open(tmp_path, "catalog") as writer, edged.open(tmp_path) as replica:
        dataset = replica.follow("catalog")
        config = ServeConfig(bind=["127.0.0.1:0"])
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                apps = AppServer({"catalog": dataset}, config, lambda: 100.0)
                url = (await nursery.start(apps.run, stop))[0]
                assert (await ask_once(url, head("GET", "/v1/catalog"))).status == 503
                publisher.snapshot_into(writer)
                (collection, key), raw = next(iter(publisher.slices["core"].items()))
                for _ in range(2):
                    data = head("GET", f"/v1/catalog/{collection}/{key}", {"Accept": "application/cbor"})
                    reply = await ask_once(url, data)
                    assert (reply.status, reply.body, reply.fields["age"]) == (200, raw, "99")
                    assert reply.fields["edged-state"] == "stale"
                await check_dictionary(url, publisher, data, raw)
                found = await ask_once(url, head("GET", "/v1/catalog/titles?where.year=1950&limit=1"))
                assert found.status == 200
                assert b'"year":1950' in found.body
                found = await ask_once(url, head("GET", '/v1/catalog/titles?where.year="1950"'))
                assert b'"items":[]' in found.body  # no text 1950 is there
                writer.touch_head(b"head again", as_of=90, fresh_s=60, expires_s=600)
                reply = await ask_once(url, data)
                assert (reply.fields["age"], reply.fields["edged-state"]) == ("10", "fresh")
                stop.set()


async def check_dictionary(url: str, publisher: Publisher, data: bytes, raw: bytes) -> None:
    """The collection's part of the slice's dictionary is served, and answers come compressed with it."""
    dictionary = split(publisher.dictionaries["core"])["titles"]
    found = await ask_once(url, head("GET", f"/v1/catalog/titles?dictionary={sha256(dictionary).hexdigest()}"))
    assert found.body == dictionary
    name = b64encode(sha256(dictionary).digest())
    fields = b"Accept-Encoding: dcz, identity;q=0\r\nAvailable-Dictionary: :" + name + b":\r\n\r\n"
    reply = await ask_once(url, data.removesuffix(b"\r\n") + fields)
    trained = zstandard.ZstdCompressionDict(dictionary, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    assert reply.fields["content-encoding"] == "dcz"
    assert zstandard.ZstdDecompressor(dict_data=trained).decompress(reply.body[40:]) == raw
