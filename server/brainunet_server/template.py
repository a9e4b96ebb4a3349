"""The ``federation.toml`` that a new federation begins with."""

from __future__ import annotations

import json
from typing import Final


def settings_text(name: str, host: str, port: int) -> str:
    """The file's text. A line that begins with ``# key =`` shows a default, so that taking the mark away changes nothing."""
    text = _TEMPLATE
    sites_port, readers_port, mark = 8444, 8445, "# "
    if port in (sites_port, readers_port):  # the server has it: the registry moves on
        sites_port, readers_port, mark = port + 1, port + 2, ""
    values = {"NAME": name, "HOST": host, "PORT": port, "SITES": sites_port, "READERS": readers_port}
    for key, value in values.items():
        text = text.replace(f"@{key}@", json.dumps(value))
    return text.replace("@MARK@", mark)


_TEMPLATE: Final = """\
# The federation's settings, read when `flower-server run` starts. A line such as "# seed = 0" shows the value that holds
# without it: take the "# " away to change it. The network and its preprocessing are those of the start model.

name = @NAME@
host = @HOST@  # by which the hospitals reach this server; stands in its certificate and in their kits
port = @PORT@
# listen = "0.0.0.0"  # address of this machine to listen on; "0.0.0.0" is all of them
# database = ""  # path or URL of the store; empty is store.sqlite in this folder; keep a password out of here: --database
# seed = 0

[rounds]
# count = 30  # rounds of training
# min_sites = 2  # fewer connected sites, or fewer usable replies, make no round
# gather_s = 60  # seconds to wait for more sites once min_sites are connected
# deadline_s = 43200  # seconds that a round waits for replies
# silence_s = 1800  # seconds without a sign of life after which a round no longer waits for a site
# retry_s = 60  # seconds before a round that could not be done is tried again
# keep_every = 0  # the models of the last two rounds and the best ones stay on the disk; 10 keeps every tenth too, 1 keeps all

[train]
# steps = 20  # optimizer steps of a site in each round, the same for every site
# batch_size = 2
# patch = [64, 64, 64]  # voxels, multiples of 8
# foreground_probability = 0.67  # share of patches that are centred on tumour
# optimizer = "adamw"  # or "adam"
# learning_rate = 1e-3
# weight_decay = 1e-4
# schedule = "constant"  # or "cosine", "poly"
# warmup_steps = 0
# gradient_clip = 1.0
# accumulate = 1  # batches whose gradients make one step
# average_decay = 0.0  # above 0 the running mean of a site's weights is sent, which keeps so much of itself at each step
# whole_share = 0.0  # the last part of the steps takes whole brains, one to a batch: much more memory
# precision = "auto"  # or "fp32", "bf16"

[train.loss]
# name = "tversky+cross_entropy"
# alpha = 0.3  # price of a false positive
# beta = 0.7  # price of a false negative
# smooth_voxels = 1.0
# cross_entropy_share = 0.5

[train.augment]
# preset = "light"  # none, light, ssa (clean images made to look like thick slices at 1.5 T); lines below win over it
# flip_probability = 0.5  # of each axis
# affine_probability = 0.3
# scale_range = [0.85, 1.15]
# rotation_degrees = 0.0
# motion_probability = 0.0  # the head moves motion_count times
# motion_count = 3
# motion_degrees = 5.0
# motion_shift_mm = 3.0
# ghosting_probability = 0.0
# ghosting_range = [0.5, 1.5]
# bias_probability = 0.0
# bias_coefficient = 0.5
# blur_probability = 0.0
# blur_range_mm = [0.5, 1.5]
# noise_probability = 0.0
# noise_range = [0.0, 0.33]  # the brain's own standard deviation is 1
# anisotropy_probability = 0.0
# through_plane_range = [2.0, 6.0]  # thickness of a slice, in voxels
# in_plane_range = [1.0, 1.2]
# gamma_probability = 0.3
# log_gamma_range = [-0.3, 0.3]
# dropout_probability = 0.0  # of modalities that are missing, dropout_most of them
# dropout_most = 1

[validation]
# window = [96, 96, 96]  # voxels; a site scores its cases in windows of this size
# min_cases = 3  # with fewer cases a site tells no figures (medians never of fewer than 5); its own settings may ask for more
# metrics = ["dice"]  # also hd95_mm, lesion_dice, lesion_hd95_mm, nsd_0_5mm, nsd_1mm: a second or so more for each case

[strategy]
# name = "fedavg"
# proximal_mu = 0.01  # fedprox: pull towards the global weights
# momentum = 0.9  # fedavgm, fedadam, fedyogi
# second_momentum = 0.99  # fedadam, fedyogi
# adaptivity = 1e-3  # fedadam, fedyogi
# trimmed_share = 0.2  # fedtrimmedavg: cut off at each end
# malicious_sites = 0  # multikrum: how many sites may be hostile
# max_site_share = 0.5  # no site weighs more than this share of a mean, whatever number of cases it claims; 1.0 sets no cap
# local = "none"  # "norm" leaves each site its own normalisation

# With this part the sites train under differential privacy: within these numbers no case of theirs can be told from the models.
# Each hospital decides in its own site.toml how much of it may be spent (docs/guides/privacy.md).
# To switch it on take the "#" away in front of [privacy] and of the lines to change.
# [privacy]
#   epsilon = 8.0  # how much all rounds of a run may tell of any one case; smaller is more private and needs more noise
#   delta = 1e-3  # the chance that it is more; at most 1 / cases of the smallest site
#   rounds = 30  # so many rounds the noise is made for; without this line rounds.count
#   clip = 1.0  # length to which the gradient of each case is cut; the noise is a multiple of it
#   cases_per_step = 4  # on average
#   patches_per_case = 1
#   secure_noise = false

[admission]
# norm_factor = 10.0  # an update so many times larger than the sites' median is refused
# model_factor = 10.0  # so is one that is so many times longer than the model it starts from
# max_cases = 5000  # a site that says it has more is refused

[registry]
@MARK@port = @SITES@  # where sites fetch published models, with their certificates; stands in their kits
@MARK@readers_port = @READERS@  # where readers fetch them, with their passes; stands in these
"""
