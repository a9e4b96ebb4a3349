"""``brainunet model show`` and ``verify``: what a model file says of itself, and whether that can be believed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from brainunet.complaints import visible

if TYPE_CHECKING:
    from brainunet.modelfile import Ancestor, ModelCard, Publication, SitePart
    from brainunet.signing import PublicKey

_ID: Final = re.compile("[0-9a-f]{16}")  # PublicKey.id
_KEY: Final = re.compile("[A-Za-z0-9+/]{43}=")  # PublicKey.text


def show(
    file: Annotated[Path, typer.Argument(help="a model file (.safetensors)")],
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """What a model file holds: its card in words, parameters, size, digest, and whether somebody signed it."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Column, Table

    from brainunet.modelfile import parameter_count, read_model

    weights, card = read_model(file)
    signature = _signature(file)
    facts: dict[str, Any] = {
        "file": str(file),
        "parameters": parameter_count(weights),
        "bytes": file.stat().st_size,
        "signature": signature,
        "card": card.model_dump(mode="json"),
    }
    if as_json:
        typer.echo(json.dumps(facts))
        return
    table = Table("what", Column("value", overflow="fold"), title=escape(visible(card.title)), title_justify="left")
    for name, words in _in_words(card).items():
        table.add_row(visible(name), escape(visible(words)))
    table.add_row("parameters", f"{facts['parameters']:,}")
    table.add_row("size", f"{facts['bytes'] / 1e6:.2f} MB")
    table.add_row("digest of the weights", card.weights_sha256)
    table.add_row("signature", escape(visible(_signature_in_words(signature))))
    Console().print(table)


