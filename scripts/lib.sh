# Sourced by the other scripts: Debian packages, only those that are missing, with sudo where it is needed.

packages=()
want() { # want PACKAGE: adds it to the list unless dpkg says it is installed
    dpkg-query -W -f='${db:Status-Abbrev}' "$1" 2>/dev/null | grep -q '^ii' || packages+=("$1")
}

install_wanted() { # installs what `want` has listed
    [ "${#packages[@]}" -gt 0 ] || return 0
    local sudo=
    if [ "$(id -u)" -ne 0 ]; then
        sudo=sudo
        command -v sudo >/dev/null || {
            echo "error: missing packages: ${packages[*]}" >&2
            echo "hint: as root, run: apt-get install ${packages[*]}" >&2
            exit 1
        }
    fi
    echo "== installing Debian packages: ${packages[*]}"
    $sudo apt-get update -qq
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
    packages=()
}
