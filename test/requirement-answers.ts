// What both faces of the language answer: the database in bulk, TypeScript one by one.
import type { Json } from "../src/answers.ts";
import {
  canonicalRequirement,
  compileRequirement,
  type FailingClause,
  failingClauses,
  matches,
  parseRequirement,
  RequirementError,
} from "../src/index.ts";
import type { Sql } from "./database.ts";

/** Both as JSON text, in the caller's spelling. */
export interface Case {
  requirement: string;
  capabilities: string;
}

export type Answer =
  | { error: string }
  | { canonical: string; path: string; matches: boolean; failing: FailingClause[] };

/** A refusal must not end a statement about thousands of others. */
export async function createAnswering(owner: Sql): Promise<void> {
  await owner`
    create function answer(requirement jsonb, capabilities jsonb)
    returns jsonb
    language plpgsql
    as $$
    begin
      return jsonb_build_object(
        'canonical', work.canonical_requirement(requirement),
        'path', work.compile_requirement(requirement)::text,
        'matches', coalesce(capabilities @@ work.compile_requirement(requirement), false),
        'failing', work.failing_clauses(requirement, capabilities)
      );
    exception when sqlstate 'PT400' then
      return jsonb_build_object('error', sqlerrm);
    end
    $$`;
}

export async function answersOfDatabase(owner: Sql, cases: readonly Case[]): Promise<Answer[]> {
  const rows = await owner<{ answer: Answer }[]>`
    select answer(requirement::jsonb, capabilities::jsonb)
      from unnest(
        ${cases.map((each) => each.requirement)}::text[],
        ${cases.map((each) => each.capabilities)}::text[]
      ) with ordinality as given(requirement, capabilities, place)
     order by place`;
  return rows.map((row) => row.answer);
}

/** TypeScript's answers, its jsonpaths as Postgres writes them. */
export async function answersOfTypeScript(owner: Sql, cases: readonly Case[]): Promise<Answer[]> {
  const answers = cases.map(answerOfTypeScript);
  const paths = answers.map((answer) => ("path" in answer ? answer.path : null));
  const rows = await owner<{ path: string | null }[]>`
    select path::jsonpath::text as path from unnest(${paths}::text[]) with ordinality as given(path, place) order by place`;
  // As JSON carries it: a -0 that is shown is a 0.
  return answers.map((answer, index) =>
    JSON.parse(JSON.stringify("path" in answer ? { ...answer, path: rows[index]?.path } : answer)),
  );
}

function answerOfTypeScript(given: Case): Answer {
  const capabilities: Json = JSON.parse(given.capabilities);
  try {
    const requirement = parseRequirement(JSON.parse(given.requirement));
    return {
      canonical: canonicalRequirement(requirement),
      path: compileRequirement(requirement),
      matches: matches(requirement, capabilities),
      failing: failingClauses(requirement, capabilities),
    };
  } catch (error) {
    if (error instanceof RequirementError) {
      return { error: error.message };
    }
    throw error;
  }
}
