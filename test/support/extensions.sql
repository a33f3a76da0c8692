-- Stand-ins for pg_cron, pg_net and Vault, which the embedded Postgres lacks: the documented names and arguments. Jobs are
-- only noted, and requests only recorded; the test runs the first and sends the second. Nothing is encrypted.
create schema cron;
create table cron.job (
  jobid bigint generated always as identity primary key,
  schedule text not null,
  command text not null,
  username text not null default current_user,
  active boolean not null default true,
  jobname text,
  unique (jobname, username));
create function cron.schedule(job_name text, schedule text, command text)
returns bigint
language sql
as $$
  insert into cron.job as j (jobname, schedule, command) values ($1, $2, $3)
  on conflict (jobname, username) do update set schedule = excluded.schedule, command = excluded.command
  returning j.jobid
$$;
create function cron.unschedule(job_name text)
returns boolean
language plpgsql
as $$
begin
  delete from cron.job j where j.jobname = unschedule.job_name;
  if not found then
    raise exception 'could not find valid entry for job ''%''', job_name;
  end if;
  return true;
end
$$;

create schema net;
create table net.http_request_queue (
  id bigint generated always as identity,
  method text,
  url text,
  headers jsonb,
  body jsonb,
  timeout_milliseconds integer);
create function net.http_post(
  url text,
  body jsonb default '{}',
  params jsonb default '{}',
  headers jsonb default '{"Content-Type": "application/json"}',
  timeout_milliseconds integer default 5000)
returns bigint
language sql
as $$
  insert into net.http_request_queue (method, url, headers, body, timeout_milliseconds)
  values ('POST', $1, $4, $2, $5)
  returning id
$$;

create schema vault;
create table vault.secrets (id uuid primary key default gen_random_uuid(), name text unique, description text, secret text);
create view vault.decrypted_secrets as
  select s.id, s.name, s.description, s.secret, s.secret as decrypted_secret from vault.secrets s;
create function vault.create_secret(new_secret text, new_name text default null, new_description text default '')
returns uuid
language sql
as $$
  insert into vault.secrets (secret, name, description) values ($1, $2, $3) returning id
$$;
