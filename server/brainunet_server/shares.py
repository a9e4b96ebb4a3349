"""How much each site counts in a mean: by its cases, and no site above a cap."""

from __future__ import annotations

from collections.abc import Mapping


def shares(cases: Mapping[str, int], max_share: float = 1.0) -> dict[str, float]:
    """A site's weight in the mean; weights are cases where no cap applies, and need not add up to 1.

    With a cap, a site that would weigh more gets exactly ``max_share`` of the whole, and the others share the rest by their
    cases. A cap below 1 / sites can't hold for all: then all weigh the same. No site gives an empty dict.

    >>> shares({"CRV": 30, "LASUTH": 10})
    {'CRV': 30.0, 'LASUTH': 10.0}
    >>> shares({"CRV": 80, "LASUTH": 10, "NKDC": 10}, max_share=0.5)
    {'CRV': 20.0, 'LASUTH': 10.0, 'NKDC': 10.0}
    >>> shares({"CRV": 80, "LASUTH": 10}, max_share=0.4)
    {'CRV': 1.0, 'LASUTH': 1.0}
    """
    if max_share * len(cases) <= 1:
        return dict.fromkeys(cases, 1.0)
    capped: set[str] = set()
    while True:
        rest = sum(n for site, n in cases.items() if site not in capped)
        # the capped ones hold len * max_share of the whole, so the others' cases are the remaining part of it
        whole = rest / (1 - max_share * len(capped))
        above = {site for site, n in cases.items() if site not in capped and n > max_share * whole}
        if not above:
            return {site: max_share * whole if site in capped else float(n) for site, n in cases.items()}
        capped |= above
