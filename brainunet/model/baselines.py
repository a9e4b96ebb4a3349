"""The networks that segmentation papers compare with, made by their authors' packages, to be trained by the same trainer.

nnU-Net's plain and residual-encoder U-Nets (Isensee et al., Nature Methods 2021; "nnU-Net Revisited", MICCAI 2024,
arXiv:2404.09556) and MedNeXt with kernels of 3 (Roy et al., MICCAI 2023, arXiv:2303.09975), in the sizes of their papers and
without deep supervision. Both packages are Apache-2.0, heavy, and imported only when one of these networks is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from torch import Tensor, nn
from torch.nn import functional as F

from brainunet.errors import ConfigError
from brainunet.presets import BASELINE_NORM, BASELINES

if TYPE_CHECKING:
    from collections.abc import Mapping

NNUNET_STRIDE: Final = 32
MEDNEXT_STRIDE: Final = 16

# nnU-Net's plan for patches whose sides can be halved five times, such as 128^3
_WIDTHS: Final = (32, 64, 128, 256, 320, 320)
_BLOCKS: Final = (1, 3, 4, 6, 6, 6)
_STAGES: Final = len(_WIDTHS)


class Padded(nn.Module):
    """A network that wants sides of a multiple of ``stride``, for patches of any size.

    Sides are padded with zeros to such a multiple, and to two of them at least: below that an instance norm at the bottom would
    see a single voxel. The logits are cut back.
    """

    def __init__(self, network: nn.Module, stride: int) -> None:
        super().__init__()
        self.network = network
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, X, Y, Z) of normalised intensities -> logits (B, L, X, Y, Z)."""
        size = x.shape[2:]
        missing = [max(side + -side % self.stride, 2 * self.stride) - side for side in size]
        if any(missing):
            x = F.pad(x, [pad for extra in reversed(missing) for pad in (0, extra)])
        logits: Tensor = self.network(x)
        return logits[:, :, : size[0], : size[1], : size[2]]


def build_baseline(preset: str, inputs: int, outputs: int, norm: str) -> nn.Module:
    """A network of ``BASELINES`` with random weights.

    Raises:
        ConfigError: a norm that it does not have, or its package is not installed.
    """
    if norm != BASELINE_NORM:
        raise ConfigError(
            "model.norm",
            found=f"{norm}, the default or your choice",
            expected=f"{BASELINE_NORM}, which {preset} has built in",
            remedy=f"set model.norm to {BASELINE_NORM}",
        )
    try:
        if preset.startswith("mednext-"):
            return Padded(_mednext(preset.removeprefix("mednext-"), inputs, outputs), MEDNEXT_STRIDE)
        return Padded(_nnunet(preset, inputs, outputs), NNUNET_STRIDE)
    except ImportError:
        raise ConfigError(
            "model.preset",
            found=f"{preset}, whose package {BASELINES[preset]} can't be imported",
            expected="it to be installed",
            remedy="install it: pip install 'brainunet-fl[baselines]' (beside a CPU build of torch deploy/set-up-baselines.sh)",
        ) from None


def _mednext(variant: str, inputs: int, outputs: int) -> nn.Module:
    from monai.networks.nets.mednext import create_mednext

    made: nn.Module = create_mednext(variant, spatial_dims=3, in_channels=inputs, out_channels=outputs, kernel_size=3)
    return made


def _nnunet(preset: str, inputs: int, outputs: int) -> nn.Module:
    from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet

    plan: Mapping[str, object] = {
        "input_channels": inputs,
        "num_classes": outputs,
        "n_stages": _STAGES,
        "features_per_stage": _WIDTHS,
        "conv_op": nn.Conv3d,
        "kernel_sizes": 3,
        "strides": (1, *[2] * (_STAGES - 1)),
        "conv_bias": True,
        "norm_op": nn.InstanceNorm3d,
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin": nn.LeakyReLU,
        "nonlin_kwargs": {"inplace": True},
        "deep_supervision": False,
    }
    made: Any
    if preset == "nnunet-plain":
        made = PlainConvUNet(**plan, n_conv_per_stage=2, n_conv_per_stage_decoder=2)
    else:
        made = ResidualEncoderUNet(**plan, n_blocks_per_stage=_BLOCKS, n_conv_per_stage_decoder=1)
    made.apply(made.initialize)
    _keep_each_once(made)
    network: nn.Module = made
    return network


def _keep_each_once(network: nn.Module) -> None:
    """Leave each layer in one place, and only layers that are used.

    nnU-Net's blocks hold each layer by name and again in the sequence that runs; its decoder holds the encoder, and a head for
    every depth of deep supervision. A state dict would hold the same arrays twice, and an average over sites would too.
    """
    for module in list(network.modules()):
        running = getattr(module, "all_modules", None)
        if isinstance(running, nn.Sequential):
            inside = {id(layer) for layer in running}
            for name in [name for name, layer in module.named_children() if id(layer) in inside]:
                delattr(module, name)
    decoder = network.get_submodule("decoder")
    del decoder.encoder
    heads = decoder.get_submodule("seg_layers")
    assert isinstance(heads, nn.ModuleList)
    decoder.seg_layers = nn.ModuleList([heads[-1]])
