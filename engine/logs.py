"""Logs that cannot leak: lines on stderr whose every part is on an allow-list; JSON, but for a person at a terminal.

- An event is a fixed lower-case text (`listener opened`). What does not look like one is withheld.
- A field is shown when its name is in FIELDS and its value has that field's shape, else its value reads `withheld`.
- An exception is its type and the engine's own frames (file:line). Its text is shown only when it is a HandoffError,
  whose texts hold no value of a message or chart. Locals are never rendered.
- Of the same warning or error again and again the first lines are shown, then one now and then with the number of those
  that were left out: a store that is gone for an hour must not fill the disk.
- What libraries log keeps its logger, level and the place of the statement (`aiohttp/web_protocol.py:512`); its text is
  withheld, because nobody knows what is in it.
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import re
import select
import sys
import threading
import time
import warnings
from collections.abc import Callable, Mapping, MutableMapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TextIO, cast

from engine.errors import HandoffError

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger, Processor, WrappedLogger

WITHHELD: Final = "withheld"

_EVENT: Final = re.compile(r"[a-z]+(?:,? [a-z0-9']+|-[a-z0-9]+)*")
_EVENT_CHARS_MAX: Final = 80
_TOKEN: Final = re.compile(r"[a-z0-9_.-]{1,64}")
_ROUTE: Final = re.compile(r"[A-Z]+ (?:/[a-z0-9.]+|/\{[a-z]+\})+|[A-Z]+ -")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_TYPE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,127}")
_KEY: Final = re.compile(r"[A-Za-z0-9_.\[\]-]{0,128}")
_HOST: Final = re.compile(r"[A-Za-z0-9_.:\[\]-]{1,253}")
_PATH: Final = re.compile(r"[A-Za-z0-9_./:+@-]{1,255}")
_HL7_PLACE: Final = re.compile(r"[A-Z][A-Z0-9]{2}(?:-[0-9]{1,3}(?:\.[0-9]{1,2}){0,2})?")
_ENGINE: Final = Path(__file__).resolve().parent
_FRAMES_MAX: Final = 12
_CAUSES_MAX: Final = 4
_ERROR_CHARS_MAX: Final = 2000
_ALIKE: Final = (
    "event", "module", "channel", "destination", "service", "worker", "error", "reason", "exception", "source",
)  # fmt: skip
"""Lines that have these in common say the same."""
_ALIKE_MAX: Final = 20
_ALIKE_SECONDS: Final = 5.0
"""Lines of a kind at once, and one more each time that this much time has passed."""
_KINDS_MAX: Final = 1000
_UNREAD_MS_MAX: Final = 200
_COLUMNS: Final = 80
_INDENT: Final = " " * 18
"""Where the event begins, behind time and level."""
_COLOURS: Final[Mapping[str, str]] = {"warning": "33", "error": "31", "critical": "31;1"}


def _number(value: object) -> bool:
    return isinstance(value, int | float)


def _matches(pattern: re.Pattern[str]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None


def _path(value: object) -> bool:
    return isinstance(value, Path) or (isinstance(value, str) and _PATH.fullmatch(value) is not None)


_token, _name, _type, _host = _matches(_TOKEN), _matches(_NAME), _matches(_TYPE), _matches(_HOST)

FIELDS: Final[Mapping[str, Callable[[object], bool]]] = {
    # Numbers. Identities of rows are the store's own counters, never a sender's or a patient's number.
    **dict.fromkeys(
        ("entry", "entries", "delivery", "deliveries", "dead_letter", "dead_letters", "messages", "frames", "receipts",
         "answers", "groups", "count", "attempt", "attempts", "restarts", "connections", "channels", "files", "rows",
         "pid", "fd", "port", "line", "column", "status", "exit_code", "signal", "hl7_code", "bytes",
         "seconds", "limit", "pending", "dead", "held", "delivered", "processed", "problems", "lag", "batch",
         "position"),
        _number,
    ),
    # Words from closed sets: states, codes of ours, kinds.
    **dict.fromkeys(
        ("state", "stage", "mode", "operation", "kind", "failure", "error", "code", "reason", "service", "process",
         "step", "action", "signal_name", "level"),
        _token,
    ),
    # Names out of the configuration, and opaque ids.
    **dict.fromkeys(
        ("channel", "destination", "node", "model", "protocol", "mapping", "key_id", "version", "config_version",
         "role", "chart", "revision"),
        _name,
    ),
    **dict.fromkeys(("host", "peer"), _host),
    **dict.fromkeys(("path", "file", "source"), _path),
    **dict.fromkeys(("logger", "module", "exception"), _type),
    "setting": _matches(_KEY),
    "worker": lambda value: _number(value) or value == "console",
    "route": _matches(_ROUTE),
    "location": _matches(_HL7_PLACE),
    "durable": lambda value: isinstance(value, bool),
    "clean": lambda value: isinstance(value, bool),
}  # fmt: skip
"""What may be logged: field name to the test of its value.

