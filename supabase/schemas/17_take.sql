-- Taking what is next: of one line, or of many as if they were one.

-- Claim the first of one line. The rows are picked and locked by ctid first: with a join or an IN the planner may run
-- the limit more than once.
create or replace function work.take_line(
  work_type text, class_id integer, worker_id text, max_items integer, ttl_seconds integer, request_id uuid)
returns json
language plpgsql
as $$
#variable_conflict use_column
declare
  only_one record;
  answer json;
begin
  -- The same for one row, which is asked for most often: what sorts and gathers rows is a seventh of the work.
  if take_line.max_items = 1 then
    update public.work_claims c
       set status = 'claimed',
           worker_id = take_line.worker_id,
           fence = nextval('work.fence'),
           request_id = take_line.request_id,
           claimed_at = clock_timestamp(),
           expires_at = clock_timestamp() + interval '1 second' * coalesce(take_line.ttl_seconds, t.lease_seconds),
           progress = null
      from public.work_types t, public.work_items i
     where t.name = take_line.work_type and not t.paused
       and c.ctid = (
             select r.ctid
               from public.work_claims r
              where r.work_type = take_line.work_type and r.class_id = take_line.class_id and r.status = 'ready'
              order by r.priority desc, r.line, r.position
              limit 1
                for no key update skip locked)
       and i.id = c.item_id
    returning c.item_id, c.work_type, c.fence, coalesce(take_line.ttl_seconds, t.lease_seconds) as ttl_seconds, c.expires_at,
              c.failures, c.crashes, i.pool, i.source_key, i.payload
         into only_one;
    return case when found then json_build_array(only_one) else '[]' end;
  end if;

  -- The clock is read when a row is locked: no claim begins before the one that it follows has ended.
  with won as (
    update public.work_claims c
       set status = 'claimed',
           worker_id = take_line.worker_id,
           fence = nextval('work.fence'),
           request_id = take_line.request_id,
           claimed_at = clock_timestamp(),
           expires_at = clock_timestamp() + interval '1 second' * coalesce(take_line.ttl_seconds, t.lease_seconds),
           progress = null
      from public.work_types t
     where t.name = take_line.work_type and not t.paused
       and c.ctid = any (array(
             select r.ctid
               from public.work_claims r
              where r.work_type = take_line.work_type and r.class_id = take_line.class_id and r.status = 'ready'
              order by r.priority desc, r.line, r.position
              limit take_line.max_items
                for no key update skip locked))
    returning c.item_id, c.work_type, c.fence, coalesce(take_line.ttl_seconds, t.lease_seconds) as ttl_seconds, c.expires_at,
              c.failures, c.crashes, c.priority, c.line, c.position
  )
  select coalesce(json_agg(told order by w.priority desc, w.line, w.position), '[]') into answer
    from won w
    join public.work_items i on i.id = w.item_id
   cross join lateral (
     select w.item_id, w.work_type, w.fence, w.ttl_seconds, w.expires_at, w.failures, w.crashes, i.pool, i.source_key, i.payload) as told;
  return answer;
end
$$;

-- Claim these rows, the first of them that nobody holds; as long as they are ready and of these classes.
create or replace function work.take_rows(
  row_ids tid[], row_classes integer[], worker_id text, max_items integer, ttl_seconds integer, request_id uuid)
returns json
language plpgsql
as $$
#variable_conflict use_column
declare
  answer json;
begin
  -- One row at a time, in order, until there are enough: what others hold or have taken meanwhile is passed over.
  with picked as materialized (
    select l.row_id, p.n
      from unnest(take_rows.row_ids, take_rows.row_classes) with ordinality as p(row_id, class_id, n)
     cross join lateral (
       select r.ctid as row_id
         from public.work_claims r
        where r.ctid = p.row_id and r.status is not distinct from 'ready' and r.class_id is not distinct from p.class_id
          for no key update skip locked) as l
     limit take_rows.max_items
  ),
  won as (
    update public.work_claims c
       set status = 'claimed',
           worker_id = take_rows.worker_id,
           fence = nextval('work.fence'),
           request_id = take_rows.request_id,
           claimed_at = clock_timestamp(),
           expires_at = clock_timestamp() + interval '1 second' * coalesce(take_rows.ttl_seconds, (
             select t.lease_seconds from public.work_types t where t.name = c.work_type)),
           progress = null
      from picked p
     where c.ctid = p.row_id
    returning p.n, c.item_id, c.work_type, c.fence, c.claimed_at, c.expires_at, c.failures, c.crashes
  )
  select json_agg(told order by w.n) into answer
    from won w
    join public.work_items i on i.id = w.item_id
   cross join lateral (
     select w.item_id, w.work_type, w.fence, date_part('epoch', w.expires_at - w.claimed_at)::integer as ttl_seconds, w.expires_at,
            w.failures, w.crashes, i.pool, i.source_key, i.payload) as told;
  return answer;
