"""What is late: heads that do not get whole, peers that do not read, connections that ask for nothing."""

from __future__ import annotations

from edged.http.framing import chunk
from edged.http.lane.connection import HeldRequest, LaneConnection, LaneState, StreamUnderWay
from edged.http.lane.multiplexed import Multiplexed
from edged.http.lane.sockets import Sockets
from edged.http.limits import Limits

LINGER_S = 2.0


class Deadlines:
    """Looked at once a second, for each connection by its state."""

    sockets: Sockets
    limits: Limits

    def go_on(self, connection: LaneConnection) -> None:
        """Go on with what the connection is in the middle of."""
        raise NotImplementedError

    def is_stalled(self, connection: LaneConnection) -> bool:
        """Whether it waits for its peer to read what was answered. One that reads nothing for write_s, or less than
        read_bytes_per_s all that time, is closed.
        """
        limits, now = self.limits, self.sockets.now
        blocked = connection.outbox is not None or connection.state is LaneState.SENDING_FILE
        late = blocked and now - connection.progress_at > limits.write_s
        if connection.outbox_bytes and now - connection.blocked_at > limits.write_s:
            late = late or connection.blocked_read < (now - connection.blocked_at) * limits.read_bytes_per_s
        if late:
            self.sockets.close(connection)
        return blocked

    def sweep_reading(self, connection: LaneConnection) -> None:
        """A head that does not get whole, or no request for long."""
        if self.is_stalled(connection):
            return
        now = self.sockets.now
        since, most_s = connection.progress_at, self.limits.idle_s
        if connection.head_since:
            since, most_s = connection.head_since, self.limits.head_s
        if now - since > most_s:
            self.sockets.close(connection)

    def sweep_writing(self, connection: LaneConnection) -> None:
        self.is_stalled(connection)

    def sweep_task(self, connection: LaneConnection) -> None:
        """A client that has ended is owed its answer, but not for ever: it may have gone for good."""
        silent_s = self.sockets.now - connection.progress_at
        if not self.is_stalled(connection) and connection.ended and silent_s > self.limits.ended_s:
            self.sockets.close(connection)

    def sweep_held(self, connection: LaneConnection) -> None:
        held = connection.doing
        assert isinstance(held, HeldRequest)
        if not self.is_stalled(connection) and self.sockets.now >= held.until:
            self.go_on(connection)

    def sweep_stream(self, connection: LaneConnection) -> None:
        """A stream that has nothing to say keeps its connection alive."""
        under_way = connection.doing
        assert isinstance(under_way, StreamUnderWay)
        stream = under_way.stream
        if self.is_stalled(connection) or stream.follow is None:
            return
        if self.sockets.now - connection.progress_at >= stream.keep_alive_s:
            connection.progress_at = self.sockets.now
            self.sockets.write(connection, chunk(stream.keep_alive) if under_way.chunked else stream.keep_alive)

    def sweep_lingering(self, connection: LaneConnection) -> None:
        if self.sockets.now - connection.progress_at > LINGER_S:
            self.sockets.close(connection)

    def sweep_handshake(self, connection: LaneConnection) -> None:
        if self.sockets.now - connection.progress_at > self.limits.handshake_s:
            self.sockets.close(connection)

    def sweep_multiplexed(self, connection: LaneConnection) -> None:
        assert isinstance(connection.doing, Multiplexed)
        connection.doing.sweep()
