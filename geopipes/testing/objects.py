"""A server of objects on loopback, with latency and faults, for tests and benchmarks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, Protocol
from urllib.parse import quote

import pystac

from geopipes.errors import CatalogError
from geopipes.testing.answers import Answers, Request
from geopipes.testing.faults import Fault

END = "end"
"""The command that ends a server in a process of its own."""


class _Asked(Protocol):
    """Takes commands: ``(name, value)`` gives what the server has, or sets it."""

    def __call__(self, name: str, value: Any = None) -> Any: ...


class ObjectServer:
    """A server that runs.

    Attributes
    ----------
    url : of its folder
    """

    def __init__(self, ask: _Asked, folder: Path) -> None:
        self._ask, self._folder = ask, folder.resolve()
        self.url = f"http://127.0.0.1:{ask('port')}"

    def href(self, path: str) -> str:
        """Give the URL of a file, by its path below the folder, quoted."""
        return f"{self.url}/{quote(path)}"

    def served(self, items: Iterable[pystac.Item]) -> list[pystac.Item]:
        """Give copies of items whose files lie in the folder, with their URLs as hrefs."""
        copies = [item.clone() for item in items]
        for item in copies:
            for asset in item.assets.values():
                asset.href = self.href(Path(asset.href).resolve().relative_to(self._folder).as_posix())
        return copies

    def sign(self, item: pystac.Item) -> pystac.Item:
        """Sign the hrefs of an item, in place: a ``modifier`` of searches."""
        for asset in item.assets.values():
            if asset.href.startswith(self.url):
                asset.href = f"{asset.href.partition('?')[0]}?token={self._ask('token')}"
        return item

    @property
    def requests(self) -> list[Request]:
        """What was asked so far, in the order of the answers."""
        return [Request(*each) for each in self._ask("requests")]

    @property
    def sent(self) -> int:
        """Bytes of all bodies so far."""
        return int(self._ask("sent"))

    @property
    def latency(self) -> float:
        """Seconds before each answer; may be set anew."""
        return float(self._ask("latency"))

    @latency.setter
    def latency(self, seconds: float) -> None:
        self._ask("latency", seconds)

    @property
    def faults(self) -> list[Fault]:
        """What goes wrong; may be set anew."""
        return [Fault(**each) for each in self._ask("faults")]

    @faults.setter
    def faults(self, faults: Sequence[Fault]) -> None:
        self._ask("faults", [asdict(fault) for fault in faults])


@contextmanager
def object_server(
    folder: str | os.PathLike[str],
    *,
    latency: float = 0.0,
    faults: Sequence[Fault] = (),
    token_life: float | None = None,
    process: bool = False,
) -> Iterator[ObjectServer]:
    """Serve the files of a folder on 127.0.0.1 until the block ends: GET and HEAD, ranges, ETag and If-Match.

    Parameters
    ----------
    folder : of the files
    latency : seconds before each answer
    faults : what goes wrong
    token_life : seconds for which the token of `ObjectServer.sign` holds, without which files are refused (403); None
        for a server that needs none
    process : whether it runs in a process of its own, as benchmarks want it: it competes for no lock of Python's

    Yields
    ------
    ObjectServer

    Raises
    ------
    CatalogError
        if there is no such folder
    """
    if not Path(folder).is_dir():
        raise CatalogError(f"object_server({os.fspath(folder)!r}): there is no such folder")
    options = {
        "folder": os.fspath(folder), "latency": latency, "faults": [asdict(fault) for fault in faults],
        "token_life": token_life,
    }  # fmt: skip
    with (_elsewhere if process else _here)(options) as ask:
        yield ObjectServer(ask, Path(folder))


@contextmanager
def _here(options: dict[str, Any]) -> Iterator[_Asked]:
    answers = _begun(options)
    try:
        yield _commands(answers)
    finally:
        answers.close()


@contextmanager
def _elsewhere(options: dict[str, Any]) -> Iterator[_Asked]:
    command = [sys.executable, "-c", "from geopipes.testing import objects; objects._main()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        written, read = process.stdin, process.stdout

        def ask(name: str, value: Any = None) -> Any:
            _say(written, [name, value])
            return json.loads(read.readline())

        _say(written, options)
        try:
            yield ask
        finally:
            # The end of the pipe ends it too, but a fork of this process may have that open.
            with suppress(BrokenPipeError):  # it is dead, as after Ctrl-C
                _say(written, END)
            with suppress(BrokenPipeError):
                written.close()


def _begun(options: dict[str, Any]) -> Answers:
    faults = tuple(Fault(**fault) for fault in options["faults"])
    return Answers(Path(options["folder"]), latency=options["latency"], faults=faults, token_life=options["token_life"])


def _commands(answers: Answers) -> Callable[..., Any]:
    def ask(name: str, value: Any = None) -> Any:
        if value is not None and name == "faults":
            answers.weather.faults = tuple(Fault(**fault) for fault in value)
        elif value is not None:
            setattr(answers, name, value)
        match name:
            case "token":
                return answers.token()
            case "faults":
                return [asdict(fault) for fault in answers.weather.faults]
            case "requests":
                return [[*asdict(request).values()] for request in answers.requests]
        return getattr(answers, name)

    return ask


def _say(stream: IO[str], value: Any) -> None:
    stream.write(json.dumps(value) + "\n")
    stream.flush()


def _main() -> None:
    """Serve until told to end, or until nobody is left who could ask."""
    answers = _begun(json.loads(sys.stdin.readline()))
    ask = _commands(answers)
    for line in sys.stdin:
        if (command := json.loads(line)) == END:
            break
        _say(sys.stdout, ask(*command))
    answers.close()
