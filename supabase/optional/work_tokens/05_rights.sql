-- Rights. anon may run the functions that ask for a token. Their owner may do what a claim call needs, and nothing else.
revoke all on public.work_tokens, public.work_token_list from public, anon, authenticated, service_role;
grant select, insert, update, delete on public.work_tokens to service_role;
grant select on public.work_token_list to service_role;
alter table public.work_tokens enable row level security;
drop policy if exists service_role_works on public.work_tokens;
create policy service_role_works on public.work_tokens to service_role using (true) with check (true);
create or replace trigger read_only instead of insert or update or delete on public.work_token_list
  for each row execute function work.refuse_write();

do $$
declare
  for_tokens constant text[] := array[
    'token_claim_next', 'token_describe_work_types', 'token_drop_lock', 'token_extend_claims', 'token_finish_and_claim',
    'token_register_worker', 'token_release_items', 'token_release_parked', 'token_reread_claim', 'token_retire_worker',
    'token_take_lock',
    'token_take_parked', 'token_work_remaining', 'work_token_may_upload'];
  for_service_role constant text[] := array['create_token', 'revoke_token'];
  private constant text[] := array[
    'hash_of_request', 'is_worker_of', 'of_types', 'token_lock_key', 'valid_token', 'worker_of_request'];
  -- The functions behind these are private, and do nothing without the rights on tables below.
  may_run constant text[] := array[
    'claim_next', 'describe_work_types', 'drop_lock', 'extend_claims', 'finish_and_claim', 'register_worker',
    'release_claims_for_worker', 'release_items', 'release_parked', 'reread_claim', 'retire_worker', 'take_lock', 'take_parked',
    'work_remaining'];
  -- A claim call also takes back ended leases, prunes and folds tallies. "For update" needs the right to update.
  may_touch constant jsonb := '{
    "public.work_classes": "select",
    "public.work_claims": "select, update, delete",
    "public.work_dependencies": "select, update",
    "public.work_events": "select, insert, update, delete",
    "public.work_items": "select, update, delete",
    "public.work_locks": "select, insert, update, delete",
    "public.work_pools": "select, update",
    "public.work_tokens": "select, update",
    "public.work_types": "select, update",
    "public.work_workers": "select, insert, update, delete",
    "public.work_workflows": "select, update",
    "work.listeners": "select",
    "work.profiles": "select, insert, update, delete",
    "work.requests": "select, insert, update, delete",
    "work.tallies": "select, insert, update, delete",
    "work.tally_entries": "select, insert, update, delete",
    "work.upkeep": "select, update"}';
  named record;
begin
  -- The rights that an earlier version of this file gave go first.
  for named in
    select format('revoke all on table %s from work_worker', c.oid::regclass) as statement
      from pg_class c
     where c.relkind = 'r' and c.relacl::text ~ '\mwork_worker=' and obj_description(c.oid, 'pg_class') like 'work-claims:%'
    union all
    select format('drop policy %I on %s', p.polname, p.polrelid::regclass) from pg_policy p where p.polname = 'work_worker_works'
    union all
    select format('revoke all on function %s from work_worker', p.oid::regprocedure)
      from pg_proc p
     where p.pronamespace in ('public'::regnamespace, 'work'::regnamespace)
       and p.proacl::text ~ '\mwork_worker=' and p.proowner <> 'work_worker'::regrole
  loop
    execute named.statement;
  end loop;

  grant usage on schema public, work to work_worker;
  grant usage on sequence work.fence to work_worker;
  grant select on work.live_locks to work_worker;
  for named in select t.key::regclass as name, t.value as rights from jsonb_each_text(may_touch) as t loop
    execute format('grant %s on %s to work_worker', named.rights, named.name);
    execute format('create policy work_worker_works on %s to work_worker using (true) with check (true)', named.name);
  end loop;
  grant select on work.ranked_items, work.type_needs to work_worker;
  for named in
    select p.oid::regprocedure as name
      from pg_proc p
     where p.pronamespace = 'public'::regnamespace and p.proname = any (may_run)
  loop
    execute format('grant execute on function %s to work_worker', named.name);
  end loop;
  grant execute on all functions in schema work to work_worker;

  -- To become the owner of a function, a role needs the right to create in its schema.
  grant create on schema public to work_worker;
  for named in
    select p.oid::regprocedure as name, p.proname = any (for_tokens) as is_for_tokens,
           p.proname = any (for_service_role) as is_for_service_role
      from pg_proc p
     where (p.pronamespace = 'public'::regnamespace and p.proname = any (for_tokens || for_service_role))
        or (p.pronamespace = 'work'::regnamespace and p.proname = any (private))
  loop
    execute format('alter function %s set search_path = pg_catalog, pg_temp', named.name);
    execute format('revoke execute on function %s from public, anon, authenticated', named.name);
    if named.is_for_tokens then
      -- PostgREST applies it to the call: anon's own limit of 3 seconds is for readers.
      execute format('alter function %s set statement_timeout = %L', named.name, '8s');
      execute format('revoke execute on function %s from service_role', named.name);
      execute format('grant execute on function %s to anon', named.name);
      execute format('alter function %s owner to work_worker', named.name);
    else
      execute format('grant execute on function %s to service_role', named.name);
    end if;
  end loop;
  revoke create on schema public from work_worker;
end
$$;

-- It reads held claims along their index, however many have ended.
alter function public.revoke_token(text) set enable_seqscan = off;

notify pgrst, 'reload schema';
