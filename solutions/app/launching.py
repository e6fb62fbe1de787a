"""Starting the app: Streamlit in a process of its own, with everything off that the app does not need."""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import solutions
from solutions import TARGET_VARIABLE
from solutions.errors import InputError, NotAvailable, check_count
from solutions.targets import get_target

ADDRESS, PORT = "localhost", 8501
#: Texts of the feature index: a quarter of a minute to make, once.
TEXTS = 1500
#: Carries the number of texts to the process that serves the pages.
TEXTS_VARIABLE = "MONOSEMANTIC_APP_TEXTS"
MAIN = Path(__file__).with_name("main.py")

#: Streamlit's options. What is not said here is as Streamlit has it.
OPTIONS = {
    "browser.gatherUsageStats": "false",    # nothing about visitors goes to anybody
    "server.headless": "true",              # opens no browser and asks no questions
    "server.fileWatcherType": "none",       # nobody edits it while it runs
    "server.enableXsrfProtection": "true",
    "server.enableCORS": "true",            # pages of other origins may not talk to it
    "server.enableStaticServing": "false",
    "server.maxUploadSize": "1",            # MB; no page takes a file
    "server.maxMessageSize": "50",          # MB; the largest page has less than five
    "server.maxWidgetStateSize": "2",       # MB that a visitor may send: a text of 100,000 characters has a tenth
    "server.disconnectedSessionTTL": "60",  # seconds until a visitor who left is forgotten
    "client.showErrorDetails": "none",      # what went wrong is for the terminal, not for visitors
    "client.showErrorLinks": "false",
    "client.toolbarMode": "viewer",         # the menu with light and dark, without what developers need
    "runner.magicEnabled": "false",
    "runner.postScriptGC": "false",         # a look at every object after every answer: a third of a second each
    "theme.light.primaryColor": "#0B5CAD", "theme.dark.primaryColor": "#8CC4F5",
    "theme.light.linkColor": "#0B5CAD", "theme.dark.linkColor": "#8CC4F5",
    "theme.dark.backgroundColor": "#14181E", "theme.dark.secondaryBackgroundColor": "#1F252D",
}  # fmt: skip


def launch(address: str = ADDRESS, port: int = PORT, target: str | None = None, *, texts: int = TEXTS) -> int:
    """Serve the app until it is stopped (Ctrl-C).

    Args:
        address: the host name or IP address to listen on. Only this machine reaches "localhost"; "0.0.0.0" is open
            to everybody on the network, without a password.
        port: the port, 1 to 65535.
        target: what is shown first: a known name or the path of a JSON description; by default the one
            `MONOSEMANTIC_TARGET` asks for. Visitors choose among the known targets and this one; they can name no file.
        texts: how many texts the feature index is made of. It is made once and kept.

    Returns:
        The exit code of the server.

    Raises:
        InputError: an address, port or target that cannot be.
        NotAvailable: Streamlit is not installed.
    """
    arguments, surroundings = command(address, port, target, texts)
    shown = "localhost" if is_local(address) else address
    print(f"The app is at http://{shown}:{port} (stop it with Ctrl-C)", file=sys.stderr, flush=True)
    with subprocess.Popen(arguments, env=surroundings) as server, ended_with_us(server):
        try:
            return server.wait()
        except KeyboardInterrupt:  # the terminal has told the server, too
            server.wait()
            raise


@contextmanager
def ended_with_us(server: subprocess.Popen) -> Iterator[None]:
    """Whoever ends this process ends the server: it would go on alone, and hold the port."""
    here = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, lambda *_: server.terminate()) if here else None
    try:
        yield
    finally:
        if here:
            signal.signal(signal.SIGTERM, before)
        if server.poll() is None:
            server.terminate()


def command(address: str, port: int, target: str | None, texts: int) -> tuple[list[str], dict[str, str]]:
    """The command line that serves the app, and the environment variables of its process, all checked."""
    if importlib.util.find_spec("streamlit") is None:
        raise NotAvailable('the app needs Streamlit, which is not installed: pip install "monosemantic[app]".')
    if not isinstance(address, str) or not re.fullmatch(r"[A-Za-z0-9.:-]+", address):
        raise InputError(f"address must be a host name or an IP address such as localhost, got {address!r}.")
    if check_count(port, "port") > 65535:
        raise InputError(f"port must be 1 to 65535, got {port}.")
    chosen = target if target is not None else os.environ.get(TARGET_VARIABLE) or "smallworld"
    get_target(chosen)  # a mistake shows here, not in every visitor's window
    options = OPTIONS | {"server.address": address, "server.port": str(port)}
    arguments = [sys.executable, "-m", "streamlit", "run", str(MAIN)]
    arguments += [f"--{name}={value}" for name, value in options.items()]
    arguments += [f"--server.allowedHosts={host}" for host in hosts(address)]
    return arguments, surroundings_of({TARGET_VARIABLE: str(chosen), TEXTS_VARIABLE: str(check_count(texts, "texts"))})


def surroundings_of(server: dict[str, str]) -> dict[str, str]:
    """This process's environment variables, and the server's own.

    What `solutions/__init__.py` has switched off here, for the target of *this* process, is not handed on: the server
    decides for the target it is told. What the reader has switched off stays off.
    """
    inherited = dict(os.environ)
    if solutions.SWITCHED_OFFLINE:
        inherited.pop("HF_HUB_OFFLINE", None)
    return inherited | server


def hosts(address: str) -> list[str]:
    """The names under which the app may be asked for. Bound to this machine, it answers to no others: a page elsewhere
    cannot reach it under a name of its own that points here."""
    return ["localhost", "127.0.0.1", "[::1]"] if is_local(address) else ["*"]


def is_local(address: str) -> bool:
    """Whether only this machine reaches the address."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"
