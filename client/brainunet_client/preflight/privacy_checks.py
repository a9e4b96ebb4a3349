"""The budget of privacy and its ledger, where the hospital has set one."""

from __future__ import annotations

from collections.abc import Sequence

from brainunet_client.preflight.context import Context
from brainunet_client.preflight.report import Check
from brainunet_client.privacy_status import privacy_status


def privacy(context: Context) -> Check | Sequence[Check]:
    """Nothing of a hospital that has no part [privacy] in its settings and never had one."""
    if context.settings().privacy is None:
        if not context.home.privacy.exists():
            return []
        said = "this site has trained privately before, and site.toml has no part [privacy] any more"
        return Check("privacy", "WARN", said, "put it back: one training without undoes what all the noise has hidden")
    status = privacy_status(context.home, context.clock())
    if status.problem is not None:
        problem = status.problem
        return Check("privacy", "FAIL", f"{problem.where}: {problem.found}", problem.remedy)
    if status.refusal is not None:
        refusal = status.refusal
        return Check(
            "privacy", "WARN", f"what the last task proposed is refused: {refusal.where}: {refusal.found}", refusal.remedy
        )
    assert status.epsilon is not None
    said = f"epsilon {status.epsilon:.2f} of {status.own.epsilon:g} is spent (delta {status.own.counted_at:g})"
    if status.rounds_left is not None:
        said += f"; {status.rounds_left} more rounds of run {status.plan.run if status.plan else ''}"
        if status.rounds_left == 0:
            remedy = "nothing to do; or your hospital decides on a larger privacy.epsilon in site.toml"
            return Check("privacy", "WARN", f"{said}: this site only evaluates", remedy)
    return Check("privacy", "PASS", said)
