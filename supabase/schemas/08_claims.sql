-- Claims: who works on what, until when, and how it ended.
do $$
begin
  if to_regtype('public.work_claim_status') is null then
    create domain public.work_claim_status as text collate "C"
      check (value in ('blocked', 'waiting', 'ready', 'claimed', 'succeeded', 'failed', 'cancelled'));
  end if;
end
$$;
comment on domain public.work_claim_status is 'work-claims: the states of a claim. The last three are ends.';

-- Columns of fixed width that are never null come first: an update compares each that an index knows of, and finds these
-- without reading what stands before them. Without checks, since Postgres parses a table's checks for every statement: that
-- is a twelfth of a claim. The states are a domain's, whose check is kept, and a lease that nobody gave has ended.
create table if not exists public.work_claims (
  item_id uuid not null references public.work_items (id) on delete cascade,
  priority integer not null default 0,
  line bigint not null default 0,
  position bigint not null,
  class_id integer not null default 1,
  failures integer not null default 0,
  due_at timestamptz not null default clock_timestamp(),
  expires_at timestamptz not null default '-infinity',
  crashes integer not null default 0,
  status public.work_claim_status not null default 'ready',
  work_type text collate "C" not null,
  worker_id text,
  fence bigint,
  claimed_at timestamptz,
  finished_at timestamptz,
  workflow_id bigint,
  affinity text,
  request_id uuid,
  progress real,
  result jsonb,
  error text,
  -- Half of each page of the index is left as well, for the entries of later versions.
  primary key (item_id, work_type) with (fillfactor = 50)
);
-- One that was made with checks loses them.
do $$
begin
  if exists (select from pg_attribute a
              where a.attrelid = 'public.work_claims'::regclass and a.attname = 'expires_at' and not a.attnotnull) then
    alter table public.work_claims
      drop constraint if exists a_claimed_row_has_a_lease_and_a_terminal_one_an_end,
      alter column expires_at set default '-infinity';
    update public.work_claims set expires_at = '-infinity' where expires_at is null;
    alter table public.work_claims alter column expires_at set not null;
  end if;
end
$$;
comment on table public.work_claims is
  'work-claims: one row an (item, work type): at most one worker holds it. Ready and waiting rows are work to do, terminal rows are the record.';
comment on column public.work_claims.class_id is 'What its item requires and shows: see work_classes.';
comment on column public.work_claims.priority is 'The workflow''s priority where it has one, else the item''s.';
comment on column public.work_claims.line is 'Its place in line within one priority: the workflow''s where it has one, else the item''s seq.';
comment on column public.work_claims.position is 'Its place within a workflow: the item''s seq.';
comment on column public.work_claims.fence is 'New with every claim; only the current one may extend or release.';
comment on column public.work_claims.worker_id is 'Who holds it, or who released it last.';
comment on column public.work_claims.due_at is 'Since when it may run, or when it will be able to.';
comment on column public.work_claims.expires_at is 'The end of the lease, or of the last one, by this database''s clock. -infinity: there was none.';
comment on column public.work_claims.failures is 'How often a handler failed. Crashes, leases that ended without a release, are counted apart.';

create index if not exists work_claims_ready on public.work_claims
  (class_id, work_type, priority desc, line, position) where status = 'ready';
comment on index public.work_claims_ready is 'What is next in line for this class and this work type?';
-- The condition on classes holds always: only a query that says it too can be planned with this index. On empty tables
-- several indexes cost the same, and a plan made then with this one would walk whole lines for one class later.
create index if not exists work_claims_in_line on public.work_claims
  (work_type, priority desc, line, position) where status = 'ready' and class_id > 0;
comment on index public.work_claims_in_line is 'What is next in line among all classes?';
create index if not exists work_claims_warm on public.work_claims
  (work_type, affinity, priority desc, line, position, class_id) where status = 'ready' and affinity is not null;
comment on index public.work_claims_warm is 'What is next for a worker that is warm for this?';
-- As a range, status makes this the one index for a query that asks for it as a range.
create index if not exists work_claims_of_workflow on public.work_claims
  (workflow_id, class_id, work_type, priority desc, line, position)
  where status >= 'ready' and status <= 'ready' and workflow_id is not null;
