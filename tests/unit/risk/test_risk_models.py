"""The worked cases of the published tables are in mappings/risk/*.test.yaml; here is what a table can't say."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.domain.score import Band, Score
from engine.errors import SettingsError
from engine.risk.inputs import RiskInputs
from engine.risk.registry import load_models
from engine.yamlfile import parse

FOLDER = Path(__file__).parents[3] / "mappings/risk"
TEXTS = {
    name: (FOLDER / f"{name}.yaml").read_text(encoding="utf-8") for name in ("charlson", "hospital", "lace", "seed")
}
NOW = datetime(2026, 3, 10, tzinfo=UTC)


def load(**changed: str) -> dict[str, Any]:
    return load_models({name: parse(text, f"{name}.yaml") for name, text in {**TEXTS, **changed}.items()})


MODELS = load()
LACE = RiskInputs(los_days=0, acute=False, charlson=0, ed_visits_6m=0)
SEED = RiskInputs(
    age=(45, 45), diagnoses=(), admissions_12m=0, lives_alone=False, no_transportation=False, active_medications=0
)


def score(model: str, inputs: RiskInputs, **changes: Any) -> Score:
    result = MODELS[model].score(msgspec.structs.replace(inputs, **changes), now=NOW, observed_since=None)
    assert isinstance(result, Score)
    return result


@pytest.mark.parametrize(
    ("days", "points"), [(0, 0), (1, 1), (2, 2), (3, 3), (4, 4), (6, 4), (7, 5), (13, 5), (14, 7), (400, 7)]
)
def test_lace_points_for_the_length_of_stay(days: int, points: int) -> None:
    assert score("lace", LACE, los_days=days).value == points


@pytest.mark.parametrize(("total", "points"), [(0, 0), (1, 1), (2, 2), (3, 3), (4, 5), (5, 5), (9, 5)])
def test_lace_points_for_comorbidity(total: int, points: int) -> None:
    assert score("lace", LACE, charlson=total).value == points


@pytest.mark.parametrize(("visits", "points"), [(0, 0), (1, 1), (2, 2), (3, 3), (4, 4), (9, 4)])
def test_lace_points_for_emergency_visits(visits: int, points: int) -> None:
    assert score("lace", LACE, ed_visits_6m=visits).value == points


@pytest.mark.parametrize(
    ("code", "points"),
    [
        ("I21.4", 1), ("G45.9", 1), ("I70.0", 1), ("E11.9", 1), ("I50.9", 2), ("E11.22", 2), ("J44.1", 2), ("K70.3", 2),
        ("C34.1", 2), ("F03", 3), ("M05.9", 3), ("K72.1", 5), ("B20", 5), ("C78.0", 5),
        ("N18.30", 0), ("K25.0", 0), ("G81.9", 0), ("Z00.0", 0),
    ],
)  # fmt: skip
def test_lace_weighs_each_condition_by_its_own_table(code: str, points: int) -> None:
    assert score("lace", LACE, charlson=None, diagnoses=(code,)).value == points


def test_a_comorbidity_sum_that_is_given_counts_more_than_the_diagnoses() -> None:
    assert score("lace", LACE, charlson=1, diagnoses=("B20",)).value == 1


def test_days_inclusive_counts_both_ends_of_a_stay_read_from_a_chart_and_says_so() -> None:
    models = load(lace=TEXTS["lace"].replace("length_of_stay: midnights", "length_of_stay: days_inclusive"))
    read = msgspec.structs.replace(LACE, los_days=None, los_midnights=3)
    inclusive = models["lace"].score(read, now=NOW, observed_since=None)
    assert (score("lace", read).value, inclusive.value) == (3, 4)
    assert inclusive.version != score("lace", read).version
    assert models["lace"].score(LACE, now=NOW, observed_since=None).value == 0


@pytest.mark.parametrize(("age", "points"), [(64, 0), (65, 25), (74, 25), (75, 40), (100, 40)])
def test_seed_points_for_age(age: int, points: int) -> None:
    assert score("seed", SEED, age=(age, age)).value == points


def test_an_age_on_both_sides_of_a_threshold_is_missing_in_part() -> None:
    around_65 = score("seed", SEED, age=(64, 65))
    assert (around_65.value, around_65.min, around_65.max, around_65.missing) == (None, 0, 25, ("age",))
    around_75 = score("seed", SEED, age=(74, 75))
    assert (around_75.min, around_75.max, around_75.band, around_75.band_max) == (25, 40, Band.MODERATE, Band.MODERATE)
    assert [(f.points, f.evidence) for f in around_75.factors] == [(25, "age 74 or more")]


def test_an_age_on_one_side_of_the_thresholds_is_known_well_enough() -> None:
    sure = score("seed", SEED, age=(65, 66))
    assert (sure.value, sure.missing) == (25, ())


@pytest.mark.parametrize(
    ("code", "points"),
    [
        ("E08.9", 15), ("E13.9", 15), ("E14.9", 0), ("E07.9", 0), ("I50.9", 20), ("I11.0", 20), ("I11.9", 0),
        ("J41.0", 18), ("J44.9", 18), ("J45.9", 0), ("J40", 0), ("N18.9", 17), ("N19", 0), ("F32.9", 12), ("F33.9", 12),
        ("F34.1", 0), ("F31.9", 0),
    ],
)  # fmt: skip
def test_seed_points_for_a_condition(code: str, points: int) -> None:
    assert score("seed", SEED, diagnoses=(code,)).value == points


@pytest.mark.parametrize(
    ("field", "value", "points"),
    [
        ("admissions_12m", 1, 0), ("admissions_12m", 2, 20), ("admissions_12m", 7, 20), ("lives_alone", True, 10),
        ("no_transportation", True, 8), ("active_medications", 9, 0), ("active_medications", 10, 12),
    ],
)  # fmt: skip
def test_seed_points_for_circumstances(field: str, value: Any, points: int) -> None:
    assert score("seed", SEED, **{field: value}).value == points


@pytest.mark.parametrize(
    ("points", "band"), [(0, "low"), (24, "low"), (25, "moderate"), (50, "moderate"), (51, "high"), (100, "high")]
)
def test_seed_bands(points: int, band: str) -> None:
    changed = load(seed=TEXTS["seed"].replace("lives_alone: 10", f"lives_alone: {points}"))
    result = changed["seed"].score(msgspec.structs.replace(SEED, lives_alone=True), now=NOW, observed_since=None)
    assert (result.value, result.band) == (points, band)


@pytest.mark.parametrize(
    ("points", "band"), [(0, "low"), (4, "low"), (5, "moderate"), (9, "moderate"), (10, "high"), (19, "high")]
)
def test_lace_bands(points: int, band: str) -> None:
    reached = [
        score("lace", LACE, los_days=days, acute=acute, charlson=total, ed_visits_6m=visits)
        for days, acute, total, visits in product(
            (0, 1, 2, 3, 4, 7, 14), (False, True), (0, 1, 2, 3, 4), (0, 1, 2, 3, 4)
        )
    ]
    assert {result.band for result in reached if result.value == points} == {Band(band)}


HOSPITAL = RiskInputs(
    haemoglobin_g_dl=13, sodium_mmol_l=140, oncology=False, procedure=False, elective=True, admissions_12m=0, los_days=0
)


@pytest.mark.parametrize(
    ("changes", "value", "band"),
    [
        ({"haemoglobin_g_dl": 11.9}, 1, "low"),
        ({"sodium_mmol_l": 134.9}, 1, "low"),
        ({"admissions_12m": 5}, 2, "low"),
        ({"admissions_12m": 6}, 5, "moderate"),
        ({"admissions_12m": 5, "oncology": True, "elective": False, "procedure": True}, 6, "moderate"),
        ({"admissions_12m": 6, "los_days": 5}, 7, "high"),
        ({"los_days": None, "los_midnights": 5}, 2, "low"),
    ],
)
def test_hospital_points_and_bands(changes: dict[str, Any], value: int, band: str) -> None:
    result = score("hospital", HOSPITAL, **changes)
    assert (result.value, result.band) == (value, Band(band))


def test_hospital_counts_admissions_by_the_other_published_reading_when_its_steps_say_so() -> None:
    other = TEXTS["hospital"].replace("from: 2", "from: 1").replace("variant: 0-1/2-5/>5", "variant: 0/1-5/>5")
    once = msgspec.structs.replace(HOSPITAL, admissions_12m=1)
    result = load(hospital=other)["hospital"].score(once, now=NOW, observed_since=None)
    assert (score("hospital", once).value, result.value, result.version) == (0, 2, "1 0/1-5/>5")


OPTIONAL: dict[str, st.SearchStrategy[Any]] = {
    "age": st.integers(0, 110).map(lambda age: (age, age)),
    "diagnoses": st.lists(
        st.sampled_from(["E11.9", "E11.2", "I50.9", "J44.1", "N18.3", "F32.9", "B20", "C78.0"]), max_size=8
    ).map(tuple),
    "admissions_12m": st.integers(0, 5),
    "ed_visits_6m": st.integers(0, 6),
    "los_days": st.integers(0, 30),
    "acute": st.booleans(),
    "lives_alone": st.booleans(),
    "no_transportation": st.booleans(),
    "active_medications": st.integers(0, 20),
    "haemoglobin_g_dl": st.floats(5, 20),
    "sodium_mmol_l": st.floats(110, 160),
    "oncology": st.booleans(),
    "procedure": st.booleans(),
    "elective": st.booleans(),
}


@given(
    known=st.fixed_dictionaries(OPTIONAL),
    hidden=st.sets(st.sampled_from(sorted(OPTIONAL))),
    model=st.sampled_from(sorted(MODELS)),
)
def test_whatever_a_missing_input_turns_out_to_be_the_score_is_in_the_interval(
    known: dict[str, Any], hidden: set[str], model: str
) -> None:
    full = score(model, RiskInputs(**known))
    part = score(model, RiskInputs(**{name: value for name, value in known.items() if name not in hidden}))
    assert full.value is not None
    assert part.min <= full.value <= part.max
    assert (part.value is None) == (part.min != part.max)
    assert (part.missing == ()) == (not hidden & _inputs_of(model))


def _inputs_of(model: str) -> set[str]:
    if model == "lace":
        return {"los_days", "acute", "diagnoses", "ed_visits_6m"}
    if model == "hospital":
        level_and_flags = {"haemoglobin_g_dl", "sodium_mmol_l", "oncology", "procedure", "elective"}
        return level_and_flags | {"admissions_12m", "los_days"}
    if model == "seed":
        return {"age", "diagnoses", "admissions_12m", "lives_alone", "no_transportation", "active_medications"}
    return {"diagnoses"}


@given(diagnoses=st.permutations(["E11.9", "E11.22", "I50.9", "K70.3", "K72.1", "C34.1", "C78.0", "N18.3"]))
def test_the_order_of_diagnoses_does_not_matter(diagnoses: list[str]) -> None:
    for model in MODELS:
        assert (
            score(model, SEED, diagnoses=tuple(diagnoses)).value
            == score(model, SEED, diagnoses=("E11.9", *diagnoses)).value
        )


def test_the_score_carries_since_when_the_patients_were_observed() -> None:
    assert MODELS["lace"].score(LACE, now=NOW, observed_since=NOW).observed_since == NOW


def test_a_site_may_keep_a_variant_under_a_name_of_its_own() -> None:
    strict = load(
        **{"lace-strict": TEXTS["lace"].replace("high: 10", "high: 12").replace('version: "1"', 'version: "2"')}
    )
    result = strict["lace-strict"].score(
        msgspec.structs.replace(LACE, los_days=14, acute=True), now=NOW, observed_since=None
    )
    assert (result.model, result.version, result.band) == ("lace-strict", "2 van-walraven-2010", Band.MODERATE)


@pytest.mark.parametrize(
    ("document", "old", "new", "key"),
    [
        ("lace", "model: lace", "model: lacy", "model"),
        ("lace", "model: lace", "model: [lace]", "model"),
        ("lace", "acute: 3", "acute: 3\nacutely: 3", "acutely"),
        ("lace", "acute: 3", "acute: three", "acute"),
        ("lace", "    hiv: 4", "    hvi: 4", "charlson.weights.hvi"),
        ("lace", "metastatic: 6", "metastatic: 1", "charlson.weights.metastatic"),
        ("lace", "39.1, 43.7]", "39.1]", "expected_risk_percent"),
        ("lace", "categories: charlson", "categories: elixhauser", "charlson.categories"),
        ("lace", "high: 10", "high: 5", "bands"),
        ("seed", "- {from: 0, points: 0}\n  - {from: 65", "- {from: 1, points: 0}\n  - {from: 65", "age"),
        ("seed", "{from: 75, points: 40}", "{from: 75, points: 4}", "age"),
        ("seed", "{from: 75, points: 40}", "{from: 65, points: 40}", "age"),
        ("seed", "category: chf", "category: heart", "conditions.chf.category"),
        ("seed", "codes: [N18]", "category: renal, codes: [N18]", "conditions.ckd"),
        ("seed", "codes: [N18]", "codes: [N-18]", "conditions.ckd.codes[0]"),
        ("seed", "categories: charlson", "categories: none", "categories"),
        ("charlson", "default_weights: original", "default_weights: newest", "default_weights"),
        ("charlson", "weights: {original: 1, quan-2011: 2}", "weights: {original: 1}", "categories.chf"),
        ("charlson", "drop: cancer", "drop: tumour", "hierarchy[2].drop"),
        (
            "charlson",
            "original: 3, quan-2011: 4",
            "original: 0, quan-2011: 4",
            "categories.severe_liver.weights.original",
        ),
    ],
)
def test_a_wrong_document_is_refused_with_the_place_of_what_is_wrong(
    document: str, old: str, new: str, key: str
) -> None:
    wrong = TEXTS[document].replace(old, new, 1)
    assert wrong != TEXTS[document]
    with pytest.raises(SettingsError) as caught:
        load(**{document: wrong})
    problem = next(problem for problem in caught.value.problems if problem.file == f"{document}.yaml")
    assert problem.key == key
    assert problem.line > 1


def test_two_documents_can_not_give_the_same_model() -> None:
    with pytest.raises(SettingsError, match="already"):
        load(**{"charlson-original": TEXTS["lace"]})
