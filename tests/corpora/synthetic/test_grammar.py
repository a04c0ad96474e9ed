"""The report writer: complete, never false, many words for one meaning."""

import re
from collections import defaultdict

import numpy as np
import pytest

from lingula.corpora.synthetic import FINDINGS, Finding, Synthetic, content, write_report
from lingula.corpora.synthetic.chest import visit
from lingula.corpora.synthetic.findings import KINDS, change, clash, follow_up, sample_findings
from lingula.corpora.synthetic.grammar import PLAIN

# Words that state an attribute, written down again here: a sentence must say all of a finding's attributes.
SIDES = {"left": r"\bleft\b|left-sided", "right": r"\bright\b|right-sided", "bilateral": r"\bbilateral\b|\bboth\b"}
ZONES = {"upper": r"\bupper\b", "mid": r"\bmid\b|\bmiddle\b", "lower": r"\blower\b|\bbase"}
SIZES = {
    "small": r"\b(small|minor|mild|slight)\b",
    "moderate": r"\b(moderate|medium)\b",
    "large": r"\b(large|extensive|severe|marked)\b",
}
DOUBT = r"possible|may represent|suspected|probably"


@pytest.fixture(scope="module")
def visits():
    return [visit(11, index) for index in range(900)]


@pytest.fixture(scope="module")
def reports(visits):
    return [
        write_report(v.findings, np.random.default_rng([11, i]), view="PA", prior=v.prior) for i, v in enumerate(visits)
    ]


def test_every_finding_is_stated_with_all_its_attributes(visits, reports):
    for who, report in zip(visits, reports, strict=True):
        stated = {statement.finding for statement in report if statement.finding}
        assert stated == set(who.findings)
        for statement in report:
            finding = statement.finding
            if finding is None:
                continue
            text = statement.text.lower()
            assert statement.meaning.startswith(finding.meaning)
            if finding.side:
                assert re.search(SIDES[finding.side], text), text
            if finding.zone and finding.name not in ("endotracheal_tube", "central_line"):
                assert re.search(ZONES[finding.zone], text), text
            if finding.size:
                assert re.search(SIZES[finding.size], text), text
            assert bool(re.search(DOUBT, text)) != finding.certain, text


def test_no_attribute_is_stated_that_is_not_so(reports):
    for statement in (s for report in reports for s in report if s.finding):
        text, finding = statement.text.lower(), statement.finding
        for words, value in ((SIZES, finding.size), (SIDES, finding.side)):
            for other, pattern in words.items():
                if other != value and not (finding.name == "hyperinflation" and other == "bilateral"):
                    where = text.replace("right main bronchus", "").replace("right atrium", "")
                    assert not re.search(pattern, where), (text, finding)


def test_every_negation_is_true_of_the_film(visits, reports):
    denials = 0
    for who, report in zip(visits, reports, strict=True):
        present = {finding.name for finding in who.findings}
        for statement in report:
            if statement.finding is not None:
                continue
            text = statement.text.lower()
            denies = re.match(r"(impression: |conclusion: )?(no |there is no |there are no |normal|nothing)", text)
            for name, words in PLAIN.items():
                if any(re.search(rf"\b{word}\b", text) for word in words):
                    assert denies or statement.meaning == f"{name}|resolved", text
                    assert name not in present, (text, present)
                    denials += 1
            if "heart" in text or "cardiac silhouette" in text:
                assert "cardiomegaly" not in present
            if "lungs are clear" in text or "clear lungs" in text:
                assert not present & {"effusion", "pneumothorax", "consolidation", "oedema", "atelectasis", "nodule"}
            if "tubes" in text or "devices" in text:
                assert not present & {"endotracheal_tube", "central_line", "pacemaker"}
            if statement.meaning == "normal":
                assert not present
            if statement.meaning == "nothing acute":
                assert not any(KINDS[name].acute for name in present)
            if "ribs" in text or "bone" in text:
                assert "rib_fracture" not in present
    assert denials > 900


