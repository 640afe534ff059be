-- Each endpoint has workers of its own, which claim its jobs alone: their next job is one step into an index,
-- however many jobs of other endpoints wait before it.
drop index jobs_queued;
-- A job over which the process died twice waits behind the others, so that it cannot keep them from being
-- done. The columns behind seq are for those who must not look at the rows (01-jobs.sql says why).
create index jobs_queued on jobs (endpoint, low_priority, crashes >= 2, seq, created_at, ttl_ms, status)
    where status = 'IN_QUEUE';