end
$$;

-- Who asks for the same: this profile, for these work types.
create or replace function work.asker_of(profile_id integer, work_types text[])
returns bigint
language sql
immutable
as $$
  select case cardinality(work_types)
    when 1 then hashtextextended(work_types[1], profile_id)
    else hashtextextended(work_types::text, -profile_id) end
$$;

-- Where in line a session's last call left off that read the lines, for one asker: kept in the settings work.mark0 to
-- work.mark15, and in others, as another type, once it has other fields, since sessions outlive a migration. The last line and
-- position are those of the last row that was taken, or the beginning of its line; workflow_line is the last line if that is
-- one workflow's.
do $$
begin
  if to_regtype('work.mark') is null then
    create type work.mark as (
      asker bigint, top integer, workflow_line bigint, last_line bigint, last_position bigint, span bigint,
      arrivals bigint, judged_through bigint, ended_before bigint, tag bigint, in_vain bigint);
  end if;
end
$$;
comment on type work.mark is 'Where in line a session''s last call left off that read the lines.';

-- Which line the last call reached of all sessions that ask for the same: before it nothing is left. The upper bits are a tag
-- that only who asks the same computes, as long as nothing more has arrived, in the same second. A crash, which ends all
-- sessions, may lose it.
do $$
begin
  for n in 0..15 loop
    execute format('create unlogged sequence if not exists work.place%s as bigint minvalue -9223372036854775808', n);
    execute format('comment on sequence work.place%s is %L', n, 'Which line the last call reached of all sessions that ask for the same.');
    execute format('revoke all on sequence work.place%s from public, anon, authenticated', n);
    execute format('grant usage, select, update on sequence work.place%s to service_role', n);
  end loop;
end
$$;

-- Claim the first of several lines, in exact order, all of the highest priority that is ready at all: each line is asked for
-- what it has up to some place, which is little. How far that is follows from the last such call of this session, or is
-- guessed: too near finds too few, and too far reads too many, but what is claimed comes first in any case. Sixteen askers
-- are remembered, or that a guess was of no use. Once all that had come into line has been seen, take_next() may go on from there.
create or replace function work.take_front(
  profile work.profiles, work_types text[], class_ids integer[], worker_id text, max_items integer, ttl_seconds integer,
  request_id uuid, may_guess boolean, out claimed json, out won integer)
language plpgsql
as $$
#variable_conflict use_column
declare
  -- Others may hold the first rows at this moment: some more are read than are asked for, but not all that there is.
  most constant integer := (take_front.max_items + 4) * 32;
  asker constant bigint := work.asker_of(profile.id, take_front.work_types);
  slot constant text := 'work.mark' || (asker & 15);
  shared constant regclass := 'work.place' || (asker & 15);
  front work.mark := nullif(current_setting(slot, true), '')::work.mark;
  is_guessed boolean;
  second constant bigint := date_part('epoch', clock_timestamp());
  arrivals constant bigint := coalesce(pg_sequence_last_value('work.arrivals'), 0);
  tag bigint;
  seen integer;
  last_line bigint;
  last_position bigint;
  place bigint;
  oldest bigint;
  kept text;
