#!/usr/bin/env bash
# Makes .venv in the current folder, or brings it up to date: torch, then the project with its development tools.
#
#   deploy/set-up-venv.sh [PYTHON]     PYTHON defaults to python3
#
# torch goes first and by itself: the wheel that the default index holds for Linux brings gigabytes of GPU libraries,
# and nothing here needs them. What is installed already is kept.
set -euo pipefail

python=${1:-python3}
cpu_index=https://download.pytorch.org/whl/cpu
new_enough='import sys; sys.exit(sys.version_info < (3, 11))'

say() { printf 'set-up: %s\n' "$*" >&2; }
stop() {
    say "$*"
    exit 1
}

[[ -f pyproject.toml && -f constraints.txt ]] || stop "run me in the folder that holds pyproject.toml and constraints.txt."
rm -f .venv/.ready

if ! .venv/bin/python -c "$new_enough" 2>/dev/null || ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    command -v "$python" >/dev/null 2>&1 ||
        stop "no '$python' found. Install Python 3.11 or newer, or name it: make PYTHON=/path/to/python3.11 ..."
    "$python" -c "$new_enough" 2>/dev/null ||
        stop "'$python' is $("$python" --version 2>&1), but Python 3.11 or newer is needed. Name one: make PYTHON=python3.11 ..."
    say "making .venv with $("$python" --version 2>&1) (first use: some minutes, mostly downloads)"
    "$python" -m venv --clear .venv ||
        stop "the venv module failed. On Debian and Ubuntu it is a package of its own: apt install python3-venv"
fi

install() { .venv/bin/python -m pip install -qq --disable-pip-version-check --no-input "$@"; }

torch=$(sed -n 's/^torch==//p' constraints.txt)
[[ -n $torch ]] || stop "constraints.txt does not pin torch."
have=$(.venv/bin/python -c 'import importlib.metadata as m; print(m.version("torch"))' 2>/dev/null || true)
if [[ ${have%%+*} == "$torch" ]]; then
    :
elif install --no-deps "torch==$torch+cpu" 2>/dev/null; then
    say "torch $torch for CPU, from your own pip configuration"
elif say "torch $torch for CPU, from $cpu_index (about 200 MB)" &&
    install --no-deps --timeout 30 --retries 1 --index-url "$cpu_index" "torch==$torch" 2>/dev/null; then
    :
else
    say "not there: torch $torch from the default index (on Linux this brings GPU libraries, some GB)"
    install "torch==$torch" -c constraints.txt
fi

say "the project and its development tools"
install -e '.[dev]' -c constraints.txt ||
    stop "that failed. To see more: .venv/bin/pip install -e '.[dev]' -c constraints.txt"
say "ready"
