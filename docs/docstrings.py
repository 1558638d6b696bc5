"""Teaches the API reference three habits of the code's docstrings. mkdocs.yml names this file.

A role such as :func:`name` becomes a link where the reference has that name, and code elsewhere.
An example that begins with >>> becomes a block of code. The fields of a NamedTuple or data class
that have a comment behind them become the list of its attributes.
"""

import re
from typing import Any

from griffe import Class, Extension, NameResolutionError, Object

ROLE = re.compile(r":(?:func|class|meth|mod|data|attr):`(~?)([\w.]+)`")
EXAMPLE = re.compile(r"^>>> .*(?:\n.+)*", re.MULTILINE)
COMMENT = re.compile(r"\w+: [^#]*#\s*(?!type: ignore|noqa)(.+)")


class Docstrings(Extension):
    """A griffe extension."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Turn roles into links and examples into code."""
        if obj.docstring:
            text = ROLE.sub(lambda role: _link(role, obj), obj.docstring.value)
            obj.docstring.value = EXAMPLE.sub(r"```pycon\n\g<0>\n```", text)

    def on_class(self, *, cls: Class, **_: Any) -> None:
        """List the fields with their comments, unless the docstring does so itself."""
        fields = {name: COMMENT.match(field.source) for name, field in cls.attributes.items()}
        listed = [f"    {name}: {found[1]}" for name, found in fields.items() if found]
        if cls.docstring and listed and "Attributes:" not in cls.docstring.value:
            cls.docstring.value += "\n\nAttributes:\n" + "\n".join(listed)


def _link(role: re.Match[str], obj: Object) -> str:
    short, name = role.groups()
    try:
        target = obj.resolve(name)
    except NameResolutionError:
        target = name
    shown = name.rpartition(".")[2] if short else name
    return f'<autoref optional identifier="{target}"><code>{shown}</code></autoref>'
