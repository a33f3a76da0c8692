-- Events: the record of all that a claim met on its way, except success.
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
  -- The check of an earlier version has no reopened.
  if not exists (
    select from pg_constraint c
     where c.conname = 'work_events_event_check' and pg_get_constraintdef(c.oid) like '%reopened%') then
    alter table public.work_events drop constraint if exists work_events_event_check;
    alter table public.work_events add constraint work_events_event_check check (event in (
      'expired', 'failed', 'handed_back', 'snoozed', 'reopened', 'retried', 'cancelled', 'stale_release', 'stale_extend'));
  end if;
end
$$;
comment on table public.work_events is
  'work-claims: one row an ended lease, failure, late call or action of a person. The newest 20 of each claim are kept.';
create index if not exists work_events_by_claim on public.work_events (item_id, work_type, id);
comment on index public.work_events_by_claim is 'What happened to this claim?';

-- Keep the newest 20 events of each claim that has new ones.
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
               order by k.id desc offset 20 limit 1)
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
