r"""Text in tables: nothing in a name or a message is taken for a command of the format.

Data sets are named by paths, and messages quote anything, so a text may hold a line break, a
formula or markup. Each format has one function here that escapes a text, and every table and note
of that format goes through it. HTML is escaped by jinja2, after :func:`visible`.
"""

import re
import unicodedata

FORMULA = tuple("=+-@\t\r\n'＝＋－＠")  # a spreadsheet takes a cell that starts so for a formula

# Letters that XML, LaTeX or UTF-8 do not allow, or that change the order or the lines of a text.
UNSEEN = re.compile(r"[\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufffe\uffff\ud800-\udfff]")
LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "%": r"\%",
    "#": r"\#",
    "&": r"\&",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "`": r"\textasciigrave{}",
    "±": r"$\pm$",
    "γ": r"$\gamma$",
    "√n": r"$\sqrt{n}$",
    "√": r"$\surd$",
    "ε": r"$\varepsilon$",
    "μ": r"$\mu$",
    "ρ": r"$\rho$",
    "σ": r"$\sigma$",
    "τ": r"$\tau$",
    "–": "--",
    "…": r"\dots{}",
    "×": r"$\times$",
    "≤": r"$\le$",
    "≥": r"$\ge$",
    "↓": r"$\downarrow$",
    "→": r"$\to$",
    "\N{MINUS SIGN}": "$-$",
    **{raised: f"$^{digit}$" for digit, raised in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")},
    **{lowered: f"$_{digit}$" for digit, lowered in enumerate("₀₁₂₃₄₅₆₇₈₉")},
}
IN_LATEX = re.compile("|".join(map(re.escape, LATEX)))
IN_MARKDOWN = re.compile(r"[\\`*\[\]<>|&~$]|(?<!\w)_|_(?!\w)")


def visible(text: str, keep: str = "") -> str:
    r"""A text on one line, with control characters as escape sequences.

    Control characters are C0 and C1 controls, marks that change the direction of a text, line
    separators, and what no UTF-8 or XML file may hold.

    Args:
        text: any, also with lone surrogates.
        keep: control characters that stay, such as a line break.

    >>> visible("a\tb\u202ec\ud800")
    'a\\tb\\u202ec\\ud800'
    """
    if text.isprintable():
        return text
    return "".join(letter if letter in keep else _shown(letter) for letter in text)


def _shown(letter: str) -> str:
    if unicodedata.category(letter) == "Cc" or UNSEEN.match(letter):
        return letter.encode("unicode_escape").decode()
    return letter


def utf8(text: str) -> str:
    """A text that a file can hold: lone surrogates become escape sequences."""
    return text.encode("utf-8", "backslashreplace").decode()


def csv_cell(text: str) -> str:
    r"""A text for a cell of a CSV file, which no spreadsheet takes for a formula.

    A text that starts with ``=``, ``+``, ``-``, ``@``, a tab, a line break or ``'`` gets a ``'`` in
    front; without it, every other text is unchanged. Only NUL and lone surrogates, which no such
    file can hold, become escape sequences.

    >>> csv_cell("=1+1"), csv_cell("'quoted'"), csv_cell("digits")
    ("'=1+1", "''quoted'", 'digits')
    """
    text = utf8(text).replace("\0", r"\x00")
    return f"'{text}" if text.startswith(FORMULA) else text


def markdown_text(text: str) -> str:
    r"""A text in Markdown, also in a cell of a table, which is shown as it is.

    >>> print(markdown_text("a|b <i>`c`"))
    a\|b \<i\>\`c\`
    """
    return IN_MARKDOWN.sub(r"\\\g<0>", visible(text))


def latex_text(text: str) -> str:
    r"""A text in LaTeX, also in a cell of a table, which is set as it is.

    >>> print(latex_text(r"50% of \input{x}"))
    50\% of \textbackslash{}input\{x\}
    """
    text = IN_LATEX.sub(lambda found: LATEX[found.group()], visible(text))
    # At the start of a row these would be options of the line break before.
    return f"{{{text[0]}}}{text[1:]}" if text.startswith(("[", "*")) else text


def latex_comment(text: str) -> str:
    r"""A line that LaTeX skips, with its line break."""
    return f"% {visible(text)}\n".replace("γ", "gamma")