comment on index public.work_claims_of_workflow is 'What is next in line of this workflow alone?';
create index if not exists work_claims_aside_of_workflow on public.work_claims (workflow_id)
  where status in ('blocked', 'waiting', 'claimed') and workflow_id is not null;
comment on index public.work_claims_aside_of_workflow is 'What of this workflow is open without standing in line?';
create index if not exists work_claims_leases on public.work_claims (expires_at) where status = 'claimed';
comment on index public.work_claims_leases is 'Whose lease has ended? What is held at all?';
create index if not exists work_claims_due on public.work_claims (due_at) where status = 'waiting';
comment on index public.work_claims_due is 'What is due again?';
-- What succeeded is in no index but the primary key: an entry more a claim costs a tenth of the throughput.
create index if not exists work_claims_failed on public.work_claims (work_type, finished_at) where status = 'failed';
comment on index public.work_claims_failed is 'What failed for good, and in which order?';

-- Vacuum keeps up with a table in which every row is rewritten twice.
alter table public.work_claims set (
  -- Half of each page is left for the later versions of its rows: an update within a page writes less.
  fillfactor = 50,
  autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000,
  autovacuum_analyze_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);

-- The place that an item's claims have in line.
create or replace view work.places with (security_invoker = true) as
select i.id as item_id, i.pool, i.seq as position, coalesce(w.priority, i.priority) as priority,
       coalesce(w.line, i.seq) as line, i.class_id, i.affinity, i.workflow_id, i.run_after,
       greatest(i.created_at, i.run_after) as due_at
  from public.work_items i
  left join public.work_workflows w on w.id = i.workflow_id;
comment on view work.places is 'work-claims: the place that each item''s claims have in line.';

-- New items are enrolled for the work types of their pool, in the transaction that adds them.
create or replace function work.enroll_new_items()
returns trigger
language plpgsql
as $$
declare
  pool_name text;
begin
  for pool_name in select distinct i.pool from new_items i order by i.pool loop
    perform pg_advisory_xact_lock_shared(work.pool_lock_key(pool_name));
  end loop;
  -- A workflow's priority does not change meanwhile.
  perform from public.work_workflows w
   where w.id in (select i.workflow_id from new_items i where i.workflow_id is not null)
   order by w.id for share;
  -- In the order of ids, as claim_items() does: it may be at these, where they are keys of rows that were deleted a moment
  -- ago and come again.
  insert into public.work_claims
    (item_id, work_type, status, priority, line, position, class_id, affinity, workflow_id, due_at)
  select i.id, t.name,
         case when i.run_after > clock_timestamp() then 'waiting' else 'ready' end,
         coalesce(w.priority, i.priority), coalesce(w.line, i.seq), i.seq, i.class_id, i.affinity, i.workflow_id,
         greatest(i.run_after, clock_timestamp())
    from new_items i
    join public.work_types t on t.pool = i.pool
    left join public.work_workflows w on w.id = i.workflow_id
   order by i.id, t.name
  on conflict do nothing;
  if found then
    perform work.note_arrivals();
  end if;
  return null;
end
$$;
create or replace trigger enroll_new_items
  after insert on public.work_items referencing new table as new_items
  for each statement execute function work.enroll_new_items();

-- An item's claims go with it. They are locked in the order of keys, as every call does that waits for claims: what deletes them
-- takes them as it finds them, and could wait in a circle with the release of two of them.
create or replace function work.lock_claims_of_item()
returns trigger
language plpgsql
as $$
begin
  perform from public.work_claims c where c.item_id = any (array[old.id]) order by c.work_type for update;
  return old;
end
$$;
create or replace trigger lock_claims_of_item
  before delete on public.work_items
  for each row execute function work.lock_claims_of_item();

-- Open claims follow what has changed of their item: its priority, its workflow, what it requires, when it may run.
create or replace function work.move_open_claims()
returns trigger
language plpgsql
as $$
declare
  -- Old and new rows of a bulk update are matched by hashing, also inside a function that forbids it for its own.
  moved uuid[];
  rescheduled boolean[];
