-- Change: done work whose input changed is done again, with all that needs it.

-- The input of an item for a work type, as a text: a digest of the named members of its payload, else its fingerprint, else
-- a digest of its payload without the columns that results are written to.
create or replace function work.input_of(payload jsonb, fingerprint text, input_columns text[], written_columns text[])
returns text
language plpgsql
immutable
as $$
begin
  return case
    when input_columns is not null then md5((
      select jsonb_agg(payload -> c.name order by c.name) from unnest(input_columns) as c(name))::text)
    when fingerprint is not null then fingerprint
    else md5((payload - coalesce(written_columns, '{}'))::text)
  end;
end
$$;

-- Open claims again that have ended: each is {item_id, work_type, reason, is_change}. Their result is kept until the next
-- one, marked stale. The caller has locked them with lock_around(). Answers how many.
create or replace function work.reopen(keys jsonb, event text default 'reopened', actor text default null)
returns integer
language plpgsql
as $$
#variable_conflict use_column
declare
  moment timestamptz := clock_timestamp();
  reopened jsonb;
begin
  with wanted as materialized (
    select k.*, r.priority, r.rank, r.class_id, r.affinity, r.workflow_id, r.run_after
      from jsonb_to_recordset(reopen.keys) as k(item_id uuid, work_type text collate "C", reason text, is_change boolean, new_input text)
      join work.ranked_items r on r.item_id = any (array[k.item_id])
     order by k.item_id, k.work_type
  ),
  -- Changes that come again and again, within an hour of each other: a worker may write into its own input. After ten
  -- the claim waits for 10 s, 20 s, … up to an hour.
  ended as materialized (
    select w.*, c.status,
           case when w.is_change then case when c.changed_at > moment - interval '1 hour' then c.changes + 1 else 1 end end as changes
      from wanted w
     cross join lateral (
       select k.status, k.changes, k.changed_at from public.work_claims k
        where k.item_id = any (array[w.item_id]) and k.work_type = w.work_type
          and k.status in ('succeeded', 'failed', 'cancelled')
          for no key update) as c
  ),
  due as materialized (
    select e.*,
           greatest(moment, e.run_after,
             case when e.changes > 10 then moment + make_interval(secs => least(3600, 10 * 2 ^ (least(e.changes, 20) - 11))) end) as due_at
      from ended e
  ),
  reopened as (
    update public.work_claims c
       set priority = e.priority, rank = e.rank, class_id = e.class_id, affinity = e.affinity, workflow_id = e.workflow_id,
           status = case when c.waits_for > 0 then 'blocked' when e.due_at > moment then 'waiting' else 'ready' end,
           failures = 0, crashes = 0, finished_at = null, due_at = e.due_at, error = null, progress = null, poll_at = null,
           stale = case when e.status = 'succeeded' then e.reason else c.stale end,
           read_input = null, again = null,
           changes = coalesce(e.changes, c.changes),
           changed_at = case when e.changes is null then c.changed_at else moment end
      from due e
     where c.item_id = any (array[e.item_id]) and c.work_type = e.work_type
    returning c.item_id, c.work_type, c.fence, c.status, e.status as was, e.reason, e.new_input
  ),
  tallied as (
    insert into work.tally_entries (work_type, succeeded, failed, cancelled, blocked)
    select r.work_type, -count(*) filter (where r.was = 'succeeded'), -count(*) filter (where r.was = 'failed'),
           -count(*) filter (where r.was = 'cancelled'), count(*) filter (where r.status = 'blocked')
      from reopened r
     group by r.work_type
  ),
  event as (
    insert into public.work_events (item_id, work_type, event, fence, detail, from_status, to_status, actor, input)
    select r.item_id, r.work_type, reopen.event, r.fence, case when reopen.event = 'reopened' then left(r.reason, 8000) end, r.was, r.status,
           reopen.actor, r.new_input
      from reopened r
  )
  select jsonb_agg(jsonb_build_object('item_id', r.item_id, 'work_type', r.work_type, 'was', r.was, 'became', r.status))
    into reopened
    from reopened r;
  perform work.follow(reopened);
  perform work.wake_workers(null);
  return coalesce(jsonb_array_length(reopened), 0);
