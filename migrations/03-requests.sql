-- What a client said about repeating a request, and the list of an endpoint's jobs.

-- The Idempotency-Key of a job that came with one. Both are hashes: of the key with the API key and the endpoint
-- that it was used for, and of those with the request's body. Forgotten with the job.
create table idempotency_keys (
    key blob primary key,
    request blob not null,
    job integer not null unique references jobs (seq) on update cascade on delete cascade
) strict, without rowid;

-- A page of an endpoint's jobs of one state, newest first.
create index jobs_listed on jobs (endpoint, status, seq);
