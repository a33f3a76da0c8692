-- Opt-in: drains started on a schedule, by pg_cron, pg_net and Vault. It may be run again. The main migration comes first.
set lock_timeout = '10s';

-- A hosted project has the extensions. Elsewhere the functions below are made, and schedule_drain() skips with a notice.
do $$
declare
  extension text;
begin
  foreach extension in array array['pg_cron', 'pg_net', 'supabase_vault'] loop
    begin
      execute format('create extension if not exists %I', extension);
    exception when others then
      raise notice 'work-claims: % cannot be made here (%): schedule_drain() will skip', extension, sqlerrm;
    end;
  end loop;
end
$$;

-- Name the extensions that schedule_drain() needs and the database lacks; null where it has all.
create or replace function work.missing_for_schedule()
returns text
language plpgsql
stable
as $$
begin
  return (
    select string_agg(n.extension, ', ' order by n.extension)
      from (values
        ('pg_cron', to_regprocedure('cron.schedule(text, text, text)')::oid),
        ('pg_net', to_regproc('net.http_post')::oid),
        ('supabase_vault', to_regclass('vault.decrypted_secrets')::oid)) as n(extension, found)
     where n.found is null);
end
$$;

-- Read a secret of Vault. Without it every request would be refused, and nothing would tell.
create or replace function work.schedule_secret(secret_name text)
returns text
language plpgsql
stable
as $$
declare
  found_secret text;
begin
  select s.decrypted_secret into found_secret from vault.decrypted_secrets s where s.name = schedule_secret.secret_name;
  if coalesce(found_secret, '') = '' then
    perform work.refuse(
      'the secret ' || schedule_secret.secret_name, 'not in Vault',
      format('select vault.create_secret(''…'', %L) puts it there', schedule_secret.secret_name));
  end if;
  return found_secret;
end
$$;

-- Name the job of these work types, the same in any order.
create or replace function work.drain_job(work_types text[])
returns text
language plpgsql
stable
as $$
begin
  return (select 'work_drain: ' || string_agg(distinct t.name, ', ' order by t.name) from unnest(drain_job.work_types) as t(name));
end
$$;

-- Start as many drains as the ready items need, less those at work, and answer how many. The job of pg_cron calls it.
create or replace function work.start_drains(work_types text[], at_once integer, items_each integer, capabilities jsonb)
returns integer
language plpgsql
as $$
declare
  ready bigint;
  at_work bigint;
  started integer := 0;
begin
  select coalesce(sum((public.work_depth(t.name, start_drains.capabilities, at_once * items_each) ->> 'ready')::bigint), 0)
    into ready
    from public.work_types t
   where t.name = any (start_drains.work_types) and not t.paused;
  select count(distinct c.worker_id)
    into at_work
    from public.work_claims c
   where c.status = 'claimed' and c.poll_at is null and c.expires_at > clock_timestamp()
     and c.work_type = any (start_drains.work_types) and c.worker_id like 'edge-%';
  while started < least(at_once, ceil(ready::numeric / items_each)) - at_work loop
    -- Without a wait: pg_net sends no other request of the project while one is without an answer. A function may start slowly.
    perform net.http_post(
      url => work.schedule_secret('work_drain_url'),
      body => jsonb_build_object('work_types', start_drains.work_types, 'wait', false),
      headers => jsonb_build_object(
        'content-type', 'application/json', 'authorization', 'Bearer ' || work.schedule_secret('work_drain_secret')),
      timeout_milliseconds => 10000);
    started := started + 1;
  end loop;
  return started;
end
$$;

create or replace function public.schedule_drain(
  work_types text[],
  every text default '30 seconds',
  at_once integer default 1,
  items_each integer default 100,
  capabilities jsonb default '{}'
)
returns bigint
language plpgsql
-- The role of the API may not read Vault, nor schedule.
security definer
as $$
declare
  missing text := work.missing_for_schedule();
  work_type text;
begin
  if coalesce(cardinality(schedule_drain.work_types), 0) not between 1 and 100 then
    perform work.refuse('work_types', coalesce(cardinality(schedule_drain.work_types) || ' long', 'null'),
      'a list of 1 to 100 work types was expected');
  end if;
  if at_once is null or items_each is null or every is null then
    perform work.refuse('every, at_once or items_each', null, 'a value was expected; leave it out for the default');
  end if;
  perform work.check_range('at_once', at_once, 1, 50);
  perform work.check_range('items_each', items_each, 1, 1000);
  foreach work_type in array schedule_drain.work_types loop
    -- It refuses a work type that does not exist.
    perform public.work_depth(work_type, schedule_drain.capabilities, 1);
  end loop;
  if missing is not null then
    raise notice 'work-claims: nothing is scheduled: this database lacks %', missing;
    return null;
  end if;
  perform work.schedule_secret('work_drain_secret');
  if work.schedule_secret('work_drain_url') !~ '^https?://' then
    perform work.refuse('the secret work_drain_url', 'no address',
      'one like https://YOUR-PROJECT.supabase.co/functions/v1/work-drain was expected');
  end if;
  return cron.schedule(
    work.drain_job(schedule_drain.work_types), every,
    format('select work.start_drains(%L, %s, %s, %L)', schedule_drain.work_types, at_once, items_each, schedule_drain.capabilities));
end
$$;
comment on function public.schedule_drain is
  'Has pg_cron start the Edge Function work-drain for these work types: every, as pg_cron takes it (30 seconds, or five fields), no more than at_once at the same time, one for items_each ready items that a worker with these capabilities could take. A second call changes the schedule.';

create or replace function public.unschedule_drain(work_types text[])
returns boolean
language plpgsql
security definer
as $$
begin
  if to_regclass('cron.job') is null then
    return false;
  end if;
  if not exists (select from cron.job j where j.jobname = work.drain_job(unschedule_drain.work_types)) then
    return false;
  end if;
  return cron.unschedule(work.drain_job(unschedule_drain.work_types));
end
$$;
comment on function public.unschedule_drain is 'Ends the schedule of exactly these work types. True where there was one.';

-- Rights and settings of the functions above, as those of the main migration.
do $$
declare
  function regprocedure;
begin
  for function in
    select p.oid::regprocedure
      from pg_proc p
     where (p.pronamespace = 'public'::regnamespace and p.proname in ('schedule_drain', 'unschedule_drain'))
        or (p.pronamespace = 'work'::regnamespace
          and p.proname in ('missing_for_schedule', 'schedule_secret', 'drain_job', 'start_drains'))
  loop
    execute format('alter function %s set search_path = pg_catalog, pg_temp', function);
    execute format('revoke execute on function %s from public, anon, authenticated', function);
    execute format('grant execute on function %s to service_role', function);
  end loop;
end
$$;

-- It reads held claims along their index, however many have ended.
alter function work.start_drains(text[], integer, integer, jsonb) set enable_seqscan = off;

notify pgrst, 'reload schema';
