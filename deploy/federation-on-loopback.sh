#!/usr/bin/env bash
# A whole federation on this machine, by the README's commands alone: a coordinator, two hospitals with made-up brains, TLS,
# keys and kits, three rounds, and what each site scored.
#
#   deploy/federation-on-loopback.sh [FOLDER]     FOLDER (default out/federation) is made anew
set -euo pipefail

bin=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.venv/bin" && pwd)
starter=$("$bin/python" -c 'from brainunet.starter import STARTER; print(STARTER)')
folder=${1:-out/federation}
cases=${CASES:-15}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} # three processes compute at the same time

port=$("$bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
rm -rf "$folder"
mkdir -p "$folder"
cd "$folder"
started=()
finish() {
    status=$?
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

step() { printf '\n$ %s\n' "$*"; }
run() {
    step "$@"
    "$bin/$1" "${@:2}"
}

for site in CRV NKDC; do
    [[ $site == CRV ]] && seed=1 || seed=2
    "$bin/brainunet" phantom "data-$site" --cases "$cases" --style ssa --seed "$seed" --shape 96 96 80
done

run flower-server init fed --name "Loopback" --host 127.0.0.1 --port "$port" --model "$starter"
for site in CRV NKDC; do
    run brainunet-client --home "home-$site" --enrol "$site" --server "127.0.0.1:$port"
    run flower-server enrol fed "$site.request" -o "$site.kit"
    fingerprint=$("$bin/python" -c 'import sys; from brainunet.kit import open_kit; from pathlib import Path; print(open_kit(Path(sys.argv[1])).fingerprint)' "$site.kit")
    run brainunet-client --home "home-$site" --kit "$site.kit" --fingerprint "$fingerprint"
done

settings=(--set rounds.count=3 --set train.steps=12 --set "train.patch=[48,48,48]")
step flower-server run fed --demo "${settings[@]}"
"$bin/flower-server" run fed --demo "${settings[@]}" &
server=$!
started+=("$server")
for site in CRV NKDC; do
    step brainunet-client --home "home-$site" --data "data-$site"
    "$bin/brainunet-client" --home "home-$site" --data "data-$site" > >(sed -u "s/^/[$site] /") 2>&1 &
    started+=("$!")
done

wait "$server"
run flower-server status fed
run flower-server scores fed
run flower-server audit fed --verify
run brainunet-client --home home-CRV --ledger
