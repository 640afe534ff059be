-- The bucket of its own that a job's pictures go to, where the client named one (s3Config).
create table buckets (
    job integer primary key references jobs (seq) on update cascade on delete cascade,
    -- Its keys, in contents; gone once the job has ended. The row stays: without its keys such a job cannot be
    -- retried.
    config integer
) strict;

create trigger buckets_forget_config after delete on buckets begin
    delete from contents where id = old.config;
end;
create trigger jobs_end_forgets_bucket after update of status on jobs when new.finished_at is not null begin
    delete from contents where id = (select config from buckets where job = new.seq);
    update buckets set config = null where job = new.seq;
end;

-- Whether `png` is the URL of a picture in such a bucket instead of the picture.
alter table images add column stored_elsewhere integer not null default 0 check (stored_elsewhere in (0, 1));
