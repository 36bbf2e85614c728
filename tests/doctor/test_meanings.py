"""Tests that every word of the vocabulary has a sentence that says what it does."""

from __future__ import annotations

from leadline.doctor.meanings import MEANINGS, meaning_of
from leadline.doctor.vocabulary import FAMILIES


def test_every_cause_has_a_sentence_and_no_other_word_has_one() -> None:
    assert set(MEANINGS) == {word for words in FAMILIES.values() for word in words}


def test_no_two_causes_mean_the_same() -> None:
    assert len(set(MEANINGS.values())) == len(MEANINGS)


def test_a_sentence_goes_on_from_a_label_and_is_short() -> None:
    for cause, sentence in MEANINGS.items():
        assert sentence[0].islower() or sentence.startswith("at 0"), cause
        assert not sentence.endswith("."), cause
        assert len(sentence) < 110, cause


def test_a_word_without_a_sentence_has_none() -> None:
    assert meaning_of("no_such_cause") == ""
