-- Jobs, their pictures, and how many there are. Times are integer milliseconds since the Unix epoch.

-- Everything that must be forgotten without a trace: inputs as sent, finished pictures.
--
-- `secure_delete` zeroes a freed page and a freed cell, but not the copies that SQLite leaves in the gap of
-- a page when it moves a neighbour's cell in balancing the tree. Overflow pages are never moved that
-- way, so `bytes` is laid out (src/store/content.rs) with its first 489 bytes, the only ones that stay
-- in the tree, free of content.
create table contents (
    id integer primary key,
    bytes blob not null
) strict;

create table jobs (
    -- The order of the queue. A retry goes to its end, and so gets a new one.
    seq integer primary key,
    id text not null unique,
    endpoint text not null,
    status text not null
        check (status in ('IN_QUEUE', 'IN_PROGRESS', 'COMPLETED', 'FAILED', 'CANCELLED', 'TIMED_OUT')),
    -- How often it was claimed. Every write of a claim names it, so that a job cannot end twice.
    attempt integer not null default 0 check (attempt >= 0),
    -- How often the process died with it in hand, since it was submitted or retried.
    crashes integer not null default 0 check (crashes >= 0),
    low_priority integer not null check (low_priority in (0, 1)),
    execution_timeout_ms integer not null check (execution_timeout_ms > 0),
    ttl_ms integer not null check (ttl_ms > 0),
    -- How long the end is remembered, by how the job came in.
    retention_ms integer not null check (retention_ms >= 0),
    -- An unsigned 64-bit number, its bits as they are.
    seed integer not null,
    created_at integer not null,
    started_at integer check (started_at is not null or status <> 'IN_PROGRESS'),
    finished_at integer check ((finished_at is null) = (status in ('IN_QUEUE', 'IN_PROGRESS'))),
    -- The one rule of retention.
    expires_at integer not null generated always as (
        case when finished_at is null then created_at + ttl_ms
             else min(created_at + ttl_ms, finished_at + retention_ms) end
    ) virtual,
    -- What it is worked on with, as the status body says it.
    gpu text,
    error text,
    -- Of its row in contents, which the triggers below keep in step: a foreign key would cost every submit
    -- another index.
    input integer not null
) strict;

-- The next job: what a claim takes, without a look at the rows (hence the columns behind seq;
-- expires_at among them would not do, for SQLite reads generated columns from the rows).
create index jobs_queued on jobs (low_priority, seq, endpoint, created_at, ttl_ms, status) where status = 'IN_QUEUE';
-- What was being worked on when the process died.
create index jobs_running on jobs (seq) where status = 'IN_PROGRESS';
-- What is to be forgotten.
create index jobs_expiring on jobs (expires_at);

create table images (
    job integer not null references jobs (seq) on update cascade on delete cascade,
    idx integer not null check (idx >= 0),
    seed integer not null,
    png integer not null,
    primary key (job, idx)
) strict, without rowid;

-- A content goes with the row that names it.
create trigger jobs_forget_input after delete on jobs begin
    delete from contents where id = old.input;
end;
create trigger images_forget_png after delete on images begin
    delete from contents where id = old.png;
end;

-- How many jobs there are of each state, so that nobody has to count a million rows; and as RETRIED
-- how often one was put back into the queue, ever.
create table tally (
    endpoint text not null,
    counted text not null,
    jobs integer not null check (jobs >= 0),
    primary key (endpoint, counted)
) strict, without rowid;

create trigger jobs_tally_insert after insert on jobs begin
    insert into tally values (new.endpoint, new.status, 1)
        on conflict do update set jobs = jobs + 1;
end;
create trigger jobs_tally_delete after delete on jobs begin
    update tally set jobs = jobs - 1 where endpoint = old.endpoint and counted = old.status;
end;
create trigger jobs_tally_status after update of status on jobs when old.status <> new.status begin
    update tally set jobs = jobs - 1 where endpoint = old.endpoint and counted = old.status;
    insert into tally values (new.endpoint, new.status, 1)
        on conflict do update set jobs = jobs + 1;
    insert into tally select new.endpoint, 'RETRIED', 1 where new.status = 'IN_QUEUE'
        on conflict do update set jobs = jobs + 1;
end;
