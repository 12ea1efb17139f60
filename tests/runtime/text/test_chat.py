"""Chat templates: what published ones need works, and hostile ones end as typed errors."""

import gc
import sys
from typing import Any

import psutil
import pytest
from edgepress.errors import BundleError, InputError, RefusedByPolicy
from edgepress.runtime.text.chat import ChatTemplate

pytestmark = pytest.mark.chain


HELLO = [{"role": "user", "content": "hello"}]


def _render(template: str, messages: list[dict[str, Any]] = HELLO, **options: Any) -> str:
    names = {"bos_token": "<s>", "eos_token": "</s>"}
    return ChatTemplate(template, names).render([messages], **options)[0]


@pytest.mark.parametrize(
    ("template", "text"),
    [
        (
            "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m['content'] }}{% endfor %}",
            "<s>[user] hello",
        ),
        (
            "{% for m in messages %}\n    {% if true %}\n{{ m.content }}\n    {% endif %}\n{% endfor %}",
            "hello\n",
        ),
        ("{% for m in messages %}{% break %}{% endfor %}x", "x"),
        ("{{ messages | tojson }}", '[{"role": "user", "content": "hello"}]'),
        ("{{ {'a': '<é>'} | tojson(indent=1) }}", '{\n "a": "<é>"\n}'),
        ("{% generation %}{{ messages[0].content }}{% endgeneration %}", "hello"),
        ("{{ 'yes' if add_generation_prompt else 'no' }}", "yes"),
        ("{{ tools is defined }}", "False"),
        ("{{ strftime_now('%Y') | length }}", "4"),
        (
            "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = 1 %}{% endfor %}{{ ns.n }}",
            "1",
        ),
    ],
)
def test_what_published_templates_use(template: str, text: str) -> None:
    assert _render(template) == text


def test_many_conversations_in_one_call() -> None:
    chats = [[{"role": "user", "content": str(number)}] for number in range(50)]
    template = ChatTemplate("{{ messages[0].content }}", {})
    assert template.render(chats) == [str(n) for n in range(50)]


def test_one_child_renders_all_conversations_and_ends_with_the_template() -> None:
    """Another takes its place when a conversation takes too long."""
    before = set(psutil.Process().children())
    template = ChatTemplate("{% for n in range(messages[0].content) %}{% endfor %}x", {})
    assert template.render([[{"content": 1}]] * 2) == template.render([[{"content": 2}]] * 2) == ["x", "x"]
    (first,) = set(psutil.Process().children()) - before
    with pytest.raises(RefusedByPolicy):
        template.render([[{"content": 99999}] * 1], seconds=1e-4)
    assert template.render([[{"content": 1}]]) == ["x"]
    (second,) = set(psutil.Process().children()) - before
    assert first != second
    del template
    gc.collect()
    assert set(psutil.Process().children()) <= before


def test_without_a_generation_prompt() -> None:
    assert _render("{{ add_generation_prompt }}", add_generation_prompt=False) == "False"


WALKS = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ ().__class__.__base__.__subclasses__()[0] }}",
    "{{ raise_exception.__globals__['__builtins__'] }}",
    "{{ messages.append(1) }}",
    "{{ messages[0].update({'role': 'x'}) }}",
]
# An unsafe attribute that is only printed is nothing, not an error.
BLIND = [
    "{{ strftime_now.__code__ }}",
    "{{ '' | attr('__class__') }}",
    "{{ '{0.__class__}'.format(1) }}",
    "{{ messages | map(attribute='__class__') | list | length > 9 or '' }}",
]
FLOODS = {
    "clock": (
        "{% for i in range(9999) %}{% for j in range(9999) %}{% for k in range(9999) %}"
        "{% set x = i * j %}{% endfor %}{% endfor %}{% endfor %}"
    ),
    "one long call": "{{ 10 ** (1000000000 + messages | length) }}",
    "memory": "{{ 'x' * 20000000000 }}",
    "output": "{{ 'x' * 100000000 }}",
    "output in pieces": "{% for i in range(99999) %}{{ 'xxxxxxxxxxxxxxxxxxxx' }}{% endfor %}",
    "doubling": (
        "{% set ns = namespace(s='xxxxxxxx') %}"
        "{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}"
    ),
    "printf": "{{ '%9999999999d' % 1 }}",
    "padding": "{{ 'x'.ljust(9999999999) }}",
    "recursion": "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
    "range": "{{ range(1000000000) | list }}",
    "overflow": "{{ 'x' | center(99999999999999999999) }}",
}


@pytest.mark.parametrize("template", WALKS)
def test_a_walk_out_of_the_sandbox_is_refused(template: str) -> None:
    with pytest.raises(RefusedByPolicy, match="may not"):
        _render(template)


@pytest.mark.parametrize("template", BLIND)
def test_what_is_unsafe_cannot_be_seen(template: str) -> None:
    assert _render(template) in ("", "{0.__class__}")


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_is_stopped(name: str) -> None:
    with pytest.raises(RefusedByPolicy, match="was stopped"):
        _render(FLOODS[name], seconds=1.0)


def test_the_message_says_what_was_exceeded() -> None:
    with pytest.raises(RefusedByPolicy, match="stopped after 1 s"):
        _render(FLOODS["clock"], seconds=1.0)
    with pytest.raises(RefusedByPolicy, match="larger than"):
        _render(FLOODS["output in pieces"])
    with pytest.raises(RefusedByPolicy, match="memory"):
        _render(FLOODS["memory"])


def test_a_template_may_refuse_a_conversation() -> None:
    with pytest.raises(InputError, match="roles must alternate"):
        _render("{{ raise_exception('roles must alternate') }}")


@pytest.mark.parametrize(
    "template", ["{% if %}", "{{ messages[0].content + 1 }}", "{{ undefined_thing.x }}", "{% x %}"]
)
def test_a_broken_template_is_the_bundle_s_fault(template: str) -> None:
    with pytest.raises(BundleError, match="does not render"):
        _render(template)


def test_a_long_template_is_refused() -> None:
    with pytest.raises(RefusedByPolicy, match="larger than 64 KB"):
        _render("x" * 70_000)


def test_messages_must_be_json() -> None:
    with pytest.raises(InputError, match="JSON"):
        _render("x", [{"role": "user", "content": object()}])


def test_a_child_that_cannot_start_is_a_typed_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with pytest.raises(InputError, match="cannot start"):
        _render("x")
