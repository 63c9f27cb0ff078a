"""Where the data of an INSERT begins, which format a statement asks for, and how a KILL is rewritten."""

import pytest

from spendwatch.clickhouse.store.statement import (
    Incomplete,
    InsertHead,
    first_words,
    insert_head,
    killed_query_ids,
    output_format,
    quote,
    replace_query_id,
)


@pytest.mark.parametrize(
    ("sql", "statement", "format", "data"),
    [
        ("INSERT INTO t FORMAT CSV\n1,2", "INSERT INTO t ", "CSV", "1,2"),
        ("INSERT INTO t FORMAT CSV 1,2", "INSERT INTO t ", "CSV", "1,2"),
        ("INSERT INTO t FORMAT TSV\r\n\tx", "INSERT INTO t ", "TSV", "\tx"),
        ("INSERT INTO t FORMAT CSV;\n1", "INSERT INTO t ", "CSV", "1"),
        ("INSERT INTO t FORMAT Native", "INSERT INTO t ", "Native", ""),
        (
            "insert into t (a, `format`) values (1, 'FORMAT')",
            "insert into t (a, `format`) ",
            "Values",
            " (1, 'FORMAT')",
        ),
        (
            "INSERT INTO t /* FORMAT X */ SETTINGS a = 'FORMAT Y' FORMAT JSONEachRow {}",
            "INSERT INTO t /* FORMAT X */ SETTINGS a = 'FORMAT Y' ",
            "JSONEachRow",
            "{}",
        ),
        (
            "INSERT INTO \"a FORMAT b\".'c' -- FORMAT x\n FORMAT CSV\n",
            "INSERT INTO \"a FORMAT b\".'c' -- FORMAT x\n ",
            "CSV",
            "",
        ),
    ],
)
def test_an_insert_is_cut_where_its_data_begins(sql: str, statement: str, format: str, data: str) -> None:
    head = insert_head(sql.encode(), complete=True)
    assert head == InsertHead(statement, format, len(sql.encode()) - len(data.encode()), False)


@pytest.mark.parametrize(
    "sql", ["INSERT INTO t SELECT 1", "INSERT INTO t WITH 1 AS x SELECT x", "INSERT INTO t ('", ""]
)
def test_an_insert_without_data_has_no_head(sql: str) -> None:
    assert insert_head(sql.encode(), complete=True) is None


def test_a_head_that_may_go_on_waits_for_more() -> None:
    whole = "INSERT INTO t (a, b) /* c */ SETTINGS x = 'y' FORMAT CSV\n"
    for end in range(len(whole)):
        with pytest.raises(Incomplete):
            insert_head(whole[:end].encode(), complete=False)
    assert insert_head((whole + "1").encode(), complete=False) is not None


def test_data_from_a_file_of_the_machine_is_noticed() -> None:
    head = insert_head(b"INSERT INTO t FROM INFILE 'x' FORMAT CSV", complete=True)
    assert head is not None
    assert head.infile


@pytest.mark.parametrize(
    ("sql", "format"),
    [
        ("SELECT 1 FORMAT JSON", "JSON"),
        ("SELECT 1 format CSV SETTINGS a = 1;", "CSV"),
        ("SELECT 1", None),
        ("SELECT 'x FORMAT JSON'", None),
        ("SELECT 1 -- FORMAT JSON", None),
        ("SELECT (SELECT 1 FORMAT JSON)", None),
        ("SELECT format('{}', 1)", None),
        ("SELECT format('{}', 1) FORMAT TSV", "TSV"),
    ],
)
def test_the_format_of_a_result_is_read_from_the_statement(sql: str, format: str | None) -> None:
    assert output_format(sql) == format


def test_first_words_are_past_comments_and_parentheses() -> None:
    assert first_words(b"/* a */ -- b\n ((select 1") == ("SELECT",)
    assert first_words(b"kill Query where 1", 2) == ("KILL", "QUERY")
    assert first_words(b"'text' SELECT") == ()


def test_a_kill_names_query_ids_and_others_stay() -> None:
    sql = "KILL QUERY WHERE query_id = 'it''s' OR query_id='b'"
    assert killed_query_ids(sql) == ["it's", "b"]
    assert replace_query_id(sql, "b", "x = 1") == "KILL QUERY WHERE query_id = 'it''s' OR x = 1"


def test_a_text_is_quoted_so_that_it_stays_a_text() -> None:
    assert quote("it's \\ here") == "'it\\'s \\\\ here'"
