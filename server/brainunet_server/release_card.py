"""What a published model says of itself: where it comes from, which sites gave what to it, and how well it does at each.

It goes to people outside of the federation, so it tells of a site no more than the site tells: figures and numbers of cases
that were too few to have figures of are left out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from brainunet.errors import ConfigError
from brainunet.modelfile import Ancestor, ModelCard, Publication, SitePart, read_model
from brainunet_server.federation import Folder
from brainunet_server.store.reader import StoreReader, site_scores
from brainunet_server.store.rows import Model, Run, SiteRound


def completed(card: ModelCard, publication: Publication, reader: StoreReader, model: Model, notes: str) -> ModelCard:
    """The card of a round's model as that of a release.

    Its figures are the store's and not the file's: the file gets them one exchange later, and the store is what people saw.
    """
    scores = site_scores(reader.scores(model.run_id, model.round - 1)).get(model.round, {})
    return card.model_copy(
        update={
            "title": f"{publication.federation}, {publication.name}: {card.model.preset} after round {model.round}",
            "notes": notes,
            "run": model.run_id,
            "round": model.round,
            "config_sha256": card.config_sha256 or reader.run(model.run_id).config_sha256,
            "scores": dict(sorted(scores.items())),
            "release": publication,
        }
    )


def publication_of(
    reader: StoreReader, folder: Folder, run: Run, model: Model, name: str, federation: str, now: datetime
) -> Publication:
    """What the card gains by being published.

    Raises:
        ConfigError: no site has trained in the model.
    """
    rounds = reader.site_rounds(run.id)
    withheld = {row.site for row in rounds if row.round == model.round + 1 and row.withheld}
    parts = site_parts(rounds, model.round, withheld)
    if not parts:
        raise ConfigError(f"run {run.id}", found="no site that took part", expected="training in the model to publish")
    return Publication(name=name, federation=federation, published_at=now, start=_ancestor(folder, run, reader), sites=parts)


def site_parts(rounds: Sequence[SiteRound], last: int, withheld: Collection[str] = ()) -> Mapping[str, SitePart]:
    """What each site gave up to round ``last``: its training of an exchange is in the model that the exchange made.

    Numbers of cases are those of its last exchange up to there. A site tells no figures of too few validation cases and no
    loss of too few training cases, so where it told none their number is left out as well.

    Args:
        rounds: of one run.
        withheld: sites that told no figures of model ``last``, for they have too few cases.
    """
    answered = [row for row in rounds if row.round <= last and row.outcome == "answered" and row.update_norm is not None]
    parts: dict[str, SitePart] = {}
    for row in sorted(answered, key=lambda row: (row.site, row.round)):
        parts[row.site] = SitePart(
            rounds=parts[row.site].rounds + 1 if row.site in parts else 1,
            cases_train=row.cases_train if row.loss is not None else None,
            cases_validation=row.cases_validation if not row.withheld and row.site not in withheld else None,
            withheld=row.site in withheld,
        )
    return parts


def _ancestor(folder: Folder, run: Run, reader: StoreReader) -> Ancestor:
    """The model of round 0. Its file may be gone by now, or another start model set: its digest is in the store for ever."""
    digest = next((model.digest for model in reader.models(run.id) if model.round == 0), "")
    for path in (folder.models / run.id / "round-000.safetensors", folder.start_model):
        if not path.is_file():
            continue
        _, card = read_model(path)
        if card.weights_sha256 == digest:
            return Ancestor(
                title=card.title,
                weights_sha256=digest,
                trained_on=card.trained_on,
                provenance=card.provenance,
                parent_sha256=card.parent_sha256,
                run=card.run,
                round=card.round,
                release=card.release.name if card.release else "",
            )
    return Ancestor(title="not there any more", weights_sha256=digest, trained_on="unknown", provenance="")
