/** One answer of the doctor: a line for a person. */
export type Finding = {
  /** The thing that was looked at. */
  check: string;
  /** Undefined if it could not be looked at. */
  isRight: boolean | undefined;
  text: string;
  /** The next step for the user, if something is wrong. */
  advice?: string;
};

export function right(check: string, text: string): Finding {
  return { check, isRight: true, text };
}

export function wrong(check: string, text: string, advice: string): Finding {
  return { check, isRight: false, text, advice };
}

export const installAdvice = 'run work-claims init, then npx supabase db push --remote="$SUPABASE_DB_URL" --yes';
