-- Which span of which trace caused a job, as W3C Trace Context writes it. Forgotten with the job.
create table traces (
    job integer primary key references jobs (seq) on update cascade on delete cascade,
    parent text not null
) strict, without rowid;
