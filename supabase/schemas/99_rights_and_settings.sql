-- All rights and settings of the objects above. service_role may work; others may do nothing,
-- whichever default privileges the project has.

-- Private objects: the schema is closed to others.
revoke all on schema work from public, anon, authenticated;
revoke all on all sequences in schema work from public, anon, authenticated, service_role;
revoke execute on all functions in schema work from public, anon, authenticated;
grant usage on schema work to service_role;
grant usage, select on all sequences in schema work to service_role;
grant execute on all functions in schema work to service_role;
revoke all on type public.work_claim_status from public, anon, authenticated;

do $$
declare
  public_functions constant text[] := array[
    'add_needs', 'attach_pool', 'cancel_items', 'claim_items', 'claim_next', 'define_pool', 'define_work_type', 'define_workflow', 'describe_work_types',
    'detach_pool', 'drop_lock', 'enqueue_items', 'enroll_pool', 'explain_item', 'extend_claims', 'finish_and_claim', 'invalidate_items',
    'prune_classes', 'prune_finished', 'reap_expired_claims', 'refused_classes', 'register_worker', 'reread_claim',
    'release_claims_for_worker', 'release_item', 'release_items', 'release_parked', 'retire_worker', 'retry_items', 'set_priority',
    'take_lock', 'take_parked', 'work_depth', 'work_pulse', 'work_remaining', 'would_match'];
  -- A table or view of ours in public says so in its comment.
  relation record;
  function record;
begin
  for relation in
    select c.oid::regclass as name, c.relkind as kind
      from pg_class c
     where c.relkind in ('r', 'v')
       and (c.relnamespace = 'work'::regnamespace
         or (c.relnamespace = 'public'::regnamespace and obj_description(c.oid, 'pg_class') like 'work-claims:%'))
  loop
    execute format('revoke all on %s from public, anon, authenticated, service_role', relation.name);
    if relation.kind = 'v' then
      execute format('grant select on %s to service_role', relation.name);
      -- Without it Postgres fails a write to a view that joins before it checks any right: an error of the server's.
      execute format(
        'create or replace trigger read_only instead of insert or update or delete on %s '
        'for each row execute function work.refuse_write()', relation.name);
    else
      execute format('grant select, insert, update, delete on %s to service_role', relation.name);
      execute format('alter table %s enable row level security', relation.name);
      execute format('drop policy if exists service_role_works on %s', relation.name);
      execute format('create policy service_role_works on %s to service_role using (true) with check (true)', relation.name);
    end if;
  end loop;

  -- A sequence behind an identity column gets default privileges of its own, and no role needs any.
  for relation in
    select s.oid::regclass as name
      from pg_class s
      join pg_depend d on d.classid = 'pg_class'::regclass and d.objid = s.oid and d.deptype = 'i'
     where s.relkind = 'S'
       and (s.relnamespace = 'work'::regnamespace
         or (s.relnamespace = 'public'::regnamespace and obj_description(d.refobjid, 'pg_class') like 'work-claims:%'))
  loop
    execute format('revoke all on sequence %s from public, anon, authenticated, service_role', relation.name);
  end loop;

  for function in
    select p.oid::regprocedure as name, p.pronamespace = 'public'::regnamespace as is_public
      from pg_proc p
     where p.pronamespace = 'work'::regnamespace
        or (p.pronamespace = 'public'::regnamespace and p.proname = any (public_functions))
  loop
    -- pg_catalog first and pg_temp last: with an empty search_path a caller's temporary types would be found first.
    execute format('alter function %s set search_path = pg_catalog, pg_temp', function.name);
    if function.is_public then
      execute format('revoke execute on function %s from public, anon, authenticated', function.name);
      execute format('grant execute on function %s to service_role', function.name);
    end if;
  end loop;
end
$$;

