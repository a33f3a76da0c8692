-- An earlier version of this file lacks these columns, and has these functions with fewer arguments.
alter table if exists public.work_types
  add column if not exists try_seconds integer check (try_seconds between 1 and 604800),
  add column if not exists min_worker_version text check (min_worker_version ~ '^\d{1,9}(\.\d{1,9}){0,3}$'),
  add column if not exists input_columns text[],
  add column if not exists on_change text check (on_change in ('again', 'keep')),
  add column if not exists version integer not null default 1 check (version between 1 and 1000000000),
  add column if not exists version_at timestamptz,
  add column if not exists redone_through uuid,
  add column if not exists depends_on text[] not null default '{}',
  add column if not exists on_failed_need text not null default 'wait' check (on_failed_need in ('wait', 'fail', 'run')),
  add column if not exists apply text,
  add column if not exists into_column text,
  add column if not exists history text not null default 'unhappy' check (history in ('unhappy', 'full')),
  add column if not exists keep_events integer not null default 20 check (keep_events between 1 and 1000),
  add column if not exists on_dead_end text not null default 'go_on' check (on_dead_end in ('go_on', 'stop')),
  add column if not exists stopped text,
  add column if not exists several integer not null default 1 check (several between 1 and 100),
  add column if not exists copy_of text collate "C",
  add column if not exists payload_schema jsonb,
  add column if not exists result_schema jsonb,
  add column if not exists is_plain boolean not null default true;
alter table if exists public.work_items
  add column if not exists traceparent text check (length(traceparent) <= 200),
  add column if not exists fingerprint text check (length(fingerprint) between 1 and 200),
  add column if not exists needs jsonb,
  add column if not exists gathers_id bigint,
  add column if not exists max_failures integer check (max_failures between 1 and 1000);
alter table if exists public.work_claims
  add column if not exists poll_at timestamptz,
  add column if not exists external_id text,
  add column if not exists state jsonb,
  add column if not exists waits_for integer not null default 0,
  add column if not exists read_input text,
  add column if not exists again text,
  add column if not exists stale text,
  add column if not exists changes integer,
  add column if not exists changed_at timestamptz;
alter table if exists public.work_events
  add column if not exists from_status text,
  add column if not exists to_status text,
  add column if not exists actor text,
  add column if not exists input text;
alter table if exists public.work_workflows
  add column if not exists is_gathered boolean not null default false;
drop function if exists public.define_work_type(
  text, text, integer, integer, integer, integer, integer, boolean, integer, interval, interval);
drop function if exists public.define_work_type(
  text, text, integer, integer, integer, integer, integer, boolean, integer, interval, interval, integer, text);
drop function if exists work.close_succeeded(text, jsonb);
alter table if exists work.tally_entries add column if not exists blocked integer not null default 0;
do $$
begin
  if to_regprocedure('work.counts()') is not null
    and pg_get_function_result(to_regprocedure('work.counts()')) not like '%blocked%' then
    drop function work.counts();
  end if;
end
$$;
