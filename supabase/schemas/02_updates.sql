-- An earlier version of this file lacks these columns, and has these functions with fewer arguments.
alter table if exists public.work_types
  add column if not exists try_seconds integer check (try_seconds between 1 and 604800),
  add column if not exists min_worker_version text check (min_worker_version ~ '^\d{1,9}(\.\d{1,9}){0,3}$');
alter table if exists public.work_items
  add column if not exists traceparent text check (length(traceparent) <= 200);
alter table if exists public.work_claims
  add column if not exists poll_at timestamptz,
  add column if not exists external_id text,
  add column if not exists state jsonb;
drop function if exists public.define_work_type(
  text, text, integer, integer, integer, integer, integer, boolean, integer, interval, interval);
