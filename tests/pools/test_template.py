from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pools import Context, UserError
from pools.template import CONCATENATION, render, visible

CONTEXT = Context("What?", ("one", "two"))


def test_what_a_model_reads():
    assert render(CONCATENATION, Context("What?")) == "What?"
    assert render(CONCATENATION, CONTEXT) == "What?\n\none\n\ntwo\n\n"
    assert render("{{ query }}", Context("{{ responses }} <b> & {% if %}")) == "{{ responses }} <b> & {% if %}"
    assert render("{{ responses | length }} {{ responses[-1] }}\n", CONTEXT) == "2 two\n"


@pytest.mark.parametrize(
    "template",
    [
        "{{ query.__class__ }}",
        "{{ ''.__class__.__base__.__subclasses__() }}",
        "{{ responses.__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__.os.system('true') }}",
        "{{ '{0.__class__}'.format(query) }}",
        "{{ responses.append('x') }}",
        "{% import 'os' as os %}",
        "{{ open('/etc/passwd').read() }}",
        "{{ range(10000000) | list }}",
    ],
)
def test_the_sandbox_keeps_python_out_of_reach(template):
    with pytest.raises(UserError) as error:
        render(template, CONTEXT)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "template", ["{{ query", "{% for %}", "{{ question }}", "{{ query + 1 }}", "{{ 1 / 0 }}", "{% x %}"]
)
def test_bad_templates_are_told_in_one_line(template):
    with pytest.raises(UserError, match="template") as error:
        render(template, CONTEXT)
    assert "\n" not in str(error.value)


SHOWING = {
    "none": "{{ query }}\n###\n",
    "all": CONCATENATION,
    "the first": "{{ query }}{% if responses %} {{ responses[0] }}{% endif %}",
    "the last": "{{ query }}{% if responses %} {{ responses[-1] }}{% endif %}",
    "the last two": "{{ query }}{% for r in responses[-2:] %} {{ r }}{% endfor %}",
    "how many": "{{ query }} {{ responses | length }}",
    "of a kind": "{{ query }}{% for r in responses if r.startswith('Expression') %} {{ r }};{% endfor %}",
    "the last of two": "{% set found = responses | select('in', ['a', 'b']) | list %}{{ query }}"
    "{% if found %} {{ found[-1] }}{% endif %}",
}


@pytest.mark.parametrize(
    ("template", "responses", "left"),
    [
        ("none", ("a", "b"), ()),
        ("all", ("a", "b", "a"), ("a", "b", "a")),
        ("the first", ("a", "b", "c"), ("a",)),
        ("the last", ("a", "b", "c"), ("c",)),
        ("the last two", ("a", "b", "c"), ("b", "c")),
        ("how many", ("a", "b"), ("a", "b")),
        ("of a kind", ("a", "Expression: 1", "b"), ("Expression: 1",)),
        ("the last of two", ("a", "b", "c"), ("b",)),
    ],
)
def test_what_a_template_does_not_show_is_left_out(template, responses, left):
    assert visible(SHOWING[template], Context("What?", responses)) == Context("What?", left)


@pytest.mark.parametrize("template", SHOWING.values(), ids=SHOWING)
@given(st.lists(st.sampled_from(["a", "b", "", "Expression: 1", "Expression: 2"]), max_size=5))
def test_what_is_shown_renders_the_same_and_nothing_more_can_be_left_out(template, responses):
    context = Context("What?", tuple(responses))
    text, kept = render(template, context), visible(template, context)
    assert kept.query == "What?" and render(template, kept) == text
    left = iter(responses)
    assert all(response in left for response in kept.responses), "in their order"
    for size in range(len(kept.responses)):
        for fewer in combinations(kept.responses, size):
            assert render(template, Context("What?", fewer)) != text