end
$$;

-- Open claims follow a change of their item's input: done ones are done again; a held one after its holder, unless the
-- change is taken back before.
create or replace function work.note_changes()
returns trigger
language plpgsql
as $$
#variable_conflict use_column
declare
  changed jsonb;
begin
  if not exists (select from public.work_types t where not t.is_plain and t.on_change is distinct from 'keep')
    and not exists (select from new_items n where n.fingerprint is not null) then
    return null;
  end if;
  with pools as materialized (
    select p.pool, work.written_columns(p.pool) as written from (select distinct n.pool from new_items n) as p
  ),
  inputs as materialized (
    select n.id as item_id, t.name as work_type,
           work.input_of(o.payload, o.fingerprint, t.input_columns, p.written) as old_input,
           work.input_of(n.payload, n.fingerprint, t.input_columns, p.written) as new_input
      from new_items n
      join old_items o on o.id = n.id
      join pools p on p.pool = n.pool
      join public.work_types t on t.pool = n.pool
     where (n.payload, n.fingerprint) is distinct from (o.payload, o.fingerprint)
       and (t.on_change = 'again' or (t.on_change is null and (t.input_columns is not null or n.fingerprint is not null)))
  )
  select jsonb_agg(jsonb_build_object('item_id', i.item_id, 'work_type', i.work_type, 'old_input', i.old_input,
           'new_input', i.new_input, 'reason', 'its input changed', 'is_change', true) order by i.item_id, i.work_type)
    into changed
    from inputs i
   where i.old_input is distinct from i.new_input;
  if changed is null then
    return null;
  end if;
  -- A fingerprint may have come with this update: a held claim is done again only if its work type is not plain.
  perform work.unplain(array(select distinct k.work_type from jsonb_to_recordset(changed) as k(work_type text)));
  perform work.lock_around(changed, deep => true);
  update public.work_claims c
     set read_input = case c.read_input when k.new_input then null else coalesce(c.read_input, k.old_input, 'none') end
    from jsonb_to_recordset(changed) as k(item_id uuid, work_type text collate "C", old_input text, new_input text)
   where c.item_id = any (array[k.item_id]) and c.work_type = k.work_type and c.status is not distinct from 'claimed';
  perform work.reopen((
    select coalesce(jsonb_agg(k.value), '[]')
      from jsonb_array_elements(changed) as k(value)
      join public.work_claims c
        on c.item_id = any (array[(k.value ->> 'item_id')::uuid]) and c.work_type = k.value ->> 'work_type'
     where c.status in ('succeeded', 'failed')));
  return null;
end
$$;
create or replace trigger note_changes
  after update on public.work_items referencing old table as old_items new table as new_items
  for each statement execute function work.note_changes();

-- Do done work again, by hand: of these items, with all that needs it. A worker that holds one finishes, and then it is
-- done again. Answers how many.
create or replace function public.invalidate_items(work_type text, item_ids uuid[], reason text default null)
returns integer
language plpgsql
as $$
#variable_conflict use_column
declare
  keys jsonb;
  held integer;
begin
  perform work.check_choice(invalidate_items.work_type, invalidate_items.item_ids, 1);
  if invalidate_items.item_ids is null then
    perform work.refuse('item_ids', null, 'a list of at most 1000 ids was expected; to do all of a work type again, raise its version');
  end if;
  select coalesce(jsonb_agg(jsonb_build_object('item_id', u.id, 'work_type', invalidate_items.work_type,
           'reason', coalesce(nullif(invalidate_items.reason, ''), 'invalidated by hand'))), '[]')
    into keys
    from (select distinct g.id from unnest(invalidate_items.item_ids) as g(id)) as u;
  perform work.unplain(array[invalidate_items.work_type]);
  perform work.lock_around(keys, deep => true);
  update public.work_claims c
     set again = coalesce(nullif(invalidate_items.reason, ''), 'invalidated by hand')
    from unnest(invalidate_items.item_ids) as u(id)
   where c.item_id = any (array[u.id]) and c.work_type = invalidate_items.work_type and c.status is not distinct from 'claimed';
  get diagnostics held = row_count;
  return held + work.reopen((
    select coalesce(jsonb_agg(k.value), '[]')
      from jsonb_array_elements(keys) as k(value)
      join public.work_claims c
        on c.item_id = any (array[(k.value ->> 'item_id')::uuid]) and c.work_type = k.value ->> 'work_type'
     where c.status = 'succeeded'), actor => work.actor());