-- Planner settings: a plan that was right for ten rows must not scan a table of millions later. Reasons and figures are in
-- docs/decisions/plans-that-hold.md.
do $$
declare
  -- Each statement finds its rows by key or along an index.
  by_key constant text[] := array[
    'public.add_needs', 'public.cancel_items', 'public.claim_items', 'public.claim_next', 'public.drop_lock', 'public.enqueue_items',
    'public.extend_claims', 'public.finish_and_claim', 'public.invalidate_items', 'public.prune_classes', 'public.prune_finished', 'public.reap_expired_claims',
    'public.refused_classes', 'public.release_claims_for_worker', 'public.release_item', 'public.release_items',
    'public.release_parked', 'public.reread_claim', 'public.retry_items', 'public.set_priority', 'public.take_lock', 'public.take_parked', 'work.count_needs', 'work.enroll',
    'work.enroll_new_items', 'work.forget_locks', 'work.forget_needs', 'work.note_changes', 'work.key_sql', 'work.mirror_rows', 'work.move_workflow', 'work.prune_events', 'work.row_sql'];
  -- They may hash rows that they got, and read tables along an index.
  by_index constant text[] := array[
    'public.enroll_pool', 'work.behind_failed', 'work.explained_claim', 'work.lock_claims_of_item', 'work.mirror_deleted', 'work.mirror_written',
    'work.move_open_claims', 'work.overview', 'public.work_pulse', 'public.work_depth', 'public.describe_work_types',
    'work.fold_tallies', 'work.parked', 'public.work_remaining'];
  -- Times become text in keys and cursors, the same text for everyone.
  in_utc constant text[] := array[
    'public.enroll_pool', 'work.fold_tallies', 'work.mirror_deleted', 'work.mirror_written'];
  -- A person calls them: they give up on a lock rather than delay other calls.
  impatient constant text[] := array[
    'public.add_needs', 'public.attach_pool', 'public.cancel_items', 'public.claim_items', 'public.claim_next', 'public.define_work_type',
    'public.define_workflow', 'public.detach_pool', 'public.drop_lock', 'public.enqueue_items', 'public.enroll_pool', 'public.extend_claims',
    'public.finish_and_claim', 'public.invalidate_items', 'public.refused_classes', 'public.register_worker', 'public.release_claims_for_worker',
    'public.release_item', 'public.release_items', 'public.release_parked', 'public.reread_claim', 'public.retry_items', 'public.set_priority',
    'public.take_lock', 'public.take_parked'];
  named record;
begin
  for named in
    select l.setting, l.value, p.oid::regprocedure as name
      from (values
        (by_key, 'plan_cache_mode', 'force_generic_plan'),
        (by_key || by_index, 'jit', 'off'),
        (by_key || by_index, 'enable_seqscan', 'off'),
        (by_key || by_index, 'enable_bitmapscan', 'off'),
        (by_key, 'enable_hashjoin', 'off'),
        (by_key, 'enable_mergejoin', 'off'),
        (array['work.move_open_claims'], 'enable_hashjoin', 'on'),
        (array['public.enroll_pool'], 'enable_bitmapscan', 'on'),
        (in_utc, 'timezone', 'UTC'),
        (impatient, 'lock_timeout', '5s'),
        (array['public.prune_classes'], 'lock_timeout', '1s'),
        -- A release that waits for a person's row gives way before Postgres looks for a deadlock, after a second.
        (array['work.lock_rows'], 'lock_timeout', '500ms'),
        (array['work.unplain'], 'lock_timeout', '2s'),
        -- The first rows in order come from the index that has the order, never from sorting all that is ready.
        (array['work.lock_ahead', 'work.lock_range', 'work.open_items', 'work.overview', 'work.parked', 'public.work_depth', 'public.work_remaining'], 'enable_sort', 'off'),
        (array['work.match_report'], 'jit', 'off'),
        -- A person's function has the planner of a session.
        (array['work.call_apply'], 'plan_cache_mode', 'auto'),
        (array['work.call_apply'], 'enable_seqscan', 'on'),
        (array['work.call_apply'], 'enable_bitmapscan', 'on'),
        (array['work.call_apply'], 'enable_hashjoin', 'on'),
        (array['work.call_apply'], 'enable_mergejoin', 'on')) as l(functions, setting, value)
     cross join lateral unnest(l.functions) as f(name)
      join pg_proc p on p.oid = f.name::regproc
  loop
    execute format('alter function %s set %I = %L', named.name, named.setting, named.value);
  end loop;
end
$$;

-- A person's function and the triggers of a person's table find tables and types by name, as in a session.
alter function work.call_apply(regprocedure, jsonb, jsonb) set search_path = public, extensions, pg_temp;
alter function work.write_results(text, jsonb) set search_path = public, extensions, pg_temp;

notify pgrst, 'reload schema';
