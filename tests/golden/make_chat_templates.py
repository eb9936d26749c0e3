#!/usr/bin/env python3
"""Makes chat_templates.jsonl: what Jinja prints for chat templates of our own that use what published
ones use, one case a line: {"template", "variables", "text"}, or "error" instead of "text".

Run by hand, with a Python that has jinja2:
  python3 tests/golden/make_chat_templates.py                 the golden file
  python3 tests/golden/make_chat_templates.py OUT PATH...     the same of published templates: *.jinja
                                                              files and tokenizer_config.json below
                                                              each PATH, into OUT, which
                                                              CORPUSD_CHAT_TEMPLATES=OUT gives the test
"""
import datetime
import json
import os
import sys

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

HERE = os.path.dirname(os.path.abspath(__file__))


class Generation(Extension):
    """transformers' tag around an assistant's words: prints its body."""
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.Scope(body).set_lineno(line)


def refuse(message):
    raise jinja2.exceptions.TemplateError(message)


def to_json(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators,
                      sort_keys=sort_keys)


def environment():
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                        extensions=[Generation, loopcontrols])
    env.filters["tojson"] = to_json
    env.globals["raise_exception"] = refuse
    day = datetime.datetime(2024, 7, 26)
    env.globals["strftime_now"] = day.strftime
    return env


SYSTEM = {"role": "system", "content": "  Be brief.\n"}
USER = {"role": "user", "content": "What is \"this\"? \u00fcber \u4e2d\u6587 <|x|>\n"}
ANSWER = {"role": "assistant", "content": " It's that. "}
CONVERSATIONS = [
    [USER],
    [SYSTEM, USER],
    [USER, ANSWER],
    [SYSTEM, USER, ANSWER, {"role": "user", "content": "And\tthen?"}],
    [USER, USER],
    [{"role": "user", "content": [{"type": "text", "text": " parts "}, {"type": "image"}]}],
    [{"role": "tool", "content": "{}"}],
    [],
]
TOOLS = [{"type": "function", "function": {
    "name": "look_up", "description": "Finds \u00e9.", "parameters": {
        "type": "object", "properties": {"what": {"type": "string"}, "n": {"type": "integer"}},
        "required": ["what"]}}}]


def conversations(**more):
    for messages in CONVERSATIONS:
        for prompt in (True, False):
            yield {"messages": messages, "add_generation_prompt": prompt, "bos_token": "<s>",
                   "eos_token": "</s>", "tools": None, "documents": None, **more}


