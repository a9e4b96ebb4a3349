"""The options that ``train`` and ``crossval`` share, each with its one line of help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

Data: TypeAlias = Annotated[Path | None, typer.Option(help="folder of cases with segmentations")]
Patients: TypeAlias = Annotated[
    Path | None, typer.Option(help="CSV file (case_id,patient) where names don't tell: a patient's cases are never parted")
]
Stage: TypeAlias = Annotated[str | None, typer.Option(help="committed settings: cpu, pretrain or finetune")]
Preset: TypeAlias = Annotated[str | None, typer.Option(help="network, unless the model of --init names it")]
Phantoms: TypeAlias = Annotated[
    bool, typer.Option("--phantoms", help="the cases are made up, though not by this program, whose own say so")
]
LabelNumbers: TypeAlias = Annotated[
    str | None, typer.Option(help="label numbers, where names don't tell: brats2021, brats2023")
]
SettingsFile: TypeAlias = Annotated[Path | None, typer.Option(help="TOML file of settings, over those of --stage")]
OneSetting: TypeAlias = Annotated[list[str] | None, typer.Option("--set", help="one setting, such as train.steps=4000")]
Seed: TypeAlias = Annotated[int | None, typer.Option(help="equal seeds give equal weights on one machine's CPU", min=0)]
Overwrite: TypeAlias = Annotated[bool, typer.Option("--overwrite", help="begin anew where one was begun before")]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="print the summary as JSON")]
