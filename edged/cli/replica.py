"""`edged get`, `ls`, `search`, `types` and `verify`: read a replica on disk, whether a daemon runs or not."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cbor2

import edged
from edged.cli.output import add_json_flag, emit, positive, progress, table
from edged.cli.questions import add_questions, answer_question, is_question, items_of, print_items, require_collection
from edged.errors import QueryError, StoreError
from edged.replica.finds import Match
from edged.replica.layers.lookup import getter
from edged.replica.reader import Dataset, Replica
from edged.replica.view import View
from edged.units import size_text

if TYPE_CHECKING:
    from edged.replica.audit import Report

REMEDY = "mend it by `edged sync` or, where the daemon runs, by `systemctl reload edged` (SIGHUP)"


def add_commands(commands: Any) -> None:
    get = commands.add_parser("get", help="one record from a replica on disk", description=get_command.__doc__)
    add_place(get, "dataset", "collection", "key")
    get.add_argument("--expand", default="", metavar="PATHS", help="put records in the place of the keys there")
    get.set_defaults(run=get_command)

    ls = commands.add_parser("ls", help="datasets, collections or keys of a replica", description=ls_command.__doc__)
    add_place(ls)
    ls.add_argument("dataset", nargs="?", metavar="DATASET")
    ls.add_argument("collection", nargs="?", metavar="COLLECTION")
    ls.add_argument("--prefix", default="", metavar="P", help="only keys that begin with P")
    ls.add_argument("--limit", type=positive, default=None, metavar="N", help="at most N keys")
    add_questions(ls)
    ls.set_defaults(run=ls_command)

    search = commands.add_parser("search", help="search the declared text fields", description=search_command.__doc__)
    add_place(search, "dataset", "collection", "text")
    search.add_argument("--limit", type=positive, default=20, metavar="N", help="at most N records (default 20)")
    add_questions(search)
    search.set_defaults(run=search_command)

    types = commands.add_parser("types", help="types of what collections hold", description=types_command.__doc__)
    add_place(types, "dataset")
    types.add_argument("--json-schema", action="store_true", help="print JSON Schema instead of TypeScript")
    types.set_defaults(run=types_command)

    verify = commands.add_parser("verify", help="audit a whole replica", description=verify_command.__doc__)
    add_place(verify)
    verify.set_defaults(run=verify_command)


def add_place(parser: argparse.ArgumentParser, *more: str) -> None:
    parser.add_argument("data_dir", type=Path, metavar="DATA_DIR")
    for name in more:
        parser.add_argument(name, metavar=name.upper())
    add_json_flag(parser)


def dataset_of(replica: Replica, args: argparse.Namespace) -> Dataset:
    """Raises StoreError naming what there is."""
    if args.dataset not in replica:
        known = ", ".join(replica) or "none"
        raise StoreError(f"{args.data_dir}: no dataset {args.dataset!r}; there is: {known}")
    return replica[args.dataset]


def view_of(replica: Replica, args: argparse.Namespace) -> View:
    view = dataset_of(replica, args).view()
    if args.collection not in view.collections:
        known = ", ".join(view.collections) or "none"
        raise StoreError(
            f"{args.data_dir}: dataset {args.dataset!r} has no collection {args.collection!r}; it has: {known}"
        )
    return view


def get_command(args: argparse.Namespace) -> int:
    """Print one record's value as JSON."""
    with edged.open(args.data_dir) as replica:
        view = view_of(replica, args)
        raw = view.get_raw(args.collection, args.key)
        if raw is None:
            raise StoreError(
                f"{args.data_dir}: {args.dataset}/{args.collection} {args.key!r} {why_gone(view, args)} "
                f"at version {view.version}"
            )
        value = view.expanded(cbor2.loads(raw), view.references(args.collection, args.expand))
    emit(args, value, json.dumps(value, ensure_ascii=False, indent=2))
    return 0


def why_gone(view: View, args: argparse.Namespace) -> str:
    if view.is_taken_down(args.collection, args.key):
        return "is taken down"
    if getter(view.layers, args.collection, (), None)(args.key) is not None:
        return f"is outside of its window ({', '.join(view.rules(args.collection).valid)})"
    return "is not there"