# One for each way that published templates are written.
LAYOUTS = [
    # Roles as names between marks.
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\\n' + m['content'] + '<|end|>' + '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}",
    # A default system text, and white space control on every tag.
    """{%- if messages and messages[0].role == 'system' -%}
    {%- set system = messages[0]['content'] | trim -%}
    {%- set rest = messages[1:] -%}
{%- else -%}
    {%- set system = 'You help.' -%}
    {%- set rest = messages -%}
{%- endif -%}
{{- bos_token + '<sys>' ~ system ~ '</sys>' -}}
{%- for m in rest %}
    {%- if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('roles must alternate: ' + m.role) }}
    {%- endif %}
    {%- if m['role'] == 'user' %}
        {{- '[INST] ' + m['content'].strip() + ' [/INST]' }}
    {%- elif m['role'] == 'assistant' %}
        {{- ' '  + m['content'] | trim + ' ' + eos_token }}
    {%- else %}
        {{- raise_exception("only user and assistant") }}
    {%- endif %}
{%- endfor -%}
""",
    # Blocks that stand alone on their lines, with trim_blocks and lstrip_blocks.
    """{{ bos_token }}
{% for m in messages %}
  {% if loop.first and m.role == "system" %}
  System: {{ m.content | trim }}
    {# a comment
       of two lines #}
  {% else %}
<{{ m.role | upper }} {{ loop.index }}/{{ loop.length }}{{ " last" if loop.last }}>
  {%+ if m.content is string %}
{{ m.content }}
  {%+ else +%}
parts
  {% endif %}
  {% endif %}
{% endfor %}
{% if add_generation_prompt %}
<ASSISTANT>
{% endif %}
""",
    # Contents that are lists, macros, and a date.
    """{%- macro show(content, strip=true) -%}
    {%- if content is string -%}
        {{- content | trim if strip else content -}}
    {%- elif content is iterable and content is not mapping -%}
        {%- for part in content if part.type == 'text' -%}
            {{- part['text'] | trim -}}
            {%- if not loop.last %}, {% endif -%}
        {%- else -%}
            nothing
        {%- endfor -%}
    {%- endif -%}
{%- endmacro -%}
{%- if strftime_now is defined %}{% set date = strftime_now("%d %b %Y") %}
{%- else %}{% set date = "never" %}{% endif -%}
Today: {{ date }}
{%- for m in messages %}
{{ m.role.upper() }}: {{ show(m.content) }}|{{ show(m['content'], strip=false) }}
{%- endfor %}""",
    # A namespace that loops write to, and the last user's message.
    """{%- set ns = namespace(last=-1, seen='', calls=[]) -%}
{%- for m in messages[::-1] -%}
    {%- set index = (messages | length - 1) - loop.index0 -%}
    {%- if ns.last < 0 and m.role == "user" -%}{%- set ns.last = index -%}{%- endif -%}
    {%- set ns.seen = ns.seen ~ m.role[:1] -%}
    {%- set ns.calls = ns.calls + [loop.revindex0] -%}
{%- endfor -%}
{{ ns.last }} {{ ns.seen }} {{ ns.calls }} {{ index is defined }}
{%- for m in messages %}{% if loop.index0 == ns.last %}!{% continue %}{% endif %}
{%- if loop.index0 > 2 %}{% break %}{% endif %}{{ m.role }}{% endfor %}""",
    # Tools as JSON.
    """{%- if not tools is defined %}{%- set tools = none %}{%- endif -%}
{%- if tools is not none -%}
{%- for t in tools %}
{{ t | tojson }}
{{ t.function | tojson(indent=2) }}
    {%- for name, p in t.function.parameters.properties.items() %}
 - {{ name }}: {{ p.type }}{{ " (needed)" if name in t.function.parameters.required }}
    {%- endfor %}
{%- endfor -%}
{%- else -%}no tools{%- endif -%}
{%- for m in messages -%}
{%- generation -%}{{ m.content | tojson }}{%- endgeneration -%}
{%- endfor -%}""",
]
# Expressions, each printed between bars, and errors.
SNIPPETS = r"""
1 + 2 * 3 - 4 // 3 % 2 ** 2
7 / 2
-7 // 2
-7 % 3
2 ** 10
1.5 + 1
1e3
1e16
0.00001
'a' ~ 1 ~ none ~ true ~ 2.0 ~ [1, 'b"', "it's", none] ~ {'k': [true]}
'a' 'b'
'tab\tnl\nq\'u\u00e9\x41\\'
"x" * 3
[1, 2] + [3]
[1, 2] * 2
1 < 2 < 3
1 < 2 > 5
'b' in 'abc'
'k' in {'k': 1}
3 not in [1, 2]
not 1 == 2 and 3
none or 'x'
'' and missing.thing
true if false
1 if false else 2 if true else 3
missing
missing is defined
missing is undefined
missing is none
none is none
missing | default('d')
'' | default('d', true)
'' | d('e')
'abc'[1]
'abc'[-1]
'abc'[5] is defined
'h\u00e9llo'[1:3]
'hello'[::-1]
[1, 2, 3, 4][1:]
[1, 2, 3, 4][-2:]
[1, 2, 3, 4][:-1]
[1, 2, 3, 4][::2]
[1, 2, 3, 4][3:0:-1]
{'a': 1, 'b': {'c': 2}}.b.c
{'items': 5}['items']
{'a': 1}.get('z', 'none')
{'a': 1}.get('z')
({'a': 1, 'b': 2}.items() | list)[1][0]
({'a': 1, 'b': 2} | items | list)[0][1]
{'a': 1, 'b': 2}.keys() | list
{'b': 1, 'a': 2} | dictsort | map('join', '=') | join(' ')
{'b': 1, 'a': 2} | dictsort(false, 'value') | map('first') | list
'  x '.strip() + '|' + '  x '.lstrip() + '|' + '  x '.rstrip()
'xxaxx'.strip('x')
'a,b,,c'.split(',')
'a b  c '.split()
'a,b,c'.split(',', 1)
'a,b,c'.rsplit(',', 1)
' a b  c'.rsplit(none, 1)
'one</think>two'.split('</think>')[-1].lstrip('\n')
'a\nb\r\nc'.splitlines()
'aXbX'.replace('X', 'yy')
'aXbX'.replace('X', 'yy', 1)
'abc'.replace('', '-')
'abc'.startswith('ab')
'abc'.startswith(('x', 'a'))
'abc'.endswith('bc')
'hello World'.title()
'hello World'.capitalize()
'HELLO \u00dcBER'.lower()
'stra\u00e7e'.upper()
'-'.join(['a', 'b'])
'abcabc'.find('c')
'abcabc'.rfind('c')
'abcabc'.count('bc')
'12'.isdigit()
'  x ' | trim
'xyx' | trim('x')
'abc' | length
[1, 2] | count
'\u4e2d\u6587' | length
'abc' | upper | lower | capitalize
'hello world-foo' | title
[1, 'a', 2.5] | join(', ')
[{'n': 'x'}, {'n': 'y'}] | join('+', attribute='n')
[3, 1, 2] | sort
['b', 'A', 'c'] | sort(reverse=true)
[{'n': 2}, {'n': 1}] | sort(attribute='n')
[3, 1, 2] | first
[3, 1, 2] | last
[3, 1, 2] | min
[3, 1, 2] | max
[3, 1, 2] | sum
[1, 2, 1] | unique | list
[1, 2] | reverse | list
'abc' | reverse
'a1' | replace('1', '2')
'42' | int + 1
'x' | int(7)
'2.5' | float
2.7 | int
-3 | abs
'abc' | list
[{'r': 'u', 'c': 1}, {'r': 's', 'c': 2}] | selectattr('r', 'equalto', 'u') | map(attribute='c') | list
[{'r': 'u'}, {'r': 's'}] | rejectattr('r', 'eq', 'u') | list
[1, 2, 3] | select('odd') | list
[1, 2, 3] | reject('gt', 2) | list
['a', 'b'] | map('upper') | join
[{'a': {'b': 1}}] | map(attribute='a.b') | list
'a\nb\n\nc' | indent(2)
'a\nb' | indent(2, true)
'<a href="x">' | escape
{'a': [1, 2.0, none, true, "q\"\u00e9\n"]} | tojson
{'b': 1, 'a': [1, {'c': 2}]} | tojson(indent=4)
{'b': 1, 'a': []} | tojson(indent=1, sort_keys=true)
[1, {'a': 2}] | tojson(separators=(',', ':'))
'\u00e9' | tojson(ensure_ascii=true)
range(3) | list
range(1, 10, 4) | list
dict(a=1, b='x')
namespace(a=1).a
1 is number and 1.0 is float and true is boolean and 1 is integer
true is number
true is integer
'x' is string and [] is sequence and {} is mapping and {} is iterable
1 is iterable
5 is odd and 4 is even and 9 is divisibleby 3
5 is divisibleby(2)
'a' is in ['a']
1 is eq 1 and 1 is ne 2 and 1 is lt 2 and 2 is ge 2
none is sameas none
x is not defined
(1, 2)[1]
(1,) | length
() | length
[[1, [2]], {'a': {}}]
[1, 2] == [1, 2] and {'a': 1} == {'a': 1.0}
[1, 2] < [1, 3]
'a' < 'b'
1 == true
"}}"
{'a': {'b': 1}}['a']['b']
'%'
not true
- 3 + + 2
missing.attribute
none.attribute is defined
1 + 'a'
missing + 1
'a' < 1
1 // 0
undefined_function()
'x'.unknown_method()
'x' | unknown_filter
1 is unknown_test
raise_exception('no')
[1] | length(
'abc
1 +
a b
5 | length
""".strip("\n").split("\n")
BLOCKS = [
    "a\n", "a\n\n", "\n", "", "a{# c #}\nb", "{%- if true -%}\n x \n{%- endif -%}\n y",
    "  {% if true %}\n    x\n  {% endif %}\n", "a {% if true %} b {% endif %} c",
    "x\n   {%+ if true %}y{% endif +%}\nz", "x  \n {{- 1 -}} \n y", "x {{ 1 }}\n{{ 2 }}\n\n",
    "{% raw %}{{ x }}{% endraw %}\ny", "x {%- raw -%} {% a %} {%- endraw -%} y",
    "{% set x = 1 %}{% if true %}{% set x = 2 %}{% endif %}{{ x }}",
    "{% set x = 1 %}{% for i in [1, 2] %}{% set x = i %}{{ x }}{% endfor %}{{ x }}",
    "{% set a, b = 1, 'z' %}{{ b }}{{ a }}", "{% for k, v in {'a': 1}.items() %}{{ k }}{{ v }}{% endfor %}",
    "{% set t %}in {{ 1 + 1 }}{% endset %}[{{ t }}]", "{% set t | upper | trim %} abc {% endset %}[{{ t }}]",
    "{% filter upper %}abc{{ 'd' }}{% endfilter %}",
    "{% for i in [] %}x{% else %}empty{% endfor %}", "{% for i in missing %}x{% else %}empty{% endfor %}",
    "{% for i in [1,2,3,4] if i % 2 == 0 %}{{ i }}{{ loop.index }}/{{ loop.length }} {% endfor %}",
    "{% for i in [1,2,3] %}{{ loop.previtem }}<{{ i }}>{{ loop.nextitem }} {% endfor %}",
    "{% for a in [1,2] %}{% for b in 'xy' %}{{ a }}{{ b }}{{ loop.first }}{% endfor %}{{ loop.last }}{% endfor %}",
    "{% macro f(a, b=2, c='x') %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ f(1) }} {{ f(1, c=3) }} {{ f(b=0) }}",
    "{% macro f(n) %}{% if n > 0 %}{{ n }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(5) }}",
    "{% set g = 'global' %}{% macro f() %}{{ g }}{{ h }}{% endmacro %}{% for h in [1] %}{{ f() }}{% endfor %}",
    "{% macro f(a) %}{% endmacro %}{{ f(1, 2) }}", "{% macro f(a) %}{% endmacro %}{{ f(z=2) }}",
    "{% if false %}a{% elif 0 %}b{% elif [] %}c{% else %}d{% endif %}",
    "{% for i in range(10) %}{% if i == 3 %}{% continue %}{% elif i == 6 %}{% break %}{% endif %}{{ i }}{% endfor %}",
    "{% if true %}", "{% endif %}", "{% for x %}{% endfor %}", "{{ 1", "{# x", "{% set x %}", "{% unknown %}",
    "{% if x = 1 %}{% endif %}", "{{ 1 }}}", "{ {{ '{' }} }", "{%if true%}x{%endif%}", "{{'a'}}{{\"b\"}}",
    "a\r\nb\r{% if true %}\r\nc{% endif %}", "\u00e9{{ '\u00e9' }}", "{{ {'a': {'b': 'c'}} }}",
    "{% set ns = namespace() %}{% set ns.x = 5 %}{{ ns.x }}{{ ns.y is defined }}",
    "{% set d = {} %}{% set d.x = 5 %}", "{% set ns = namespace({'a': 1}, b=2) %}{{ ns.a + ns.b }}",
]


