"""What a replay or a worker prints goes aside; what other threads print stays where it was."""

from __future__ import annotations

import io
import sys
import threading

import pytest

from nanhunt.core.program.printed import printed_to, unheard


def test_only_the_marked_thread_is_heard_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    heard: list[str] = []
    inside, done = threading.Event(), threading.Event()

    def work() -> None:
        with printed_to(heard.append):
            print("aside")
            print("a warning", file=sys.stderr)
            inside.set()
            done.wait(5)

    thread = threading.Thread(target=work)
    thread.start()
    inside.wait(5)
    print("here")
    done.set()
    thread.join()
    assert "".join(heard) == "aside\na warning\n"
    assert capsys.readouterr().out == "here\n"


def test_the_streams_are_put_back_also_after_an_exception() -> None:
    before = sys.stdout, sys.stderr
    with pytest.raises(KeyError), printed_to(unheard):
        raise KeyError
    assert (sys.stdout, sys.stderr) == before


def test_a_sink_inside_a_sink_is_heard_alone_and_then_the_outer_one_again() -> None:
    outer: list[str] = []
    with printed_to(outer.append):
        print("one")
        with printed_to(unheard):
            print("two")
        print("three")
    assert "".join(outer) == "one\nthree\n"


def test_a_stream_that_somebody_replaced_meanwhile_is_left_alone() -> None:
    before = sys.stdout
    theirs = io.StringIO()
    with printed_to(unheard):
        sys.stdout = theirs
        print("to them")
    try:
        assert sys.stdout is theirs
        assert theirs.getvalue() == "to them\n"
    finally:
        sys.stdout = before


def test_what_is_asked_of_a_stream_is_answered_by_the_stream() -> None:
    with printed_to(unheard):
        assert sys.stdout.encoding == "utf-8"
        sys.stdout.flush()
