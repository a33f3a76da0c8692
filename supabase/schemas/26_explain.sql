-- Delete classes that no item has, at most so many a call. While somebody gives classes to items it waits, a second at
-- most: then the answer is 0, and it was the wrong moment.
create or replace function public.prune_classes(max_classes integer default 1000)
returns integer
language plpgsql
as $$
#variable_conflict use_column
declare
  dropped integer[];
begin
  if prune_classes.max_classes is null or prune_classes.max_classes not between 1 and 10000 then
    perform work.refuse('max_classes', prune_classes.max_classes::text, 'expected 1 to 10000');
  end if;
  -- In a transaction with one snapshot it would not see the items that it waited for.
  if current_setting('transaction_isolation') not in ('read committed', 'read uncommitted') then
    perform work.refuse('transaction_isolation', current_setting('transaction_isolation'),
      'prune_classes() has to see what others commit: call it in read committed');
  end if;
  begin
    perform pg_advisory_xact_lock(work.class_lock_key());
  exception when lock_not_available then
    return 0;
  end;

  -- Statements of their own: they see the items of a call that this one waited for. Rows that somebody has locked are
  -- left for the next time, so that nobody waits with others in hand.
  with unused as (
    delete from public.work_classes c
     where c.ctid = any (array(
             select k.ctid
               from public.work_classes k
              where k.id <> 1
                and not exists (select from public.work_items i where i.class_id = k.id and i.class_id <> 1)
              order by k.id
              limit prune_classes.max_classes
                for update skip locked))
    returning c.id
  )
  select array_agg(u.id) into dropped from unused u;
  if dropped is null then
    return 0;
  end if;
  -- A number that stays behind in a profile that somebody has locked matches nothing.
  update work.profiles p
     set class_ids = array(select unnest(p.class_ids) except select unnest(dropped) order by 1),
         yielded_class_ids = array(select unnest(p.yielded_class_ids) except select unnest(dropped) order by 1)
   where p.ctid = any (array(select k.ctid from work.profiles k order by k.id for no key update skip locked))
     and exists (select unnest(p.class_ids || p.yielded_class_ids) intersect select unnest(dropped));
  return cardinality(dropped);
end
$$;
comment on function public.prune_classes is
  'Deletes classes that no item has, at most max_classes a call, and answers how many; 0 also where others are giving classes to items for longer than a second.';
