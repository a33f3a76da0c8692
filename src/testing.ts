// For tests of work: a database of their own, workers in the test's process, and time that the test moves.
import { randomUUID } from "node:crypto";
import postgres, { type Sql, type TransactionSql } from "postgres";
import { type Handlers, type Summary, type WorkOptions, work } from "../workers/runtime/work.ts";
import { createWorkClient, type WorkClient } from "./client.ts";
import { overSql } from "./sql/client.ts";
import { migrationsIn, packagedMigration } from "./stack/migrations.ts";
import { prepareDatabase } from "./stack/roles.ts";
import { startStack } from "./stack/stack.ts";

export type InProcess = {
  client: WorkClient;
  clock: TestClock;
  /** Runs a worker until nothing is ready. What is to be tried again later waits: move the clock, and drain once more. */
  drain(handlers: Handlers, options?: WorkOptions): Promise<Summary>;
};

export type TestClock = {
  /** Moves time on, "10 minutes" or a number of seconds, for the leases and waits in the database. */
  advance(by: string | number): Promise<void>;
};

export type TestDatabase = InProcess & {
  sql: Sql;
  /** The database's address, for other programs. */
  url: string;
  /** Removes it. */
  close(): Promise<void>;
};

export type TestStack = {
  /** A new database with the migrations. Tests that have one each cannot meet. */
  database(): Promise<TestDatabase>;
  /** Stops Postgres; its databases go with it. */
  stop(): Promise<void>;
};

/** Work in this process over a connection to a database that has work-claims, or inside of a transaction of it. */
export function inProcess(sql: Sql | TransactionSql): InProcess {
  const { rpc, get, redact } = overSql(sql);
  return {
    client: createWorkClient({ sql }),
    clock: {
      async advance(by) {
        const interval = typeof by === "number" ? `${by} seconds` : by;
        await sql`
          with moved as (
            update public.work_claims c
               set due_at = c.due_at - ${interval}::text::interval, expires_at = c.expires_at - ${interval}::text::interval,
                   claimed_at = c.claimed_at - ${interval}::text::interval, poll_at = c.poll_at - ${interval}::text::interval
             where c.status in ('blocked', 'waiting', 'ready', 'claimed')
          )
          select ${interval}::text::interval`;
      },
    },
    drain: (handlers, options) =>
      // Without listen: this worker ends before anything could call it.
      work(handlers, {
        ...{ client: { rpc, get, redact }, untilDone: false, untilEmpty: "ready", handleSignals: false, log: () => {} },
        ...{ idleMinSeconds: 0.01, ...options },
      }),
  };
}

/**
 * Starts a Postgres for a test file. Its databases have the migrations of the project folder, else those of work-claims
 * alone. It needs the packages of the local stack: docs/local-stack.md.
 */
export async function testStack({ project }: { project?: string } = {}): Promise<TestStack> {
  const stack = await startStack({ ephemeral: true });
  const admin = postgres(inDatabase(stack.adminUrl, "template1"), { max: 1, onnotice: () => {} });
  const opened = new Set<Sql>();
  const stop = async (): Promise<void> => {
    await Promise.all([...opened, admin].map((sql) => sql.end({ timeout: 0 })));
    await stack.stop();
  };
  const open = (name: string): Sql => postgres(inDatabase(stack.dbUrl, name), { max: 4, onnotice: () => {} });
  try {
    const template = "work_claims_template";
    await admin.unsafe(`create database ${template} owner postgres`);
    await prepareDatabase(inDatabase(stack.adminUrl, template), "old");
    const owner = open(template);
    for (const { text } of project
      ? await migrationsIn(`${project}/supabase/migrations`)
      : [await packagedMigration()]) {
      await owner.begin((transaction) => transaction.unsafe(text));
    }
    await owner.end();
    return {
      stop,
      async database() {
        const name = `test_${randomUUID().replaceAll("-", "")}`;
        // Without fsync, copying files takes half of the time of writing them through the log.
        await admin.unsafe(`create database ${name} template ${template} strategy file_copy owner postgres`);
        const sql = open(name);
        opened.add(sql);
        const close = async (): Promise<void> => {
          opened.delete(sql);
          await sql.end({ timeout: 0 });
          await admin.unsafe(`drop database ${name} with (force)`);
        };
        return { ...inProcess(sql), sql, url: inDatabase(stack.dbUrl, name), close };
      },
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

function inDatabase(url: string, name: string): string {
  const address = new URL(url);
  address.pathname = `/${name}`;
  return address.href;
}
