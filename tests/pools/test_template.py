import pytest

from pools import Context, UserError
from pools.template import CONCATENATION, render

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
