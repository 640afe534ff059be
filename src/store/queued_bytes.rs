//! How many bytes the inputs of an endpoint's queued jobs take, without adding them up: triggers keep the numbers.
//!
//! They are temporary, on the one connection that writes, and count anew at each start: the numbers follow from the rows. A
//! transaction that is undone undoes them, too.

use rusqlite::{Connection, OptionalExtension, named_params};

use super::StoreError;

/// `length` does not read the blob. A damaged database may lack an input: its job can be ended and deleted all the same.
const COUNT: &str = "
    create table temp.queued_inputs (endpoint text primary key, bytes integer not null) strict, without rowid;
    insert into queued_inputs
        select endpoint, sum(length(bytes)) from jobs join contents on contents.id = jobs.input
        where status = 'IN_QUEUE' group by endpoint;

    create temp trigger queued_inputs_enter after insert on jobs when new.status = 'IN_QUEUE' begin
        insert into queued_inputs
            select new.endpoint, length(bytes) from contents where id = new.input
            on conflict do update set bytes = bytes + excluded.bytes;
    end;
    create temp trigger queued_inputs_return after update of status on jobs
        when old.status <> 'IN_QUEUE' and new.status = 'IN_QUEUE' begin
        insert into queued_inputs
            select new.endpoint, length(bytes) from contents where id = new.input
            on conflict do update set bytes = bytes + excluded.bytes;
    end;
    create temp trigger queued_inputs_leave after update of status on jobs
        when old.status = 'IN_QUEUE' and new.status <> 'IN_QUEUE' begin
        update queued_inputs set bytes = max(0, bytes - coalesce((select length(bytes) from contents where id = new.input), 0))
            where endpoint = new.endpoint;
    end;
    create temp trigger queued_inputs_delete before delete on jobs when old.status = 'IN_QUEUE' begin
        update queued_inputs set bytes = max(0, bytes - coalesce((select length(bytes) from contents where id = old.input), 0))
            where endpoint = old.endpoint;
    end;";

/// Counts from now on. Once for each connection that writes jobs.
pub(super) fn watch(db: &Connection) -> Result<(), StoreError> {
    Ok(db.execute_batch(COUNT)?)
}

/// On a connection that is watched.
pub(super) fn of(db: &Connection, endpoint: &str) -> Result<u64, StoreError> {
    let bytes: Option<i64> = db
        .prepare_cached("select bytes from temp.queued_inputs where endpoint = :endpoint")?
        .query_row(named_params! {":endpoint": endpoint}, |row| row.get(0))
        .optional()?;
    Ok(bytes.map_or(0, i64::cast_unsigned))
}
