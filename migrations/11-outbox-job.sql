-- Messages go with their job, whether they were delivered or not: they tell of its prompts and its pictures.
create index outbox_job on outbox (job);

create trigger jobs_forget_messages after delete on jobs begin
    delete from outbox where job = old.id;
end;

delete from outbox where job not in (select id from jobs);
