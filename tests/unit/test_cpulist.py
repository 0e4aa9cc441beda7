import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovray.devices.cpulist import format_cpu_list, parse_cpu_list


@pytest.mark.parametrize(
    ("text", "cpus"),
    [("", set()), ("\n", set()), ("0", {0}), ("0-3,8\n", {0, 1, 2, 3, 8}), ("0-1,4-5,9", {0, 1, 4, 5, 9})],
)
def test_the_kernels_lists_are_read(text: str, cpus: set[int]) -> None:
    assert parse_cpu_list(text) == cpus


@pytest.mark.parametrize(
    ("cpus", "text"), [([], ""), ([7], "7"), ([3, 1, 2], "1-3"), ([0, 2, 4], "0,2,4"), ([0, 1, 8, 9], "0-1,8-9")]
)
def test_lists_are_written_as_the_kernel_writes_them(cpus: list[int], text: str) -> None:
    assert format_cpu_list(cpus) == text


@given(st.sets(st.integers(min_value=0, max_value=2000)))
def test_what_is_written_reads_back(cpus: set[int]) -> None:
    assert parse_cpu_list(format_cpu_list(cpus)) == cpus
