-- What time does to claims: leases end, waits end.

-- Take back claims whose lease has ended. Each counts a crash; with no crash left the claim ends failed.
create or replace function work.reap(max_items integer)
returns integer
language plpgsql
set search_path = ''
as $$
declare
  moment timestamptz := clock_timestamp();
  reaped integer;
begin
  with lapsed as (
    update public.work_claims c
       set crashes = c.crashes + 1,
           status = case when c.crashes + 1 < t.max_crashes then 'ready' else 'failed' end,
           finished_at = case when c.crashes + 1 < t.max_crashes then null else moment end,
           error = format('the lease of worker %s ended without a release (crash %s of %s)',
             c.worker_id, c.crashes + 1, t.max_crashes),
           due_at = moment,
           worker_id = null,
           progress = null
      from public.work_types t
     where c.ctid = any (array(
             select l.ctid from public.work_claims l
              where l.status = 'claimed' and l.expires_at <= moment
              order by l.expires_at
              limit max_items
                for no key update skip locked))
       and c.status = 'claimed'
       and t.name = c.work_type
    returning c.item_id, c.work_type, c.fence, c.error
  ),
  told as (
    insert into public.work_events (item_id, work_type, event, fence, detail)
    select l.item_id, l.work_type, 'expired', l.fence, l.error from lapsed l
  )
  select count(*) into reaped from lapsed;
  return reaped;
end
$$;
comment on function work.reap is 'Takes back at most so many claims whose lease has ended.';
revoke execute on function work.reap from public, anon, authenticated;
grant execute on function work.reap to service_role;

-- Bring claims up to date with the clock, bounded: every claim call begins with it.
create or replace function work.catch_up()
returns void
language plpgsql
set search_path = ''
as $$
declare
  -- A variable, since no index serves a comparison with the volatile clock itself.
  moment timestamptz := clock_timestamp();
begin
  if exists (select from public.work_claims c where c.status = 'claimed' and c.expires_at <= moment) then
    perform work.reap(1000);
  end if;
  if exists (select from public.work_claims c where c.status = 'waiting' and c.due_at <= moment) then
    update public.work_claims c
       set status = 'ready'
     where c.ctid = any (array(
             select w.ctid from public.work_claims w
              where w.status = 'waiting' and w.due_at <= moment
              order by w.due_at
              limit 1000
                for no key update skip locked))
       and c.status = 'waiting';
  end if;
end
$$;
comment on function work.catch_up is 'Takes back lapsed leases and readies what is due, at most 1000 of each.';
revoke execute on function work.catch_up from public, anon, authenticated;
grant execute on function work.catch_up to service_role;

-- Take back claims whose lease has ended; the answer is how many. Every claim call does it too.
create or replace function public.reap_expired_claims(max_items integer default 1000)
returns integer
language plpgsql
set search_path = ''
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
begin
  if max_items is null or max_items < 1 then
    perform work.refuse('max_items', max_items::text, 'at least 1 was expected');
  end if;
  return work.reap(least(max_items, 10000));
end
$$;
comment on function public.reap_expired_claims is
  'Takes back claims whose lease has ended and answers how many. Every claim call does so too: nobody has to call it.';
revoke execute on function public.reap_expired_claims from public, anon, authenticated;
grant execute on function public.reap_expired_claims to service_role;
