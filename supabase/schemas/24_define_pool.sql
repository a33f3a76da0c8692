-- Make a pool that mirrors no table: enqueue_items() adds its items. Where it is there already, nothing changes.
create or replace function public.define_pool(pool text)
returns jsonb
language plpgsql
as $$
#variable_conflict use_column
declare
  defined public.work_pools;
begin
  perform work.check_name('pool', define_pool.pool);
  insert into public.work_pools (name) values (define_pool.pool) on conflict do nothing;
  select * into defined from public.work_pools p where p.name = define_pool.pool;
  if defined.source is not null then
    perform work.refuse('pool', define_pool.pool,
      format('it mirrors the table %s; give the pool another name', defined.source), 'PT409');
  end if;
  return jsonb_build_object('name', defined.name, 'created_at', defined.created_at);
end
$$;
comment on function public.define_pool is
  'Makes a pool that mirrors no table: enqueue_items() adds its items. A pool that is there stays as it is.';
