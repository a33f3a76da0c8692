-- Outcomes: the ends of claims, as a worker says them.

-- Name the error in an outcome for release_items(); null where there is none.
create or replace function work.outcome_error(outcome jsonb)
returns text
language plpgsql
immutable
as $$
begin
  if jsonb_typeof(outcome) <> 'object' then
    return 'an outcome is a JSON object';
  end if;
  if outcome ->> 'item_id' is null or outcome ->> 'work_type' is null or jsonb_typeof(outcome -> 'fence') is distinct from 'number' then
    return 'an outcome has item_id, work_type and fence, as the claim had them';
  end if;
  if jsonb_typeof(outcome -> 'outcome') is distinct from 'string'
    or outcome ->> 'outcome' not in ('succeeded', 'failed', 'released', 'snoozed', 'parked') then
    return format('outcome is %s; succeeded, failed, released, snoozed or parked was expected',
      coalesce(left(outcome ->> 'outcome', 60), 'null'));
  end if;
  if pg_column_size(outcome -> 'result') > 1048576 then
    return format(
      'result has %s bytes; a claim keeps at most 1048576: store it elsewhere and release with where it is',
      pg_column_size(outcome -> 'result'));
  end if;
  if jsonb_typeof(outcome -> 'retry_after_seconds') not in ('number', 'null')
    or (outcome ->> 'retry_after_seconds')::numeric not between 0 and 2592000 then
    return 'retry_after_seconds is a number from 0 to 2592000';
  end if;
  if octet_length((outcome -> 'state')::text) > 65536 then
    return format('state has %s bytes; a claim keeps at most 65536: store it elsewhere, and save where it is',
      octet_length((outcome -> 'state')::text));
  end if;
  if outcome ->> 'outcome' = 'snoozed'
    and (jsonb_typeof(outcome -> 'seconds') is distinct from 'number'
      or (outcome ->> 'seconds')::numeric not between 0 and 2592000) then
    return 'seconds is a number from 0 to 2592000: when a snoozed claim is ready again';
  end if;
  if outcome ->> 'outcome' = 'parked'
    and (jsonb_typeof(outcome -> 'seconds') is distinct from 'number'
      or (outcome ->> 'seconds')::numeric not between 1 and 604800) then
    return 'seconds is a number from 1 to 604800: how long a parked claim waits for its job elsewhere';
  end if;
  if outcome ->> 'outcome' = 'parked'
    and (jsonb_typeof(outcome -> 'external_id') is distinct from 'string'
      or length(outcome ->> 'external_id') not between 1 and 500) then
    return 'external_id is a text of 1 to 500 characters: the id of the job elsewhere';
  end if;
  if jsonb_typeof(outcome -> 'items') <> 'null'
    and (jsonb_typeof(outcome -> 'items') <> 'array' or outcome ->> 'outcome' not in ('succeeded', 'snoozed')
      or jsonb_array_length(outcome -> 'items') > 1000) then
    return 'items is a list of at most 1000 items to enqueue, with the outcome succeeded or snoozed';
  end if;
  if jsonb_typeof(outcome -> 'needs') <> 'null'
    and (jsonb_typeof(outcome -> 'needs') <> 'array' or outcome ->> 'outcome' <> 'snoozed') then
    return 'needs is a list of items to wait for, with the outcome snoozed';
  end if;
  return null;
end
$$;
comment on function work.outcome_error is 'Names the error in an outcome for release_items(); null where there is none.';

-- Refuse outcomes of which one is wrong, and say which and why.
create or replace function work.check_outcomes(outcomes jsonb)
returns void
language plpgsql
as $$
declare
  wrong record;
begin
  select e.n - 1 as at, work.outcome_error(e.value) as why into wrong
    from jsonb_array_elements(outcomes) with ordinality as e(value, n)
   where work.outcome_error(e.value) is not null
   limit 1;
  if found then
    raise exception using errcode = 'PT400', message = format('outcomes[%s]: %s', wrong.at, wrong.why);
  end if;
end
$$;