def verify(
    file: Annotated[Path, typer.Argument(help="a model file (.safetensors), with its signature beside it (FILE.sig)")],
    key: Annotated[
        str, typer.Option(help="who must have signed it: a file such as signing.pub, the key itself, or its 16-digit id")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Whether the file is whole and signed, with --key by whom you think. Ends with 0 only if it is."""
    from brainunet.errors import ConfigError
    from brainunet.modelfile import SIGNED_AS, read_model
    from brainunet.signing import signer_of, verify_file

    _, card = read_model(file)
    signer = signer_of(file)
    if signer is None:
        raise ConfigError(
            file.with_name(f"{file.name}.sig"),
            found="no signature beside the model",
            expected="the file that came with it",
            remedy="fetch both again from the federation; without it nobody vouches for this model",
        )
    wanted = _wanted(key, signer) if key else None
    verify_file(file, wanted or signer, SIGNED_AS)
    if as_json:
        facts = {"file": str(file), "digest": card.weights_sha256, "key": signer.text, "key_id": signer.id}
        typer.echo(json.dumps({**facts, "key_is_the_one_asked_for": True if wanted else None}))
        return
    typer.echo(f"{visible(file.name)}: whole, digest {card.weights_sha256}")
    if wanted:
        typer.echo(f"signed by key {signer.id}, the one you named")
    else:
        typer.echo(
            f"signed by key {signer.id}: genuine, but anybody can make a key. Compare {signer.id} with what the coordinator "
            "tells you, or name the key: --key signing.pub"
        )


def _wanted(key: str, signer: PublicKey) -> PublicKey:
    """The key that the signature must be by; an id is compared with the signer's.

    Raises:
        ConfigError: neither a key file, nor a key, nor an id; or the id of another key.
    """
    from brainunet.errors import ConfigError, UsageError
    from brainunet.signing import PublicKey, read_public_key

    if _KEY.fullmatch(key):
        return PublicKey.from_text(key)
    if Path(key).is_file():
        return read_public_key(Path(key))
    if not _ID.fullmatch(key.lower()):
        raise UsageError(
            "--key",
            found=f"{key[:80]!r}",
            expected="a file that is there, a key of 44 characters in base64, or an id of 16 hexadecimal digits",
        )
    if key.lower() != signer.id:
        raise ConfigError(
            "--key",
            found=f"a signature by key {signer.id}",
            expected=f"one by key {key.lower()}",
            remedy="do not use the file; fetch it and its signature again",
        )
    return signer


def _signature(file: Path) -> dict[str, str | None]:
    """``state`` none | genuine | wrong, by which ``key_id``, and why it is ``wrong``."""
    from brainunet.errors import ConfigError
    from brainunet.modelfile import SIGNED_AS
    from brainunet.signing import signer_of, verify_file

    signer = None
    try:
        signer = signer_of(file)
        if signer is None:
            return {"state": "none", "key_id": None, "reason": None}
        verify_file(file, signer, SIGNED_AS)
    except ConfigError as error:
        return {"state": "wrong", "key_id": signer.id if signer else None, "reason": str(error)}
    return {"state": "genuine", "key_id": signer.id, "reason": None}


def _signature_in_words(signature: dict[str, str | None]) -> str:
    if signature["state"] == "none":
        return "none beside it: nobody vouches for this file"
    if signature["state"] == "wrong":
        return f"does NOT fit: {signature['reason']}"
    return f"by key {signature['key_id']}; whether that is the federation's: brainunet model verify FILE --key ..."


def _in_words(card: ModelCard) -> dict[str, str]:
    """The card's facts for people, without those that are empty."""
    from brainunet.metrics.summary import mean_of, worst_site

    release = card.release
    clip, margin = card.preprocess.clip_percentiles, card.preprocess.crop_margin_voxels
    words = {
        "network": f"{card.model.preset}, {card.model.norm} norm",
        "input": f"{len(card.model.modalities)} channels: {', '.join(card.model.modalities)}",
        "may be missing": f"up to {card.accepts_missing} of them" if card.accepts_missing else "",
        "scored in": card.scored_in.replace("-", " "),
        "preprocessing": f"percentiles {clip[0]:g} to {clip[1]:g}, z-score inside the brain, crop to it + {margin} voxels",
        "labels": f"{card.convention}",
        "trained on": card.trained_on,
        "provenance": card.provenance,
        "intended use": card.intended_use,
        "notes": card.notes,
        "run": f"{card.run}, round {card.round}" if card.run else "",
        "trained from": card.parent_sha256,
        "settings": card.config_sha256,
        "made at": f"{card.made_at:%Y-%m-%d %H:%M} UTC" if card.made_at else "",
        **(_publication_in_words(release) if release else {}),
    }
    for site, score in card.scores.items():
        dice = ", ".join(f"{name} {value:.3f}" for name, value in mean_of(score).items() if value is not None)
        words[f"Dice of {site}"] = f"{dice or ('withheld' if score.withheld else 'no figures')} ({score.cases} cases)"
    for site, part in release.sites.items() if release else ():
        if site not in card.scores:
            words[f"Dice of {site}"] = "withheld: too few validation cases" if part.withheld else "no figures of this model"
    if len(card.scores) > 1 and (worst := worst_site(card.scores)):
        words["worst site"] = ", ".join(f"{name} {found.site} {found.value:.3f}" for name, found in worst.items())
    if card.run or release:
        words["differential privacy"] = _privacy_in_words(card)
    return {name: text for name, text in words.items() if text}


def _publication_in_words(publication: Publication) -> dict[str, str]:
    sites = publication.sites
    return {
        "released as": f"{publication.name} by {publication.federation}, {publication.published_at:%Y-%m-%d %H:%M} UTC",
        "began with": _start_in_words(publication.start),
        "sites": f"{len(sites)}: " + "; ".join(f"{name}: {_part_in_words(part)}" for name, part in sites.items()),
    }


def _privacy_in_words(card: ModelCard) -> str:
    without = sorted(set(card.release.sites if card.release else ()) - set(card.spends))
    paid = [f"{site} epsilon {spend.epsilon:.2f} at delta {spend.delta:g} for each case" for site, spend in card.spends.items()]
    if not paid:
        return "none: every site trained without"
    # what earlier runs told of the same cases, when they made the model it began with, comes on top
    return "; ".join([*paid, f"{', '.join(without)}: trained without"] if without else paid) + " (in this run)"


def _start_in_words(start: Ancestor) -> str:
    made = f", {start.release or 'round ' + str(start.round)} of run {start.run}" if start.run else ""
    return f"{start.title}{made} (trained on: {start.trained_on})"


def _part_in_words(part: SitePart) -> str:
    train, validation = ("withheld" if n is None else str(n) for n in (part.cases_train, part.cases_validation))
    return f"{part.rounds} round{'' if part.rounds == 1 else 's'}, cases: {train} for training, {validation} for validation"
