-- Workflows: items that belong together. The workflow's priority counts for all of them, and the older workflow goes first.
create table if not exists public.work_workflows (
  id bigint generated always as identity primary key,
  name text not null unique check (length(name) between 1 and 200),
  priority integer not null default 0 check (priority between -1000000 and 1000000),
  rank bigint not null default nextval('work.item_seq'),
  is_gathered boolean not null default false,
  created_at timestamptz not null default clock_timestamp()
);
comment on table public.work_workflows is
  'work-claims: named sets of items that are worked on together. The first item that names one makes it; define_workflow() gives it a priority.';
comment on column public.work_workflows.priority is 'Counts for all its items, in place of their own.';
comment on column public.work_workflows.is_gathered is 'An item waits for all of it.';
comment on column public.work_workflows.rank is 'Its rank within one priority: older workflows have lower ones.';

-- Make the workflows that are missing, ranked in the order of names[].
create or replace function work.intern_workflows(names text[])
returns void
language plpgsql
as $$
#variable_conflict use_column
begin
  with missing as materialized (
    select u.name, min(u.n) as n
      from unnest(intern_workflows.names) with ordinality as u(name, n)
     where u.name is not null
       and not exists (select from public.work_workflows w where w.name = u.name)
     group by u.name
     order by min(u.n)
  ),
  ranked as materialized (
    select m.name, nextval('work.item_seq') as rank from missing m
  )
  -- In the order of names: two calls that make the same workflows would deadlock otherwise.
  insert into public.work_workflows (name, rank)
  select r.name, r.rank from ranked r order by r.name
  on conflict (name) do nothing;
end
$$;

-- Name a workflow, or change its priority. Its open claims move at once.
create or replace function public.define_workflow(workflow text, priority integer default 0)
returns jsonb
language plpgsql
as $$
#variable_conflict use_column
declare
  defined public.work_workflows;
begin
  perform work.check_name('workflow', define_workflow.workflow);
  if define_workflow.priority is null or define_workflow.priority not between -1000000 and 1000000 then
    perform work.refuse('priority', define_workflow.priority::text, 'a whole number from -1000000 to 1000000 was expected');
  end if;
  insert into public.work_workflows as w (name, priority)
  values (define_workflow.workflow, define_workflow.priority)
  on conflict (name) do update set priority = excluded.priority
  returning * into defined;
  return to_jsonb(defined);
end
$$;
comment on function public.define_workflow is
  'Names a workflow, or changes its priority, which counts for all its items. Its open claims move at once.';
