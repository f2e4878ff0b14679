"""How verbs show their help: whole sentences, examples that can be copied, and names that say what a value is.

typer's own cuts the list of commands at the terminal's width, breaks examples into lines, and names types as Python
does (`{config}`, `<int range>`).
"""

import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup

SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
VALUES = {"int": "N", "int range": "N", "float": "X", "float range": "X", "str": "TEXT", "path": "PATH", "Path": "PATH"}
"""What stands for a value, by the name that typer gives its type."""
LONGEST = 28
"""Characters of a name beside its explanation; that of a longer name starts on the next line."""


class Verb(TyperCommand):
    """A command."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return ["[OPTIONS]", *(_usage(one) for one in self.get_params(ctx) if one.param_type_name == "argument")]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        formatter.write("\n".join(_page(self, ctx, formatter.width)))


class Verbs(TyperGroup):
    """A group of commands. sections: names by heading; the others stand under `Commands`."""

    sections: ClassVar[Mapping[str, Sequence[str]]] = {}

    def summaries(self, ctx: Any) -> dict[str, str]:
        """The first sentence of each command's help, by name."""
        commands = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}
        return {name: _sentence(one.help or "") for name, one in commands.items() if one and not one.hidden}

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        if incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        known = self.summaries(ctx).items()
        return [
            SimpleNamespace(value=name, help=what, type="plain") for name, what in known if name.startswith(incomplete)
        ]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        lines, left = [*_page(self, ctx, formatter.width)], self.summaries(ctx)
        column = max(map(len, left))
        for heading, names in {**self.sections, "Commands": tuple(left)}.items():
            rows = [(name, left.pop(name)) for name in names if name in left]
            lines += _table(heading, rows, formatter.width, column)
        formatter.write("\n".join(lines))


class App(typer.Typer):
    """A group of verbs with this help, or a program of one."""

    def __init__(self, **settings: Any) -> None:
        ours = {"cls": Verbs, "no_args_is_help": True, "add_completion": False, "context_settings": SETTINGS}
        super().__init__(**{**ours, "pretty_exceptions_enable": False, "rich_markup_mode": None, **settings})

    def command(self, name: str | None = None, **settings: Any) -> Callable[[Any], Any]:
        context = {**SETTINGS, **settings.pop("context_settings", {})}
        return super().command(name, **{"cls": Verb, "context_settings": context, **settings})


def _page(command: Any, ctx: Any, width: int) -> Iterator[str]:
    """Usage, explanation, examples, arguments and options, by line."""
    usage = " ".join(command.collect_usage_pieces(ctx))
    yield from (f"Usage: {ctx.command_path} {usage}", "")
    paragraphs = re.split(r"\n\s*\n", (command.help or "").strip())
    for text in paragraphs:
        if not text.startswith("Example: "):
            yield from (*_wrapped(text, width, "  "), "")
    if examples := [text.removeprefix("Example: ") for text in paragraphs if text.startswith("Example: ")]:
        yield "Examples:"
        yield from (f"  {' '.join(one.split())}" for one in examples)  # in one line, however long: to be copied
        yield ""
    records = [(one, one.get_help_record(ctx)) for one in command.get_params(ctx)]
    for heading, kind in (("Arguments", "argument"), ("Options", "option")):
        rows = [
            (_shown(one, record[0]), record[1]) for one, record in records if record and one.param_type_name == kind
        ]
        yield from _table(heading, rows, width)


def _usage(argument: Any) -> str:
    many = "..." if argument.nargs != 1 else ""
    return f"{_name(argument)}{many}" if argument.required else f"[{_name(argument)}{many}]"


def _name(argument: Any) -> str:
    return str(argument.metavar or argument.name.upper()).strip("[].")


def _shown(parameter: Any, typers: str) -> str:
    """A parameter's name and value. typers: the same by typer."""
    if parameter.param_type_name == "argument":
        return _name(parameter)
    return re.sub(r"<(?:list\[)?([^<>\]]+)\]?>(\.\.\.)?", lambda found: VALUES.get(found[1], found[1]), typers)


def _sentence(text: str) -> str:
    first = " ".join(re.split(r"\n\s*\n", text.strip())[0].split())
    return re.split(r"(?<=\.) ", first)[0]


def _table(heading: str, rows: Sequence[tuple[str, str]], width: int, column: int | None = None) -> Iterator[str]:
    if not rows:
        return
    column = column or max((len(name) for name, _ in rows if len(name) <= LONGEST), default=LONGEST)
    yield f"{heading}:"
    for name, text in rows:
        beside = _wrapped(text, width, " " * (column + 4))
        if len(name) <= column:
            yield f"  {name:<{column}}  {beside[0].lstrip()}"
        else:
            yield from (f"  {name}", beside[0])
        yield from beside[1:]
    yield ""


def _wrapped(text: str, width: int, indent: str) -> list[str]:
    """Lines of at most this width. A word with hyphens, such as an option, is not broken."""
    words = " ".join(text.split())
    return textwrap.wrap(words, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False) or [
        indent
    ]
