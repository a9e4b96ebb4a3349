"""``brainunet import``: the authors' weights become a model file of ours."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Final

import typer

if TYPE_CHECKING:
    from brainunet.labels import Modality
    from brainunet.modelfile import TrainedOn

# What may be said of the training data: what the card calls it, and its name for people.
DATA_SETS: Final[Mapping[str, tuple[TrainedOn, str]]] = MappingProxyType(
    {
        "brats2021": ("real cases", "BraTS 2021"),
        "brats2023": ("real cases", "BraTS-GLI 2023"),
        "brats-africa": ("real cases", "BraTS-Africa"),
        "real-cases": ("real cases", "real cases"),
        "phantoms": ("phantoms", "phantoms"),
        "nothing": ("nothing", "nothing: random weights"),
        "unknown": ("unknown", "not known"),
    }
)

_BATCH_NORM: Final = (
    "This network has batch norm: it can't be trained under differential privacy, for a batch's statistics mix patients "
    "(preset brainunet with group norm can); in a federation set strategy.local = norm, so that each site keeps its own."
)
_PREPROCESS: Final = (
    "The file doesn't say how its training images were normalised; this card names brainunet's own (clip to percentiles and "
    "z-score inside the brain). Check the Dice on labelled cases before use."
)


def import_official(
    file: Annotated[Path, typer.Argument(help="the authors' state dict: torch.save or safetensors")],
    out: Annotated[Path, typer.Option("--out", "-o", help="the model file to write (.safetensors)")],
    modalities: Annotated[
        str, typer.Option(help="what its input channels are, in their order, such as t1c,t2w,t2f: no such file tells")
    ] = "",
    trained_on: Annotated[str, typer.Option(help=f"its training data: {', '.join(DATA_SETS)}")] = "unknown",
    title: Annotated[str, typer.Option(help="one line for people")] = "BrainUNet, official weights",
    provenance: Annotated[str, typer.Option(help="where the file comes from, in words")] = "",
    notes: Annotated[str, typer.Option(help="what else the next reader should know")] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace an earlier model file")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the card as JSON")] = False,
) -> None:
    """Turn the authors' weights into a model file with a card. The network's output stays the same; nothing in FILE is run."""
    from brainunet.config import PreprocessConfig
    from brainunet.errors import UsageError
    from brainunet.model.import_official import import_official as read_official
    from brainunet.model.state_files import told_modalities
    from brainunet.modelfile import ModelCard, parameter_count, write_model

    kind, words = _data_set(trained_on)
    if out.is_dir() or (out.exists() and not overwrite):
        raise UsageError(
            "--out", found=f"{out} is there already", expected="a free name", remedy="choose another, or say --overwrite"
        )
    if file.exists() and out.exists() and file.samefile(out):
        raise UsageError("--out", found="the file to import", expected="another name", remedy="choose another")
    said = _modalities(modalities) if modalities else None
    told = told_modalities(file)
    if said is None and told is None:
        raise UsageError(
            "--modalities",
            found="not given",
            expected="the input channels in their order: no such file tells, and a wrong order gives wrong tumours",
            remedy="say --modalities t1c,t2w,t2f, or the order the network was trained with",
        )
    order = _modalities(told) if told is not None else said
    if said is not None and said != order:
        raise UsageError("--modalities", found=modalities, expected=f"{told}, as the file itself says")
    assert order is not None
    weights, model = read_official(file, order)
    card = ModelCard(
        title=title,
        model=model,
        preprocess=PreprocessConfig(),
        provenance=provenance or _provenance(file),
        trained_on=kind,
        notes=" ".join(part for part in (notes.strip(), f"Trained on: {words}.", _PREPROCESS, _BATCH_NORM) if part),
    )
    card = write_model(out, weights, card)
    if as_json:
        typer.echo(json.dumps({"out": str(out), "parameters": parameter_count(weights), "card": card.model_dump(mode="json")}))
        return
    typer.echo(f"{out}: {card.title}")
    typer.echo(f"  {model.preset}, {model.norm} norm, input {', '.join(order)}, {out.stat().st_size / 1e6:.2f} MB")
    typer.echo(f"  digest {card.weights_sha256}")
    typer.echo(f"  trained on: {words}. All of its card: brainunet model show {out}")


def _provenance(file: Path) -> str:
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    return f"imported from {file.name} (SHA-256 {digest}), a state dict of the paper's network (arXiv:2509.09469)"


def _data_set(name: str) -> tuple[TrainedOn, str]:
    from brainunet.errors import UsageError
    from brainunet.settings import nearest

    if name not in DATA_SETS:
        raise UsageError("--trained-on", found=f"{name!r} is not known ({nearest(name, DATA_SETS)})")
    return DATA_SETS[name]


def _modalities(text: str) -> tuple[Modality, ...]:
    """The modalities of a list with commas, each once; old names such as t1ce are understood."""
    from brainunet.errors import UsageError
    from brainunet.labels import MODALITY_ALIASES
    from brainunet.settings import nearest

    names = [name.strip().lower() for name in text.split(",")]
    for name in names:
        if name not in MODALITY_ALIASES:
            raise UsageError("--modalities", found=f"{name[:40]!r} is not known ({nearest(name, MODALITY_ALIASES)})")
    order = tuple(MODALITY_ALIASES[name] for name in names)
    if len(set(order)) < len(order):
        raise UsageError("--modalities", found=text[:80], expected="each modality once")
    return order
