"""Monosemantic: the reference implementation behind the course.

Imports only ever point left:

    smallworld -> targets -> data -> models -> sae -> analysis -> ...

The embedded target needs no network, so this file switches the Hugging Face libraries to offline mode
before any of them is imported. They read their environment once, at import: later is too late.
"""

import os

#: The environment variable that switches every notebook from one target to another.
TARGET_VARIABLE = "MONOSEMANTIC_TARGET"

#: Targets that live inside this repository, and so never need the network.
EMBEDDED_TARGETS = ("smallworld", "smallworld-llama", "smallworld-mini", "smallworld-mini-2")

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

_embedded = (os.environ.get(TARGET_VARIABLE) or "smallworld") in EMBEDDED_TARGETS

#: True when it was us, not the reader, who switched the hub off. An error message then says how to undo it.
SWITCHED_OFFLINE = _embedded and "HF_HUB_OFFLINE" not in os.environ
if SWITCHED_OFFLINE:
    os.environ["HF_HUB_OFFLINE"] = "1"
