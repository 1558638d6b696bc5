"""Makes the links of a notebook lead to the pages of the site. mkdocs.yml names this file.

In a notebook they name the Markdown files, so that they also work where the source is shown.
"""

import re
from typing import Any

LINK = re.compile(r'href="([\w./-]+)\.md(#[\w.-]+)?"')


def on_page_content(html: str, *, page: Any, **_: Any) -> str:
    """What mkdocs calls with the content of each page."""
    return LINK.sub(r'href="\1.html\2"', html) if page.file.src_uri.endswith(".ipynb") else html
