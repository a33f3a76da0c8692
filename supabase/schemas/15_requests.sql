-- Requests: a call that claims may be sent twice, by a client that heard no answer or by the network.
create table if not exists work.requests (
  request_id uuid primary key,
  made_at timestamptz not null default clock_timestamp(),
  released json
);
comment on table work.requests is 'work-claims: the claim calls of the last hour, so that a repeated one claims nothing again.';
comment on column work.requests.released is
  'What finish_and_claim() answered its outcomes, where they did not all succeed: the same call may have claimed them again.';
create index if not exists requests_by_age on work.requests (made_at);
comment on index work.requests_by_age is 'Which requests are old enough to be forgotten?';

-- True where this request id has been answered before. A repeat that comes at once waits for the first to end.
create or replace function work.is_repeated(request_id uuid)
returns boolean
language plpgsql
as $$
#variable_conflict use_column
declare
  long_ago timestamptz := clock_timestamp() - interval '1 hour';
begin
  -- One call in a hundred forgets up to five hundred old ones: it keeps pace, and no call pays much.
  if random() < 0.01 then
    delete from work.requests r
     where r.ctid = any (array(
             select o.ctid from work.requests o
              where o.made_at < long_ago
              order by o.made_at
              limit 500
                for update skip locked));
  end if;
  insert into work.requests (request_id) values (is_repeated.request_id) on conflict do nothing;
  return not found;
end
$$;
comment on function work.is_repeated is 'Notes a request id; true where it was noted before.';
