-- Where the client of a job wants to hear of it, and the messages on their way there.

-- Forgotten with the job. The end is always told.
create table webhooks (
    job integer primary key references jobs (seq) on update cascade on delete cascade,
    -- Of its row in contents, for a URL may carry a key.
    url integer not null,
    on_start integer not null check (on_start in (0, 1)),
    on_progress integer not null check (on_progress in (0, 1))
) strict, without rowid;

create trigger webhooks_forget_url after delete on webhooks begin
    delete from contents where id = old.url;
end;

-- One message a row, written in the transaction that made it true and whole, so that nothing that becomes of the
-- job later changes it or loses it. It goes once it is delivered or given up, seconds after it came.
create table outbox (
    -- Part of the message's name, so none is given twice.
    id integer primary key autoincrement,
    job text not null,
    event text not null check (event in ('start', 'progress', 'end')),
    -- To keep a receiver that does not answer from taking all places: a hash of its host and port.
    receiver integer not null,
    -- Of their rows in contents.
    url integer not null,
    body integer not null,
    tries integer not null default 0 check (tries >= 0),
    due_at integer not null
) strict;

create index outbox_due on outbox (due_at, receiver);
-- Of a job's progress only the latest is worth telling.
create unique index outbox_progress on outbox (job) where event = 'progress';

create trigger outbox_forget_contents after delete on outbox begin
    delete from contents where id in (old.url, old.body);
end;