Names that end in _seconds, _count, _bytes or _max hold numbers and need no line here.
"""

_NUMBER_SUFFIXES: Final = ("_seconds", "_count", "_bytes", "_max")


def get_logger(module: str | None = None) -> FilteringBoundLogger:
    """A logger; given `__name__`, its events say which module speaks."""
    return cast("FilteringBoundLogger", _Logger(module))


class _Logger:
    """structlog's, made when it first says something: a command, which seldom does, does not wait for its import."""

    def __init__(self, module: str | None) -> None:
        self._module = module
        self._log: Any = None

    def __getattr__(self, name: str) -> Any:
        import structlog

        if not structlog.is_configured():
            # Until `configure` is called nothing is logged: its own default writes to stdout, and shows locals.
            structlog.configure(processors=[_drop])
        if self._log is None:
            self._log = structlog.get_logger(module=self._module) if self._module else structlog.get_logger()
        return getattr(self._log, name)


def silence() -> None:
    """For a command, which says itself what went wrong: nothing that libraries, threads and warnings say is printed."""
    _route_libraries(logging.CRITICAL)
    _hook()


def _hook() -> None:
    sys.excepthook = _excepthook
    threading.excepthook = _threading_excepthook
    sys.unraisablehook = _unraisablehook
    warnings.showwarning = _showwarning


def configure(level: str = "info", form: str = "auto", *, stream: TextIO | None = None) -> None:
    """Set up all logging of the process: ours, the libraries', warnings and exceptions that nobody caught.

    level: `debug`, `info`, `warning` or `error`. form: `json`, `text` (for a person), or `auto`: text on a terminal,
    else JSON. stream: stderr unless told.
    """
    import structlog

    out = stream or sys.stderr
    lines = _Lines(out)
    number = logging.getLevelNamesMapping()[level.upper()]
    logging.getLogger("aiorun").setLevel(logging.ERROR)  # it remarks on each Ctrl-C, which is no trouble
    text = form == "text" or (form == "auto" and out.isatty())
    renderer: Processor = _Text(out) if text else structlog.processors.JSONRenderer(sort_keys=False)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            withhold,
            _Bursts(),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda *_: lines,
        cache_logger_on_first_use=False,
    )
    _route_libraries(number)
    _hook()
    if stream is None:
        try:
            faulthandler.enable()  # frames only, never values
        except (OSError, ValueError, RuntimeError):  # stderr is no real file (tests, closed)
            get_logger().debug("faulthandler not enabled")


def watch_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Route what the loop reports about lost exceptions through the log."""
    loop.set_exception_handler(_loop_exception)


def withhold(_: WrappedLogger, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The processor that lets through what is known to be safe, and nothing else."""
    safe: dict[str, Any] = {"timestamp": event.get("timestamp"), "level": event.get("level")}
    text = event.get("event")
    known = isinstance(text, str) and len(text) <= _EVENT_CHARS_MAX and _EVENT.fullmatch(text) is not None
    safe["event"] = text if known else WITHHELD
    for name, value in event.items():
        if name in {"event", "level", "timestamp", "exc_info", "stack_info"}:
            continue
        if isinstance(value, BaseException):
            safe.update(render_exception(value))
            continue
        test = FIELDS.get(name) or (_number if name.endswith(_NUMBER_SUFFIXES) else None)
        shown = _NAME.fullmatch(name) is not None
        if not shown:
            safe[WITHHELD] = WITHHELD
        elif value is None or (test is not None and test(value)):
            safe[name] = str(value) if isinstance(value, Path | str) else value
        else:
            safe[name] = WITHHELD
    info = event.get("exc_info")
    if info:
        error = info if isinstance(info, BaseException) else info[1] if isinstance(info, tuple) else sys.exc_info()[1]
        if error is not None:
            safe.update(render_exception(error))
    return safe


