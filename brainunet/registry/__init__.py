"""Published models of a federation: what coordinator and puller agree on, and the puller's side.

``agreed`` and ``registry.proto`` are the agreement; ``client`` speaks it, ``fetch`` goes on where a line was cut, ``keep``
checks what came before it gets its name, and ``pulled`` remembers it, for programs that have no network.
"""
