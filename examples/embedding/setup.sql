-- A table whose embeddings keep themselves fresh. Run it once, as the owner of your tables.
create table documents (
  id bigint generated always as identity primary key,
  title text not null,
  body text not null
);

-- With pgvector the column is a vector, without it a list of numbers. Both take the list that the worker returns.
do $$
begin
  if exists (select from pg_available_extensions where name = 'vector') then
    create schema if not exists extensions;
    create extension if not exists vector with schema extensions;
    alter table documents add column embedding extensions.vector(64);
  else
    alter table documents add column embedding real[];
  end if;
end
$$;

select attach_pool('documents', payload_columns => '{title,body}');
select define_work_type('embed', 'documents',
  input_columns => '{title,body}',            -- a change of these embeds the row again
  into_column => 'documents.embedding');      -- each result is written there, in the transaction that closes the claim
select enroll_pool('documents');              -- rows that were there before: 10,000 a call, repeat until done is true

insert into documents (title, body)
select 'Document ' || n, 'The ' || n || 'th text of a small library.' from generate_series(1, 200) as n;
