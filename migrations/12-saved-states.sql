-- Where a job was when its worker last saved it, so that a later attempt goes on from there. Gone once the job has ended.
create table saved_states (
    job integer primary key references jobs (seq) on update cascade on delete cascade,
    -- Of its row in contents: bytes that only the engine can read, among them what the pictures look like so far.
    state integer not null
) strict, without rowid;

create trigger saved_states_forget_state after delete on saved_states begin
    delete from contents where id = old.state;
end;
create trigger jobs_end_forgets_saved_state after update of status on jobs when new.finished_at is not null begin
    delete from saved_states where job = new.seq;
end;
