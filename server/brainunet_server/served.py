"""A federation while it is served: the run is conducted in one thread, and told about in another."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from brainunet.errors import BrainUNetError, ConfigError, UsageError
from brainunet.modelfile import ModelCard, learned_in, trained_on
from brainunet.signing import SigningKey, sign_file
from brainunet_server.conduct import conduct
from brainunet_server.federation import FederationConfig, Folder
from brainunet_server.keeping import Keeping
from brainunet_server.membership import Membership
from brainunet_server.patience import Patient, obey
from brainunet_server.presence import Board, changes
from brainunet_server.record import Record, say, sentence
from brainunet_server.round_results import LastingFaults, RoundResult, TooFewReplies
from brainunet_server.running import RunFile, plan_of, row_of
from brainunet_server.start_model import PURPOSE, read_start_model
from brainunet_server.store.reader import StoreReader
from brainunet_server.store.writer import StoreWriter

if TYPE_CHECKING:
    from brainunet_server.flower.superlink import SuperLink

STORE_EVERY_S: Final = 15.0
DEMONSTRATION: Final = "Demonstration only: made from a model that was trained on made-up brains. Not for any patient."


@dataclass
class Served:
    """A federation while it is served: the main thread conducts, the ticking thread follows the roster and tells."""

    folder: Folder
    config: FederationConfig
    key: SigningKey
    run: RunFile
    start: ModelCard
    membership: Membership
    board: Board
    store: StoreWriter
    database: str | Path
    record: Record
    _states: dict[str, str] = field(default_factory=dict)
    _stored_at: float = 0.0
    _troubled: str = ""

    def conduct(self, superlink: SuperLink) -> None:
        """Conduct the run to its end, and tell how it ended."""
        self.record.begins()
        flower_run = superlink.start_run(self.key)
        try:
            self._conduct(superlink, flower_run)
        except KeyboardInterrupt:
            self.board.say("stopped", "stopped; the run goes on when it is started again")
            self.record.note("run-stopped")
            say(f"stopped; complete rounds are kept, and the run goes on with: flower-server run {self.folder.path}")
            raise
        except BaseException as error:
            self.board.say("failed", str(error))
            with suppress(BrainUNetError):
                self.record.note("run-failed", reason=str(error)[:2000])
            raise
        finally:
            with suppress(Exception):
                superlink.end_run(flower_run)
        models = self.folder.models / self.run.id
        self.board.say("completed", f"all {self.run.settings.rounds} rounds are done; models in {models}")
        self.record.note("run-completed")
        say(f"completed; models in {models}")

    def _conduct(self, superlink: SuperLink, flower_run: int) -> None:
        """Again and again after what time or a person can mend: too few replies, a full disk, a database that is away."""
        from brainunet_server.flower.fleet import FleetExchange
        from brainunet_server.flower.strategies import strategy_from

        rounds = self.config.rounds
        fleet = FleetExchange(
            superlink,
            flower_run,
            deadline_s=rounds.deadline_s,
            silence_s=rounds.silence_s,
            on_late=self.late,
            while_waiting=lambda: obey(self.folder),
            heads=self._heads,
        )
        exchange = Patient(fleet, self.folder, rounds, self.membership, self.board, self.record)
        keeping = Keeping(
            self.database,
            self.folder.models / self.run.id,
            self.folder.replies,
            sign=lambda path: sign_file(path, self.key, PURPOSE),
            keep_every=rounds.keep_every,
        )
        # read when it is needed, and not held: it is as large as any other
        first = partial(read_start_model, self.folder.start_model)
        plan, row, card = plan_of(self.run, self.config), row_of(self.run), self._card()
        asked = strategy_from(self.config.strategy, sites=rounds.min_sites)
        if note := asked.memory_note(self.membership.size, self.folder.start_model.stat().st_size):
            say(note)
        while True:
            strategy = strategy_from(
                self.config.strategy, sites=rounds.min_sites
            )  # what it remembers is read from what was kept
            try:
                conduct(row, plan, first, card, keeping, exchange, strategy, self.done, before_keeping=self.record.exchange)
            except BrainUNetError as error:
                if isinstance(error, TooFewReplies | LastingFaults):
                    with suppress(BrainUNetError):  # a full disk: the next attempt is told again
                        self.record.exchange(error.result)
                why = ""
                if isinstance(error, LastingFaults) and error.others_suffice(self.membership.size, rounds.min_sites):
                    why = ", for other sites may do it"
                elif isinstance(error, ConfigError | UsageError):
                    raise
                words = f"{error} Tried again in {rounds.retry_s} s{why}."
                say(words)
                self.board.say("waiting for sites", words)
                exchange.rest(rounds.retry_s)
            else:
                return

    def _heads(self) -> dict[str, str]:
        with StoreReader(self.database) as store:
            return store.ledger_heads()

    def done(self, result: RoundResult) -> None:
        self.board.end(result)
        say(sentence(result))

    def late(self, site: str, exchange: int) -> None:
        reason = "it came after the end of its round and was dropped"
        self.record.note("reply-late", round=exchange, site=site, reason=reason)
        say(f"round {exchange}: the reply of {site} came too late and was dropped")
        with suppress(BrainUNetError):
            self.store.mark_late(self.run.id, exchange, site, 0, reason)

    def tick(self) -> None:
        self.membership.follow()
        told = self.board.write(self.membership.nodes(), self.membership.revoked)
        joined, left = changes(self._states, told.sites)
        self._states = {site.name: site.state for site in told.sites}
        for name in joined:
            self.record.note("site-joined", site=name)
            say(f"{name} is connected")
        for name in left:
            self.record.note("site-left", site=name)
            say(f"{name} is no longer heard")
        if joined or left or time.monotonic() - self._stored_at > STORE_EVERY_S:
            self._stored_at = time.monotonic()
            self.store.record_sites(self.membership.seen(told.sites))

    def trouble(self, error: Exception) -> None:
        """Said once, not with every tick."""
        if str(error) != self._troubled:
            self._troubled = str(error)
            say(f"cannot tell how things stand: {error}")

    def _card(self) -> ModelCard:
        """What the models made here say of themselves."""
        card = self.start
        seen = trained_on(card.trained_on, "real cases")
        made = {
            "trained_on": seen,
            **learned_in(self.config.train, self.config.validation),
            "provenance": f"federated by {self.config.name}, from: {card.provenance}",
            "config_sha256": row_of(self.run).config_sha256,
            "scores": {},
        }
        if "phantoms" in seen:
            made["intended_use"] = DEMONSTRATION
        return card.model_copy(update=made)
