"""The renderer gives what a template says, and survives what a template does."""

import asyncio
import os
import signal

import pytest

from model.protocol.templates import (
    Limits,
    Renderer,
    TemplateFailed,
    TemplateLimit,
    TemplateRaised,
    TemplateSyntax,
)

CHAT = (
    "{% for m in messages %}{{ '<' + m.role + '>' + m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)


@pytest.fixture(scope="module")
def renderer():
    with Renderer(Limits(max_chars=100_000, cpu_s=0.2, memory_bytes=256 << 20)) as renderer:
        yield renderer


def test_a_chat_template(renderer):
    messages = [{"role": "user", "content": "é {{ 7 * 6 }} {% raw %}"}]
    text = renderer.render(CHAT, {"messages": messages, "add_generation_prompt": True})
    assert text == "<user>é {{ 7 * 6 }} {% raw %}\n<assistant>"


def test_what_chat_templates_use(renderer):
    assert renderer.render("{{ x | tojson }}", {"x": {"é<": [1, 2**70]}}).startswith('{"é<": [1,')
    assert len(renderer.render("{{ strftime_now('%Y') }}", {})) == 4
    assert renderer.render("{% generation %}{{ a }}{% endgeneration %}", {"a": 1}) == "1"
    assert renderer.render("{% for i in [1, 2, 3] %}{{ i }}{% break %}{% endfor %}", {}) == "1"
    assert renderer.render("  {% if true %}\nx{% endif %}", {}) == "x"
    with pytest.raises(TemplateRaised, match=r"^roles must alternate$"):
        renderer.render("{{ raise_exception('roles must alternate') }}", {})


def test_an_undefined_variable_is_an_error_unless_the_template_is_a_checkpoints(renderer):
    with pytest.raises(TemplateFailed, match="question"):
        renderer.render("{{ question }}", {})
    lenient = "{% if tools %}x{% endif %}{% if message.tool_calls %}x{% endif %}y"
    assert renderer.render(lenient, {"message": {"role": "user"}}, strict=False) == "y"


@pytest.mark.parametrize("source", ["{% if %}", "{{ a", "{{ 'a' | nosuch }}", "{{ 1 +* 2 }}"])
def test_what_does_not_compile(renderer, source):
    with pytest.raises(TemplateSyntax, match="line 1"):
        renderer.check(source)


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ lipsum.__globals__['os'].popen('id') }}",
        "{{ range(10**9) }}",
        "{{ 1 // 0 }}",
        "{{ 'a' + 1 }}",
    ],
)
def test_what_the_sandbox_forbids(renderer, source):
    with pytest.raises(TemplateFailed):
        renderer.render(source, {"messages": []})


BOMBS = {
    "string": "{{ 'a' * 10**9 }}",
    "string of constants": "{{ ('a' * 10**10) | length }}",
    "power": "{{ 10 ** (10 ** 9) }}",
    "width": "{{ 'a' | center(10**9) }}",
    "format": "{{ '{:>1000000000}'.format(1) }}",
    "loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "doubling": "{% set ns = namespace(x='ab') %}{% for i in range(60) %}"
    "{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x | length }}",
    "macros": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}"
    "{{ f(60) }}",
    "endless macro": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "lists": "{{ ([range(99999) | list] * 99999) | map('list') | list | length }}",
    "pieces": "{% for i in range(99999) %}xxxxxxxxxxxxxxxxxxxx{% endfor %}",
    "nesting": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_ends_in_an_error_and_the_next_job_is_served(renderer, bomb):
    with pytest.raises((TemplateLimit, TemplateFailed)):
        renderer.render(BOMBS[bomb], {})
    assert renderer.render("{{ x }}", {"x": "alive"}) == "alive"


def test_what_burned_a_core_is_gone(renderer):
    renderer.render("", {})
    child = renderer._child
    with pytest.raises(TemplateLimit, match=r"longer than 0\.2 s"):
        renderer.render(BOMBS["loops"], {})
    assert child.returncode == -signal.SIGPROF


def test_a_killed_child_is_replaced(renderer):
    renderer.render("", {})
    os.kill(renderer._child.pid, signal.SIGKILL)
    renderer._child.wait()
    assert renderer.render("{{ 1 }}", {}) == "1"


def test_many_callers_at_once(renderer):
    async def all_of_them():
        jobs = (renderer.render_async("{{ n }}", {"n": n}) for n in range(50))
        return await asyncio.gather(*jobs)

    assert asyncio.run(all_of_them()) == [str(n) for n in range(50)]
