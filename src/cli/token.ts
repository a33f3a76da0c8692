import { parseArgs } from "node:util";
import { createClient } from "../../workers/runtime/client.ts";
import { claimsInWords } from "./by-hand.ts";
import { type Command, exitCode, WrongUsage } from "./command.ts";
import { findProject, projectOptions } from "./project.ts";
import { table } from "./table.ts";

type Token = {
  worker_name: string;
  work_types: string[];
  state: "valid" | "ended" | "revoked";
  created_at: string;
  ends_at: string | null;
  revoked_at: string | null;
  last_used_at: string | null;
};

export const token: Command = {
  name: "token",
  summary: "make, list or revoke the tokens of workers, each of which opens some work types",
  options: [
    "create NAME     make a token for workers of this name and print it, this once",
    "  --types A,B   the work types that it opens, which are declared",
    "  --ends TIME   when it ends by itself: 30d, 12h (it ends when it is revoked)",
    "list            the tokens: what they open, and when they were last used",
    "  --json        print JSON",
    "revoke NAME     revoke it: the next call of its workers is refused, and what they hold goes back",
    "They need the migration of work-claims init --tokens.",
  ],
  example: "work-claims token create gpu-box --types embed,caption --ends 30d > token.txt",
  async run(args) {
    const { values, positionals } = parseArgs({
      args,
      allowPositionals: true,
      options: { ...projectOptions, types: { type: "string" }, ends: { type: "string" }, json: { type: "boolean" } },
    });
    const [action, name, ...more] = positionals;
    const isList = action === "list";
    if (!isList && action !== "create" && action !== "revoke") {
      throw new WrongUsage("create, list or revoke was expected");
    }
    if (more.length > 0 || (name === undefined) !== isList) {
      throw new WrongUsage(isList ? "list takes no name" : `${action} takes one name`);
    }
    const { url, key } = await findProject(values);
    const client = createClient({ url, key });
    const retryForMs = 5000;
    if (isList) {
      const tokens: Token[] = await client.get("work_token_list?order=created_at", { retryForMs });
      console.log(values.json ? JSON.stringify(tokens) : show(tokens));
    } else if (action === "create") {
      if (values.types === undefined)
        throw new WrongUsage("--types is missing; the work types that it opens were expected");
      const work_types = values.types.split(",").map((type) => type.trim());
      // No retry: where the answer to the first call was lost, so is its token.
      const made = await client.rpc(
        "create_token",
        { worker_name: name, work_types, ends_in: values.ends },
        { retryForMs: 0 },
      );
      console.error(`A token for ${name}, shown this once. It opens ${work_types.join(", ")}.`);
      console.log(made);
    } else {
      const count = await client.rpc("revoke_token", { worker_name: name }, { retryForMs });
      console.log(`the token of ${name} is revoked; ${claimsInWords(count)} went back`);
    }
    return exitCode.fine;
  },
};

function show(tokens: readonly Token[]): string {
  return table(
    ["name", "state", "work types", "made", "ends", "last used"],
    tokens.map((row) => [
      row.worker_name,
      row.state,
      row.work_types.join(", "),
      minute(row.created_at),
      row.ends_at && minute(row.ends_at),
      row.last_used_at && minute(row.last_used_at),
    ]),
  );
}

/** To the minute, in UTC. */
function minute(at: string): string {
  return new Date(at).toISOString().slice(0, 16).replace("T", " ");
}
