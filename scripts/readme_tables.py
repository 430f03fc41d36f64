"""README's generated tables: settings and models. Without arguments rewrites them; --check only compares."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

from pydantic_core import PydanticUndefined

from pipelines.registry import load_registry
from server.settings import Settings

README = Path(__file__).resolve().parent.parent / "README.md"


def settings_table() -> str:
    lines = ["| `homereel serve` | environment | default | what |", "|---|---|---|---|"]
    for name, field in Settings.model_fields.items():
        if field.default is PydanticUndefined:
            default = "`~/.local/share/homereel`"
        else:
            default = "none" if field.default is None else f"`{field.default}`"
        flag = f"`--{name.replace('_', '-')}`"
        lines.append(f"| {flag} | `HOMEREEL_{name.upper()}` | {default} | {field.description} |")
    return "\n".join(lines)


def models_table() -> str:
    registry = load_registry()
    lines = ["| model | also called | makes | seconds | fps | takes | licence |", "|---|---|---|---|---|---|---|"]
    for card in registry.cards.values():
        aliases = ", ".join(f"`{alias}`" for alias, cards in registry.aliases.items() if card.id in cards)
        sizes = ", ".join(f"{size}{'²' if size.stages == 2 else ''}" for size in card.shape.sizes)
        longest = f"{card.shape.max_seconds:g}"
        takes = ", ".join(sorted(capability.replace("_", " ") for capability in card.capabilities))
        licence = f"[{card.licence.id}]({card.licence.url})"
        lines.append(
            f"| `{card.id}` | {aliases} | {sizes} | up to {longest} | {card.shape.fps} | {takes} | {licence} |"
        )
    return "\n".join(lines)


TABLES: dict[str, Callable[[], str]] = {"settings": settings_table, "models": models_table}


def generated(text: str) -> str:
    """Return README's text with the part between each pair of markers made anew."""
    for name, table in TABLES.items():
        block = re.compile(rf"(<!-- {name}: [^\n]* -->\n).*?(\n<!-- end of {name} -->)", re.DOTALL)
        text, found = block.subn(lambda match, table=table: f"{match[1]}{table()}{match[2]}", text)
        if found != 1:
            sys.exit(f"README.md has {found} blocks of generated {name}, not one")
    return text


def main(arguments: list[str]) -> None:
    written = README.read_text(encoding="utf-8")
    wanted = generated(written)
    if arguments == ["--check"]:
        if written != wanted:
            sys.exit("README.md is behind the code; run: python -m scripts.readme_tables")
    else:
        README.write_text(wanted, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
