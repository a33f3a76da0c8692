-- Tallies: how many claims there are and how they ended, known without reading the claims.

-- The changes of one call to one work type, written in the call's own transaction. Rows are only added: no call waits for
-- another one's row, also where thousands of calls are one transaction. They are folded into work.tallies within seconds.
create table if not exists work.tally_entries (
  at timestamptz not null default clock_timestamp(),
  id bigint generated always as identity,
  work_type text collate "C" not null,
  -- Rows of work_claims: added less deleted ones, and those that came into a state less those that left it.
  claims integer not null default 0,
  succeeded integer not null default 0,
  failed integer not null default 0,
  cancelled integer not null default 0,
  blocked integer not null default 0,
  -- Tries: how they ended. The last is a part of the two before it.
  successes integer not null default 0,
  failures integer not null default 0,
  losses integer not null default 0,
  final_failures integer not null default 0,
  -- Of the successes: from due to claimed, and from claimed to released.
  waited interval not null default '0',
  ran interval not null default '0',
  primary key (at, id)
);
comment on table work.tally_entries is
  'work-claims: what calls changed, not yet folded into work.tallies. The sum of both is exact at any moment.';

create table if not exists work.tallies (
  span text collate "C" not null check (span in ('second', 'minute', 'hour', 'ever')),
  starts_at timestamptz not null,
  work_type text collate "C" not null,
  measure text collate "C" not null,
  amount bigint not null,
  primary key (span, starts_at, work_type, measure)
) with (fillfactor = 50);
comment on table work.tallies is
  'work-claims: sums of tally entries: per second for two minutes, per minute for an hour, per hour for 90 days, and since ever.';
comment on column work.tallies.measure is
  'A column of work.tally_entries (times in milliseconds), or a bucket: ran_10s counts successes that ran for less than 10 s, and for 1 s or more.';

-- Fold the oldest entries into tallies, at most so many, and forget tallies that are too old. Answers how many it folded.
-- An entry counts all its successes in the bucket of their mean.
-- An entry of an open transaction is invisible yet: a later call folds it, however late.
create or replace function work.fold_tallies(max_entries integer)
returns integer
language plpgsql
as $$
#variable_conflict use_column
declare
  limits constant interval[] := '{1 s,10 s,1 min,10 min,1 h}';
  buckets constant text[] := '{1s,10s,1min,10min,1h,more}';
  moment timestamptz := clock_timestamp();
  folded integer;
begin
  with taken as (
    delete from work.tally_entries e
     where e.ctid = any (array(
             select o.ctid from work.tally_entries o order by o.at limit fold_tallies.max_entries for update skip locked))
    returning e.*
  ),
  by_second as (
    select date_trunc('second', t.at) as second, t.work_type,
           buckets[1 + width_bucket(t.waited / nullif(t.successes, 0), limits)] as waited_bucket,
           buckets[1 + width_bucket(t.ran / nullif(t.successes, 0), limits)] as ran_bucket,
           sum(t.claims) as claims, sum(t.succeeded) as succeeded, sum(t.failed) as failed, sum(t.cancelled) as cancelled,
           sum(t.blocked) as blocked, sum(t.successes) as successes, sum(t.failures) as failures, sum(t.losses) as losses,
           sum(t.final_failures) as final_failures, sum(t.waited) as waited, sum(t.ran) as ran
      from taken t
     group by 1, 2, 3, 4
  ),
  measured as (
    select b.second, b.work_type, m.measure, m.amount
      from by_second b
     cross join lateral (values
       ('claims', b.claims), ('succeeded', b.succeeded), ('failed', b.failed), ('cancelled', b.cancelled),
       ('blocked', b.blocked),
       ('successes', b.successes), ('failures', b.failures), ('losses', b.losses), ('final_failures', b.final_failures),
       ('waited', (extract(epoch from b.waited) * 1000)::bigint), ('ran', (extract(epoch from b.ran) * 1000)::bigint),
       ('waited_' || b.waited_bucket, b.successes), ('ran_' || b.ran_bucket, b.successes)) as m(measure, amount)
     where m.amount <> 0
  ),
  added as (
    insert into work.tallies as t (span, starts_at, work_type, measure, amount)
    select s.span, case s.span when 'ever' then '-infinity' else date_trunc(s.span, m.second) end as starts_at,
           m.work_type, m.measure, sum(m.amount)
      from measured m
     cross join (values ('second'), ('minute'), ('hour'), ('ever')) as s(span)
     where s.span = 'ever' or m.measure not in ('claims', 'succeeded', 'failed', 'cancelled', 'blocked')
     group by 1, 2, 3, 4
    on conflict (span, starts_at, work_type, measure) do update set amount = t.amount + excluded.amount
  )
  select count(*) into folded from taken;

  delete from work.tallies t
   using (values ('second', interval '2 minutes'), ('minute', '1 hour'), ('hour', '90 days')) as kept(span, age)
   where t.span = kept.span and t.starts_at < moment - kept.age;
  return folded;
