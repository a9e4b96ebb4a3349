"""``flower-server registry``: published models, given out over gRPC to sites and readers. A process of its own.

``door`` knows who calls, ``limits`` how much of it there may be, ``entrance`` puts both before every call; ``shelf`` has the
releases and their files, ``servicer`` answers, ``book`` writes down what was fetched, and ``serving`` holds it all together.
"""
