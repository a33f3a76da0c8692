-- Claims: which worker holds which item for which work, until when, and how it ended.
do $$
begin
  if to_regtype('public.work_claim_status') is null then
    create domain public.work_claim_status as text collate "C"
      check (value in ('blocked', 'waiting', 'ready', 'claimed', 'succeeded', 'failed', 'cancelled'));
  end if;
end
$$;
comment on domain public.work_claim_status is 'work-claims: the states of a claim. The last three are terminal.';

-- Not-null columns of fixed width come first: an update compares each indexed column, and finds these without reading
-- through the others. There are no checks: Postgres parses them for every statement, a twelfth of a claim's cost
-- (docs/decisions/one-table-for-claims.md). The states are a domain, whose check is cached.
create table if not exists public.work_claims (
  item_id uuid not null references public.work_items (id) on delete cascade,
  priority integer not null default 0,
  rank bigint not null default 0,
  position bigint not null,
  class_id integer not null default 1,
  failures integer not null default 0,
  due_at timestamptz not null default clock_timestamp(),
  expires_at timestamptz not null default '-infinity',
  crashes integer not null default 0,
  waits_for integer not null default 0,
  status public.work_claim_status not null default 'ready',
  work_type text collate "C" not null,
  worker_id text,
  fence bigint,
  claimed_at timestamptz,
  finished_at timestamptz,
  workflow_id bigint,
  affinity text,
  request_id uuid,
  progress real,
  result jsonb,
  error text,
  poll_at timestamptz,
  external_id text,
  state jsonb,
  read_input text,
  again text,
  stale text,
  changes integer,
  changed_at timestamptz,
  -- Half of each page of the index is left free for the entries of later versions.
  primary key (item_id, work_type) with (fillfactor = 50)
);
comment on table public.work_claims is
  'work-claims: one row an (item, work type): at most one worker holds it. Ready and waiting rows are work to do, terminal rows are the record.';
comment on column public.work_claims.class_id is 'The requirement and labels of its item: see work_classes.';
comment on column public.work_claims.priority is 'The workflow''s priority, or the item''s where it has no workflow.';
comment on column public.work_claims.rank is 'Its rank within one priority: its workflow''s, or the item''s seq.';
comment on column public.work_claims.position is 'Its position within a workflow: the item''s seq.';
comment on column public.work_claims.fence is 'New with every claim; only the current one may extend or release.';
comment on column public.work_claims.worker_id is 'The worker that holds it, or that released it last.';
comment on column public.work_claims.due_at is 'Since when it may run, or when it will be able to.';
comment on column public.work_claims.expires_at is 'The end of the lease, or of the last one, by this database''s clock. -infinity: there was none.';
comment on column public.work_claims.failures is 'How often a handler failed. Crashes, leases that ended without a release, are counted apart.';

comment on column public.work_claims.poll_at is
  'When its job elsewhere is next asked about. A claimed row that has it is parked: no process holds it. An ended one has it until its job is stopped.';
comment on column public.work_claims.external_id is 'The job elsewhere that its latest try was handed to, while nobody has said how that ended.';
comment on column public.work_claims.waits_for is 'How many of its needs are not met. An open claim that nobody holds is blocked while there are any.';
comment on column public.work_claims.read_input is 'The input that its holder has read, where the item has another one since.';
comment on column public.work_claims.again is 'Why it is to be done once more after its present holder.';
comment on column public.work_claims.stale is 'Why its result is out of date; null: it is not.';
comment on column public.work_claims.changes is 'How often a changed input reopened it, one within an hour after the other.';
comment on column public.work_claims.state is 'The state that its handler has saved for the next try.';

create index if not exists work_claims_ready on public.work_claims
  (class_id, work_type, priority desc, rank, position) where status = 'ready';
comment on index public.work_claims_ready is 'What comes first in this lane, that is of this class and work type?';
-- Every class_id is above 0. The condition keeps the planner from reading one lane by this index, in a plan made when
-- the table was empty: only a query that says it can use the index.
create index if not exists work_claims_in_order on public.work_claims
  (work_type, priority desc, rank, position) where status = 'ready' and class_id > 0;
comment on index public.work_claims_in_order is 'What comes first in all lanes of this work type?';
create index if not exists work_claims_warm on public.work_claims
  (work_type, affinity, priority desc, rank, position, class_id) where status = 'ready' and affinity is not null;
comment on index public.work_claims_warm is 'What comes first for a worker that is warm for this?';
create index if not exists work_claims_of_workflow on public.work_claims (workflow_id)
  where status in ('blocked', 'waiting', 'ready', 'claimed') and workflow_id is not null;
comment on index public.work_claims_of_workflow is 'What of this workflow is open?';
create index if not exists work_claims_leases on public.work_claims (expires_at) where status = 'claimed';
comment on index public.work_claims_leases is 'Which lease has ended? What is held at all?';
create index if not exists work_claims_due on public.work_claims (due_at) where status = 'waiting';
comment on index public.work_claims_due is 'What is due again?';
-- Succeeded rows are in no index but the primary key: one more entry a claim costs a tenth of the throughput.
create index if not exists work_claims_failed on public.work_claims (work_type, finished_at) where status = 'failed';
comment on index public.work_claims_failed is 'What failed for good, and in which order?';

create index if not exists work_claims_parked on public.work_claims (work_type, poll_at) where poll_at is not null;
comment on index public.work_claims_parked is 'Which job elsewhere of this work type is to be asked about?';
create index if not exists work_claims_tried on public.work_claims (work_type) where status = 'waiting' and fence is not null;
comment on index public.work_claims_tried is 'Does anything of this work type wait for another try?';
create index if not exists work_claims_by_external_id on public.work_claims (external_id) where external_id is not null;
comment on index public.work_claims_by_external_id is 'Which claim was handed to this job elsewhere?';
-- One index for two questions: each further one costs every claim, even where it has no entry.
create index if not exists work_claims_behind on public.work_claims (work_type, item_id)
  where status = 'blocked' or stale is not null;
comment on index public.work_claims_behind is 'What waits for other work? Which results are out of date?';

-- Vacuum has to keep up with a table in which every row is rewritten twice. Half of each page is left free for the later
-- versions of its rows: an update within a page writes less.
alter table public.work_claims set (
  fillfactor = 50,
  autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000,
  autovacuum_analyze_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);

-- Items with the values that order and match their claims.
create or replace view work.ranked_items with (security_invoker = true) as
select i.id as item_id, i.pool, i.seq as position, coalesce(w.priority, i.priority) as priority,
       coalesce(w.rank, i.seq) as rank, i.class_id, i.affinity, i.workflow_id, i.run_after,
       i.needs is not null or i.gathers_id is not null as has_needs
  from public.work_items i
  left join public.work_workflows w on w.id = i.workflow_id;
comment on view work.ranked_items is 'work-claims: items with the priority, rank and position of their claims.';

-- Refuse to delete or rename a work type that has claims: its row holds their rules.
create or replace function work.keep_used_type()
returns trigger
language plpgsql
as $$
begin
  if (tg_op = 'DELETE' or new.name <> old.name)
    and exists (select from public.work_claims c where c.work_type = old.name) then
    perform work.refuse('work type', old.name, 'it has claims; delete them first, or set paused', 'PT409');
  end if;
  return case when tg_op = 'DELETE' then old else new end;
end
$$;
create or replace trigger keep_used_type
  before delete or update of name on public.work_types for each row execute function work.keep_used_type();
