#!/bin/bash
# Builds dist/edged_VERSION_ARCH.deb for Debian 12: edged and its libraries, byte-compiled, below /usr/lib/edged.
#   packaging/build-deb.sh [OUT_DIR]      ARCH=arm64 builds for another architecture than this machine's
#                                         EDGED_COMPILE=1 compiles the coding: on Debian 12, for its own architecture
# The same sources give the same bytes: versions are pinned, times clamped to SOURCE_DATE_EPOCH, nothing is unsorted.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

out=$(realpath -m "${1:-dist}")
arch=${ARCH:-$(dpkg --print-architecture)}
version=$(sed -n '1s/^edged (\(.*\)) .*/\1/p' packaging/debian/changelog)
release=$(sed -n 's/^VERSION = "\(.*\)"$/\1/p' edged/version.py)
python=${BUILD_PYTHON:-.venv/bin/python}

fail() {
    echo "build-deb: $*" >&2
    exit 1
}

command -v dpkg-deb >/dev/null || fail "dpkg-deb is not installed; build on Debian, or install the package dpkg"
[ -x "$python" ] || fail "$python is not there; run this by: make deb"
[ "${version%-*}" = "$release" ] || fail "packaging/debian/changelog is at $version, edged/version.py at $release"
case "$arch" in
    amd64) machine=x86_64 ;;
    arm64) machine=aarch64 ;;
    armhf) machine=armv7l ;;
    *) fail "no wheels are known for architecture $arch; expected amd64, arm64 or armhf" ;;
esac
# Byte code is of one Python release; any 3.11 writes what Debian 12 reads.
compiler=
for candidate in /usr/bin/python3.11 python3.11 "$python"; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
        compiler=$candidate
        break
    fi
done
[ -n "$compiler" ] || fail "no Python 3.11 is here to compile for Debian 12's; install python3.11"

: "${SOURCE_DATE_EPOCH:=$(date -d "$(sed -n 's/^ -- .*>  //p' packaging/debian/changelog | head -n 1)" +%s)}"
export SOURCE_DATE_EPOCH PYTHONHASHSEED=0 LC_ALL=C TZ=UTC
umask 022

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
library=$root/usr/lib/edged
mkdir -p "$library" "$out"

# --- edged and its libraries: wheels only, so that nothing is compiled or run from a source archive -----------------
pip() {
    "$python" -m pip --disable-pip-version-check --quiet "$@"
}
platforms=()
for platform in manylinux_2_28 manylinux_2_24 manylinux_2_17 manylinux2014 manylinux_2_12 manylinux_2_5 manylinux1; do
    platforms+=(--platform "${platform}_$machine")
done
if [ "${EDGED_COMPILE:-}" = 1 ]; then
    [ "$arch" = "$(dpkg --print-architecture)" ] || fail "EDGED_COMPILE=1 compiles for this machine, not for $arch"
    "$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' ||
        fail "EDGED_COMPILE=1 needs BUILD_PYTHON to be a Python 3.11, as Debian 12's is"
    platforms+=(--platform "linux_$machine")
fi
pip wheel --no-deps --wheel-dir "$work" .
pip install --target "$library" --no-compile --only-binary=:all: --implementation cp --python-version 3.11 \
    "${platforms[@]}" --constraint packaging/constraints.txt "$(echo "$work"/edged-*.whl)[mqtt]"

# What only installers, developers and other interpreters need; and direct_url.json names this machine's paths.
rm -rf "$library/bin"
find "$library" -depth -type d \( -name tests -o -name _tests -o -name __pycache__ \) -exec rm -rf {} +
find "$library" -type f \( -name RECORD -o -name INSTALLER -o -name REQUESTED -o -name direct_url.json \
    -o -name '*.pyx' -o -name '*.pxd' -o -name '*.c' -o -name '*.h' \) -delete
rm -rf "$library"/zstandard/_cffi*.so "$library"/zstandard/backend_cffi.py   # PyPy's
if [ "$arch" = "$(dpkg --print-architecture)" ] && command -v strip >/dev/null; then
    find "$library" -name '*.so' -exec strip --strip-unneeded {} +
else
    echo "build-deb: debugging symbols stay in: no strip for $arch here" >&2
fi
# unchecked-hash: neither times nor sources are looked at when loading, and the files are the same in every build.
"$compiler" -I -m compileall -q -j 1 --invalidation-mode unchecked-hash -s "$root" -p / "$library"

# --- the rest of the package -----------------------------------------------------------------------------------------
install -D -m 755 packaging/launcher "$root/usr/bin/edged"
install -D -m 644 packaging/debian/edged.toml "$root/etc/edged/edged.toml"
install -d -m 755 "$root/etc/edged/edged.d" "$root/etc/edged/credentials"
for unit in edged.service edged.socket edged-origin.service edged-relay.service; do
    install -D -m 644 "systemd/$unit" "$root/lib/systemd/system/$unit"
done
install -D -m 644 systemd/edged-origin.sysusers "$root/usr/lib/sysusers.d/edged-origin.conf"
documents=$root/usr/share/doc/edged
install -D -m 644 packaging/debian/copyright "$documents/copyright"
install -m 644 README.md config/edged.toml config/prometheus-alerts.yml "$documents"
gzip -9n <CHANGELOG.md >"$documents/changelog.gz"
gzip -9n <packaging/debian/changelog >"$documents/changelog.Debian.gz"
mkdir -p "$root/usr/share/man/man1"
"$python" packaging/reference.py --man "$work"
gzip -9n <"$work/edged.1" >"$root/usr/share/man/man1/edged.1.gz"
mkdir -p "$root/usr/share/man/man5"
gzip -9n <"$work/edged.toml.5" >"$root/usr/share/man/man5/edged.toml.5.gz"
install -D -m 644 edged/cli/completions/edged.bash "$root/usr/share/bash-completion/completions/edged"
install -D -m 644 edged/cli/completions/edged.zsh "$root/usr/share/zsh/vendor-completions/_edged"
install -D -m 644 edged/cli/completions/edged.fish "$root/usr/share/fish/vendor_completions.d/edged.fish"

control=$root/DEBIAN
mkdir "$control"
for script in postinst prerm postrm; do
    install -m 755 "packaging/debian/$script" "$control/$script"
done
echo /etc/edged/edged.toml >"$control/conffiles"
find "$root" -path "$control" -prune -o -type f -print0 | sort -z |
    sed -z "s|^$root/||" | (cd "$root" && xargs -0 md5sum) >"$control/md5sums"
installed_kb=$(du -k --apparent-size --summarize --exclude=DEBIAN "$root" | cut -f 1)
sed -e "s/@VERSION@/$version/" -e "s/@ARCH@/$arch/" -e "s/@INSTALLED_KB@/$installed_kb/" \
    packaging/debian/control.in >"$control/control"

find "$root" -type d -exec chmod 755 {} +
chmod 700 "$root/etc/edged/credentials"
find "$root" -type f ! -perm -u+x -exec chmod 644 {} +
find "$library" -type f -exec chmod 644 {} +
find "$root" -exec touch --no-dereference --date "@$SOURCE_DATE_EPOCH" {} +
dpkg-deb --root-owner-group -Zxz --build "$root" "$out/edged_${version}_$arch.deb" >/dev/null

find "$library" -maxdepth 1 -name '*.dist-info' -printf '%f\n' | sed -e 's/\.dist-info$//' -e 's/-/==/' | sort \
    >"$out/edged_${version}_$arch.contents"
echo "$out/edged_${version}_$arch.deb: $(stat -c %s "$out/edged_${version}_$arch.deb") bytes," \
    "$installed_kb kB installed"