def test_comparisons_are_true_and_only_made_with_a_prior(visits, reports):
    seen = defaultdict(int)
    for who, report in zip(visits, reports, strict=True):
        for statement in report:
            how = statement.meaning.rpartition("|")[2]
            if how in ("unchanged", "larger", "smaller", "new"):
                assert who.prior is not None
                assert change(statement.finding, who.prior) == how
                seen[how] += 1
            elif how == "resolved":
                name = statement.meaning.split("|")[0]
                assert name in {finding.name for finding in who.prior}
                assert name not in {finding.name for finding in who.findings}
                seen[how] += 1
            elif statement.meaning == "no change":
                assert set(who.prior) == set(who.findings)
            elif statement.meaning == "prior|none":
                assert who.prior is None
            else:
                assert not re.search(r"\bprior\b", statement.text)
    assert set(seen) == {"unchanged", "larger", "smaller", "new", "resolved"}


def test_a_meaning_has_many_wordings_and_a_wording_one_meaning(reports):
    wordings, meanings = defaultdict(set), defaultdict(set)
    for statement in (statement for report in reports for statement in report):
        wordings[statement.meaning].add(statement.text)
        meanings[statement.text].add(statement.meaning)
    assert all(len(found) == 1 for found in meanings.values())
    assert sum(len(texts) >= 3 for texts in wordings.values()) > 100
    assert len(wordings) > 150


def test_length_and_vocabulary(reports):
    sentences = [len(report) for report in reports]
    words = [sum(len(statement.text.split()) for statement in report) for report in reports]
    assert min(sentences) >= 4
    assert np.percentile(sentences, 98) <= 9
    assert np.percentile(words, 5) >= 14
    assert np.percentile(words, 95) <= 60
    assert 25 < np.mean(words) < 45
    vocabulary = {word for report in reports for s in report for word in re.findall(r"[a-z-]+", s.text.lower())}
    assert 150 <= len(vocabulary) <= 300
    for statement in (statement for report in reports for statement in report):
        assert re.fullmatch(r"[A-Z][^.]*\.", statement.text), statement.text
        assert "  " not in statement.text
        assert "{" not in statement.text


def test_sentences_of_different_reports_often_mean_the_same(reports):
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(40):
        batch = [(i, s.meaning) for i in rng.choice(len(reports), 32, replace=False) for s in reports[i]]
        owner = np.array([i for i, _ in batch])
        meaning = np.array([m for _, m in batch])
        other = owner[:, None] != owner
        shares.append(((meaning[:, None] == meaning) & other).sum() / other.sum())
    assert 0.02 < np.mean(shares) < 0.15


def test_content_is_equal_exactly_when_the_stated_facts_are():
    studies = list(Synthetic(train=500, val=0, test=0).studies())
    facts = [
        frozenset(
            s.meaning.partition("|present")[0] if "|present" in s.meaning else s.meaning.partition("|possible")[0] + "?"
            for s in study.sentences
            if s.finding
        )
        for study in studies
    ]
    by_facts, by_content = defaultdict(set), defaultdict(set)
    for study, fact in zip(studies, facts, strict=True):
        by_facts[fact].add(study.content)
        by_content[study.content].add(fact)
    assert all(len(found) == 1 for found in by_facts.values())
    assert all(len(found) == 1 for found in by_content.values())
    assert len(by_content) > 200


def test_content_ignores_order_and_keeps_everything_else():
    one = Finding("nodule", "left", "upper", "small")
    other = Finding("effusion", "right", size="large")
    assert content([one, other]) == content([other, one])
    assert content([]) == "normal"
    variants = [one, Finding("nodule", "right", "upper", "small"), Finding("nodule", "left", "mid", "small")]
    variants += [
        Finding("nodule", "left", "upper", "large"),
        Finding("nodule", "left", "upper", "small", certain=False),
    ]
    assert len({content([finding]) for finding in variants}) == 5


def test_the_same_generator_state_writes_the_same_report():
    findings = (Finding("effusion", "left", size="small"),)
    assert write_report(findings, np.random.default_rng(1)) == write_report(findings, np.random.default_rng(1))


def test_sampled_findings_never_hide_each_other():
    for seed in range(1500):
        rng = np.random.default_rng(seed)
        first = sample_findings(rng)
        for findings in (first, follow_up(first, rng)):
            assert [f.name for f in findings] == sorted({f.name for f in findings}, key=FINDINGS.index)
            for i, one in enumerate(findings):
                assert not any(clash(one, other) for other in findings[:i]), findings
