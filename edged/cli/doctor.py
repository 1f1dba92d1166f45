"""`edged doctor`: looks at what the daemon depends on, and says what is wrong and the mend."""

from __future__ import annotations

import argparse
import http.client
import os
import resource
import stat
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edged.cli.control import connect
from edged.cli.output import add_json_flag, emit
from edged.clock import BUILD_TIME_S, Clock, freshness
from edged.config import Config, DatasetConfig
from edged.configfile import DEFAULT_PATH, all_faults, load
from edged.errors import ConfigError, EdgedError, StoreError, TransportError, WireError
from edged.feed.limits import TRUST_BYTES
from edged.feed.trust.root import Root, read_root, verify_head, verify_root
from edged.files import read_bounded
from edged.units import size_text, span_text

if TYPE_CHECKING:
    from edged.sync.transports.transport import Transport

ROOM_BYTES = 64 << 20  # below it, an update of an ordinary catalogue may not fit
ROOM_FILES = 1000
ORIGIN_S = 30.0
ROOTS_MOST = 64  # that are followed from a trust file to the newest
DESCRIPTORS_A_CONNECTION = 4
FUTURE_S = 300  # by which signed times may be ahead


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at. found: what it is like; mend: what to do, empty where nothing is wrong."""

    what: str
    found: str
    mend: str = ""


def add_commands(commands: Any) -> None:
    doctor = commands.add_parser("doctor", help="look for what is wrong here", description=doctor_command.__doc__)
    doctor.add_argument("--config", type=Path, default=DEFAULT_PATH, metavar="FILE", help=f"default {DEFAULT_PATH}")
    add_json_flag(doctor)
    doctor.set_defaults(run=doctor_command)


def doctor_command(args: argparse.Namespace) -> int:
    """Look at configuration, disk, clock, permissions, limits, trust files and every origin; say what is wrong and the
    mend. Nothing is changed. Exit code 1 if anything is wrong."""
    checks = list(of_configuration(args.config))
    try:
        checks += look(load(args.config))
    except ConfigError:
        checks.append(Check("the rest", "is not looked at before the configuration can be read"))
    wrong = [check for check in checks if check.mend]
    lines = [f"{'WRONG' if check.mend else 'ok':5}  {check.what}: {check.found}" for check in checks]
    for number, check in enumerate(checks):
        lines[number] += f"\n       → {check.mend}" if check.mend else ""
    verb = "is" if len(wrong) == 1 else "are"
    summary = f"{len(wrong)} of {len(checks)} {verb} wrong" if wrong else f"all {len(checks)} are well"
    emit(args, {"checks": [asdict(check) for check in checks]}, "\n".join([*lines, summary]))
    return 1 if wrong else 0


def look(config: Config) -> Iterator[Check]:
    import trio  # here, so that the help of other commands does without

    yield from of_disk(Path(config.daemon.data_dir))
    yield of_clock(time.time())
    yield from of_sockets(config)
    yield of_limits(config)
    yield of_daemon(config)
    yield from trio.run(of_datasets, config)


def of_configuration(path: Path) -> Iterator[Check]:
    try:
        faults = all_faults(path)
    except ConfigError as fault:
        yield Check("configuration", *parted(str(fault)))
        return
    for line in faults:
        yield Check("configuration", *parted(line))
    if not faults:
        yield Check("configuration", f"{path} has no fault")


def parted(message: str) -> tuple[str, str]:
    """What is wrong, and what to do about it, as our messages have it after a semicolon."""
    found, _, mend = " ".join(message.split()).rpartition("; ")
    return (found, mend) if found else (mend, f"see docs/troubleshooting.md: {mend[:40]}")


def of_disk(data_dir: Path) -> Iterator[Check]:
    """Room, and whether it can be written to, where the replicas lie or will lie."""
    there = next(place for place in (data_dir, *data_dir.parents) if place.exists())
    room = os.statvfs(there)
    free = room.f_bavail * room.f_frsize
    mend = f"make room: {size_text(ROOM_BYTES)} are needed for updates" if free < ROOM_BYTES else ""
    yield Check("disk", f"{size_text(free)} free at {there}", mend)
    if room.f_files and room.f_favail < ROOM_FILES:
        yield Check(
            "disk", f"{room.f_favail} files can still be made at {there}", "remove small files that nobody needs"
        )
    if room.f_flag & os.ST_RDONLY:
        mend = "see `dmesg`; check the disk and remount it"
        yield Check("disk", f"{there} is read-only: what is held is served, and not synced", mend)
    elif not os.access(there, os.W_OK | os.X_OK):
        yield Check(
            "permissions", f"{there} cannot be written to by this user", "run as the service's user, or chown it"
        )
    elif not data_dir.exists():
        yield Check("disk", f"{data_dir} is not there yet; it is made at the first start")
    else:
        mode = data_dir.stat().st_mode
        open_to_all = mode & stat.S_IWOTH and not mode & stat.S_ISVTX
        yield Check(
            "permissions",
            f"{data_dir} has mode {stat.S_IMODE(mode):04o}",
            f"chmod o-w {data_dir}: any user can put files there" if open_to_all else "",
        )
    if data_dir.is_dir():
        yield from of_replicas(data_dir)


def of_replicas(data_dir: Path) -> Iterator[Check]:
    import edged

    try:
        with edged.open(data_dir) as replica:
            for name in replica:
                view = replica[name].view()
                fault = replica[name].fault
                found = f"version {view.version}, {sum(view.collections.values())} records"
                yield Check(f"replica {name}", found if fault is None else str(fault), fault_mend(fault))
    except StoreError as fault:
        yield Check("replica", str(fault), f"edged verify {data_dir}")


def fault_mend(fault: EdgedError | None) -> str:
    return "" if fault is None else "a running daemon mends it by itself; else `edged sync`"


def of_clock(now_s: float) -> Check:
    told = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now_s))
    if now_s < BUILD_TIME_S:
        mend = "set it (`timedatectl set-ntp true`); until then signed times stand in for it"
        return Check("clock", f"{told} is before this release was made", mend)
    return Check("clock", told)


def of_sockets(config: Config) -> Iterator[Check]:
    for bind in (*config.serve.bind, *config.admin.bind):
        directory = Path(bind.removeprefix("unix:")).parent
        if bind.startswith("unix:") and not directory.is_dir():
            mend = f"create {directory} for the service's user (systemd: RuntimeDirectory=)"
            yield Check("permissions", f"{directory}, for the socket, is not there", mend)


def of_limits(config: Config) -> Check:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS_A_CONNECTION * config.serve.max_connections
    few = soft != resource.RLIM_INFINITY and soft < wanted
    mend = f"LimitNOFILE={wanted} in the unit, or ulimit -n {wanted} before `edged run`" if few else ""
    return Check("limits", f"{'unlimited' if soft == resource.RLIM_INFINITY else soft} descriptors", mend)


def of_daemon(config: Config) -> Check:
    bind = config.admin.bind[0]
    connection = connect(bind)
    try:
        connection.request("GET", "/healthz")
        status = connection.getresponse().status
    except OSError as fault:
        return Check("daemon", f"does not run: {fault.strerror or fault} at {bind}")
    except http.client.HTTPException:
        return Check("daemon", f"what answers at {bind} is not edged", "stop it, or bind elsewhere")
    finally:
        connection.close()
    return Check("daemon", f"runs, at {bind}", "" if status == 200 else f"another program has {bind}; stop it")


# --- what the network brings -----------------------------------------------------------------------------------------


async def of_datasets(config: Config) -> list[Check]:
    checks: list[Check] = []
    for dataset in config.datasets:
        check, root = of_trust(dataset)
        checks += [check, *await of_origins(dataset, config, root)]
    return checks


def of_trust(dataset: DatasetConfig) -> tuple[Check, Root | None]:
    what = f"trust {dataset.name}"
    try:
        root = read_root(read_bounded(dataset.trust, TRUST_BYTES), f"trust file {dataset.trust}")
    except StoreError as fault:
        return Check(what, str(fault), "copy there the one that `edged origin init` printed"), None
    except EdgedError as fault:
        return Check(what, str(fault), "copy the publisher's root.trust there again"), None
    return Check(what, f"root of trust {root.number}"), root


async def of_origins(dataset: DatasetConfig, config: Config, root: Root | None) -> list[Check]:
    """Each of them: reached, of the right dataset, signed by the right keys, fresh."""
    import trio

    from edged.sync.subscription import subscription_of
    from edged.sync.transports.origins import Origins
    from edged.sync.transports.transport import Traffic

    checks: list[Check] = []
    try:
        async with Origins.of(subscription_of(dataset, config), Traffic()) as origins:
            for transport in origins.transports:
                where = f"origin {transport.name}"
                with trio.move_on_after(ORIGIN_S) as scope:
                    try:
                        checks.append(await of_origin(dataset.name, transport, root, where))
                    except EdgedError as fault:
                        checks.append(Check(where, *parted_network(fault)))
                if scope.cancelled_caught:
                    found = f"no answer within {span_text(ORIGIN_S)}"
                    checks.append(Check(where, found, "look at network, DNS and firewall"))
    except (ConfigError, TransportError) as fault:
        checks.append(Check(f"origins {dataset.name}", *parted(str(fault))))
    return checks


def parted_network(fault: EdgedError) -> tuple[str, str]:
    text = " ".join(str(fault).split())
    if isinstance(fault, TransportError):
        return text, "look at network, DNS, firewall, and the URL; `curl -v` of it tells more"
    if isinstance(fault, WireError):
        return text, "what is there is no feed of edged: look at the URL, and for a login page on the way"
    return text, "compare the trust file with the publisher's, and [[datasets]] name with the dataset's"


async def of_origin(name: str, transport: Transport, root: Root | None, where: str) -> Check:
    """Raises EdgedError."""
    reply = await transport.head(None, 0, None)
    if reply is None:
        return Check(where, "answers that nothing is new to one who has nothing", "a cache on the way answers for it")
    if root is None:
        return Check(where, "answers; whether rightly cannot be judged without the trust file")
    for _ in range(ROOTS_MOST):
        newer = await transport.trust(root.number + 1)
        if newer is None:
            break
        root = verify_root(newer, root)
    head = verify_head(reply.data, root, name).head
    clock = Clock()
    age_s = clock() - head.signed_at
    found = f"version {head.newest_version}, signed {span_text(max(age_s, 0))} ago"
    if age_s < -FUTURE_S and clock.is_set():
        mend = f"set the clock here, or the publisher's: {span_text(-age_s)} lie between them"
        return Check(where, f"version {head.newest_version} is signed in the future", mend)
    state = freshness(age_s, head.fresh_s, head.expires_s)
    mend = "the publisher must sign it anew: does `edged origin serve`, or its timer, run?" if state != "fresh" else ""
    return Check(where, f"{found}: {state}", mend)
