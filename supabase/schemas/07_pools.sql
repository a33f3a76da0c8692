-- Pools of no table: enqueue_items() adds to them.

-- Make a pool of no table; one of that name that is there already stays as it is.
create or replace function public.define_pool(pool text)
returns jsonb
language plpgsql
as $$
#variable_conflict use_column
begin
  perform work.check_name('pool', define_pool.pool);
  insert into public.work_pools (name) values (define_pool.pool) on conflict do nothing;
  return (select jsonb_build_object('pool', p.name, 'source', p.source::text)
            from public.work_pools p where p.name = define_pool.pool);
end
$$;
comment on function public.define_pool is
  'Makes a pool of no table, for items of enqueue_items(). A pool of that name that is there already stays as it is.';
