"""Owns what somebody may stream who means harm, and how a test sees that a page has let none of it happen.

Used by the end-to-end tests of hostile content. The payloads are data: each would do something, call `alert` or load
something foreign, in a page that takes text for more than text.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Final

from playwright.async_api import Page

from tests.e2e.screen import Screen

__all__ = ["HUGE", "IN_NAMES", "PAYLOADS", "TURNING", "Trap"]

_DATA: Final = base64.b64encode(b"<script>alert(1)</script>").decode()

PAYLOADS: Final = {
    "script": "<script>alert(1)</script>",
    "script in pieces": "<scr<script>ipt>alert(1)</scr</script>ipt>",
    "image": "<img src=x onerror=alert(1)>",
    "image of another place": '<img src="https://evil.example/x.png">',
    "drawing": "<svg onload=alert(1)><animate onbegin=alert(1) attributeName=x></svg>",
    "drawing with a link": '<svg><a xlink:href="javascript:alert(1)"><text>x</text></a></svg>',
    "formula": "<math><mtext><table><mglyph><style><img src=x onerror=alert(1)>",
    "frame": '<iframe srcdoc="<script>alert(1)</script>"></iframe><iframe src=javascript:alert(1)></iframe>',
    "object": "<object data=javascript:alert(1)></object><embed src=//evil.example/x.swf>",
    "style": "<style>@import '//evil.example/x.css';*{display:none}</style>",
    "sheet": "<link rel=stylesheet href=//evil.example/x.css><link rel=prefetch href=//evil.example/>",
    "base": "<base href=//evil.example/>",
    "refresh": '<meta http-equiv=refresh content="0;url=//evil.example/">',
    "form": "<form action=//evil.example/><input name=q autofocus onfocus=alert(1)></form>",
    "details": "<details open ontoggle=alert(1)><summary>x</summary></details>",
    "comment": "<!--><img src=x onerror=alert(1)>-->",
    "noscript": '<noscript><p title="</noscript><img src=x onerror=alert(1)>">',
    "template": "{{constructor.constructor('alert(1)')()}} ${alert(1)} <%= 7*7 %> #{7*7} [[${7*7}]]",
    "template element": "<template><script>alert(1)</script></template><slot name=x>",
    "link": "[x](javascript:alert(1))",
    "link with entities": "[x](java&#115;cript:alert(1)) [y](&#x6A;avascript&colon;alert(1))",
    "link with a line in it": "[x](<java\tscript:alert(1)>) [y](<java\nscript:alert(1)>)",
    "link to data": f"[x](data:text/html;base64,{_DATA}) [y](vbscript:alert(1)) [z](blob:alert(1))",
    "link by reference": "[x][y]\n\n[y]: javascript:alert(1) 'title'",
    "link by itself": "<javascript:alert(1)> javascript:alert(1) <a href=javascript:alert(1)>x</a>",
    "link with a title": "[x](https://example.com/ \"' onmouseover=alert(1) '\")",
    "link that pretends": "[https://bank.example/](https://evil.example/) [bank.example](//evil.example)",
    "link with other letters": "[https://\u0430pple.example](https://\u0430pple.example/) https://\u0440\u0430ypal.example/",
    "image by Markdown": '![x](javascript:alert(1)) ![y](https://evil.example/x.png"onerror="alert(1))',
    "code": "`<b onclick=alert(1)>x</b>` ```<script>alert(1)</script>```",
    "fence": '```html"><img src=x onerror=alert(1)>\n<script>alert(1)</script>\n```',
    "table": "|<img src=x onerror=alert(1)>|[x](javascript:alert(1))|\n|-|-|\n|<script>alert(1)</script>|b|",
    "terminal": "\x1b]8;;javascript:alert(1)\x1b\\x\x1b]8;;\x1b\\\x1b]0;<img src=x onerror=alert(1)>\x07\x9b31m\x90q\x9c",
    "direction": "invoice\u202efdp.exe \u2066if (admin)\u2069 \u2067{ \u202d// all is well\u202c",
    "marks of direction": "transfer \u200f100 > 200 now, deny \u061c127.0.0.1 - 10.0.0.1",
    "nothing visible": "a\u200bb\u200cc\u2060d\ufeffe\u00ad <scr\u200bipt>alert(1)</script>",
    "null": "<scr\x00ipt>alert(1)</scr\x00ipt><img\x0csrc=x\x0bonerror=alert(1)>",
}

HUGE: Final = {
    "quotes": "> " * 5_000 + "x",
    "brackets": "[" * 20_000 + "](javascript:alert(1))",
    "stars": "*a **b " * 10_000,
    "lists": "".join(" " * depth + "- x\n" for depth in range(400)),
    "underscores": "_" * 50_000,
    "backticks": "".join("`" * (count % 90) + "x" for count in range(4_000)),
    "a line": "<b " * 100_000,
    "tags": "<a href='" * 20_000,
    "tables": "|" * 30_000 + "\n" + "|-" * 15_000,
}
"""Large and deep: shown in bounded time or not at all, and nothing breaks."""

IN_NAMES: Final = "<img src=x onerror=alert(1)>'\"{{7*7}}&lt;\u202etxt.exe\u2069 \u200f1 > 2 pay\u200bpal"
"""What a name may hold, since it has no control characters."""

TURNING: Final = "[\u061c\u200f\u202a-\u202e\u2066-\u2069]"

_TRAP: Final = """
window.__executed = [];
window.alert = window.confirm = window.prompt = (...given) => { window.__executed.push(given.map(String).join()); };
"""

_INSPECT: Final = Path(__file__).with_name("hostile_inspect.js").read_text()


class Trap:
    """A page in which nothing may happen: no code of anybody's, no dialog, no request elsewhere, no complaint."""

    def __init__(self, screen: Screen) -> None:
        self.screen = screen
        self.page = screen.page
        self.foreign: list[str] = []

    @classmethod
    async def watch(cls, page: Page, url: str) -> Trap:
        """Begin before the first address is opened."""
        trap = cls(await Screen.watch(page, url))
        await page.add_init_script(_TRAP)
        page.on("request", lambda request: trap._asked(request.url))
        page.on("popup", lambda popup: trap.foreign.append(f"window {popup.url}"))
        return trap

    async def wrong(self) -> list[str]:
        """Everything that happened, or stands in the document, and should not."""
        found: list[str] = await self.page.evaluate(_INSPECT, TURNING)
        dialogs = [f"dialog {text}" for text in self.screen.dialogs]
        return [*found, *dialogs, *[f"asked for {url}" for url in self.foreign], *self.screen.clean(allowed=["404"])]

    def _asked(self, url: str) -> None:
        if not url.startswith((self.screen.url, "blob:" + self.screen.url)):
            self.foreign.append(url)
