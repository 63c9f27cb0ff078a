// What apps do with @clickhouse/client, against the store: url, user and password come by environment.
import assert from "node:assert/strict";
import { createClient, ClickHouseError } from "@clickhouse/client";

const options = { url: process.env.STORE_URL, username: "spendwatch", password: process.env.STORE_PASSWORD, database: "spendwatch" };
const table = `node_${process.pid}`;

for (const compression of [{ request: false, response: false }, { request: true, response: true }]) {
  const client = createClient({ ...options, compression });
  assert.equal((await client.ping()).success, true);
  assert.equal((await client.ping({ select: true })).success, true);

  await client.command({ query: `CREATE TABLE ${table} (id UInt64, word String) ENGINE = MergeTree ORDER BY id` });
  const done = await client.insert({ table, values: [{ id: 1, word: "one" }, { id: 2, word: "zwei" }], format: "JSONEachRow" });
  assert.equal(done.executed, true);
  assert.equal(done.summary.written_rows, "2");

  const found = await client.query({
    query: `SELECT word FROM ${table} WHERE id = {id: UInt64}`, query_params: { id: 2 }, format: "JSONEachRow",
  });
  assert.deepEqual(await found.json(), [{ word: "zwei" }]);
  const whole = await (await client.query({ query: `SELECT count() AS n FROM ${table}`, format: "JSON" })).json();
  assert.equal(Number(whole.data[0].n), 2);

  let rows = 0;
  const stream = await client.query({ query: "SELECT number FROM numbers(200000)", format: "JSONEachRow" });
  for await (const batch of stream.stream()) rows += batch.length;
  assert.equal(rows, 200000);

  await assert.rejects(client.query({ query: "SELECT * FROM nowhere" }), (error) => {
    assert.ok(error instanceof ClickHouseError);
    assert.equal(error.code, "60");
    assert.equal(error.type, "UNKNOWN_TABLE");
    return true;
  });
  await client.command({ query: `DROP TABLE ${table}` });
  await client.close();
}

const session = createClient({ ...options, session_id: `node-${process.pid}` });
await session.command({ query: "CREATE TEMPORARY TABLE kept (n UInt8)" });
await session.insert({ table: "kept", values: [{ n: 7 }], format: "JSONEachRow" });
assert.deepEqual(await (await session.query({ query: "SELECT n FROM kept", format: "JSONEachRow" })).json(), [{ n: 7 }]);
await session.close();

const stranger = createClient({ ...options, password: "wrong" });
await assert.rejects(stranger.query({ query: "SELECT 1" }), (error) => error.code === "516");
await stranger.close();
console.log("ok");
