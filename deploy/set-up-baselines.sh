#!/usr/bin/env bash
# Adds the packages of the networks we compare with (nnU-Net's, MedNeXt) to .venv, or to the environment named.
#
#   deploy/set-up-baselines.sh [VENV]     VENV defaults to .venv, made by deploy/set-up-venv.sh
#
# dynamic-network-architectures asks for timm, and timm for torchvision, whose wheel on the default index does not fit a CPU build
# of torch. Only its transformers need them; the U-Nets that brainunet.model.baselines builds need torch and numpy, which are
# there. So both packages are installed by themselves, and nothing else changes.
set -euo pipefail

venv=${1:-.venv}
pins=(dynamic-network-architectures==0.4.4 monai==1.6.1)

[[ -x $venv/bin/python ]] || {
    printf 'set-up: no %s/bin/python. Run deploy/set-up-venv.sh first, or name the environment.\n' "$venv" >&2
    exit 1
}
"$venv/bin/python" -m pip install -qq --disable-pip-version-check --no-input --no-deps "${pins[@]}"
"$venv/bin/python" - <<'CHECK'
from brainunet.config import ModelConfig
from brainunet.model import size_of

for preset in ("nnunet-plain", "mednext-s"):
    size = size_of(ModelConfig(preset=preset, norm="instance"), (64, 64, 64))
    print(f"set-up: {preset} can be built, {size.parameters / 1e6:.1f} M parameters")
CHECK
