"""Prompts whose reading is laid down in `tables/`, and the words that they may use.

`python -m tests.engine.prompt.prompts` writes the tables anew from `reference.py`; what changes in them must be
checked by hand against the description of the grammar before it is committed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import CLIPTokenizer

import engine.models.configs
from engine.models.catalog import STARTER_FOLDER
from tests.engine.prompt.reference import Library, read_prompt

TABLES = Path(__file__).parent / "tables"
TOKENIZERS = {
    "starter": STARTER_FOLDER / "tokenizer",
    "clip": Path(engine.models.configs.__file__).parent / "clip_tokenizer",
}

WORDS = (
    ("mia", 4),
    ("foo", 2),
    ("foo bar", 3),
    ("foo-1", 1),
    ("whatever-200", 3),
    ("EasyNegative", 8),
    ("lyra", 2),
    ("Lyra", 5),
    ("agent 007", 2),
    ("sks_v2.1", 1),
    ("Grün", 2),
    ("AND rey", 2),
    ("big", 40),
    ("full", 75),
)


@dataclass(frozen=True)
class Case:
    text: str
    steps: int = 10
    emphasis: str = "Original"
    negative: bool = False

    def key(self) -> str:
        marks = [f"steps {self.steps}", self.emphasis, *(["negative"] if self.negative else [])]
        return f"{self.text} | {', '.join(marks)}"


def a(count: int) -> str:
    """So many tokens, each its own word in both vocabularies."""
    return "a " * count


CASES = (
    # plain text and attention
    Case(""),
    Case("   \n\t "),
    Case("portrait of a girl, pink background"),
    Case("PORTRAIT of a Girl's face: 100%!"),
    Case("a (b) [c] ((d)) [[e]]"),
    Case("(a:1.3) (b:-0.5) (c:.5) (d:2.) (e: +1.5 )"),
    Case("((a:1.5) b:1.2) ([c]:2)"),
    Case("(a (b [c"),
    Case("a) b] c:1.2)"),
    Case("(a:x) (b:) (:1.5) (c:1.2:3)"),
    Case("(a:1.2.3) (b:.) (c:1e3)"),
    Case(r"\(a\) \[b\] \\ (c\)) \d (e\:1.5)"),
    Case("([a)b] ([c:1.5)]"),
    Case("(a)(b)(c:1.1) d"),
    Case("(a, (b, (c:1.5):0.5), d:2)"),
    Case("(a:1.3) [b] \\(c BREAK d", emphasis="None"),
    Case("(a:1.3) [mia] BREAK (b", emphasis="Ignore"),
    Case("(mia:1.3) [b]", emphasis="No norm"),
    # BREAK
    Case("a BREAK b"),
    Case("BREAK"),
    Case("a BREAK BREAK b BREAK"),
    Case("(a BREAK b:1.3) c"),
    Case("aBREAK BREAKb break _BREAK (BREAK) a,BREAK,b"),
    Case("mia BREAK [a|mia BREAK b]", steps=2),
    # AND
    Case("a AND b"),
    Case("a:2"),
    Case("a :-1.5 AND b:.5AND c AND d: 3. AND"),
    Case("a AND b:1e3 AND sand AND2"),
    Case("AND"),
    Case("(a:1.2) AND [b:c:5]:0.7"),
    Case("[a AND b:c:5] mia"),
    Case("a:2 AND b", negative=True),
    Case("ratio 16:9"),
    # editing and alternation
    Case("[a:b:0.5]", steps=20),
    Case("[a:0.25]", steps=20),
    Case("[a::5]", steps=20),
    Case("[a:b:30]", steps=20),
    Case("[a:b:0]", steps=20),
    Case("[[a:b:5]:c:10]", steps=20),
    Case("[a:b:1] [a:b:1.0] [a:b:-2] [a:b: 0.29 ]", steps=100),
    Case("[a:b:1e-1] [c:d:1e0] [e:f:5.e-1] [g:h:2E0]"),
    Case("a [[[b]]:2]"),
    Case("[(a:2):3]"),
    Case("a [b : c : 1] d"),
    Case("a[b:[c:d:2]:1]e"),
    Case("a [unbalanced"),
    Case("((a][:b:c [d:3]"),
    Case("[a|(b:1.1)] c", steps=4),
    Case("[fe|]male", steps=3),
    Case("[fe|||]male", steps=5),
    Case("[a|b|[c|d]] [e:f:2]", steps=6),
    Case("[[a|b]:[c|d]:2]", steps=4),
    Case("[|] [:5] [::3]", steps=6),
    Case("[a:b:c:5] [d:e:5]"),
    Case("[a|b:0.5] [c:d:5]"),
    Case("[a:b|c:5]"),
    Case("a | b [c:d:5]"),
    Case("(a|b) [c:d:5]"),
    Case("(a:b:c) [d:e:5] (f [g:h:5]:1.5)"),
    Case("[x (a:b:c) [d:e:3]:5]"),
    Case(r"\[a:b:5] [c\:d:e:5] [f\]:g:5]"),
    Case("[a:b:5] \\"),
    Case("[a: mia :5] [foo::5]"),
    Case("[a\nb:c:\n5 ]"),
    # words: case, blanks, digits, punctuation, prefixes of one another
    Case("portrait of mia, smiling"),
    Case("MIA Mia mia miax mia_x mia.x 1mia mia1"),
    Case("lyra LYRA Lyra"),
    Case("easynegative EASYNEGATIVE"),
    Case("foo foo bar foo  bar foo-1 foo-10 foo - 1 foobar foo, bar"),
    Case("whatever-200 whatever-2000 whatever-20 whatever 200"),
    Case("agent 007 agent 0071 agent007 (agent) 007"),
    Case("sks_v2.1 sks_v2.10 SKS_V2.1 sks v2.1"),
    Case("Grün GRÜN gru\u0308n grün"),
    Case("(foo) bar, (foo bar:1.2) (foo:1.1) (bar:1.1)"),
    Case("(mia:1.3) [mia] ((mia)) mia"),
    # explicit words
    Case("<embedding:mia> and embedding:mia, (embedding:mia:1.2)"),
    Case("<embedding:MIA:1.2> <Embedding:mia:-1> <embedding:mia:x>"),
    Case("<embedding:Lyra> <embedding:lyra> embedding:Lyra embedding:LYRA"),
    Case("embedding:foo bar embedding:foo baz embedding:foo-1 embedding:foo-10 embedding:foo."),
    Case("embedding:foo.pt embedding:FOO BAR.safetensors embedding:foo.ptx"),
    Case("embedding:unknown x <embedding:not here> (embedding:gone:1.2) [embedding:v1.2-x|mia] a", steps=2),
    Case("embedding: mia myembedding:mia embedding:embedding:mia"),
    Case("embedding:AND rey AND embedding:mia:0.5"),
    Case("[embedding:foo:embedding:mia:5] [<embedding:foo>|<embedding:mia:1.5>]", steps=6),
    Case("x<embedding:foo>bar embedding:foo(bar)"),
    Case("<embedding:mia:1.2> (a:1.3)", emphasis="None"),
    # comments and tags
    Case("a # b (c\n# d\ne \\# f \\\\# g"),
    Case("a <hypernet:style:0.8> b <lora:x:y:z> <lora> <:x> c<x:>"),
    Case("[a<hypernet:n:1>:b:5] <embedding:mia> # <hypernet:m:1>"),
    # borders of chunks
    Case(a(75)),
    Case(a(76)),
    Case(a(151)),
    Case(a(54) + "," + a(21)),
    Case(a(55) + "," + a(20)),
    Case(a(74) + ", b"),
    Case(a(75) + ", b"),
    Case(a(10) + "," + a(60) + "," + a(5)),
    Case(a(70) + ",,,,, b"),
    Case(a(71) + "mia"),
    Case(a(72) + "mia"),
    Case(a(60) + "," + a(12) + "mia b"),
    Case(a(64) + ", a b c mia d e f g h"),
    Case(a(64) + ", (a b:1.3) c (mia:1.2) d e f g h"),
    Case(a(60) + ", mia mia mia foo a"),
    Case(a(60) + "mia, foo " + a(20)),
    Case("full"),
    Case("full full a"),
    Case("a full a"),
    Case("big big mia"),
    Case(a(35) + "big, a"),
    Case(a(30) + ", big " + a(4) + "b"),
    Case("(" + a(80) + ":1.2) mia"),
    Case("[" + a(74) + "mia:mia:5]"),
    Case(a(70) + "embedding:foo bar, <embedding:mia>"),
    Case(a(60) + ", <embedding:foo> " + a(12) + "b c"),
)


def read_case(case: Case, tokenizer: CLIPTokenizer) -> dict[str, Any]:
    """What the reference makes of a case."""

    def tokenise(text: str) -> list[int]:
        ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    library = Library(WORDS, tokenise, tokenise(",")[0])
    return read_prompt(case.text, library, case.steps, case.emphasis, case.negative)


def main() -> None:
    TABLES.mkdir(exist_ok=True)
    for vocabulary, folder in TOKENIZERS.items():
        tokenizer = CLIPTokenizer.from_pretrained(str(folder))
        rows = {case.key(): read_case(case, tokenizer) for case in CASES}
        lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(row)}" for key, row in rows.items())
        (TABLES / f"{vocabulary}.json").write_text(f"{{\n{lines}\n}}\n")


if __name__ == "__main__":
    main()
