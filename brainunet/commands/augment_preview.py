"""``brainunet augment-preview``: what augmentation does to a patch, to be judged by eye before a training."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from brainunet.labels import Convention, Modality
    from brainunet.pictures.augment_sheet import Tile
    from brainunet.records import Case

SHOWN_BY_DEFAULT = "t2f"


def augment_preview(
    cases: Annotated[Path, typer.Argument(metavar="CASES", help="folder of one case, or of several with --case")],
    out: Annotated[Path, typer.Option(help="PNG file to write")],
    case: Annotated[str | None, typer.Option(help="which case, where the folder holds several")] = None,
    preset: Annotated[str, typer.Option(help="none, light or ssa")] = "ssa",
    modality: Annotated[str | None, typer.Option(help="one modality of the model, or all; left out, t2f or the first")] = None,
    draws: Annotated[int, typer.Option(help="how often to draw the whole preset", min=0, max=64)] = 9,
    patch: Annotated[int, typer.Option(help="voxels on each side of the patch, a multiple of 8")] = 96,
    seed: Annotated[int, typer.Option(help="equal seeds give equal sheets", min=0)] = 0,
    convention: Annotated[str | None, typer.Option(help="brats2021 or brats2023, where file names do not tell")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="a setting, such as train.augment.noise_range=[0,0.5]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print what was drawn and every setting as JSON")] = False,
) -> None:
    """Draw a patch of a case as it is, with each augmentation alone, and as a training would see it.

    CASES is the folder of one case, or of several with --case. What is drawn alone is as strong as it is set to become.
    """
    from brainunet.data.augment import AUGMENTATIONS
    from brainunet.data.cases import parse_convention
    from brainunet.data.patches import PatchSource
    from brainunet.data.preprocess import prepare
    from brainunet.errors import UsageError
    from brainunet.pictures.augment_sheet import draw_sheet
    from brainunet.pictures.augment_tiles import PreviewConfig, make_tiles
    from brainunet.settings import load, nearest
    from brainunet.terminal import progress_bar

    options = {"train": {"augment": {"preset": preset}, "patch": [patch] * 3, "foreground_probability": 1.0}}
    config = load(PreviewConfig, overrides=overrides or (), options=options)
    modalities = config.model.modalities
    if modality is None:
        modality = SHOWN_BY_DEFAULT if SHOWN_BY_DEFAULT in modalities else modalities[0]
    if modality != "all" and modality not in modalities:
        raise UsageError("--modality", found=f"{modality!r} ({nearest(modality, [*modalities, 'all'])})")
    channels = [i for i, name in enumerate(modalities) if modality in ("all", name)]
    chosen = _chosen(cases, case, modalities, parse_convention(convention))
    source = PatchSource(prepare(chosen, modalities, config.preprocess))
    with progress_bar() as progress:
        made = progress.track(
            make_tiles(source, config.train, seed=seed, draws=draws),
            total=1 + len(AUGMENTATIONS) + draws,
            description="patches",
        )
        tiles = [replace(tile, image=tile.image[channels], note=_told(tile, modalities)) for tile in made]
    heading = f"{chosen.case_id}: augmentation {preset!r}, patch of {' x '.join(map(str, config.train.patch))} voxels"
    draw_sheet(out, tiles, [modalities[i] for i in channels], heading)
    if as_json:
        augment = config.train.augment.model_dump(mode="json")
        told = {"tiles": [tile.title for tile in tiles], "notes": [tile.note for tile in tiles]}
        typer.echo(json.dumps({"out": str(out), "case": chosen.case_id, **told, "augment": augment}))
    else:
        typer.echo(f"{len(tiles)} patches of {chosen.case_id} in {out}")


def _told(tile: Tile, modalities: Sequence[Modality]) -> str:
    """The tile's note, and which modalities it lost: a sheet of one modality would otherwise not show it."""
    missing = [name for name, image in zip(modalities, tile.image, strict=True) if not image.any()]
    return ", ".join(filter(None, [tile.note, f"here without {' and '.join(missing)}" if missing else ""]))


def _chosen(folder: Path, case_id: str | None, modalities: Sequence[Modality], convention: Convention | None) -> Case:
    """The case that is asked for, or the only one.

    Raises:
        UsageError: no such case, or several and none asked for.
        DataError: the case can't be used; the reason is that of ``find_cases``.
    """
    from brainunet.data.cases import find_cases
    from brainunet.errors import DataError, UsageError
    from brainunet.settings import nearest

    found = find_cases(folder, modalities=modalities, convention=convention)
    ids = [case.case_id for case in found.cases]
    if case_id is None and len(ids) > 1:
        few = ", ".join(ids[:4]) + (f" or {len(ids) - 4} others" if len(ids) > 4 else "")
        raise UsageError("--case", found=f"{len(ids)} cases in {folder.name} and none chosen", remedy=f"name one: {few}")
    for case in found.cases:
        if case_id in (None, case.case_id):
            return case
    for problem in found.problems:
        if case_id in (None, problem.case_id):
            raise DataError(folder, found=f"no usable case ({problem.reason.rstrip('.')})")
    raise UsageError("--case", found=f"{case_id!r} ({nearest(str(case_id), ids)})")
