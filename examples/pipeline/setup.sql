-- Pages go through three stages: extract → embed → summarise. Run it once, as the owner of your tables.
create table pages (
  id bigint generated always as identity primary key,
  url text not null,
  html text not null,
  language text not null default 'en',
  embedding real[]
);
create table summaries (
  page_id bigint primary key references pages on delete cascade,
  summary text not null
);

-- It runs in the transaction that closes the claim: a summary is stored once, or the claim is not closed.
create function store_summary(item jsonb, result jsonb)
returns void
language sql
as $$
  insert into public.summaries (page_id, summary)
  values ((item ->> 'source_key')::bigint, result ->> 'summary')
  on conflict (page_id) do update set summary = excluded.summary
$$;

select attach_pool('pages', payload_columns => '{html,language}');
select define_work_type('extract', 'pages', input_columns => '{html}');
select define_work_type('embed_page', 'pages', depends_on => '{extract}', into_column => 'pages.embedding');
select define_work_type('summarise', 'pages',
  depends_on => '{extract,embed_page}', input_columns => '{language}', apply => 'public.store_summary');
select enroll_pool('pages');

insert into pages (url, html)
select 'https://example.com/' || n, '<h1>Page ' || n || '</h1><p>' || repeat('word ', 5 + n % 20) || '</p>'
  from generate_series(1, 100) as n;