def render_exception(error: BaseException) -> dict[str, Any]:
    """Type, place and causes of an exception; its text only when it is one of ours."""
    rendered: dict[str, Any] = {"exception": type_name(error)}
    if isinstance(error, HandoffError):
        rendered["exception_text"] = str(error)[:_ERROR_CHARS_MAX]
    rendered["at"] = frames(error.__traceback__)
    causes: list[str] = []
    seen = {id(error)}
    cause = _cause(error)
    while cause is not None and id(cause) not in seen and len(causes) < _CAUSES_MAX:
        seen.add(id(cause))
        at = frames(cause.__traceback__)
        causes.append(f"{type_name(cause)} at {at[-1]}" if at else type_name(cause))
        cause = _cause(cause)
    if isinstance(error, BaseExceptionGroup):
        causes += [type_name(inner) for inner in error.exceptions[:_CAUSES_MAX]]
    if causes:
        rendered["causes"] = causes
    return rendered


def type_name(error: BaseException) -> str:
    """`module.Class`, or `Class` for the builtin ones."""
    kind = type(error)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return name if _TYPE.fullmatch(name) else WITHHELD


def frames(traceback: TracebackType | None) -> list[str]:
    """The engine's own frames of a traceback, outermost first: `engine/runtime/intake.py:120`."""
    found: list[str] = []
    while traceback is not None:
        place = _engine_place(traceback.tb_frame.f_code.co_filename, traceback.tb_lineno)
        if place is not None:
            found.append(place)
        traceback = traceback.tb_next
    return found[-_FRAMES_MAX:]


def _engine_place(file: str, line: int) -> str | None:
    path = Path(file)
    return f"engine/{path.relative_to(_ENGINE).as_posix()}:{line}" if path.is_relative_to(_ENGINE) else None


def _cause(error: BaseException) -> BaseException | None:
    return error.__cause__ if error.__suppress_context__ else error.__cause__ or error.__context__


