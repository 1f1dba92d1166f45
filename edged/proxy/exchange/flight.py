"""One answer on its way from upstream, read by any number of clients at once (collapsed requests).

A small body is kept whole in memory; a larger one goes to a spool on the disk as it comes, and clients that are
behind read it back from there. Memory holds a window that is bounded, whatever the body's size and however slow the
slowest client: where nothing spools, the upstream is read no faster than a client reads that is alone.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import BinaryIO

import trio

from edged.errors import TransportError
from edged.proxy.rules.decisions import CacheEntry
from edged.proxy.rules.digest import DigestCheck
from edged.proxy.store.cache import Cache
from edged.proxy.store.disk import Spool
from edged.proxy.store.store import Store
from edged.proxy.upstream.upstream import UpstreamAnswer
from edged.threads import in_thread

SPOOL_AFTER_BYTES = 64 << 10
WINDOW_BYTES = (1 << 20) + (128 << 10)
PIECE_BYTES = 128 << 10
READERS_FIRST_S = 0.05
BRAKE_S = 1.0  # how long a client that does not read may hold up the others
HEAD_FIRST_S = 0.02


class Body:
    """A body as it comes. Several `read` at once, each from its own offset; one `pump` fills it.

    storable: it may still be stored whole. worth: so much so that it is fetched to its end although its readers have
    gone. spooled: how many of its first bytes the disk has.
    """

    def __init__(self, cache: Cache, expected_bytes: int | None, *, worth: bool = True) -> None:
        self.cache, self.worth = cache, worth
        self.pieces: list[bytes] = []
        self.start = 0  # offset of the first piece in memory
        self.end = 0
        self.spool: Spool | None = None
        self.file: BinaryIO | None = None  # the spool again, for reading; it survives the spool's renaming
        self.spooled = 0
        self.unspooled = bytearray()
        self.storable = expected_bytes is None or expected_bytes <= cache.largest_bytes
        self.done = False
        self.fault: TransportError | None = None
        self.readers: dict[BodyReader, int] = {}
        self.changed = trio.lowlevel.ParkingLot()
        self.room = trio.lowlevel.ParkingLot()
        self.pumping = trio.CancelScope()
        self.closed = False
        self.head_sent = trio.Event()

    @property
    def joinable(self) -> bool:
        """Whether a new reader finds the body from its first byte on."""
        return not self.closed and self.fault is None and (self.start == 0 or self.start <= self.spooled)

    async def pump(self, answer: UpstreamAnswer, digests: DigestCheck) -> None:
        """Read the whole answer. Readers find the fault, if there is one, in its place in the body."""
        try:
            with self.pumping:
                # The first client gets the head first; the processor is not busy with the body at that moment.
                with trio.move_on_after(HEAD_FIRST_S):
                    await self.head_sent.wait()
                async with aclosing(answer.chunks()) as chunks:
                    async for chunk in chunks:
                        digests.update(chunk)
                        await self.add(chunk)
                if self.spool is not None and self.storable:
                    await self.flush()
                self.done = True
        except TransportError as fault:
            self.fault = fault
        finally:
            if not self.done and self.fault is None:
                self.fault = TransportError("read the answer: it was given up")
            self.changed.unpark_all()

    async def add(self, chunk: bytes) -> None:
        self.pieces.append(chunk)
        self.end += len(chunk)
        self.changed.unpark_all()
        if self.end > self.cache.largest_bytes:
            self.storable = False
        if self.storable and self.cache.store is not None and self.end > SPOOL_AFTER_BYTES:
            self.unspooled += chunk if self.spool is not None else b"".join(self.pieces)
            if self.spool is None or len(self.unspooled) >= PIECE_BYTES:
                await self.flush()
        if not self.storable and not self.readers:
            self.pumping.cancel()
        await self.wait_for_room()

    async def wait_for_room(self) -> None:
        """Until the window has room. One client that does not read holds the upstream up for itself alone: where
        others are ahead of it, it loses its answer."""
        while not self.trim():
            with trio.move_on_after(BRAKE_S) as waited:
                await self.room.park()
            slowest = min(self.readers.values(), default=self.end)
            if waited.cancelled_caught and slowest < max(self.readers.values(), default=slowest):
                for reader, offset in self.readers.items():
                    if offset == slowest:
                        reader.outrun = True
                        self.readers[reader] = self.end

    async def flush(self) -> None:
        """Bring what has come to the disk. Where it does not fit, nothing more of this body is stored."""
        store = self.cache.store
        assert store is not None
        data = bytes(self.unspooled)
        self.unspooled.clear()
        if self.spool is None:
            opened = await self.cache.in_store(open_spool, store, data)
            if opened is not None:
                self.spool, self.file = opened
        elif not await self.cache.in_store(append_spool, store, self.spool, data):
            self.storable = False
            return
        if self.spool is None:
            self.storable = False
        else:
            self.spooled += len(data)

    def trim(self) -> bool:
        """Drop pieces that nobody needs from memory. Returns whether the rest is within the window."""
        if self.end - self.start <= WINDOW_BYTES or (self.storable and self.spool is None):
            return True
        # A reader that is behind what the disk has reads from there.
        needed = max(min(self.readers.values(), default=self.end), self.spooled)
        while self.pieces and self.start + len(self.pieces[0]) <= needed and self.end - self.start > WINDOW_BYTES // 2:
            self.start += len(self.pieces.pop(0))
        return self.end - self.start <= WINDOW_BYTES

    def whole(self) -> bytes | None:
        """The body, where memory has all of it."""
        return b"".join(self.pieces) if self.done and self.start == 0 else None

    def open_reader(self) -> BodyReader:
        """One that will read from the first byte on; until it is closed the body is fetched for it."""
        return BodyReader(self)

    def left(self, reader: BodyReader) -> None:
        """A reader has gone. What nobody reads and nobody may read later is not fetched to its end."""
        del self.readers[reader]
        self.room.unpark_all()
        if not self.readers and not self.done and not (self.storable and self.worth):
            self.pumping.cancel()
        self.release()

    async def wait_for_readers(self) -> None:
        """Until all have what they came for, but not long."""
        with trio.move_on_after(READERS_FIRST_S):
            while self.readers:
                await self.room.park()

    def piece_at(self, offset: int) -> bytes:
        place = self.start
        for piece in self.pieces:
            if offset < place + len(piece):
                return piece[offset - place :] if offset > place else piece
            place += len(piece)
        raise AssertionError("an offset past the end")

    async def read_spool(self, offset: int) -> bytes:
        file, count = self.file, min(PIECE_BYTES, self.spooled - offset)
        if file is None or count <= 0:
            raise TransportError("read the answer: it has gone while a client was far behind")
        try:
            piece = await in_thread(os.pread, file.fileno(), count, offset)
        except OSError as fault:
            raise TransportError(f"read the answer back from the disk: {fault.strerror}") from fault
        if not piece:
            raise TransportError("read the answer back from the disk: it is shorter than it was")
        return piece

    def finish(self) -> None:
        """No reader joins any more; the file goes with the last of them."""
        self.closed = True
        self.release()

    def release(self) -> None:
        if self.closed and not self.readers and self.file is not None:
            file, self.file = self.file, None
            try:
                file.close()
            except OSError as fault:  # it was read to its end, or is given up: nothing depends on it
                self.cache.note_fault(f"close a body: {fault.strerror}")


class BodyReader:
    """One client's way through a body."""

    def __init__(self, body: Body) -> None:
        self.body = body
        self.closed = False
        self.outrun = False
        body.readers[self] = 0

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """The body from its first byte on. Raises TransportError where it breaks off."""
        body, offset = self.body, 0
        while True:
            if self.outrun:
                raise TransportError("read the answer: its client was too slow for the others that share it")
            if offset < body.start:
                piece = await body.read_spool(offset)
            elif offset < body.end:
                piece = body.piece_at(offset)
            elif body.fault is not None:
                raise body.fault
            elif body.done:
                return
            else:
                await body.changed.park()
                continue
            yield piece
            offset += len(piece)
            if not self.outrun:
                body.readers[self] = offset
            body.room.unpark_all()

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.body.left(self)


class Flight:
    """The requests for one primary key that go upstream as one.

    head is set when it is known what comes. Then either `entry` and `body` are there to be read, or `failure` says why
    nothing comes, or `abandoned` that the owner has gone and another must take over, or none of these: each on its own.
    """

    def __init__(self) -> None:
        self.head = trio.Event()
        self.entry: CacheEntry | None = None
        self.body: Body | None = None
        self.failure: TransportError | None = None
        self.abandoned = False
        self.waiting = 0
        self.left = trio.lowlevel.ParkingLot()  # unparked when one that waited goes on


def open_spool(store: Store, data: bytes) -> tuple[Spool, BinaryIO]:
    """In the store's thread. Raises StoreError, OSError; no spool is left then."""
    spool = store.spool(data)
    try:
        return spool, spool.path.open("rb", buffering=0)
    except OSError:
        store.drop(spool)
        raise


def append_spool(store: Store, spool: Spool, data: bytes) -> bool:
    """In the store's thread. Raises StoreError, the spool is then gone."""
    store.append(spool, data)
    return True
