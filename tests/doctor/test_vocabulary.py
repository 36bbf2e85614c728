"""Tests of the vocabulary: one list of causes, each in one family."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest

from leadline.core.errors import LeadlineError
from leadline.doctor import causes
from leadline.doctor.vocabulary import FAMILIES, OWN, family_of

WORDS = [word for words in FAMILIES.values() for word in words]


def test_every_word_stands_in_one_family_only() -> None:
    assert [word for word, count in Counter(WORDS).items() if count > 1] == []


def test_every_word_finds_its_family() -> None:
    for family, words in FAMILIES.items():
        assert {family_of(word) for word in words} == {family}


def test_leadlines_own_words_are_among_them() -> None:
    assert set(WORDS) > OWN


def test_a_word_that_is_nearly_right_gets_a_suggestion() -> None:
    with pytest.raises(LeadlineError, match="double_softmax"):
        family_of("double_softmaks")


def test_every_cause_that_a_family_names_in_its_code_is_a_word() -> None:
    named = set()
    for file in Path(causes.__path__[0]).glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.keyword) and node.arg == "cause":
                texts = [n.value for n in ast.walk(node.value) if isinstance(n, ast.Constant)]
                named |= {text for text in texts if isinstance(text, str)}
    assert len(named) > 25
    assert named <= set(WORDS)
