#!/usr/bin/env bash
# A whole federation on this machine, by the README's commands alone: a coordinator, two hospitals with made-up brains, TLS,
# keys and kits, three rounds, what each site scored; then the best model is published, a hospital fetches it and segments a case.
#
#   deploy/federation-on-loopback.sh [FOLDER]     FOLDER (default out/federation) is made anew, if this script made it
set -euo pipefail

folder=${1:-out/federation}
bin=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.venv/bin" && pwd)
starter=$("$bin/python" -c 'from brainunet.starter import STARTER; print(STARTER)')
folder=${1:-out/federation}
cases=${CASES:-15}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} # three processes compute at the same time

read -r port registry readers < <("$bin/python" -c '
import socket
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
print(*(each.getsockname()[1] for each in held))')
if [[ $folder == -* || (-e $folder && ! -e $folder/.made-by-loopback) ]]; then
    echo "$folder: not a folder that this script made; name one that does not exist, or remove it first" >&2
    exit 2
fi
rm -rf "$folder"
mkdir -p "$folder"
cd "$folder"
touch .made-by-loopback
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
sed -i "s/^\[registry\]$/[registry]\nport = $registry\nreaders_port = $readers/" fed/federation.toml
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

run flower-server publish fed --round best --name loopback-1 --notes "made-up brains"
run flower-server reader add fed ann -o ann.pass.json
step flower-server registry fed --listen 127.0.0.1
"$bin/flower-server" registry fed --listen 127.0.0.1 > registry.log 2>&1 &
started+=("$!")
until [[ $(grep -c ' is served to ' registry.log) == 2 ]]; do
    kill -0 "$!" || { cat registry.log >&2; exit 1; }
    sleep 0.2
done
run brainunet pull --home home-CRV
run brainunet pull --kit ann.pass.json --home home-ann -o loopback-1.safetensors
run flower-server models fed
patient=$(find data-NKDC -mindepth 1 -maxdepth 1 -type d | sort | head -n 1)
run brainunet predict -i "$patient" -o segmented --home home-CRV --demo # --demo: the model knows made-up brains only