def ls_command(args: argparse.Namespace) -> int:
    """List the datasets, the collections of one, or the keys of a collection."""
    require_collection(args)
    with edged.open(args.data_dir) as replica:
        if args.dataset is None:
            return list_datasets(args, replica)
        if args.collection is None:
            return list_collections(args, dataset_of(replica, args))
        view = view_of(replica, args)
        if is_question(args):
            if args.prefix:
                raise QueryError(
                    "--prefix does not go together with conditions, orders and counts; leave one of them out"
                )
            return answer_question(args, view)
        found = (Match(*pair) for pair in view.scan(args.collection, prefix=args.prefix, limit=args.limit))
        print_items(args, items_of(args, view, found, {}))
    return 0


def list_datasets(args: argparse.Namespace, replica: Replica) -> int:
    views = {name: replica[name].view() for name in replica}
    data = {
        name: {"version": view.version, "slices": sorted(view.slices), "records": sum(view.collections.values())}
        for name, view in views.items()
    }
    rows = [
        (name, str(item["version"]), str(item["records"]), ", ".join(sorted(views[name].slices)))
        for name, item in data.items()
    ]
    emit(args, data, table(rows, ("dataset", "version", "records", "slices")) if rows else "no dataset yet")
    return 0


def list_collections(args: argparse.Namespace, dataset: Dataset) -> int:
    view = dataset.view()
    rows = [(name, str(count)) for name, count in sorted(view.collections.items())]
    emit(args, dict(sorted(view.collections.items())), table(rows, ("collection", "records")))
    return 0


def search_command(args: argparse.Namespace) -> int:
    """Search the text fields that the dataset declares, best first, within conditions."""
    args.values = args.values or args.json
    if not args.text.strip():
        raise QueryError("TEXT is empty; give words to search for, or list the collection with edged ls")
    with edged.open(args.data_dir) as replica:
        return answer_question(args, view_of(replica, args))


def types_command(args: argparse.Namespace) -> int:
    """Print TypeScript, or JSON Schema, of what the collections of a dataset hold, from all of its records."""
    from edged.replica.recordtypes import Seen, json_schema, typescript

    with edged.open(args.data_dir) as replica, progress(args) as watch:
        view = dataset_of(replica, args).view()
        seen, done, total = {}, 0, sum(view.collections.values())
        for collection in sorted(view.collections):
            found = seen[collection] = Seen()
            for _, raw in view.scan(collection):
                found.add(cbor2.loads(raw))
                done += 1
                if done % 1000 == 0:
                    watch("records", done, total)
    if args.json_schema:
        document = json_schema(args.dataset, view.version, seen)
        emit(args, document, json.dumps(document, ensure_ascii=False, indent=2))
        return 0
    refs = {name: item.refs for name, item in view.schema.collections.items()}
    text = typescript(args.dataset, view.version, seen, refs)
    emit(args, {"typescript": text}, text.rstrip("\n"))
    return 0


def verify_command(args: argparse.Namespace) -> int:
    """Audit every file and record of a replica against its signed head. Exit code 3 names what is wrong.

    It writes nothing: `edged sync` mends what it finds, or the daemon when told to look (`systemctl reload edged`).
    """
    from edged.replica.audit import verify

    with progress(args) as watch:
        report = verify(args.data_dir, watch=watch)
    faults = [str(fault) for fault in report.faults]
    data = {
        "versions": report.versions,
        "unsynced": report.empty,
        "records": report.records,
        "bytes": report.bytes,
        "faults": faults,
    }
    emit(args, data, "\n".join(faults) or describe(report, args.data_dir))
    if faults:
        print(f"edged: verify {args.data_dir}: {len(faults)} faults; {faults[0]}; {REMEDY}", file=sys.stderr)
        return 3
    return 0


def describe(report: Report, data_dir: Path) -> str:
    """What an audit without faults has found."""
    lines = []
    if report.versions:
        versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
        lines.append(f"whole: {versions}; {report.records} records, {size_text(report.bytes)}")
    if report.empty:
        lines.append(f"nothing synced yet: {', '.join(report.empty)}")
    return "\n".join(lines) or f"nothing to verify: there is no dataset below {data_dir}"
