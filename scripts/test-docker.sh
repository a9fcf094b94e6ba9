#!/usr/bin/env bash
# A Docker engine for the compose test, where none runs.
#
#   test-docker.sh start   uses a running engine, or starts one of its own (root; installs Debian packages if needed)
#   test-docker.sh host    prints the DOCKER_HOST of the engine; nothing for the default one; fails if there is none
#   test-docker.sh base    makes the image debian:bookworm-slim with debootstrap if the engine does not have it, and
#                          prints "made" if it did
#   test-docker.sh stop    stops the engine if `start` started it, and removes everything that engine kept
#
# The own engine is private: its socket, data and containers are below one directory, and it touches neither iptables
# nor docker0. Each clone of the repository has its own.
set -euo pipefail
cd "$(dirname "$0")/.."
cache=${XDG_CACHE_HOME:-$HOME/.cache}/sateen
state=$cache/docker-$(pwd | cksum | cut -d " " -f 1)
socket=unix://$state/docker.sock
base=debian:bookworm-slim

ours() { # whether the engine that `start` started is alive
    [ -f "$state/pid" ] && kill -0 "$(cat "$state/pid")" 2>/dev/null
}
answers() { docker ${1:+-H "$1"} info >/dev/null 2>&1; }
compose() { command -v docker-compose >/dev/null || docker compose version >/dev/null 2>&1; }

install() { # install PACKAGE...
    [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null || return 1
    echo "== installing Debian packages: $*" >&2
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"; } >/dev/null
}

start() {
    if command -v docker >/dev/null && answers '' && { compose || install docker-compose; }; then
        echo "== using the Docker engine that runs here"
        return
    fi
    [ "$(id -u)" -eq 0 ] || { echo "note: no Docker engine runs, and starting one needs root" >&2; return 1; }
    if ! command -v dockerd >/dev/null || ! compose; then
        install docker.io docker-compose debootstrap || return 1
    fi
    if ! ours; then
        rm -rf --one-file-system "$state"
        mkdir -p "$state"
        echo "== starting a Docker engine in $state"
        setsid dockerd --host "$socket" --data-root "$state/data" --exec-root "$state/exec" --pidfile "$state/dockerd.pid" \
            --bridge none --iptables=false --ip6tables=false >"$state/log" 2>&1 </dev/null &
        echo $! >"$state/pid"
    fi
    for _ in $(seq 150); do
        if answers "$socket"; then return; fi
        ours || break
        sleep 0.2
    done
    echo "note: the Docker engine did not start; its last words:" >&2
    tail -n 5 "$state/log" >&2
    stop
    return 1
}

host() {
    if ours; then echo "$socket"; else answers '' && echo "${DOCKER_HOST:-}"; fi
}

base() {
    DOCKER_HOST=$(host)
    if [ -n "$DOCKER_HOST" ]; then export DOCKER_HOST; else unset DOCKER_HOST; fi
    if docker image inspect "$base" >/dev/null 2>&1; then return; fi
    local tar=$cache/bookworm-minbase.tar
    if [ ! -s "$tar" ]; then
        command -v debootstrap >/dev/null || install debootstrap
        echo "== making a base image with debootstrap (half a minute)" >&2
        mkdir -p "$cache"
        local root
        root=$(mktemp -d)
        debootstrap --variant=minbase --include=fuse3,ca-certificates bookworm "$root" >"$root.log" 2>&1 || {
            tail -n 5 "$root.log" >&2
            rm -rf --one-file-system "$root" "$root.log"
            return 1
        }
        rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
        tar --numeric-owner --one-file-system -C "$root" -cf "$tar.$$" .
        mv "$tar.$$" "$tar"
        rm -rf --one-file-system "$root" "$root.log"
    fi
    docker import --change 'CMD ["bash"]' "$tar" "$base" >/dev/null
    echo made
}

stop() {
    if ours; then
        local pid
        pid=$(cat "$state/pid")
        kill "$pid" 2>/dev/null || true
        for _ in $(seq 150); do
            ours || break
            sleep 0.2
        done
        if ours; then kill -9 "$pid"; fi
    fi
    # Network name spaces that the engine left mounted.
    awk -v dir="$state/" 'index($5, dir) == 1 { print $5 }' /proc/self/mountinfo | sort -r | while read -r mount; do
        umount -l "$mount" || true
    done
    rm -rf --one-file-system "$state"
}

case ${1:-} in
start | host | base | stop) "$1" ;;
*)
    echo "error: test-docker.sh ${1:-}: unknown word" >&2
    echo "hint: start, host, base or stop" >&2
    exit 2
    ;;
esac