begin
  won := 0;
  if front.asker <> asker then
    front := null;
  end if;
  is_guessed := coalesce(front.span, 0) = 0;
  if is_guessed and (not take_front.may_guess or front.asker is not null and front.span is null and random() < 0.9) then
    return;
  end if;
  -- A place is a line or, within one workflow, a position.
  if front.workflow_line <> front.last_line then
    front.workflow_line := null;
  end if;
  place := case when front.workflow_line is null then front.last_line else front.last_position end;
  for attempt in 1..3 loop
    if is_guessed and coalesce(front.span, 0) = 0 then
      select g.top, g.workflow_line, g.place, g.span into front.top, front.workflow_line, place, front.span
        from work.guess_front(take_front.work_types, take_front.class_ids, take_front.max_items) as g;
      exit when front.top is null;
    end if;
    -- One scan goes along all lines; then one row at a time is locked, in order, until there are enough: what others hold or
    -- have taken meanwhile is passed over.
    with rules as materialized (
      select t.name, t.lease_seconds from public.work_types t where t.name = any (take_front.work_types) and not t.paused
    ),
    near as materialized (
      select array_agg(g.row_id) as row_ids, count(*) as seen
        from (
          select c.row_id
            from rules r
           cross join lateral (
             select n.ctid as row_id
               from public.work_claims n
              where n.class_id = any (take_front.class_ids) and n.work_type = r.name
                and n.status = 'ready' and n.priority = front.top
                and (n.line, n.position) <= (
                  coalesce(front.workflow_line, place + front.span),
                  case when front.workflow_line is null then 9223372036854775807 else place + front.span end)
              limit most) as c
           -- Nothing is more urgent. By its order this can be answered with one index alone, whatever statistics say.
           where (select true
                    from rules t
                   cross join lateral (
                     select from public.work_claims h
                      where h.work_type = t.name and h.status = 'ready' and h.class_id > 0 and h.priority > front.top
                      order by h.priority desc, h.line, h.position
                      limit 1) as urgent
                   limit 1) is null
           limit most) as g
    ),
    taken as (
      update public.work_claims c
         set status = 'claimed',
             worker_id = take_front.worker_id,
             fence = nextval('work.fence'),
             request_id = take_front.request_id,
             claimed_at = clock_timestamp(),
             expires_at = clock_timestamp() + interval '1 second' * coalesce(take_front.ttl_seconds, t.lease_seconds),
             progress = null
        from rules t
       where t.name = c.work_type
         and c.ctid = any (array(
               select r.ctid
                 from public.work_claims r
                where r.ctid = any ((select n.row_ids from near n where n.seen < most)::tid[])
                  and r.status is not distinct from 'ready' and r.class_id = any (take_front.class_ids)
                order by r.line, r.position
                limit take_front.max_items
                  for no key update skip locked))
      returning c.item_id, c.work_type, c.fence, coalesce(take_front.ttl_seconds, t.lease_seconds) as ttl_seconds, c.expires_at,
                c.failures, c.crashes, c.line, c.position
    )
    select json_agg(told order by k.line, k.position), count(*), max(k.line),
           case when min(k.line) = max(k.line) then max(k.position) else 0 end,
           (select n.seen from near n), txid_snapshot_xmin(txid_current_snapshot())
      into claimed, won, last_line, last_position, seen, oldest
      from taken k
      join public.work_items i on i.id = k.item_id
     cross join lateral (
       select k.item_id, k.work_type, k.fence, k.ttl_seconds, k.expires_at, k.failures, k.crashes, i.pool, i.source_key, i.payload
     ) as told;
    exit when won > 0;
    if is_guessed then
      exit when seen < most;
      front.span := greatest(front.span / 4, 1);
    else
      is_guessed := true;
      front.span := 0;
    end if;
  end loop;

  -- Not by "perform", which makes a statement of it.
  if won > 0 and seen >= take_front.max_items then
    -- Others claim meanwhile: until the next call the front moves about as far as it did until this one.
    front.span := case when won < take_front.max_items then least(front.span * 2, 1000000000000)
      else greatest(
        (case when front.workflow_line is null then last_line else last_position end - place) * 2, front.span - front.span / 8, 1) end;
    front.workflow_line := case when last_line = front.workflow_line then last_line end;
    front.last_line := last_line;
    front.last_position := last_position;
    -- Who was counted as bringing something must have ended, for it to have been seen. A later transaction of this session has
    -- a higher number than all who were counted before it, and when all below that have ended, they have.
    if (front.arrivals, front.judged_through) is distinct from (arrivals, profile.judged_through) then
      front.arrivals := arrivals;
      front.judged_through := profile.judged_through;
      front.ended_before := -txid_current();
    elsif front.ended_before < 0 then
      if front.ended_before <> -txid_current() then
        front.ended_before := txid_current();
      end if;
    elsif oldest >= front.ended_before and cardinality(take_front.work_types) = 1 then
      tag := hashint8extended(arrivals, hashint8extended(profile.judged_through, asker # (front.top::bigint << 32) # second)) << 40;
      front.tag := tag;
      if (pg_sequence_last_value(shared) # tag between 0 and 1099511627775) is not true then
        place := setval(shared, tag | last_line);
      end if;
    end if;
  else
    -- Of no use where there is too much, and otherwise to be guessed anew.
    front.span := case when (seen >= most) is not true then 0 end;
  end if;
  front.asker := asker;
  kept := set_config(slot, front::text, false);
end
$$;

-- Claim the first of several lines, in exact order. How the first rows are found depends on how many lines there are; what
-- is lacking then is looked for line by line, further back each time.
create or replace function work.take_merged(
  profile work.profiles, work_types text[], worker_id text, max_items integer, ttl_seconds integer, warm text[],
  "only" jsonb, request_id uuid)
returns json
language plpgsql
as $$
#variable_conflict use_column
declare
  old_enough timestamptz := clock_timestamp() - make_interval(secs => profile.yield_seconds);
  class_ids integer[] := profile.class_ids;
  yielded_class_ids integer[] := profile.yielded_class_ids;
  at_hand text[] := coalesce(take_merged.warm, '{}');
  only_labels jsonpath;
  only_workflow bigint;
  open_types text[];
  way text := 'read';
  -- Others may hold the first rows at this moment: some more are read than are asked for.
  breadth integer := take_merged.max_items + least(take_merged.max_items * 3, 60) + 4;
  reach integer := 1;
  rounds integer := 0;
  front record;
  part json;
  answer json;
  left_to_win integer := take_merged.max_items;
  kept text;
begin
  open_types := array(
    select t.name from public.work_types t
     where t.name = any (take_merged.work_types) and not t.paused
       and ("only" ->> 'pool' is null or t.pool is null or t.pool = "only" ->> 'pool')
     order by t.name);
  if "only" ? 'labels' then
    only_labels := work.compile_requirement("only" -> 'labels', 'only.labels');
    class_ids := array(
      select c.id from unnest(class_ids) as m(id) join public.work_classes c on c.id = m.id where c.labels @@ only_labels);
    yielded_class_ids := array(
      select c.id from unnest(yielded_class_ids) as m(id) join public.work_classes c on c.id = m.id
       where c.labels @@ only_labels);
  end if;
  if "only" ? 'workflow' then
    only_workflow := (select w.id from public.work_workflows w where w.name = "only" ->> 'workflow');
    if only_workflow is null then
      return '[]';
    end if;
  end if;
  if yielded_class_ids = '{}' and "only" is null and at_hand = '{}' then
    way := case
      when profile.is_broad and profile.class_bits is not null then 'walk'
      when cardinality(open_types) * cardinality(class_ids) > 2 then 'front'
      else 'read'
    end;
  end if;

  while left_to_win > 0 and reach <= 65536 loop
    if way = 'front' then
      front := work.take_front(
        profile, take_merged.work_types, class_ids, take_merged.worker_id, left_to_win, take_merged.ttl_seconds,
        take_merged.request_id, true);
      part := front.claimed;
    else
      if way = 'walk' then
        -- What was stored compressed is unpacked by the concatenation, once and not for each row.
        front := work.walk_lines(open_types, profile.class_bits || B'', left_to_win);
      else
        front := work.read_lines(
          open_types, class_ids, yielded_class_ids, old_enough, at_hand, "only" ->> 'pool', only_workflow, breadth, reach);
      end if;
      part := work.take_rows(
        front.row_ids, front.row_classes, take_merged.worker_id, left_to_win, take_merged.ttl_seconds, take_merged.request_id);
    end if;
    if part is not null then
      answer := case when answer is null then part else (answer::jsonb || part::jsonb)::json end;
      left_to_win := left_to_win - json_array_length(part);
    end if;

    if way = 'walk' then
      way := 'front';
      if left_to_win = 0 then
        kept := set_config('work.mark' || (work.asker_of(profile.id, take_merged.work_types) & 15), '', false);
      end if;
    elsif way = 'front' then
      -- Again, as long as it wins something: others have taken of the same meanwhile.
      if part is null then
        way := 'read';
      end if;
    elsif at_hand <> '{}' then
      -- Again, for what is left of this priority or for the next one; without regard to warmth where others hold all of
      -- this one that was found. Each round reads all lines: what is left after so many is for the next call.
      rounds := rounds + 1;
      exit when rounds = 20 and answer is not null;
      if part is null then
        at_hand := '{}';
      end if;
    else
      exit when front.is_all;
      reach := reach * 4;
      breadth := breadth * 2;
    end if;
  end loop;
  return coalesce(answer, '[]');
end
$$;

-- Take the next claims in line, of one line or of many. A call may win fewer than there are.
create or replace function work.take_next(
  work_types text[], worker_id text, max_items integer, ttl_seconds integer, warm text[], "only" jsonb, request_id uuid)
returns json
language plpgsql
as $$
#variable_conflict use_column
declare
  is_usual boolean;
  profile work.profiles;
  last integer;
  has_others boolean;
  asker bigint;
  slot text;
  mark work.mark;
  shared regclass;
  tag bigint;
  place bigint;
  is_shared boolean;
  matched varbit;
  beyond integer;
  won integer;
  last_line bigint;
  last_position bigint;
  answer json;
  front record;
  kept text;
begin
  -- One question where all is as usual. An array may begin anywhere: the only element of another kind of array is left to
  -- the general way.
  is_usual := work_types[1] is not null and cardinality(work_types) = 1 and length(worker_id) between 1 and 200
    and max_items between 1 and 1000 and num_nonnulls(ttl_seconds, warm, "only") = 0;
  if is_usual is not true then
    perform work.check_claim(work_types, worker_id, max_items, ttl_seconds, warm, "only");
    max_items := least(max_items, 1000);
    is_usual := work_types[1] is not null and cardinality(work_types) = 1 and coalesce(warm, '{}') = '{}' and "only" is null;
  end if;
  profile := work.catch_up(take_next.worker_id, take_next.work_types, '{}');
  -- Mostly there is one line: nothing is required, or all that is ready requires the same. It is the last one, of what was
  -- required last, where the others are empty, which takes less to see than that a line is not.
  if is_usual and cardinality(profile.class_ids) <= 3 and profile.yielded_class_ids = '{}' then
    last := cardinality(profile.class_ids);
    -- Apart from the condition: with a sub-select that is a statement of its own, reached or not.
    if last > 1 then
      has_others := exists (
        select from public.work_claims c
         where c.class_id = any (profile.class_ids[1:last - 1]) and c.work_type = take_next.work_types[1] and c.status = 'ready');
    end if;
    if has_others is not true then
      return work.take_line(
        take_next.work_types[1], profile.class_ids[last], take_next.worker_id, take_next.max_items, take_next.ttl_seconds,
        take_next.request_id);
    end if;
  end if;
  -- Of many lines, what is next is mostly where the last call left off of those who ask for the same, or of this session: where
  -- nothing has come into line since, there is nothing before. All lines are walked as one from there on, and what the worker does
  -- not match is stepped over.
  -- What is made ready by hand is not counted, and what somebody else has locked is passed over, also if they leave it as it was
  -- or roll back: in each second the first one reads the lines from their beginning, by take_front().
  if is_usual and profile.yielded_class_ids = '{}' and profile.class_bits is not null then
    asker := hashtextextended(take_next.work_types[1], profile.id);
    slot := 'work.mark' || (asker & 15);
    mark := nullif(current_setting(slot, true), '')::work.mark;
    if mark.asker = asker then
      tag := hashint8extended(coalesce(pg_sequence_last_value('work.arrivals'), 0), hashint8extended(
        profile.judged_through, asker # (mark.top::bigint << 32) # date_part('epoch', clock_timestamp())::bigint)) << 40;
      shared := 'work.place' || (asker & 15);
      place := pg_sequence_last_value(shared) # tag;
      is_shared := place between 0 and 1099511627775;
      if is_shared and (place <> mark.last_line or mark.tag is distinct from tag) then
        mark.tag := tag;
        mark.last_line := place;
        mark.last_position := 0;
      end if;
      if mark.tag = tag and mark.in_vain is distinct from tag then
        -- What was stored compressed is unpacked by the concatenation, once and not for each row. A class beyond it meets the last bit.
        matched := profile.class_bits || B'0';
        beyond := length(matched) - 1;
        with taken as (
          update public.work_claims c
             set status = 'claimed',
                 worker_id = take_next.worker_id,
                 fence = nextval('work.fence'),
                 request_id = take_next.request_id,
                 claimed_at = clock_timestamp(),
                 expires_at = clock_timestamp() + interval '1 second' * coalesce(take_next.ttl_seconds, t.lease_seconds),
                 progress = null
            from public.work_types t
           where t.name = take_next.work_types[1] and not t.paused
             and c.ctid = any (array(
                   select r.ctid
                     from (select n.ctid as row_id, n.class_id, n.line, n.position
                             from public.work_claims n
                            where n.work_type = take_next.work_types[1] and n.status = 'ready' and n.class_id > 0
                              and n.priority = mark.top
                              and (n.line, n.position) > (mark.last_line, mark.last_position)
                            order by n.line, n.position
                            -- About as far as it takes to ask the lines.
                            limit take_next.max_items * 64 + least(cardinality(profile.class_ids), 1000) * 8 + 128) as w
                     join public.work_claims r on r.ctid = w.row_id
                    where get_bit(matched, least(w.class_id, beyond)) = 1
                      and r.status is not distinct from 'ready' and r.class_id is not distinct from w.class_id
                    order by w.line, w.position
                    limit take_next.max_items
                      for no key update of r skip locked))
          returning c.item_id, c.work_type, c.fence, coalesce(take_next.ttl_seconds, t.lease_seconds) as ttl_seconds, c.expires_at,
                    c.failures, c.crashes, c.line, c.position
        )
        select json_agg(told order by k.line, k.position), count(*), max(k.line), max(k.position)
          into answer, won, last_line, last_position
          from taken k
          join public.work_items i on i.id = k.item_id
         cross join lateral (
           select k.item_id, k.work_type, k.fence, k.ttl_seconds, k.expires_at, k.failures, k.crashes, i.pool, i.source_key, i.payload
         ) as told;
        if won < max_items then
          -- What is its own stands too far apart for some way, or there is no more.
          mark.in_vain := tag;
        end if;
        -- Not past what has come since this transaction began to look.
        if last_line > mark.last_line and current_setting('transaction_isolation') = 'read committed' then
          place := setval(shared, tag | last_line);
        end if;
        -- Where all that is to be remembered is shared, the session need not.
        if is_shared is not true or last_line = mark.last_line or mark.in_vain = tag then
          mark.last_position := case when last_line = mark.last_line then last_position else 0 end;
          mark.last_line := coalesce(last_line, mark.last_line);
          kept := set_config(slot, mark::text, false);
        end if;
        if won = max_items then
          return answer;
        elsif won > 0 then
          return (answer::jsonb || work.take_merged(
            profile, take_next.work_types, take_next.worker_id, max_items - won, take_next.ttl_seconds, null, null,
            take_next.request_id)::jsonb)::json;
        end if;
      end if;
    end if;
  end if;
  -- Once in a while a walk may show that it does as well.
  if is_usual and profile.yielded_class_ids = '{}' and (not profile.is_broad or random() < 0.98) then
    front := work.take_front(
      profile, take_next.work_types, profile.class_ids, take_next.worker_id, take_next.max_items, take_next.ttl_seconds,
      take_next.request_id, false);
    if front.won = max_items then
      return front.claimed;
    end if;
    if front.won > 0 then
      return (front.claimed::jsonb || work.take_merged(
        profile, take_next.work_types, take_next.worker_id, max_items - front.won, take_next.ttl_seconds, take_next.warm,
        take_next."only", take_next.request_id)::jsonb)::json;
    end if;
  end if;
  return work.take_merged(
    profile, take_next.work_types, take_next.worker_id, take_next.max_items, take_next.ttl_seconds, take_next.warm,
    take_next."only", take_next.request_id);
end
$$;
