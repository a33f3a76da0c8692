-- Is there more? For workers that stay until all is done, and for progress bars.

-- Answer the open work of each of these work types, in bounded time however many claims there are. open, done, failed and cancelled
-- are exact; with is_capped the other numbers are lower bounds. Under reopening, claims of an older version are yet to come back.
create or replace function public.work_remaining(work_types text[])
returns json
language plpgsql
stable
as $$
#variable_conflict use_column
declare
  moment timestamptz := clock_timestamp();
begin
  if work_remaining.work_types is null or cardinality(work_remaining.work_types) not between 1 and 1000 then
    perform work.refuse('work_types', coalesce(cardinality(work_remaining.work_types) || ' long', 'null'),
      'a list of 1 to 1000 work types was expected');
  end if;
  return (
    with overview as materialized (select o.* from work.overview() o),
    parked as materialized (select p.* from work.parked() p),
    due as materialized (
      select w.work_type, min(w.due_at) as due_at
        from (select c.work_type, c.due_at from public.work_claims c where c.status = 'waiting' order by c.due_at limit 10000) as w
       group by w.work_type
    ),
    workers as materialized (
      select w.work_types from public.work_workers w
       where w.retired_at is null and w.last_seen_at > moment - interval '2 minutes'
    )
    select json_agg(json_build_object(
             'work_type', asked.name,
             'is_declared', t.name is not null,
             'ready', coalesce(o.ready, 0),
             'running', greatest(0, coalesce(o.claimed, 0) - coalesce(p.parked, 0)),
             'parked', coalesce(p.parked, 0),
             'waiting', coalesce(o.waiting, 0),
             'waiting_until', d.due_at,
             'blocked', coalesce(o.blocked, 0),
             'open', coalesce(o.open, 0),
             'done', coalesce(o.succeeded, 0),
             'failed', coalesce(o.failed, 0),
             'cancelled', coalesce(o.cancelled, 0),
             'is_capped', coalesce(o.is_capped, false),
             'is_paused', coalesce(t.paused, false),
             'stopped', t.stopped,
             'is_reopening', t.redone_through is not null,
             'workers', (select count(*) from workers w where w.work_types is null or asked.name = any (w.work_types)))
             order by asked.n)
      from unnest(work_remaining.work_types) with ordinality as asked(name, n)
      left join public.work_types t on t.name = asked.name
      left join overview o on o.work_type = asked.name
      left join parked p on p.work_type = asked.name
      left join due d on d.work_type = asked.name);
end
$$;
comment on function public.work_remaining is
  'Answers the open work of each of these work types, in bounded time: [{work_type, is_declared, ready, running, parked, waiting, waiting_until, blocked, open, done, failed, cancelled, is_capped, is_paused, stopped, is_reopening, workers}]. Nothing is left where open is 0; done ones have succeeded.';