begin
  select array_agg(n.id order by n.id), array_agg(n.run_after is distinct from o.run_after order by n.id)
    into moved, rescheduled
    from new_items n
    join old_items o on o.id = n.id
   where (n.priority, n.run_after, n.class_id, n.affinity, n.workflow_id)
           is distinct from (o.priority, o.run_after, o.class_id, o.affinity, o.workflow_id);
  if moved is null then
    return null;
  end if;
  perform from public.work_workflows w
   where w.id in (select i.workflow_id from new_items i where i.workflow_id is not null)
   order by w.id for share;
  with changed as materialized (
    select m.is_rescheduled, p.*
      from unnest(moved, rescheduled) as m(id, is_rescheduled)
     cross join lateral (select k.* from work.places k where k.item_id = m.id limit 1) as p
     order by m.id
  )
  update public.work_claims c
     set priority = m.priority,
         line = m.line,
         class_id = m.class_id,
         affinity = m.affinity,
         workflow_id = m.workflow_id,
         status = case
           when not m.is_rescheduled or c.status not in ('ready', 'waiting') then c.status
           when m.run_after > clock_timestamp() then 'waiting'
           else 'ready'
         end,
         due_at = case
           when m.is_rescheduled and c.status in ('ready', 'waiting', 'claimed') then greatest(m.run_after, clock_timestamp())
           else c.due_at
         end
    from changed m
   where c.item_id = any (array[m.item_id])
     and c.status in ('blocked', 'waiting', 'ready', 'claimed');
  if found then
    perform work.note_arrivals();
  end if;
  return null;
end
$$;
create or replace trigger move_open_claims
  after update on public.work_items referencing old table as old_items new table as new_items
  for each statement execute function work.move_open_claims();

-- A workflow's priority counts for its open claims at once; an item that is added meanwhile waits for it.
create or replace function work.move_workflow()
returns trigger
language plpgsql
as $$
begin
  if tg_op = 'DELETE' then
    -- Its items go on by themselves, at places of their own.
    update public.work_items i set workflow_id = null where i.workflow_id = old.id;
    return null;
  end if;
  if (new.priority, new.line) is distinct from (old.priority, old.line) then
    -- What has ended is not read, however much it is. A claim that is taken, handed back or given to another workflow
    -- while this waits for its row is looked at again, by its key: it moves if it is still open and still of this one.
    -- Rows are waited for in the order of keys.
    with moved as materialized (
      select o.item_id, o.work_type, coalesce(new.priority, i.priority) as priority
        from (
          select c.item_id, c.work_type from public.work_claims c
           where c.workflow_id = new.id and c.status >= 'ready' and c.status <= 'ready'
           union all
          select c.item_id, c.work_type from public.work_claims c
           where c.workflow_id = new.id and c.status in ('blocked', 'waiting', 'claimed')) as o
        join public.work_items i on i.id = any (array[o.item_id])
       order by o.item_id, o.work_type
    )
    update public.work_claims c
       set priority = m.priority, line = new.line
      from moved m
     where c.item_id = any (array[m.item_id]) and c.work_type = m.work_type
       and c.workflow_id is not distinct from new.id
       and c.status in ('blocked', 'waiting', 'ready', 'claimed')
       and (c.priority, c.line) is distinct from (m.priority, new.line);
    if found then
      perform work.note_arrivals();
    end if;
  end if;
  return null;
end
$$;
create or replace trigger move_workflow
  after update or delete on public.work_workflows for each row execute function work.move_workflow();

-- A work type with claims stays and keeps its name: their rules are its row.
create or replace function work.keep_used_type()
returns trigger
language plpgsql
as $$
begin
  if (tg_op = 'DELETE' or new.name <> old.name)
    and exists (select from public.work_claims c where c.work_type = old.name) then
    perform work.refuse('work type', old.name, 'it has claims; delete them first, or set paused', 'PT409');
  end if;
  return case when tg_op = 'DELETE' then old else new end;
end
$$;
create or replace trigger keep_used_type
  before delete or update of name on public.work_types for each row execute function work.keep_used_type();
