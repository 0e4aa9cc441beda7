"""The page about a run, from the stories of simulated jobs: what it shows, and that no name breaks it."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest

from ovray.core.faults import Death
from ovray.core.ids import ReplicaId
from ovray.core.scheduler import Scheduler
from ovray.core.simulated_replica import ReplicaModel
from ovray.core.simulation import Simulation, Surroundings
from ovray.devices.records import Plan, ReplicaSpec
from ovray.driver.journal import SPANS_KEPT, Fate, Journal
from ovray.errors import ConfigError
from ovray.scoring.page import numbers
from ovray.scoring.page.document import write_page
from ovray.scoring.page.facts import Ending, JobFacts, PageFacts
from ovray.scoring.page.markup import tag
from ovray.scoring.recording import recorded
from tests.html_pages import Page

NASTY = "<script>alert('&amp;\"')</script>\x00"


def a_spec(name: str) -> ReplicaSpec:
    host = name.split("/")[0]
    return ReplicaSpec(
        id=ReplicaId(name), host=host, node_id="", device="SIM", openvino_device="", numa_node=None, cpus=(0, 1, 2)
    )


def a_story(names: Sequence[str], rows: int, *deaths: Death, **details: object) -> Journal:
    journal = Journal()
    models = [ReplicaModel(id=ReplicaId(name), row_s=0.01, jitter=0.1, compile_s=1.0) for name in names]
    simulation = Simulation(Scheduler(), models, Surroundings(faults=deaths), observer=journal.note)
    assert simulation.run_job(rows, **details).lost == 0
    journal.close()
    return journal


def facts_of(journal: Journal, names: Sequence[str], rows: int) -> PageFacts:
    return PageFacts(
        job=JobFacts(
            model="model.xml",
            inputs=("rows.parquet",),
            files=1,
            input_bytes=2048,
            output="scores",
            rows=rows + 50,
            resumed_rows=50,
            bindings={"x": "features as f32[4]"},
            results={"y": "float"},
            options={"--devices": "SIM*3"},
            versions={"ovray": "0.1"},
        ),
        began=datetime(2026, 3, 1, 3, 12, tzinfo=timezone.utc),
        seconds=20.0,
        host="head",
        ending=Ending.DONE,
        plan=Plan(replicas=tuple(a_spec(name) for name in names)),
        specs=tuple(a_spec(name) for name in names),
        journal=journal,
    )


NAMES = ("a/SIM#0", "b/SIM#1", "c/SIM#2")


class TestPage:
    def test_it_has_the_figures_of_the_job_and_reaches_for_nothing(self) -> None:
        page = Page(write_page(facts_of(a_story(NAMES, 3_000), NAMES, 3_000)))

        assert page.reaches_for == []
        assert "3,000 rows done, of 3,000; 50 were done before" in page.text
        for told in (*NAMES, "model.xml", "features as f32[4]", "2026-03-01 03:12:00 UTC", "SIM*3", "2.0 KiB"):
            assert told in page.text
        for heading in (
            "Rows per second",
            "Which replica did what",
            "The tail",
            "Replicas",
            "The plan",
            "The job",
        ):
            assert heading in page.text

    def test_each_chunk_is_drawn_where_there_are_few(self) -> None:
        journal = a_story(NAMES, 3_000, Death(replica=ReplicaId("b/SIM#1"), at_s=4.0))
        facts = facts_of(journal, NAMES, 3_000)
        lost = replace(facts, failures={ReplicaId("b/SIM#1"): "the process is gone"})

        page = Page(write_page(lost))

        title = [text for text in page.texts if " rows/s" in text and ": rows " in text]
        assert len(title) >= sum(span.fate is Fate.DONE for span in journal.spans)
        assert "lost" in page.classes("rect")
        assert "retry" in page.classes("rect")
        assert "lost: killed" in page.text
        assert "the process is gone" in page.text

    def test_a_replica_that_joined_later_is_shown_beside_those_that_were_planned(self) -> None:
        facts = facts_of(a_story(NAMES, 3_000), NAMES, 3_000)

        page = Page(write_page(replace(facts, plan=Plan(replicas=facts.plan.replicas[:2]))))

        assert "3 replicas, of 2 planned" in page.text
        assert page.text.count("c/SIM#2") > 10

    def test_the_page_of_a_large_job_is_not_large(self) -> None:
        names = [f"node{number}/SIM#0" for number in range(600)]
        journal = a_story(names, 60_000, max_chunk_rows=8)
        assert journal.spans_ended > SPANS_KEPT

        markup = write_page(facts_of(journal, names, 60_000))

        assert len(markup) < 2_000_000
        assert "too many to draw each" in Page(markup).text
        assert "and 100 more" in Page(markup).text

    @pytest.mark.parametrize("name", [NASTY, "a & b", "ünï\udcff"])
    def test_no_name_is_taken_for_markup(self, name: str) -> None:
        replica = f"{name}/SIM#0"
        facts = facts_of(a_story([replica], 100), [replica], 100)
        job = replace(
            facts.job, model=name, inputs=(name,), output=name, options={name: name}, results={name: name}
        )
        named = replace(facts, job=job, error=name, host=name, failures={ReplicaId(replica): name})

        page = Page(write_page(named))

        assert page.reaches_for == []
        assert page.text.count(name.replace("\x00", "\ufffd").replace("\udcff", "\ufffd")) >= 8

    def test_secrets_within_addresses_are_not_shown(self) -> None:
        facts = facts_of(a_story(NAMES, 100), NAMES, 100)

        page = Page(write_page(replace(facts, job=replace(facts.job, inputs=("s3://KEY:SECRET@bucket/rows",)))))

        assert "s3://***@bucket/rows" in page.text
        assert "SECRET" not in page.text

    def test_a_job_in_which_nobody_got_ready_has_a_page(self) -> None:
        failed = replace(
            facts_of(Journal(), NAMES, 100),
            ending=Ending.FAILED,
            error="no replica is left",
            failures={ReplicaId("a/SIM#0"): "out of memory"},
        )

        page = Page(write_page(failed))

        assert "no replica is left" in page.text
        assert "did not start: out of memory" in page.text


class TestWhereItGoes:
    @pytest.mark.parametrize(
        ("report", "says"),
        [
            ("report.txt", "ends in .html"),
            ("s3://bucket/report.html", "on this machine"),
            ("no-such-folder/report.html", "folder must exist"),
            ("scores/report.html", "_ovray-report.html"),
        ],
    )
    def test_a_place_that_will_not_do_is_refused_at_once(
        self, report: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "scores").mkdir()

        with pytest.raises(ConfigError, match=says), recorded(report, "scores"):
            raise AssertionError("the block ran")

    def test_a_run_without_a_story_leaves_the_page_of_an_earlier_one(self, tmp_path: Path) -> None:
        page = tmp_path / "report.html"
        page.write_text("earlier")

        with recorded(page, tmp_path / "scores"):
            pass

        assert page.read_text() == "earlier"
        assert list(tmp_path.iterdir()) == [page]


class TestNumbers:
    @pytest.mark.parametrize(
        ("seconds", "text"),
        [(0.256, "0.26 s"), (12.34, "12.3 s"), (245.0, "4 min 05 s"), (25_380.0, "7 h 03 min"), (59.96, "60.0 s")],
    )
    def test_times_read_well(self, seconds: float, text: str) -> None:
        assert numbers.duration(seconds) == text

    @pytest.mark.parametrize("high", [0.003, 0.9, 7.0, 64.0, 3_000.0, 40_000.0, 2e9])
    def test_ticks_are_round_and_few(self, high: float) -> None:
        step, found = numbers.ticks(0.0, high, 5)

        assert 2 <= len(found) <= 6
        assert found[0] == 0.0
        assert found[-1] <= high * (1 + 1e-9)
        assert f"{step:.0e}"[0] in "125"

    def test_a_night_is_cut_into_hours(self) -> None:
        step, found = numbers.ticks(0.0, 9 * 3600.0, 9, of_time=True)

        assert step == 3600.0
        assert [numbers.clock(at_s, step) for at_s in found[:3]] == ["0:00 h", "1:00 h", "2:00 h"]

    def test_markup_is_escaped_once(self) -> None:
        assert tag("p", tag("b", "1 < 2"), " & ", None, 0.5, title='"') == (
            '<p title="&quot;"><b>1 &lt; 2</b> &amp; 0.5</p>'
        )