end
$$;

-- Count claims that are added, deleted or truncated. A statement that ends or reopens claims adds its entry itself: a
-- trigger on updates would run for every claim call.
create or replace function work.tally_rows()
returns trigger
language plpgsql
as $$
begin
  if tg_op = 'INSERT' then
    insert into work.tally_entries (work_type, claims, succeeded, failed, cancelled, blocked)
    select n.work_type, count(*), count(*) filter (where n.status = 'succeeded'),
           count(*) filter (where n.status = 'failed'), count(*) filter (where n.status = 'cancelled'),
           count(*) filter (where n.status = 'blocked')
      from new_claims n
     group by n.work_type;
  elsif tg_op = 'DELETE' then
    insert into work.tally_entries (work_type, claims, succeeded, failed, cancelled, blocked)
    select o.work_type, -count(*), -count(*) filter (where o.status = 'succeeded'),
           -count(*) filter (where o.status = 'failed'), -count(*) filter (where o.status = 'cancelled'),
           -count(*) filter (where o.status = 'blocked')
      from old_claims o
     group by o.work_type;
  else
    update work.tally_entries set claims = 0, succeeded = 0, failed = 0, cancelled = 0, blocked = 0;
    delete from work.tallies t where t.span = 'ever' and t.measure in ('claims', 'succeeded', 'failed', 'cancelled', 'blocked');
  end if;
  return null;
end
$$;
create or replace trigger tally_added
  after insert on public.work_claims referencing new table as new_claims
  for each statement execute function work.tally_rows();
create or replace trigger tally_deleted
  after delete on public.work_claims referencing old table as old_claims
  for each statement execute function work.tally_rows();
create or replace trigger tally_truncated
  after truncate on public.work_claims for each statement execute function work.tally_rows();

-- Count all claims anew, after a person has changed the status of ended claims by hand. Writers wait for it.
create or replace function work.recount_claims()
returns void
language plpgsql
as $$
begin
  lock table public.work_claims in share row exclusive mode;
  insert into work.tally_entries (work_type, claims, succeeded, failed, cancelled, blocked)
  select s.work_type, sum(s.claims), sum(s.succeeded), sum(s.failed), sum(s.cancelled), sum(s.blocked)
    from (select c.work_type, count(*) as claims, count(*) filter (where c.status = 'succeeded') as succeeded,
                 count(*) filter (where c.status = 'failed') as failed,
                 count(*) filter (where c.status = 'cancelled') as cancelled,
                 count(*) filter (where c.status = 'blocked') as blocked
            from public.work_claims c
           group by c.work_type
          union all
          select t.work_type, -t.claims, -t.succeeded, -t.failed, -t.cancelled, -t.blocked from work.counts() t) as s
   group by s.work_type;
end
$$;

-- How many claims each work type has: in all, by end state, and blocked.
create or replace function work.counts()
returns table (work_type text, claims bigint, succeeded bigint, failed bigint, cancelled bigint, blocked bigint)
language sql
stable
as $$
  select s.work_type, coalesce(sum(s.claims), 0)::bigint, coalesce(sum(s.succeeded), 0)::bigint,
         coalesce(sum(s.failed), 0)::bigint, coalesce(sum(s.cancelled), 0)::bigint,
         coalesce(sum(s.blocked), 0)::bigint
    from (select e.work_type, e.claims, e.succeeded, e.failed, e.cancelled, e.blocked from work.tally_entries e
           -- A condition, so that the index is read: after a burst the table has many dead rows.
           where e.at > '-infinity'
          union all
          select t.work_type, sum(t.amount) filter (where t.measure = 'claims'),
                 sum(t.amount) filter (where t.measure = 'succeeded'), sum(t.amount) filter (where t.measure = 'failed'),
                 sum(t.amount) filter (where t.measure = 'cancelled'),
                 sum(t.amount) filter (where t.measure = 'blocked')
            from work.tallies t
           where t.span = 'ever'
           group by t.work_type) as s
   group by s.work_type
$$;
