#!/bin/bash
# Installs a .deb into a new minimal Debian 12, runs it there, purges it, and sees that nothing of it is left.
#   packaging/test-deb.sh [DEB]       without DEB the package is built first; needs root and mmdebstrap
# Every step runs in namespaces of its own, so that mounts and processes end with it, however this script ends.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [ "$(id -u)" -ne 0 ]; then
    echo "test-deb: needs root, for a chroot" >&2
    exit 1
fi
work=$(mktemp -d)
trap 'rm -rf --one-file-system "$work"' EXIT
root=$work/debian

deb=${1:-}
if [ -z "$deb" ]; then
    packaging/build-deb.sh "$work"
    deb=$(echo "$work"/edged_*.deb)
fi

step() {
    echo "== $*"
}

inside() {
    unshare --mount --pid --fork --kill-child --mount-proc="$root/proc" \
        chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"
}

# What there is, without what apt and dpkg write about themselves.
listing() {
    (cd "$root" && find . \( -path ./proc -o -path ./sys -o -path ./dev -o -path ./var/log -o -path ./var/cache/apt \
        -o -path ./var/lib/apt -o -path ./tmp \) -prune -o -print |
        grep -v -e '^\./var/lib/dpkg/[^/]*-old$' -e '^\./etc/[a-z]*-$' -e '^\./etc/.pwd.lock$' | sort)
}

step "a minimal Debian with what the package depends on"
sources=()
for file in /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list; do
    if [ -s "$file" ] && grep -q bookworm "$file"; then
        sources=("$file")
        break
    fi
done
mmdebstrap --quiet --variant=apt --mode=root --include=python3,libgcc-s1,passwd bookworm "$root" "${sources[@]}"
cp "$deb" "$root/tmp/edged.deb"
cp packaging/service_manager.py "$root/tmp/"
listing >"$work/before"

step "install"
# apt takes the file only if its dependencies hold; there is no list of packages from which it could fetch more.
inside apt-get install --yes --quiet=2 -o Dpkg::Use-Pty=0 --no-install-recommends /tmp/edged.deb
[ -L "$root/etc/systemd/system/multi-user.target.wants/edged.service" ] || { echo "edged.service is not enabled" >&2; exit 1; }

step "run"
inside edged --version
inside edged check
# Ports that are free now, since the chroot shares the network; two serving processes, which must find the libraries too.
ports=($(python3 -c '
import socket
ones = [socket.socket() for _ in range(2)]
for one in ones:
    one.bind(("127.0.0.1", 0))
print(*(one.getsockname()[1] for one in ones))'))
sed -e "s/127\.0\.0\.1:8484/127.0.0.1:${ports[0]}/" -e "s/127\.0\.0\.1:8485/127.0.0.1:${ports[1]}/" \
    -e 's/^workers = 1$/workers = 2/' "$root/usr/share/doc/edged/edged.toml" >"$root/tmp/edged.toml"
inside edged check --config /tmp/edged.toml
inside /usr/bin/python3 /tmp/service_manager.py /lib/systemd/system/edged.service 64321 --config /tmp/edged.toml
inside dpkg --verify edged

step "publish, synchronise, read"
cat >"$root/tmp/titles.ndjson" <<'END'
{"collection": "titles", "key": "1999/Bridge", "value": {"title": "Bridge of Torvika", "year": 1999}}
{"collection": "titles", "key": "2024/Signal", "value": {"title": "Último Verão", "year": 2024}}
END
cat >"$root/tmp/device.toml" <<'END'
[daemon]
data_dir = "/tmp/replica"
[[datasets]]
name = "catalog"
origin = ["file:///var/lib/edged-origin/public/catalog"]
trust = "/var/lib/edged-origin/root.trust"
END
origin() {
    inside runuser -u edged-origin -- edged origin "$@"
}
origin init /var/lib/edged-origin
origin publish /var/lib/edged-origin --dataset catalog /tmp/titles.ndjson
inside edged sync --config /tmp/device.toml
inside edged verify /tmp/replica
inside edged get /tmp/replica catalog titles 2024/Signal | grep -q 'Último Verão' || { echo "the record is not as published" >&2; exit 1; }

step "remove, install again, purge"
inside apt-get purge --yes --quiet=2 -o Dpkg::Use-Pty=0 edged
[ -f "$root/var/lib/edged-origin/private/keys/head-1.key" ] || { echo "purging took the signing keys along" >&2; exit 1; }
rm -rf "$root/var/lib/edged-origin"
inside apt-get install --yes --quiet=2 -o Dpkg::Use-Pty=0 --no-install-recommends /tmp/edged.deb
inside apt-get remove --yes --quiet=2 -o Dpkg::Use-Pty=0 edged
[ -f "$root/etc/edged/edged.toml" ] || { echo "removal took the configuration along" >&2; exit 1; }
inside apt-get install --yes --quiet=2 -o Dpkg::Use-Pty=0 --no-install-recommends /tmp/edged.deb
# As systemd lays it out with DynamicUser: a directory below private/ and a link to it.
inside sh -c 'mkdir -p /var/lib/private/edged &&
    ln -s private/edged /var/lib/edged && touch /var/lib/private/edged/manifest'
inside apt-get purge --yes --quiet=2 -o Dpkg::Use-Pty=0 edged
inside rmdir /var/lib/private
listing >"$work/after"
diff "$work/before" "$work/after" || { echo "test-deb: purging left or took the files above" >&2; exit 1; }
if grep -q edged "$root/etc/passwd" "$root/etc/group"; then
    echo "test-deb: the origin's user is still there" >&2
    exit 1
fi
if grep -q '^Package: edged$' "$root/var/lib/dpkg/status"; then
    echo "test-deb: dpkg still knows the package" >&2
    exit 1
fi
echo "test-deb: installed, ran, purged clean"
