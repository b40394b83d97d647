"""The elements and texts of an HTML page, as a test looks at them."""

import base64
from html.parser import HTMLParser


class Page(HTMLParser):
    """The page's elements as (name, attributes), the text of each section, and what was opened but not closed."""

    VOID = ("meta", "img", "br")

    def __init__(self, content: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[tuple[str, str | None]] = []
        self.texts: dict[str, str] = {}
        self.feed(content)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append((tag, dict(attributes).get("id")))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, text):
        for tag, identity in self.open:
            if tag in ("section", "footer", "header") and identity:
                self.texts[identity] = self.texts.get(identity, "") + text

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def content_of(uri: str, media_type: str) -> bytes:
    kind, encoded = uri.split(";base64,")
    assert kind.startswith(f"data:{media_type}")
    return base64.b64decode(encoded, validate=True)
