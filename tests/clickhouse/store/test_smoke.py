import clickhouse_connect
def test_answers(store_dsn):
    with clickhouse_connect.get_client(dsn=store_dsn) as c:
        assert c.command("select 1") == 1
