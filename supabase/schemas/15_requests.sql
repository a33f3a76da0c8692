-- Requests: a client that got no answer, or the network, may send a call twice.
create table if not exists work.requests (
  request_id uuid primary key,
  made_at timestamptz not null default clock_timestamp(),
  asked bytea,
  released json
);
comment on table work.requests is 'work-claims: the calls of the last hour that carried a request id, so that a repeated one changes nothing.';
comment on column work.requests.asked is 'A digest of the items that enqueue_items() was given under this id.';
comment on column work.requests.released is
  'The answer of finish_and_claim() to its outcomes, where they did not all succeed: the same call may have claimed them again.';
create index if not exists requests_by_age on work.requests (made_at);
comment on index work.requests_by_age is 'Which requests are older than an hour?';

-- Note a request id; true where it was noted before. A repeat that comes at once waits for the first call to end.
create or replace function work.is_repeated(request_id uuid, asked bytea default null)
returns boolean
language plpgsql
as $$
#variable_conflict use_column
declare
  long_ago timestamptz := clock_timestamp() - interval '1 hour';
begin
  -- One request id in 128 deletes up to 500 old ones: that keeps pace, and the other calls pay nothing.
  if get_byte(uuid_send(is_repeated.request_id), 15) < 2 then
    delete from work.requests r
     where r.ctid = any (array(
             select o.ctid from work.requests o
              where o.made_at < long_ago
              order by o.made_at
              limit 500
                for update skip locked));
  end if;
  insert into work.requests (request_id, asked) values (is_repeated.request_id, is_repeated.asked) on conflict do nothing;
  if found then
    return false;
  end if;
  if (select r.asked from work.requests r where r.request_id = is_repeated.request_id) is distinct from is_repeated.asked then
    perform work.refuse('request_id', is_repeated.request_id::text,
      'another call with other items has used it; draw a new id for each call, and repeat a call as it was', 'PT409');
  end if;
  return true;
end
$$;
