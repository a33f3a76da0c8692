-- For a policy on storage.objects: whether the token of this request may upload an object of this name. The name begins
-- with work type, item and fence of a claim that a worker of the token holds: embed/ITEM/FENCE/FILE.
create or replace function public.work_token_may_upload(name text)
returns boolean
language plpgsql
security definer
as $$
declare
  token public.work_tokens := work.valid_token(work.hash_of_request());
  part text[] := string_to_array(name, '/');
begin
  -- False and no error: another policy may allow the upload.
  if token.hash is null
    or name !~ '^[^/]+/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/[0-9]{1,16}/[^/]'
    -- A reader of addresses or paths resolves these, and would land below another claim.
    or name ~ '/\.\.?(/|$)' then
    return false;
  end if;
  return exists (
    select from public.work_claims c
     where c.item_id = part[2]::uuid
       and c.work_type = part[1]
       and c.work_type = any (token.work_types)
       and c.status = 'claimed'
       and c.fence = part[3]::bigint
       and work.is_worker_of(c.worker_id, token.worker_name));
end
$$;
comment on function public.work_token_may_upload is
  'For a policy on storage.objects: true where the request carries a token whose worker holds the claim that the name begins with.';
