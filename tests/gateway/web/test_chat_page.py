"""The chat page in Chromium, before a gateway whose upstream says what the test tells it."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.anyio, pytest.mark.services]

PRICED = {"upstreams": {"up": {"prices": [{"prompt": 1000, "completion": 2000}]}}}
ONE_WORD = re.compile(r"^\s*Paris\s*$")  # of the three that the upstream says
PROMPT = """---
id: tea
version: 1
---
user:
{{ context }}
{{ question }}
"""


async def ask(page: Any, text: str) -> None:
    await page.fill("#question", text)
    await page.press("#question", "Enter")


async def facts(page: Any) -> dict[str, str]:
    """What stands below the last answer, once it is over."""
    last = page.locator(".answer").last
    await last.locator(".facts").wait_for()
    terms = await last.locator("dt").all_inner_texts()
    values = await last.locator("dd").all_inner_texts()
    return dict(zip(terms, values, strict=True))


async def test_an_answer_is_shown_as_it_comes_and_then_what_the_stack_did(
    open_house: Any, visit: Any, say: Any
) -> None:
    async with open_house(PRICED) as house:
        gate = asyncio.Event()
        house.upstream.pieces[1:1] = [gate]
        async with visit(house, "/") as page:
            await page.locator("#samples button").first.wait_for()
            await ask(page, "capital of France?")
            text = page.locator(".answer .prose")
            await page.locator(".prose", has_text=ONE_WORD).wait_for()
            assert await page.locator("#stop").is_visible()
            gate.set()
            found = await facts(page)
            assert await text.inner_text() == "Paris it is"
            assert found["Release"] == "town-1"
            assert (found["Tokens in"], found["Tokens out"]) == ("7", "3")
            assert (found["Cost"], found["Ended by"]) == ("$0.013", "stop")
            assert found["Request"].startswith("req_")
            stages = await page.locator(".waterfall th").all_inner_texts()
            assert {"chat town", "admit", "attempt up", "settle"} <= set(stages)
            assert await page.locator("#send").is_visible()
        asked = house.upstream.requests[0]
        assert asked["messages"] == [{"role": "user", "content": "capital of France?"}]
        assert "temperature" not in asked


async def test_settings_go_with_the_question_and_the_talk_goes_on(
    open_house: Any, visit: Any
) -> None:
    async with open_house() as house, visit(house, "/") as page:
        await page.select_option("#release", "town@town-1")
        await page.fill("#temperature", "0.7")
        await page.fill("#seed", "42")
        await page.fill("#max-tokens", "5")
        await ask(page, "first")
        assert (await facts(page))["Picked by"] == "pin"
        await ask(page, "second")
        await page.locator(".answer").nth(1).locator(".facts").wait_for()
        asked = house.upstream.requests[-1]
        assert (asked["temperature"], asked["seed"], asked["max_tokens"]) == (0.7, 42, 5)
        assert [it["content"] for it in asked["messages"]] == ["first", "Paris it is", "second"]
        await page.click("#clear")
        assert await page.locator(".answer").count() == 0
        assert await page.locator("#welcome").is_visible()


async def test_a_kept_answer_says_so(open_house: Any, visit: Any) -> None:
    async with open_house() as house, visit(house, "/") as page:
        await page.fill("#seed", "1")
        await ask(page, "same")
        assert (await facts(page))["Cache"] == "miss"
        await page.click("#clear")
        await ask(page, "same")
        found = await facts(page)
        assert (found["Cache"], found["Cost"]) == ("hit", "nothing")
        assert "Speed" not in found


HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script> **<b>b</b>** `<i>c</i>`"


async def test_what_a_model_says_is_text(open_house: Any, visit: Any, say: Any) -> None:
    async with open_house() as house:
        house.upstream.pieces[:3] = [say.word(HOSTILE + "\n\n```html\n<hr>\n```\n- one\n- two")]
        async with visit(house, "/") as page:
            await ask(page, "<u>me too</u>")
            await facts(page)
            prose = page.locator(".prose")
            assert await prose.locator("img, script, b, i, hr").count() == 0
            assert "<img src=x onerror=alert(1)><script>" in await prose.inner_text()
            assert await prose.locator("strong").inner_text() == "<b>b</b>"
            assert await prose.locator("pre code").inner_text() == "<hr>"
            assert await prose.locator("li").all_inner_texts() == ["one", "two"]
            assert await page.locator(".question").inner_text() == "<u>me too</u>"


async def test_sources_are_marked_and_can_be_read(
    open_house: Any, visit: Any, say: Any, check_access: Any, tmp_path: Path
) -> None:
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "tea-1.md").write_text(PROMPT)
    over = {
        "prompts": {"folder": str(tmp_path / "prompts")},
        "indexes": {"tea": {"store": "tea"}},
        "releases": {"town-1": {"prompt": "tea@1", "index": "tea", "context_budget": 2000}},
    }
    async with open_house(over) as house:
        text = "<b>Green tea</b> steeps for two minutes."
        await fill_store(house, "tea", "tea.md", f"# Tea\n\n{text}\n")
        house.upstream.pieces[:3] = [say.word("Green tea steeps for two minutes. So they say.")]
        async with visit(house, "/") as page:
            await page.fill("#temperature", "0")
            await ask(page, "How long does green tea steep?")
            await facts(page)
            assert await page.locator(".cite").inner_text() == "A"
            prose = await page.locator(".prose").inner_text()
            assert prose == "Green tea steeps for two minutes.A So they say."
            assert "tea.md" in await page.locator(".sources").inner_text()
            await page.get_by_role("button", name="Read what was found").click()
            assert text in await page.locator(".passage blockquote").inner_text()
            await check_access(page)
            await page.click("#clear")
            await ask(page, "How long does green tea steep?")
            assert (await facts(page))["Cache"] == "hit"
            assert "tea.md" in await page.locator(".sources").inner_text()


async def fill_store(house: Any, name: str, filename: str, text: str) -> None:
    """A vector store with one document, read to its end."""
    import aiohttp

    form = aiohttp.FormData({"purpose": "assistants"})
    form.add_field("file", text.encode(), filename=filename)
    file = await (await house.ask("POST", "/v1/files", data=form)).json()
    body = {"name": name, "file_ids": [file["id"]]}
    store = await (await house.ask("POST", "/v1/vector_stores", json=body)).json()
    while store["file_counts"]["completed"] == 0:
        await asyncio.sleep(0.01)
        store = await (await house.ask("GET", f"/v1/vector_stores/{store['id']}")).json()


async def test_a_limit_is_waited_for(open_house: Any, visit: Any) -> None:
    over = {"limits": {"one": {"requests_per_minute": 1}}, "server": {"limits": "one"}}
    async with open_house(over) as house, visit(house, "/") as page:
        await ask(page, "first")
        assert (await facts(page))["Limits left"] == "0 of 1 requests"
        await ask(page, "second")
        again = page.get_by_role("button", name="Try again")
        await again.wait_for()
        assert await again.is_disabled()
        assert "Try again in" in await again.inner_text()
        assert await page.locator(".failure p").inner_text()


async def test_an_upstream_that_fails_is_said_and_asked_again(open_house: Any, visit: Any) -> None:
    async with open_house() as house:
        house.upstream.status = 500
        async with visit(house, "/") as page:
            await ask(page, "first")
            await page.locator(".failure").wait_for()
            house.upstream.status = 200
            await page.get_by_role("button", name="Try again").click()
            assert (await facts(page))["Release"] == "town-1"
            assert await page.locator(".answer").count() == 1
        assert len(house.upstream.requests[-1]["messages"]) == 1


async def test_a_stream_that_breaks_off_keeps_what_was_said(
    open_house: Any, visit: Any, say: Any
) -> None:
    async with open_house() as house:
        house.upstream.pieces[:] = [say.word("half of it")]
        async with visit(house, "/") as page:
            await ask(page, "first")
            await page.locator(".failure").wait_for()
            assert await page.locator(".prose").inner_text() == "half of it"


async def test_a_gateway_that_is_gone_is_said(open_house: Any, visit: Any) -> None:
    async with open_house() as house, visit(house, "/") as page:
        await page.route("**/v1/**", lambda route: route.abort("connectionrefused"))
        await ask(page, "first")
        assert "does not answer" in await page.locator(".failure").inner_text()


async def test_escape_stops_the_answer_and_the_upstream(open_house: Any, visit: Any) -> None:
    async with open_house() as house:
        house.upstream.pieces[1:1] = [asyncio.Event()]
        async with visit(house, "/") as page:
            await ask(page, "first")
            await page.locator(".prose", has_text=ONE_WORD).wait_for()
            await page.keyboard.press("Escape")
            assert "You stopped it." in await page.locator(".failure").inner_text()
            await asyncio.wait_for(house.upstream.left.wait(), 10)


async def test_a_new_chat_forgets_the_answer_that_was_coming(open_house: Any, visit: Any) -> None:
    async with open_house() as house:
        house.upstream.pieces[1:1] = [gate := asyncio.Event()]
        async with visit(house, "/") as page:
            await ask(page, "first")
            await page.locator(".prose", has_text=ONE_WORD).wait_for()
            await page.click("#clear")
            gate.set()
            await page.locator("#send").wait_for()
            await ask(page, "second")
            await facts(page)
        assert [it["content"] for it in house.upstream.requests[-1]["messages"]] == ["second"]


async def test_a_key_is_asked_for_and_kept_in_the_tab_alone(
    open_house: Any, visit: Any, make_key: Any
) -> None:
    async with open_house() as house:
        key = await make_key(house, "infer")
        async with visit(house, "/") as page:
            await page.locator("#key-dialog").wait_for()
            await page.fill("#key-input", "sk-gg-wrong")
            await page.press("#key-input", "Enter")
            await page.locator("#key-reason", has_text="typo").wait_for()
            await page.fill("#key-input", key)
            await page.press("#key-input", "Enter")
            await ask(page, "first")
            await facts(page)
            assert await page.context.cookies() == []
            assert key not in page.url
            assert key not in await page.evaluate("JSON.stringify(localStorage)")
            assert key in await page.evaluate("JSON.stringify(sessionStorage)")
            assert key not in await page.content()
            await page.reload()
            await page.locator("#samples button").first.wait_for()
            await page.click("#key-button")
            await page.click("#key-forget")
            await page.locator("#notice", has_text="No key, no answer").wait_for()
            assert await page.evaluate("sessionStorage.length") == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
async def test_everybody_can_read_and_reach_it(
    open_house: Any, visit: Any, check_access: Any, scheme: str, width: int
) -> None:
    how = {"color_scheme": scheme, "viewport": {"width": width, "height": 800}}
    async with open_house() as house, visit(house, "/", **how) as page:
        await page.locator("#samples button").first.wait_for()
        await check_access(page)
        await ask(page, "first")
        await facts(page)
        await check_access(page)
        await page.click("#key-button")
        await check_access(page)


async def test_the_keyboard_is_enough(open_house: Any, visit: Any) -> None:
    async with open_house() as house, visit(house, "/") as page:
        await page.locator("#samples button").first.wait_for()
        await page.focus(".skip")
        reached = []
        for _ in range(20):
            await page.keyboard.press("Tab")
            where = "document.activeElement.id || document.activeElement.innerText"
            reached.append(await page.evaluate(where))
        settings = ["family", "release", "temperature", "seed", "max-tokens"]
        assert [it for it in reached if it in settings] == settings
        assert {"theme-button", "key-button", "question", "send", "clear"} <= set(reached)
        await page.focus("#theme-button")
        await page.keyboard.press("Enter")
        assert await page.evaluate("document.documentElement.dataset.theme") == "light"
        await page.locator("#samples button").first.focus()
        await page.keyboard.press("Enter")
        assert (await facts(page))["Release"] == "town-1"


SPLIT = """async (bytes) => {
  const { events } = await import("/web/api.js");
  const body = new ReadableStream({
    start(to) { for (const it of bytes) to.enqueue(new Uint8Array([it])); to.close(); },
  });
  const found = [];
  for await (const data of events({ body })) found.push(data);
  return found;
}"""


async def test_events_are_read_from_chunks_of_any_size(open_house: Any, visit: Any) -> None:
    said = json.dumps({"it": "grüß 🦆"}, ensure_ascii=False)
    stream = f": beat\n\ndata: {said}\r\n\r\nevent: x\ndata: a\ndata: b\n\ndata: [DONE]\n\n"
    async with open_house() as house, visit(house, "/") as page:
        found = await page.evaluate(SPLIT, list(stream.encode()))
        assert found == [said, "a\nb", "[DONE]"]