class _Bursts:
    """The processor that lets through so many warnings or errors of a kind, and counts the others."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # what Python ignores is logged wherever it happens, here too
        self._kinds: dict[tuple[object, ...], tuple[float, int]] = {}
        """When all of its allowance is there again, and how many lines were left out since the last one shown."""

    def __call__(self, _: WrappedLogger, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        if event.get("level") not in {"warning", "error"}:
            return event
        kind = tuple(event.get(name) for name in _ALIKE)
        now = time.monotonic() / _ALIKE_SECONDS
        with self._lock:
            if len(self._kinds) >= _KINDS_MAX:
                self._kinds.clear()
            full_at, left_out = self._kinds.get(kind, (now, 0))
            full_at = max(full_at, now) + 1
            if full_at > now + _ALIKE_MAX:
                from structlog import DropEvent

                self._kinds[kind] = (full_at - 1, left_out + 1)
                raise DropEvent
            self._kinds[kind] = (full_at, 0)
        if left_out:
            event["left_out_count"] = left_out
        return event


class _Text:
    """Renders an event for a person: time, level, event, then its fields, on further lines what does not fit in one.

    It comes last: what it is given may be shown.
    """

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._colours = _COLOURS if out.isatty() and not os.environ.get("NO_COLOR") else {}

    def __call__(self, _: WrappedLogger, __: str, event: MutableMapping[str, Any]) -> str:
        level = str(event.pop("level"))
        at, said = str(event.pop("timestamp") or ""), str(event.pop("event"))
        module = str(event.pop("module", "")).removeprefix("engine.")
        if module and level not in {"debug", "info"}:
            event["module"] = module  # who looks for the cause wants to know; it comes last
        at = at[11:19] + at[-1:]  # 09:34:10Z
        width = self._width()
        lines = [f"{at} {level:<7} {said}"]
        for name, value in event.items():
            if isinstance(value, list):
                lines += [f"{_INDENT}{name}: {item}" for item in value]
                continue
            field = f"{name}={_shown(value)}"
            joined = f"{lines[-1]} {field}" if "=" in lines[-1] else f"{lines[-1]}  {field}"
            lines = [*lines[:-1], joined] if len(joined) <= width else [*lines, f"{_INDENT}{field}"]
        colour = self._colours.get(level)
        if colour:
            lines[0] = lines[0].replace(f" {level:<7} ", f" \x1b[{colour}m{level:<7}\x1b[0m ", 1)
        return "\n".join(lines)

    def _width(self) -> int:
        try:
            return os.get_terminal_size(self._out.fileno()).columns or _COLUMNS
        except (OSError, ValueError):
            return _COLUMNS


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = str(value)
    return repr(text) if " " in text or not text else text


class _Lines:
    """Writes finished lines. A closed or full stderr must not take the daemon down, nor one that nobody reads."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._lock = threading.RLock()
        self._lost = 0
        self._poll: select.poll | None = None
        try:
            fd = out.fileno()
        except (OSError, ValueError):
            return
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)

    def msg(self, line: str) -> None:
        try:
            with self._lock:
                # A pipe that is ready takes 4 KiB without making us wait (POSIX). Who reads it gets a moment once.
                if self._poll is not None and not self._poll.poll(0 if self._lost else _UNREAD_MS_MAX):
                    self._lost += 1
                    return
                if self._lost:
                    lost, self._lost = self._lost, 0
                    line = f'{{"level": "warning", "event": "log lines were lost", "lost_count": {lost}}}\n{line}'
                self._out.write(line + "\n")
                self._out.flush()
        except (OSError, ValueError, RuntimeError):  # the last: something was to be said while we were at it
            pass

    log = debug = info = warn = warning = error = critical = exception = fatal = failure = err = msg


class _Bridge(logging.Handler):
    """What libraries say through the standard library's logging, without what they say it about."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        fields: dict[str, Any] = {"logger": record.name, "source": _library_place(record.pathname, record.lineno)}
        if error is not None:
            fields["exc_info"] = error
        log = get_logger()
        if record.levelno >= logging.ERROR:
            log.error("library message", **fields)
        elif record.levelno >= logging.WARNING:
            log.warning("library message", **fields)
        elif record.levelno >= logging.INFO:
            log.info("library message", **fields)
        else:
            log.debug("library message", **fields)


def _library_place(file: str, line: int) -> str:
    """`package/module.py`, so that the statement can be looked up; never the folders of this machine."""
    return "/".join(Path(file).parts[-2:]) + f":{line}"


def _route_libraries(level: int) -> None:
    logging.raiseExceptions = False  # logging's own error report prints the arguments
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
    root.addHandler(_Bridge())
    root.setLevel(max(level, logging.WARNING))
    for name, logger in list(logging.Logger.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and name != "root":
            logger.handlers.clear()  # a handler of a library's own would write past us
            logger.propagate = True


def _report(event_log: Callable[..., Any], event: str, error: BaseException | None, **fields: Any) -> None:
    if error is not None:
        fields["exc_info"] = error
    event_log(event, **fields)


def _excepthook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    _report(get_logger().critical, "unhandled exception", error.with_traceback(traceback))


def _threading_excepthook(args: threading.ExceptHookArgs) -> None:
    if args.exc_type is not SystemExit:
        _report(get_logger().critical, "unhandled exception in a thread", args.exc_value)


def _unraisablehook(unraisable: sys.UnraisableHookArgs) -> None:
    _report(get_logger().error, "exception ignored by python", unraisable.exc_value)


def _showwarning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: object, **__: object
) -> None:
    del message  # may hold a value
    get_logger().warning("python warning", exception=category.__name__, source=_library_place(filename, lineno))


def _loop_exception(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error = context.get("exception")
    _report(get_logger().error, "unhandled exception in the event loop", error)


def _drop(_: WrappedLogger, __: str, ___: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    from structlog import DropEvent

    raise DropEvent
