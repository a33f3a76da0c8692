-- Waking: connections that LISTEN are told of claims that became ready or ended.
create table if not exists work.listeners (
  id uuid primary key,
  event text not null check (event in ('ready', 'ended')),
  listens_until timestamptz not null
);
comment on table work.listeners is
  'Who listens on the channels work_ready and work_ended, and until when. A notification is sent only while someone does.';

-- Listen for some seconds more. The caller runs LISTEN itself, and calls this again before the time is over.
create or replace function work.listen(id uuid, event text, seconds integer default 60)
returns void
language plpgsql
as $$
#variable_conflict use_column
begin
  delete from work.listeners l
   where l.id = any (array(
           select o.id from work.listeners o
            where o.listens_until < clock_timestamp() - interval '1 minute'
            limit 100
              for update skip locked));
  insert into work.listeners (id, event, listens_until)
  values (listen.id, listen.event, clock_timestamp() + make_interval(secs => listen.seconds))
  on conflict on constraint listeners_pkey do update set listens_until = excluded.listens_until;
end
$$;

-- Listen no more.
create or replace function work.unlisten(id uuid)
returns void
language plpgsql
as $$
begin
  delete from work.listeners l where l.id = unlisten.id;
end
$$;

-- Send the names as a JSON array; an empty text where any may be meant. Postgres takes less than 8,000 bytes, and sends
-- equal notifications of one transaction once.
create or replace function work.notify_listeners(event text, names text[])
returns void
language plpgsql
as $$
declare
  payload text := coalesce(array_to_json(names)::text, '');
begin
  perform pg_notify('work_' || event, case when octet_length(payload) < 8000 then payload else '' end);
end
$$;

-- Tell workers that listen that claims of these work types became ready; null: of any. Without a listener it only looks.
create or replace function work.wake_workers(work_types text[])
returns void
language plpgsql
as $$
begin
  if exists (select from work.listeners l where l.event = 'ready' and l.listens_until > clock_timestamp()) then
    perform work.notify_listeners('ready', work_types);
  end if;
end
$$;

-- Tell those who wait for results that claims of these items may have ended.
create or replace function work.wake_waiting(outcomes jsonb)
returns void
language plpgsql
as $$
begin
  if exists (select from work.listeners l where l.event = 'ended' and l.listens_until > clock_timestamp()) then
    perform work.notify_listeners('ended', array(
      select distinct o.item_id from jsonb_to_recordset(outcomes) as o(item_id text) where o.item_id is not null));
  end if;
end
$$;
