"""The pages that show what is in ClickHouse: the start page and the calls."""
