#!/usr/bin/env bash
# Runs every test with cargo-nextest, the compose test included where a Docker engine can be had.
set -euo pipefail
export SATEEN_BIN_DIR=${SATEEN_BIN_DIR:-$CARGO_TARGET_DIR/release}
docker=
if [ -x scripts/test-docker.sh ] && [ "${SATEEN_TEST_DOCKER:-1}" != 0 ]; then
    if scripts/test-docker.sh start; then
        docker=started
        export SATEEN_TEST_DOCKER=1
    else
        echo "note: no Docker engine can be had here; the compose test is skipped"
    fi
fi
# Half of the mounts have their requests by io_uring then (tests/src/rings.rs). Whoever runs tests last puts the switch back as
# the first one found it, which the lock file says.
rings=/sys/module/fuse/parameters/enable_uring
lock=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/sateen/rings.lock
stop() {
    if flock --exclusive --nonblock 9 && [ -s "$lock" ]; then
        cat "$lock" 2>/dev/null >$rings || true
        : >"$lock"
    fi
    [ -z "$docker" ] || scripts/test-docker.sh stop
}
mkdir -p "$(dirname "$lock")"
exec 9>>"$lock"
flock --shared 9
trap stop EXIT
if [ "$(cat $rings 2>/dev/null)" = N ]; then
    if echo Y 2>/dev/null >$rings; then
        echo N >"$lock"
    else
        echo "note: $rings cannot be written; every mount reads its requests from /dev/fuse"
    fi
fi
cargo nextest run --release --locked --workspace "$@"