end
$$;
comment on function public.invalidate_items is
  'Does done work again, with all that needs it: of these items, at most 1000 a call. The reason is kept with the stale result. Answers how many.';

-- Open the next claims of a work type that were done under an older version; at most so many are looked at. Answers how
-- many were opened. Locked claims are left for a later call.
create or replace function work.redo_next(declared public.work_types, look_at integer)
returns integer
language plpgsql
as $$
#variable_conflict use_column
declare
  last_item uuid;
  keys jsonb;
  redone integer;
begin
  select jsonb_agg(jsonb_build_object('item_id', l.item_id, 'work_type', l.work_type,
           'reason', format('version %s', declared.version)))
           filter (where l.work_type = declared.name and l.status in ('succeeded', 'claimed')
             and coalesce(l.claimed_at, '-infinity') < declared.version_at),
         case when count(*) = redo_next.look_at then (array_agg(l.item_id order by l.item_id desc))[1] end
    into keys, last_item
    from (select c.item_id, c.work_type, c.status, c.claimed_at
            from public.work_claims c
           where c.item_id > declared.redone_through
           order by c.item_id
           limit redo_next.look_at) as l;
  -- The page may end between two claims of an item: the next one begins with that item.
  if last_item is not null then
    last_item := coalesce((
      select c.item_id from public.work_claims c
       where c.item_id > declared.redone_through and c.item_id < last_item order by c.item_id desc limit 1), last_item);
  end if;
  begin
    if keys is not null then
      perform work.lock_around(keys, deep => true, at_once => true);
      redone := work.reopen((
        select coalesce(jsonb_agg(k.value), '[]')
          from jsonb_array_elements(keys) as k(value)
          join public.work_claims c
            on c.item_id = any (array[(k.value ->> 'item_id')::uuid]) and c.work_type = k.value ->> 'work_type'
         where c.status = 'succeeded'));
    end if;
    update public.work_types t set redone_through = last_item where t.name = declared.name;
    return coalesce(redone, 0);
  exception when lock_not_available then
    return 0;
  end;
end
$$;

-- Answer a held claim with the present payload. The change that made it does not open the claim again.
create or replace function public.reread_claim(item_id uuid, work_type text, worker_id text, fence bigint)
returns json
language plpgsql
as $$
#variable_conflict use_column
declare
  held public.work_claims;
begin
  perform work.check_name('work_type', reread_claim.work_type);
  perform work.check_name('worker_id', reread_claim.worker_id);
  update public.work_claims c
     set read_input = null
   where c.item_id = any (array[reread_claim.item_id]) and c.work_type = reread_claim.work_type
     and (c.status, c.worker_id, c.fence) is not distinct from ('claimed', reread_claim.worker_id, reread_claim.fence)
     and c.expires_at > clock_timestamp()
  returning c.* into held;
  if not found then
    return null;
  end if;
  -- A later statement, so that it reads what the change has written.
  return (
    select json_build_object('item_id', i.id, 'work_type', held.work_type, 'fence', held.fence, 'pool', i.pool,
             'source_key', i.source_key, 'payload', i.payload)
      from public.work_items i where i.id = held.item_id);
end
$$;
comment on function public.reread_claim is
  'Answers a held claim {item_id, work_type, fence, pool, source_key, payload} with the present payload, so that the change which made it does not open the claim again; null where the caller does not hold it.';
