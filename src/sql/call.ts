import { RequestError } from "../../workers/runtime/errors.ts";
import { ask, type Connection } from "./connection.ts";

/** Arguments with their types, in the order of the function. */
type Signature = { arguments: { name: string; type: string; is_required: boolean }[]; is_set: boolean };

/** Sends a function's call with its arguments as one JSON text, as PostgREST does: both read the values alike. */
export function createCalls(): (
  connection: Connection,
  name: string,
  args: Record<string, unknown>,
  call?: object,
) => Promise<unknown> {
  const signatures = new Map<string, Promise<Signature | null>>();

  function signatureOf(connection: Connection, name: string): Promise<Signature | null> {
    const known = signatures.get(name) ?? readSignature(connection, name);
    signatures.set(name, known);
    // The next call asks again: a migration may have added the function, or the database answers then.
    known.then(
      (signature) => signature ?? signatures.delete(name),
      () => signatures.delete(name),
    );
    return known;
  }

  return async (connection, name, args, call) => {
    const signature = await signatureOf(connection, name);
    const given = Object.keys(args).filter((each) => args[each] !== undefined);
    const known = signature?.arguments.filter((each) => each.is_required || given.includes(each.name)) ?? [];
    if (signature === null) {
      throw missing(`${name} is not there: work-claims is not installed in this database`);
    }
    const unknown = given.find((each) => !known.some((argument) => argument.name === each));
    if (unknown !== undefined) {
      throw missing(
        `${name} has no argument ${unknown}: it is misspelt, or work-claims in this database is of another version`,
      );
    }
    const lacking = known.find((each) => !given.includes(each.name));
    if (lacking !== undefined) {
      throw missing(`${name} needs the argument ${lacking.name}`);
    }
    const answer = await ask(connection, name, callText(name, known, signature.is_set), [JSON.stringify(args)], call);
    return typeof answer === "string" ? JSON.parse(answer) : null;
  };
}

async function readSignature(connection: Connection, name: string): Promise<Signature | null> {
  const answer = await ask(
    connection,
    name,
    `select json_build_object('is_set', p.proretset, 'arguments', (
              select coalesce(json_agg(json_build_object(
                       'name', p.proargnames[a.n], 'type', format_type(a.type, null),
                       'is_required', a.n <= p.pronargs - p.pronargdefaults) order by a.n), '[]')
                from unnest(p.proargtypes::oid[]) with ordinality as a(type, n)))::text as answer
       from pg_proc p
      where p.pronamespace = 'public'::regnamespace and p.proname = $1::text`,
    [name],
  );
  return typeof answer === "string" ? JSON.parse(answer) : null;
}

/** Column names of the JSON are those of the arguments. */
function callText(name: string, args: Signature["arguments"], isSet: boolean): string {
  const answer = isSet ? "coalesce(json_agg(answer), '[]')" : "to_json(answer)";
  const columns = args.map((each) => `"${each.name}" ${each.type}`).join(", ");
  const named = args.map((each) => `"${each.name}" => given."${each.name}"`).join(", ");
  return args.length === 0
    ? `select ${answer}::text as answer from public."${name}"() as answer where $1::text is not null`
    : `select ${answer}::text as answer
         from json_to_record($1::text::json) as given(${columns}), lateral public."${name}"(${named}) as answer`;
}

function missing(what: string): RequestError {
  return new RequestError(`${what}; run work-claims init and supabase db push`, {
    ...{ status: 404, code: "PGRST202", isRetryable: false },
  });
}
