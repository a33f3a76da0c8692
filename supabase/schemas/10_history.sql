-- History: each step of a claim, for work types that ask for it. They are not plain, so that others pay nothing.

create or replace function work.record_enrolled()
returns trigger
language plpgsql
as $$
begin
  -- Without this question the insert below would run, with its trigger, for each new item.
  if exists (select from public.work_types t where not t.is_plain and t.history = 'full') then
    insert into public.work_events (item_id, work_type, event, to_status)
    select n.item_id, n.work_type, 'enrolled', n.status
      from new_claims n
      join public.work_types t on t.name = n.work_type
     where t.history = 'full';
  end if;
  return null;
end
$$;
create or replace trigger record_enrolled
  after insert on public.work_claims referencing new table as new_claims
  for each statement execute function work.record_enrolled();

-- Record claims as hold() answers them, with the input that each was claimed with.
create or replace function work.record_claimed(worker_id text, claims json)
returns void
language plpgsql
as $$
#variable_conflict use_column
begin
  if exists (select from public.work_types t where not t.is_plain and t.history = 'full') then
    insert into public.work_events (item_id, work_type, event, worker_id, fence, from_status, to_status, input)
    select c.item_id, c.work_type, 'claimed', record_claimed.worker_id, c.fence, 'ready', 'claimed',
           work.input_of(i.payload, i.fingerprint, t.input_columns, work.written_columns(t.pool))
      from json_to_recordset(claims) as c(item_id uuid, work_type text collate "C", fence bigint)
      join public.work_types t on t.name = c.work_type
      join public.work_items i on i.id = any (array[c.item_id])
     where t.history = 'full';
  end if;
end
$$;

-- Record claims that were closed or parked, as held_outcomes() answers them. Failures and snoozes are recorded for all.
create or replace function work.record_closed(worker_id text, held jsonb)
returns void
language plpgsql
as $$
#variable_conflict use_column
begin
  if exists (select from public.work_types t where not t.is_plain and t.history = 'full') then
    insert into public.work_events (item_id, work_type, event, worker_id, fence, detail, from_status, to_status)
    select h.item_id, h.work_type, case h.outcome when 'released' then 'handed_back' else h.outcome end,
           record_closed.worker_id, h.fence, case h.outcome when 'parked' then c.external_id end, 'claimed', c.status
      from jsonb_to_recordset(held) as h(item_id uuid, work_type text collate "C", fence bigint, outcome text)
      join public.work_types t on t.name = h.work_type
      join public.work_claims c on c.item_id = any (array[h.item_id]) and c.work_type = h.work_type
     where t.history = 'full' and h.outcome in ('succeeded', 'released', 'parked');
  end if;
end
$$;
