# Sourced by `demo` and `test`: what the system lacks, a virtual environment in .venv, MedCL in it.

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        echo "These need root, and there is no sudo here; run as root: $*" >&2
        return 1
    fi
}

# Debian packages, those that are there left alone.
need_packages() {
    there=$(dpkg-query -Wf '${db:Status-Abbrev} ${Package} ${Provides}\n' | grep '^ii' | tr ' ,' '\n\n')
    missing=""
    for package in "$@"; do
        echo "$there" | grep -qxF "$package" || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    as_root apt-get -o Acquire::Retries=3 update -q || { sleep 10 && as_root apt-get update -q; }
    # shellcheck disable=SC2086 # a list of names
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get -o Acquire::Retries=3 install -qy --no-install-recommends $missing
}

find_python() {
    for name in python3.11 python3.12 python3.13 python3.14 python3; do
        "$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null || continue
        echo "$name"
        return
    done
    echo "MedCL needs Python 3.11, 3.12, 3.13 or 3.14, and none was found. Install one and start again." >&2
    return 1
}

# install REQUIREMENT...: whatever pip takes, in .venv. A torch that is there already is kept if it fits.
install() {
    if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
        python=$(find_python)
        "$python" -c 'import ensurepip' 2>/dev/null ||
            need_packages "$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
        "$python" -m venv --clear .venv
    fi
    .venv/bin/python -m pip install -q --upgrade "pip>=25.1"
    .venv/bin/python -m pip install -q torch==2.13.0
    .venv/bin/python -m pip install -q "$@"
}
