#!/usr/bin/env bash
# Make a virtual environment in $1 with the first Python of 3.11 or newer, and install this project with its
# extras $2. Exits 69 with the command for this platform where there is no such Python.
set -euo pipefail
folder=$1 extras=$2

python=
for name in ${PYTHON:-} python3 python3.13 python3.12 python3.11 python; do
    if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python=$name
        break
    fi
done
if [ -z "$python" ]; then
    echo "error: no Python of 3.11 or newer on PATH: install one, or name it: make install PYTHON=/path/to/python3" >&2
    exit 69
fi

if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    release=$("$python" -c 'import sys; print(f"{sys.version_info[0]}.{sys.version_info[1]}")')
    if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
        apt-get -qq update >&2
        DEBIAN_FRONTEND=noninteractive apt-get -qq install -y "python$release-venv" >&2
    else
        echo "error: $python has no venv: sudo apt-get install -y python$release-venv" >&2
        exit 69
    fi
fi

# A folder without pip is what an interrupted attempt left.
"$folder/bin/python" -m pip --version >/dev/null 2>&1 || "$python" -m venv --clear "$folder"
"$folder/bin/python" -m pip install -qq --disable-pip-version-check --editable ".[$extras]"  # -qq: errors only
