"""Fill in what the pages take from the code."""

import logging

from mkdocs.exceptions import PluginError

PLACE = "<!-- flags -->"


def on_page_markdown(markdown: str, **_) -> str:
    """Put the plugin's flags where a page leaves room for them."""
    if PLACE not in markdown:
        return markdown
    try:
        from fairseq_scl import flags
    except ImportError as error:
        raise PluginError(f"the page of flags needs fairseq_scl.flags ({error})") from None
    table = flags.markdown()
    # fairseq gives the root logger a handler, and Python-Markdown tells it of every extension
    logging.getLogger("MARKDOWN").setLevel(logging.WARNING)
    return markdown.replace(PLACE, table)
