-- Events: the record of all that a claim met on its way; of what goes well only where its work type keeps a full history.
create table if not exists public.work_events (
  id bigint generated always as identity primary key,
  item_id uuid not null,
  work_type text collate "C" not null,
  event text not null,
  worker_id text,
  fence bigint,
  detail text,
  from_status text,
  to_status text,
  actor text,
  input text,
  at timestamptz not null default clock_timestamp(),
  foreign key (item_id, work_type) references public.work_claims (item_id, work_type) on delete cascade
);
do $$
begin
  -- The check of an earlier version has no unblocked.
  if not exists (
    select from pg_constraint c
     where c.conname = 'work_events_event_check' and pg_get_constraintdef(c.oid) like '%unblocked%') then
    alter table public.work_events drop constraint if exists work_events_event_check;
    alter table public.work_events add constraint work_events_event_check check (event in (
      'enrolled', 'claimed', 'succeeded', 'parked', 'expired', 'failed', 'handed_back', 'snoozed', 'retried', 'cancelled', 'reopened',
      'blocked', 'unblocked', 'prioritized', 'stopped', 'stale_release', 'stale_extend', 'stale_lock'));
  end if;
end
$$;
comment on table public.work_events is
  'work-claims: one row an ended lease, failure, late call or action of a person; of a work type with history = full also one a claim and success. The newest keep_events of each claim are kept.';
comment on column public.work_events.from_status is 'The state of the claim before, and to_status after; null where the event changed none.';
comment on column public.work_events.actor is 'The person who did it: see work.actor().';
comment on column public.work_events.input is 'The input by which the claim was reopened or done, as a digest or fingerprint.';
create index if not exists work_events_by_claim on public.work_events (item_id, work_type, id);
comment on index public.work_events_by_claim is 'What happened to this claim?';

-- The caller of an act by hand: the name in the header x-work-as, else the user of the JWT, else the role.
create or replace function work.actor()
returns text
language plpgsql
stable
as $$
begin
  return left(coalesce(
    nullif(nullif(current_setting('request.headers', true), '')::json ->> 'x-work-as', ''),
    nullif(nullif(current_setting('request.jwt.claims', true), '')::json ->> 'sub', ''),
    nullif(nullif(current_setting('request.jwt.claims', true), '')::json ->> 'role', ''),
    session_user), 200);
end
$$;

-- Keep the newest events of each claim that has new ones, as many as its work type says.
create or replace function work.prune_events()
returns trigger
language plpgsql
as $$
begin
  delete from public.work_events e
   where e.ctid = any (array(
           select o.ctid
             from (select distinct n.item_id, n.work_type from new_events n) as touched
             join public.work_events o on o.item_id = any (array[touched.item_id]) and o.work_type = touched.work_type
            where o.id <= (
              select k.id from public.work_events k
               where k.item_id = touched.item_id and k.work_type = touched.work_type
               order by k.id desc
              offset coalesce((select t.keep_events from public.work_types t where t.name = touched.work_type), 20)
               limit 1)
            -- After keep_events was lowered there may be many: later calls delete the rest.
            limit 1000 + (select count(*) from new_events)
              for update of o skip locked));
  return null;
end
$$;
create or replace trigger prune_events
  after insert on public.work_events referencing new table as new_events
  for each statement execute function work.prune_events();

-- Record calls of a worker that changed nothing, since its claims are lost: keys[n] is {item_id, work_type, fence, detail}.
create or replace function work.record_stale(worker_id text, event text, keys jsonb)
returns void
language plpgsql
as $$
#variable_conflict use_column
begin
  -- Locked against deletion, so that the event finds its claim. A claim that is being deleted is skipped: the transaction
  -- that deletes it may wait for a row of this one.
  insert into public.work_events (item_id, work_type, event, worker_id, fence, detail)
  select k.item_id, k.work_type, record_stale.event, record_stale.worker_id, k.fence, k.detail
    from jsonb_to_recordset(record_stale.keys) as k(item_id uuid, work_type text collate "C", fence bigint, detail text)
   cross join lateral (
     select from public.work_claims c
      where c.item_id = any (array[k.item_id]) and c.work_type = k.work_type
        for key share skip locked) as present;
end
$$;