def render(env, template, variables):
    try:
        return {"text": env.from_string(template).render(**variables)}
    except (jinja2.exceptions.TemplateError, TypeError, ZeroDivisionError, ValueError,
            AttributeError, KeyError) as error:
        return {"error": f"{type(error).__name__}: {error}"[:120]}


def published(paths):
    for path in paths:
        for folder, _, names in sorted(os.walk(path)):
            for name in sorted(names):
                file = os.path.join(folder, name)
                if name.endswith(".jinja"):
                    with open(file, encoding="utf-8") as source:
                        yield file, source.read()
                elif name == "tokenizer_config.json":
                    with open(file, encoding="utf-8") as source:
                        text = json.load(source).get("chat_template")
                    if isinstance(text, str):
                        yield file, text


def main():
    env = environment()
    cases = []
    if len(sys.argv) > 2:
        for name, text in published(sys.argv[2:]):
            for variables in conversations():
                cases.append({"name": name, "template": text, "variables": variables})
            for variables in list(conversations(tools=TOOLS))[:4]:
                cases.append({"name": name, "template": text, "variables": variables})
    else:
        for text in LAYOUTS:
            for variables in conversations():
                cases.append({"template": text, "variables": variables})
        cases.append({"template": LAYOUTS[-1], "variables": {"messages": [], "tools": TOOLS}})
        cases += [{"template": "|{{ " + s + " }}|", "variables": {}} for s in SNIPPETS]
        cases += [{"template": text, "variables": {}} for text in BLOCKS]
    out = sys.argv[1] if len(sys.argv) > 2 else os.path.join(HERE, "chat_templates.jsonl")
    with open(out, "w", encoding="ascii") as file:
        for case in cases:
            case.update(render(env, case["template"], case["variables"]))
            file.write(json.dumps(case, separators=(",", ":")) + "\n")


main()
